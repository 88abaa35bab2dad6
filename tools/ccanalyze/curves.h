/* curves.h - figures of a run over its steps: a line for each series, many steps drawn as means. */
#ifndef CCANALYZE_CURVES_H
#define CCANALYZE_CURVES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/err.h"
#include "svg.h"

#define CURVES_MOST_POINTS 120 /* of a line; more steps than that are joined */
#define CURVES_MOST_SERIES 8

struct curves_series {
    const char *label;
    const double *values; /* (rows); what is not finite, and on a log axis what is not above 0, is
                             no point */
    double factor;        /* the values are multiplied by it */
};

struct curves {
    const double *steps; /* (rows), rising */
    size_t rows;
    const struct curves_series *series;
    size_t series_count;
    const char *y_label;
    bool log_y;
    bool from_zero; /* a linear axis that begins at 0; what lies below is drawn on it */
};

/* What becomes of one or more steps that lie side by side. */
struct curves_point {
    size_t count; /* steps that have a value; 0: no point */
    double step;  /* the mean of their steps */
    double mean, min, max;
};

/* Joins the steps to points (CURVES_MOST_POINTS): `rows` points of one step each where there are so
 * few, else of equal shares of the way from the first step to the last. Returns how many. */
size_t curves_join(const struct curves *curves, size_t series, struct curves_point *points);

/* Whether there is a point at all. */
bool curves_any(const struct curves *curves);

/* Writes one bare <svg> element; a line has the class cI, I its number, and a band from its least
 * to its largest value where steps were joined. Only where curves_any(). */
void curves_draw(FILE *out, const struct curves *curves);

#endif
