/* evaluate.c - sums over rows and batches.
 *
 * The explained variance of a row needs the mean of its batch, which is known only at the batch's
 * end; so a batch's rows are kept, while what needs the latents is added up as blocks come.
 *
 * The variance over all rows is joined from those of the batches: for n and m rows with means a
 * and b the sum of squares about the common mean is what both have about their own, and
 * (b − a)² n m / (n + m). Σx² − (Σx)²/N would be one pass too, but cancels where a column's mean is
 * large beside its spread, which is what the few huge columns of a residual stream are like, and
 * leaves noise for columns that do not vary at all.
 */
#include "evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Sums of one source, or of all. */
struct evaluate_sums {
    double error, l1;        /* over rows */
    double explained;        /* over the rows that differ from the mean of their batch, */
    uint64_t explained_rows; /* which are so many */
    double centered;         /* ratio × rows over the batches that vary, */
    uint64_t centered_rows;  /* which have so many rows */
    double variance; /* Σ ‖x − x̄‖² of all batches before, x̄ the mean of all of their rows */
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
    double *whole_mean;         /* (D) of x in all batches before */
    double *batch_variance;     /* (S + 1) Σ ‖x − x̄‖², x̄ the batch's mean */
    double *l1;                 /* (S) of the row at hand */
    uint64_t active;            /* latents that fired, over all rows */
    struct evaluate_sums *sums; /* (S + 1) */
};

uint64_t evaluate_bytes(const struct crosscoder *cc, uint64_t batch)
{
    return batch * (cc->width * sizeof(float) + cc->source_count * sizeof(double)) +
           4 * cc->width * sizeof(double);
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
    int status = mem_require(evaluate_bytes(cc, batch), "a batch of rows (--batch)");
    if (status != 0)
        return status;
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
    double **by_column[] = {&e->batch_sum, &e->mean, &e->error_sum, &e->whole_mean};
    for (size_t i = 0; i < sizeof by_column / sizeof *by_column; i++)
        *by_column[i] = evaluate_reals(d, 1);
    e->batch_variance = evaluate_reals(s + 1, 1);
    e->l1 = evaluate_reals(s, 1);
    e->sums = mem_alloc_zero(s + 1, sizeof *e->sums);
    if (e->x == NULL || e->row_error == NULL || e->batch_sum == NULL || e->mean == NULL ||
        e->error_sum == NULL || e->whole_mean == NULL || e->batch_variance == NULL ||
        e->l1 == NULL || e->sums == NULL) {
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
    free(e->whole_mean);
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
        }
        e->row_error[e->filled * e->sources + s] = error;
        e->sums[s].error += error;
        e->sums[e->sources].error += error;
    }
}

/* ---- batches */

/* One row's part of the explained variance: none where it has nothing to explain. */
static void evaluate_explain(struct evaluate_sums *sums, double error, double variance)
{
    if (!(variance > 0))
        return;
    sums->explained += 1 - error / variance;
    sums->explained_rows++;
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
        evaluate_explain(&e->sums[s], errors[s], sum);
        e->batch_variance[s] += sum;
        error += errors[s];
        variance += sum;
    }
    evaluate_explain(&e->sums[e->sources], error, variance);
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

static void evaluate_centre(struct evaluate *e, size_t s, double error)
{
    if (!(e->batch_variance[s] > 0))
        return;
    e->sums[s].centered += (double)e->filled * (1 - error / e->batch_variance[s]);
    e->sums[s].centered_rows += e->filled;
}

/* Joins the batch's means and variances to those of the rows before. */
static void evaluate_join(struct evaluate *e)
{
    double rows = (double)e->filled, before = (double)(e->rows - e->filled);
    double between = before * rows / (before + rows), all = 0;
    for (size_t s = 0; s < e->sources; s++) {
        size_t first = (size_t)crosscoder_column(e->cc, s), end = first + e->cc->sources[s].width;
        double square = 0;
        for (size_t i = first; i < end; i++) {
            double step = e->mean[i] - e->whole_mean[i];
            square += step * step;
            e->whole_mean[i] += step * (rows / (before + rows));
        }
        e->sums[s].variance += e->batch_variance[s] + between * square;
        all += square;
    }
    e->sums[e->sources].variance += e->batch_variance[e->sources] + between * all;
}

static void evaluate_end_batch(struct evaluate *e)
{
    double all = 0;
    for (size_t i = 0; i < e->width; i++)
        e->mean[i] = e->batch_sum[i] / (double)e->filled;
    memset(e->batch_variance, 0, (e->sources + 1) * sizeof *e->batch_variance);
    for (uint64_t row = 0; row < e->filled; row++)
        evaluate_row_variance(e, row);
    for (size_t s = 0; s < e->sources; s++) {
        double error = evaluate_centered_error(e, s);
        evaluate_centre(e, s, error);
        all += error;
    }
    evaluate_centre(e, e->sources, all);
    evaluate_join(e);
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

static double evaluate_mean(double sum, uint64_t count)
{
    return count > 0 ? sum / (double)count : (double)NAN;
}

uint64_t evaluate_finish(struct evaluate *e, struct evaluate_figures *figures)
{
    if (e->filled > 0)
        evaluate_end_batch(e);
    for (size_t s = 0; s <= e->sources; s++) {
        const struct evaluate_sums *sums = &e->sums[s];
        figures[s] = (struct evaluate_figures){
            .loss = evaluate_mean(sums->error + e->lambda * sums->l1, e->rows),
            .l2 = evaluate_mean(sums->error, e->rows),
            .l1 = evaluate_mean(sums->l1, e->rows),
            .l0 = s < e->sources ? (double)NAN : evaluate_mean((double)e->active, e->rows),
            .explained_variance = evaluate_mean(sums->explained, sums->explained_rows),
            .fve = sums->variance > 0 ? 1 - sums->error / sums->variance : (double)NAN,
            .fve_centered = evaluate_mean(sums->centered, sums->centered_rows),
        };
    }
    return e->rows;
}

double evaluate_lambda(const struct crosscoder *cc)
{
    double lambda;
    return crosscoder_recipe_real(cc, "l1", &lambda) ? lambda : (double)NAN;
}
