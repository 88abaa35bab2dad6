/* training.h - a plain crosscoder trainer in f64, for the tests of cctrain.
 *
 * Loops over rows, latents and columns, nothing shared with the tool. For T = BF16 values are
 * rounded where the tool stores them in BF16, so that what is left between the two is the order of
 * f32 sums.
 *
 * Beside each value runs its magnitude: the same sums over absolute values. With u the roundoff of
 * f32, a value that came through sums of n terms all in all is off by at most about n u magnitude
 * in any order of summing; training_slack() is that n for the whole way from rows to gradients.
 */
#ifndef CCPIPE_TESTS_TRAINING_H
#define CCPIPE_TESTS_TRAINING_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/dtype.h"
#include "tools/cctrain/dictionary.h"
#include "tools/cctrain/schedule.h"

/* A value and its magnitude. */
struct training_number {
    double v, m;
};

struct training {
    size_t s, b, d, f; /* S B D F */
    const uint32_t *widths;
    enum dtype type;
    size_t count[DICTIONARY_COUNT];
    double *w[DICTIONARY_COUNT];                 /* W_enc (D, F), W_dec (F, D), b_enc, b_dec */
    double *moment[2][DICTIONARY_COUNT];         /* Adam's */
    struct training_number *g[DICTIONARY_COUNT]; /* gradients */
    /* of the last batch */
    double *pre;                                                  /* (B, F) */
    struct training_number *latent, *xhat, *error, *slope, *dpre; /* f, x̂ - x, 2/B (x̂ - x) */
    double loss, l2, l1, l0, grad_norm;
    double explained[2][8]; /* mean over rows, pooled; per source, then all at [s] */
};

static inline void *training_alloc(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL)
        abort();
    return memory;
}

static inline void training_create(struct training *t, const uint32_t *widths, size_t s, size_t b,
                                   size_t f, enum dtype type)
{
    memset(t, 0, sizeof *t);
    t->s = s, t->b = b, t->f = f, t->widths = widths, t->type = type;
    for (size_t i = 0; i < s; i++)
        t->d += widths[i];
    const size_t counts[DICTIONARY_COUNT] = {t->d * f, t->d * f, f, t->d};
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        t->count[i] = counts[i];
        t->w[i] = training_alloc(counts[i], sizeof(double));
        t->moment[0][i] = training_alloc(counts[i], sizeof(double));
        t->moment[1][i] = training_alloc(counts[i], sizeof(double));
        t->g[i] = training_alloc(counts[i], sizeof(struct training_number));
    }
    t->pre = training_alloc(b * f, sizeof(double));
    t->latent = training_alloc(b * f, sizeof *t->latent);
    t->dpre = training_alloc(b * f, sizeof *t->dpre);
    t->xhat = training_alloc(b * t->d, sizeof *t->xhat);
    t->error = training_alloc(b * t->d, sizeof *t->error);
    t->slope = training_alloc(b * t->d, sizeof *t->slope);
}

static inline void training_free(struct training *t)
{
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        free(t->w[i]);
        free(t->moment[0][i]);
        free(t->moment[1][i]);
        free(t->g[i]);
    }
    free(t->pre);
    free(t->latent);
    free(t->dpre);
    free(t->xhat);
    free(t->error);
    free(t->slope);
}

/* Terms on the longest way from a row to a gradient: encode, decode, error, and back. */
static inline double training_slack(const struct training *t)
{
    return (double)(3 * (t->d + t->f) + 2 * t->b + 16);
}

static inline double training_round(const struct training *t, double value)
{
    return t->type == DTYPE_F32 ? value
                                : (double)dtype_bf16_to_f32(dtype_f32_to_bf16((float)value));
}

/* ‖W_dec[j, source i]‖; *first: the column where the source begins. */
static inline double training_norm(const struct training *t, size_t j, size_t i, size_t *first)
{
    double squares = 0;
    *first = 0;
    for (size_t k = 0; k < i; k++)
        *first += t->widths[k];
    for (size_t c = *first; c < *first + t->widths[i]; c++)
        squares += t->w[DICTIONARY_W_DEC][j * t->d + c] * t->w[DICTIONARY_W_DEC][j * t->d + c];
    return sqrt(squares);
}

