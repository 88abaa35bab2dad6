/* svg.h - figures as SVG, readable without scripts and in light and dark.
 *
 * A figure is a plot: a frame with axes, grid and labels, into which the callers draw
 * (svg_histogram() here, curves.h, scatter.h). It is one <svg> element, either to stand alone, with
 * its colours inside, or bare, to stand in a page whose style sheet has them. The classes:
 *
 *     bar line band dot   what is drawn; with one of a b s o, or c0 c1 ..., for its colour
 *     grid axis           lines of the frame
 */
#ifndef CCANALYZE_SVG_H
#define CCANALYZE_SVG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "axis.h"
#include "common/err.h"

struct svg_tick {
    double at;
    const char *label;
};

struct svg_plot {
    const char *title, *x_label, *y_label; /* title NULL: none. All are escaped */
    unsigned width, height;                /* 0: 720 x 420 */
    bool bare;
    struct axis x, y;             /* their ends in the figure are svg_begin()'s to fill in */
    const struct svg_tick *ticks; /* of the x axis; NULL: round values */
    size_t tick_count;
};

/* The element's beginning, grid and axes; what is drawn follows, and then svg_end(). */
void svg_begin(FILE *out, struct svg_plot *plot);
void svg_end(FILE *out);

/* A <text> element; anchor is "start", "middle" or "end". */
void svg_text(FILE *out, double x, double y, const char *anchor, const char *text);

struct svg_histogram {
    const char *title, *x_label, *y_label; /* title NULL: none */
    double min, max;                       /* of the x axis; bins are of one width */
    const uint64_t *counts;
    size_t bins;
    const struct svg_tick *ticks; /* of the x axis; NULL: round values */
    size_t tick_count;
    bool log_y;             /* counts of 0 have no bar */
    unsigned width, height; /* as in a plot */
    bool bare;
    const char *const *classes; /* (bins) a colour's class for each bar, or NULL */
    const char *unit;           /* what is counted, for the bars' titles; NULL: "latents" */
};

/* Writes one <svg> element. */
void svg_histogram(FILE *out, const struct svg_histogram *spec);

/* The same into a file of its own. 0 or ERR_IO (logged). */
int svg_histogram_file(const char *path, const struct svg_histogram *spec) MUST_CHECK;

/* Adds a value to counts of `bins` bins of [min, max]; max is in the last bin, what lies outside is
 * left out. */
void svg_count(uint64_t *counts, size_t bins, double min, double max, double value);

#endif
