/* evaluate.c - sums over rows and batches.
 *
 * The explained variance of a row needs the mean of its batch, which is known only at the batch's
 * end; so a batch's rows are kept, while what needs the latents is added up as blocks come. The
 * variance over all rows is taken from Σx and Σx² per column, in f64: activations are scaled to
 * a norm of about √d, so that what cancels leaves twelve digits.
 */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Sums of one source, or of all. */
struct evaluate_sums {
    double error, l1, explained, centered; /* over rows; centered: ratios × rows of their batch */
};

struct evaluate {
    const struct crosscoder *cc;
    const struct norms *norms;
    double lambda;
    size_t sources, width, latents;
    uint64_t batch, filled; /* rows of a batch; in the batch now */
    uint64_t rows;
    float *x;                   /* (batch, D) */
    double *row_error;          /* (batch, S) ‖e‖² */
    double *batch_sum, *mean;   /* (D) of x in the batch */
    double *error_sum;          /* (D) of e in the batch */
    double *sum, *square;       /* (D) of x in all rows */
    double *row_variance;       /* (S) of the row at hand */
    double *batch_variance;     /* (S + 1) */
    double *l1;                 /* (S) of the row at hand */
    uint64_t active;            /* latents that fired, over all rows */
    struct evaluate_sums *sums; /* (S + 1) */
};

uint64_t evaluate_bytes(const struct crosscoder *cc, uint64_t batch)
{
    return batch * (cc->width * sizeof(float) + cc->source_count * sizeof(double)) +
           5 * cc->width * sizeof(double);
}

static double *evaluate_reals(size_t a, size_t b)
{
    size_t count;
    return mem_mul(&count, a, b) ? mem_alloc_zero(count, sizeof(double)) : NULL;
}

int evaluate_open(struct evaluate **result, const struct crosscoder *cc, const struct norms *norms,
                  uint64_t batch, double lambda)
{
    *result = NULL;
    struct evaluate *e = mem_alloc_zero(1, sizeof *e);
    if (e == NULL)
        return mem_fail("sums", 1, sizeof *e);
    size_t s = cc->source_count, d = (size_t)cc->width, count;
    *e = (struct evaluate){.cc = cc,
                           .norms = norms,
                           .lambda = lambda,
                           .sources = s,
                           .width = d,
                           .latents = (size_t)cc->latents,
                           .batch = batch};
    e->x = mem_mul(&count, batch, d) ? mem_alloc(count, sizeof *e->x) : NULL;
    e->row_error = evaluate_reals(batch, s);
    double **by_column[] = {&e->batch_sum, &e->mean, &e->error_sum, &e->sum, &e->square};
    for (size_t i = 0; i < sizeof by_column / sizeof *by_column; i++)
        *by_column[i] = evaluate_reals(d, 1);
    e->row_variance = evaluate_reals(s, 1);
    e->batch_variance = evaluate_reals(s + 1, 1);
    e->l1 = evaluate_reals(s, 1);
    e->sums = mem_alloc_zero(s + 1, sizeof *e->sums);
    if (e->x == NULL || e->row_error == NULL || e->batch_sum == NULL || e->mean == NULL ||
        e->error_sum == NULL || e->sum == NULL || e->square == NULL || e->row_variance == NULL ||
        e->batch_variance == NULL || e->l1 == NULL || e->sums == NULL) {
        evaluate_free(e);
        return mem_fail("a batch of rows", (size_t)batch, d * sizeof(float));
    }
    *result = e;
    return 0;
}

void evaluate_free(struct evaluate *e)
{
    if (e == NULL)
        return;
    free(e->x);
    free(e->row_error);
    free(e->batch_sum);
    free(e->mean);
    free(e->error_sum);
    free(e->sum);
    free(e->square);
    free(e->row_variance);
    free(e->batch_variance);
    free(e->l1);
    free(e->sums);
    free(e);
}

/* ---- rows */

static void evaluate_latents(struct evaluate *e, const float *f)
{
    for (size_t s = 0; s < e->sources; s++)
        e->l1[s] = 0;
    for (size_t j = 0; j < e->latents; j++) {
        if (f[j] == 0)
            continue;
        e->active++;
        for (size_t s = 0; s < e->sources; s++)
            e->l1[s] += (double)f[j] * e->norms->decoder[j * e->sources + s];
    }
    for (size_t s = 0; s < e->sources; s++) {
        e->sums[s].l1 += e->l1[s];
        e->sums[e->sources].l1 += e->l1[s];
    }
}