static inline double training_weight(const struct training *t, size_t j)
{
    double sum = 0;
    for (size_t i = 0; i < t->s; i++) {
        size_t first;
        sum += training_norm(t, j, i, &first);
    }
    return sum;
}

static inline void training_forward(struct training *t, const float *x)
{
    const double *w_enc = t->w[DICTIONARY_W_ENC], *w_dec = t->w[DICTIONARY_W_DEC];
    for (size_t b = 0; b < t->b; b++) {
        for (size_t j = 0; j < t->f; j++) {
            struct training_number sum = {t->w[DICTIONARY_B_ENC][j],
                                          fabs(t->w[DICTIONARY_B_ENC][j])};
            for (size_t c = 0; c < t->d; c++) {
                double product = training_round(t, (double)x[b * t->d + c]) *
                                 training_round(t, w_enc[c * t->f + j]);
                sum.v += product;
                sum.m += fabs(product);
            }
            t->pre[b * t->f + j] = sum.v;
            sum.v = training_round(t, sum.v > 0 ? sum.v : 0);
            t->latent[b * t->f + j] = sum;
        }
        for (size_t c = 0; c < t->d; c++) {
            struct training_number sum = {t->w[DICTIONARY_B_DEC][c],
                                          fabs(t->w[DICTIONARY_B_DEC][c])};
            for (size_t j = 0; j < t->f; j++) {
                double w = training_round(t, w_dec[j * t->d + c]);
                sum.v += t->latent[b * t->f + j].v * w;
                sum.m += t->latent[b * t->f + j].m * fabs(w);
            }
            double value = training_round(t, (double)x[b * t->d + c]);
            t->xhat[b * t->d + c] = sum;
            t->error[b * t->d + c] = (struct training_number){sum.v - value, sum.m + fabs(value)};
        }
    }
}

/* Both explained variances of the columns first .. first + width - 1. */
static inline void training_explain(struct training *t, const float *x, size_t first, size_t width,
                                    size_t at)
{
    double errors = 0, spreads = 0, mean_share = 0;
    for (size_t b = 0; b < t->b; b++) {
        double error = 0, spread = 0;
        for (size_t c = first; c < first + width; c++) {
            double mean = 0;
            for (size_t k = 0; k < t->b; k++)
                mean += training_round(t, (double)x[k * t->d + c]) / (double)t->b;
            double away = training_round(t, (double)x[b * t->d + c]) - mean;
            error += t->error[b * t->d + c].v * t->error[b * t->d + c].v;
            spread += away * away;
        }
        errors += error;
        spreads += spread;
        mean_share += 1 - error / spread;
    }
    t->explained[0][at] = mean_share / (double)t->b;
    t->explained[1][at] = 1 - errors / spreads;
}

/* The loss of a batch and what it is made of. */
static inline double training_loss(struct training *t, const float *x, double l1_coeff)
{
    training_forward(t, x);
    t->l2 = t->l1 = t->l0 = 0;
    for (size_t i = 0; i < t->b * t->d; i++)
        t->l2 += t->error[i].v * t->error[i].v / (double)t->b;
    for (size_t j = 0; j < t->f; j++) {
        double weight = training_weight(t, j);
        for (size_t b = 0; b < t->b; b++) {
            t->l1 += t->latent[b * t->f + j].v * weight / (double)t->b;
            t->l0 += t->latent[b * t->f + j].v > 0 ? 1 / (double)t->b : 0;
        }
    }
    size_t first = 0;
    for (size_t i = 0; i < t->s; first += t->widths[i], i++)
        training_explain(t, x, first, t->widths[i], i);
    training_explain(t, x, 0, t->d, t->s);
    return t->loss = t->l2 + l1_coeff * t->l1;
}

static inline void training_add(struct training_number *sum, struct training_number a,
                                struct training_number b)
{
    sum->v += a.v * b.v;
    sum->m += a.m * b.m;
}

