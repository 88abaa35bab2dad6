/* spread.h - a histogram of positive values whose largest is known only at the end.
 *
 * Counts are exact, and so are the edges: SPREAD_FINE bins of a power of two in width, which
 * doubles whenever a value lies beyond the last one, pairs of bins becoming one. What is shown at
 * the end are bins of one width, each of a whole number of fine ones.
 */
#ifndef CCANALYZE_SPREAD_H
#define CCANALYZE_SPREAD_H

#include <stddef.h>
#include <stdint.h>

enum { SPREAD_FINE = 4096 };

struct spread {
    double width;                 /* of a fine bin; 0: empty so far */
    uint64_t counts[SPREAD_FINE]; /* bin i: from i width up to, without, (i + 1) width */
};

/* value > 0 and finite. A zeroed struct is empty. */
void spread_add(struct spread *spread, float value);

/* counts (bins), bins <= SPREAD_FINE / 2, of equal width from 0 on; the largest value lies in the
 * last bin or, where values are few fine bins wide, before it. Returns the width of a bin, 0 if
 * empty. */
double spread_bins(const struct spread *spread, uint64_t *counts, size_t bins);

#endif