static void evaluate_errors(struct evaluate *e, const float *x, const float *xhat)
{
    for (size_t s = 0; s < e->sources; s++) {
        double error = 0;
        size_t first = (size_t)crosscoder_column(e->cc, s), end = first + e->cc->sources[s].width;
        for (size_t i = first; i < end; i++) {
            double v = (double)x[i], difference = v - (double)xhat[i];
            error += difference * difference;
            e->error_sum[i] += difference;
            e->batch_sum[i] += v;
            e->sum[i] += v;
            e->square[i] += v * v;
        }
        e->row_error[e->filled * e->sources + s] = error;
        e->sums[s].error += error;
        e->sums[e->sources].error += error;
    }
}

/* ---- batches */

static double evaluate_explained(double error, double variance)
{
    return variance > 0 ? 1 - error / variance : 0;
}

static void evaluate_row_variance(struct evaluate *e, uint64_t row)
{
    const float *x = e->x + row * e->width;
    const double *errors = e->row_error + row * e->sources;
    double error = 0, variance = 0;
    for (size_t s = 0; s < e->sources; s++) {
        size_t first = (size_t)crosscoder_column(e->cc, s), end = first + e->cc->sources[s].width;
        double sum = 0;
        for (size_t i = first; i < end; i++) {
            double spread = (double)x[i] - e->mean[i];
            sum += spread * spread;
        }
        e->sums[s].explained += evaluate_explained(errors[s], sum);
        e->batch_variance[s] += sum;
        error += errors[s];
        variance += sum;
    }
    e->sums[e->sources].explained += evaluate_explained(error, variance);
    e->batch_variance[e->sources] += variance;
}

/* Σ_i ‖e − ē‖² of the batch = Σ_i ‖e‖² − ‖Σ_i e‖² / rows. */
static double evaluate_centered_error(const struct evaluate *e, size_t s)
{
    size_t first = (size_t)crosscoder_column(e->cc, s), end = first + e->cc->sources[s].width;
    double error = 0, square = 0;
    for (uint64_t row = 0; row < e->filled; row++)
        error += e->row_error[row * e->sources + s];
    for (size_t i = first; i < end; i++)
        square += e->error_sum[i] * e->error_sum[i];
    return error - square / (double)e->filled;
}

static void evaluate_end_batch(struct evaluate *e)
{
    double rows = (double)e->filled, all = 0;
    for (size_t i = 0; i < e->width; i++)
        e->mean[i] = e->batch_sum[i] / rows;
    memset(e->batch_variance, 0, (e->sources + 1) * sizeof *e->batch_variance);
    for (uint64_t row = 0; row < e->filled; row++)
        evaluate_row_variance(e, row);
    for (size_t s = 0; s < e->sources; s++) {
        double error = evaluate_centered_error(e, s);
        e->sums[s].centered += rows * evaluate_explained(error, e->batch_variance[s]);
        all += error;
    }
    e->sums[e->sources].centered += rows * evaluate_explained(all, e->batch_variance[e->sources]);
    memset(e->batch_sum, 0, e->width * sizeof *e->batch_sum);
    memset(e->error_sum, 0, e->width * sizeof *e->error_sum);
    e->filled = 0;
}

void evaluate_add(struct evaluate *e, const struct scan_block *block)
{
    for (size_t i = 0; i < block->rows; i++) {
        const float *x = block->x + i * e->width;
        memcpy(e->x + e->filled * e->width, x, e->width * sizeof *x);
        evaluate_latents(e, block->f + i * e->latents);
        evaluate_errors(e, x, block->xhat + i * e->width);
        e->rows++;
        if (++e->filled == e->batch)
            evaluate_end_batch(e);
    }
}

/* ---- figures */

/* Σ_i ‖x − x̄‖² of a source over all rows. */
static double evaluate_variance(const struct evaluate *e, size_t s)
{
    size_t first = (size_t)crosscoder_column(e->cc, s), end = first + e->cc->sources[s].width;
    double variance = 0;
    for (size_t i = first; i < end; i++)
        variance += e->square[i] - e->sum[i] * e->sum[i] / (double)e->rows;
    return variance;
}

uint64_t evaluate_finish(struct evaluate *e, struct evaluate_figures *figures)
{
    double rows = e->rows > 0 ? (double)e->rows : (double)NAN, all = 0;
    if (e->filled > 0)
        evaluate_end_batch(e);
    for (size_t s = 0; s <= e->sources; s++) {
        const struct evaluate_sums *sums = &e->sums[s];
        double variance = s < e->sources ? evaluate_variance(e, s) : all;
        all += variance;
        figures[s] = (struct evaluate_figures){
            .loss = (sums->error + e->lambda * sums->l1) / rows,
            .l2 = sums->error / rows,
            .l1 = sums->l1 / rows,
            .l0 = s < e->sources ? (double)NAN : (double)e->active / rows,
            .explained_variance = sums->explained / rows,
            .fve = variance > 0 ? 1 - sums->error / variance : (double)NAN,
            .fve_centered = sums->centered / rows,
        };
    }
    return e->rows;
}
