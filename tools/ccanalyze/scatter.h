/* scatter.h - a point for each latent, or, where they are many, how many there are in each cell. */
#ifndef CCANALYZE_SCATTER_H
#define CCANALYZE_SCATTER_H

#include <stddef.h>
#include <stdio.h>

#include "common/err.h"
#include "svg.h"

#define SCATTER_MOST_POINTS 2500
enum { SCATTER_COLUMNS = 72, SCATTER_LINES = 36 };

struct scatter {
    const double *x; /* (n) within 0 ... 1; NaN: no point */
    const double *y; /* (n) drawn on a log axis; 0 lies on the base line; NaN: no point */
    size_t n;
    const char *x_label, *y_label;
    const struct svg_tick *ticks; /* of the x axis; NULL: round values */
    size_t tick_count;
    const char *(*class_of)(double x); /* a colour's class, or NULL */
};

/* Writes one bare <svg> element. 0 or ERR_MEMORY (logged). */
int scatter_draw(FILE *out, const struct scatter *scatter) MUST_CHECK;

#endif
