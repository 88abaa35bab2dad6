/* stats.h - what each latent did over the rows of a pass: how often it fired, its mean and maximum.
 *
 * Counts are exact; sums are f64, so that the order of rows changes them by less than 1e-9. Made
 * for a pass that others share: see scan.h.
 */
#ifndef CCANALYZE_STATS_H
#define CCANALYZE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "scan.h"

struct stats {
    size_t latents;  /* F */
    uint64_t rows;   /* N */
    uint64_t *count; /* (F) rows in which f is not 0 */
    double *sum;     /* (F) Σ f */
    float *max;      /* (F) the largest f, 0 for a latent that never fires */
};

int stats_init(struct stats *stats, size_t latents) MUST_CHECK;
void stats_free(struct stats *stats); /* legal on a zeroed struct */

/* Bytes that stats_init() takes. */
uint64_t stats_bytes(uint64_t latents);

void stats_add(struct stats *stats, const struct scan_block *block);

/* count / rows; NaN where there were no rows. */
double stats_frequency(const struct stats *stats, size_t j);

/* Mean over the rows where latent j fires; NaN where it never does. */
double stats_mean(const struct stats *stats, size_t j);

#endif
