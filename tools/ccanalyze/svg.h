/* svg.h - figures as SVG, readable without scripts and in light and dark. */
#ifndef CCANALYZE_SVG_H
#define CCANALYZE_SVG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

struct svg_tick {
    double at;
    const char *label;
};

struct svg_histogram {
    const char *title, *x_label, *y_label; /* title NULL: none */
    double min, max;                       /* of the x axis; bins are of one width */
    const uint64_t *counts;
    size_t bins;
    const struct svg_tick *ticks; /* of the x axis */
    size_t tick_count;
    bool log_y; /* counts of 0 have no bar */
};

/* Writes one <svg> element. 0, ERR_IO (logged) or ERR_CLOSED. */
int svg_histogram(FILE *out, const struct svg_histogram *spec) MUST_CHECK;

/* The same into a file of its own. */
int svg_histogram_file(const char *path, const struct svg_histogram *spec) MUST_CHECK;

/* Adds a value to counts of `bins` bins of [min, max]; max is in the last bin, what lies outside is
 * left out. */
void svg_count(uint64_t *counts, size_t bins, double min, double max, double value);

#endif