/* dW_dec, db_dec, and what goes back to the latents. */
static inline void training_decoder_gradients(struct training *t, double l1_coeff)
{
    for (size_t i = 0; i < t->b * t->d; i++) {
        double factor = 2 / (double)t->b;
        t->slope[i].v = training_round(t, factor * t->error[i].v);
        t->slope[i].m = factor * t->error[i].m;
        t->g[DICTIONARY_B_DEC][i % t->d].v += t->slope[i].v;
        t->g[DICTIONARY_B_DEC][i % t->d].m += t->slope[i].m;
    }
    for (size_t j = 0; j < t->f; j++)
        for (size_t i = 0; i < t->s; i++) {
            size_t first;
            double norm = training_norm(t, j, i, &first);
            for (size_t c = first; c < first + t->widths[i]; c++) {
                struct training_number *g = &t->g[DICTIONARY_W_DEC][j * t->d + c];
                double unit = l1_coeff / (double)t->b * t->w[DICTIONARY_W_DEC][j * t->d + c] / norm;
                for (size_t b = 0; b < t->b; b++) {
                    training_add(g, t->latent[b * t->f + j], t->slope[b * t->d + c]);
                    training_add(g, t->latent[b * t->f + j],
                                 (struct training_number){unit, fabs(unit)});
                }
            }
        }
}

static inline void training_encoder_gradients(struct training *t, const float *x, double l1_coeff)
{
    for (size_t j = 0; j < t->f; j++) {
        double bias = l1_coeff / (double)t->b * training_weight(t, j);
        for (size_t b = 0; b < t->b; b++) {
            struct training_number *dpre = &t->dpre[b * t->f + j];
            *dpre = (struct training_number){0, bias};
            for (size_t c = 0; c < t->d; c++) {
                double w = training_round(t, t->w[DICTIONARY_W_DEC][j * t->d + c]);
                training_add(dpre, t->slope[b * t->d + c], (struct training_number){w, fabs(w)});
            }
            dpre->v = training_round(t, training_round(t, dpre->v) + bias);
            dpre->v = t->latent[b * t->f + j].v > 0 ? dpre->v : 0;
            t->g[DICTIONARY_B_ENC][j].v += dpre->v;
            t->g[DICTIONARY_B_ENC][j].m += dpre->m;
            for (size_t c = 0; c < t->d; c++) {
                double value = training_round(t, (double)x[b * t->d + c]);
                training_add(&t->g[DICTIONARY_W_ENC][c * t->f + j], *dpre,
                             (struct training_number){value, fabs(value)});
            }
        }
    }
}

/* Loss and all gradients of a batch. */
static inline void training_gradients(struct training *t, const float *x, double l1_coeff)
{
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        memset(t->g[i], 0, t->count[i] * sizeof *t->g[i]);
    training_loss(t, x, l1_coeff);
    training_decoder_gradients(t, l1_coeff);
    training_encoder_gradients(t, x, l1_coeff);
    t->grad_norm = 0;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < t->count[i]; k++)
            t->grad_norm += t->g[i][k].v * t->g[i][k].v;
    t->grad_norm = sqrt(t->grad_norm);
}

/* Clipping and Adam, as torch has them. step from 0. */
static inline void training_update(struct training *t, const struct recipe *recipe, double lr,
                                   uint64_t step)
{
    double clip = recipe->clip / (t->grad_norm + 1e-6);
    clip = recipe->clip > 0 && clip < 1 ? clip : 1;
    double c1 = 1 - pow(recipe->beta1, (double)step + 1);
    double c2 = 1 - pow(recipe->beta2, (double)step + 1);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < t->count[i]; k++) {
            double g = clip * t->g[i][k].v, *m = &t->moment[0][i][k], *v = &t->moment[1][i][k];
            *m = recipe->beta1 * *m + (1 - recipe->beta1) * g;
            *v = recipe->beta2 * *v + (1 - recipe->beta2) * g * g;
            t->w[i][k] -= lr * (*m / c1) / (sqrt(*v / c2) + recipe->eps);
        }
}

#endif
