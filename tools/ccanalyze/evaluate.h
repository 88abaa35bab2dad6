/* evaluate.h - how well a crosscoder reconstructs rows, in all and per source.
 *
 * For row i, e = x − x̂:
 *     l2     mean_i ‖e‖²
 *     l1     mean_i Σ_j f_j Σ_s n_j^s
 *     l0     mean_i #{f_j ≠ 0}
 *     loss   l2 + λ l1
 *     explained variance   mean_i (1 − ‖e‖² / ‖x − x̄‖²), x̄ the mean of the row's batch
 *     fve                  1 − Σ_i ‖e‖² / Σ_i ‖x − x̄‖², x̄ the mean of all rows
 *     fve_centered         mean over batches of 1 − Σ_i ‖e − ē‖² / Σ_i ‖x − x̄‖²
 *
 * Batches are consecutive rows. A short last one has its own mean and counts by its rows. A row
 * that equals the mean of its batch (as does the row of a batch of one) has nothing to explain and
 * is left out of the explained variance, a batch of such rows out of fve_centered. All sums are
 * f64 over the rows as they were stored.
 */
#ifndef CCANALYZE_EVALUATE_H
#define CCANALYZE_EVALUATE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "norms.h"
#include "scan.h"

/* Of all sources together, or of one. What does not exist is NaN. */
struct evaluate_figures {
    double loss, l2, l1;
    double l0; /* of all sources together alone: a latent fires for all of them at once */
    double explained_variance, fve, fve_centered;
};

struct evaluate;

/* batch: rows of a batch. lambda: NaN where it is not known; then so is the loss. cc and norms must
 * outlive it. */
int evaluate_open(struct evaluate **evaluate, const struct crosscoder *cc,
                  const struct norms *norms, uint64_t batch, double lambda) MUST_CHECK;
void evaluate_free(struct evaluate *evaluate);

/* The block must have xhat. */
void evaluate_add(struct evaluate *evaluate, const struct scan_block *block);

/* After the last block: figures (S + 1), those of all sources in [S]. Returns the rows. */
uint64_t evaluate_finish(struct evaluate *evaluate, struct evaluate_figures *figures);

/* The λ that the checkpoint was trained with, NaN where it does not say. */
double evaluate_lambda(const struct crosscoder *cc);

/* Bytes that evaluate_open() takes. */
uint64_t evaluate_bytes(const struct crosscoder *cc, uint64_t batch);

#endif
