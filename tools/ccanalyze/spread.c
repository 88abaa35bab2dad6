/* spread.c - the first value sets the width so that it lies in the upper half; from there the width
 * only doubles. f32 has 277 powers of two, so that is done at most so often, whatever comes.
 */
#include "spread.h"

#include <math.h>
#include <string.h>

static void spread_double(struct spread *spread)
{
    for (size_t i = 0; i < SPREAD_FINE / 2; i++)
        spread->counts[i] = spread->counts[2 * i] + spread->counts[2 * i + 1];
    memset(spread->counts + SPREAD_FINE / 2, 0, SPREAD_FINE / 2 * sizeof *spread->counts);
    spread->width *= 2;
}

void spread_add(struct spread *spread, float value)
{
    if (spread->width == 0) {
        /* The first value goes into the upper half. */
        int power;
        (void)frexp((double)value, &power);
        spread->width = ldexp(1, power) / SPREAD_FINE;
    }
    while ((double)value >= SPREAD_FINE * spread->width)
        spread_double(spread);
    spread->counts[(size_t)((double)value / spread->width)]++;
}

double spread_bins(const struct spread *spread, uint64_t *counts, size_t bins)
{
    size_t used = SPREAD_FINE;
    memset(counts, 0, bins * sizeof *counts);
    while (used > 0 && spread->counts[used - 1] == 0)
        used--;
    size_t share = (used + bins - 1) / bins;
    for (size_t i = 0; i < used; i++)
        counts[i / share] += spread->counts[i];
    return spread->width * (double)share;
}
