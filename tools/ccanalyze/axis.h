/* axis.h - from values to places in a figure, and the ticks between. */
#ifndef CCANALYZE_AXIS_H
#define CCANALYZE_AXIS_H

#include <stdbool.h>
#include <stddef.h>

struct axis {
    double min, max; /* min < max; above 0 where log */
    bool log;
    bool whole;      /* only whole numbers are ticks: what is counted has no halves */
    double from, to; /* where min and max lie in the figure; from > to for an axis that points up */
};

/* The place of a value, which may lie beyond the ends. */
double axis_place(const struct axis *axis, double value);

#define AXIS_MOST_TICKS 16

/* Round values within [min, max], rising, at most `most` <= AXIS_MOST_TICKS of them: multiples of
 * 1, 2 or 5 times a power of ten, or, on a log axis, powers of ten (and their 2 and 5 fold where
 * few fit). */
size_t axis_ticks(const struct axis *axis, size_t most, double *ticks);

/* A tick's value for people: "0.25", "−1", "16,000", "10⁻⁵", "2×10⁷". size >= AXIS_LABEL_BYTES. */
#define AXIS_LABEL_BYTES 64
void axis_label(char *text, size_t size, double value);

#endif
