/* scatter.c - above SCATTER_MOST_POINTS the points would cover each other, and make the page large.
 *
 * Cells are filled the more the more latents they hold, by the logarithm: one latent must be seen
 * beside a thousand. What is 0 has no place on a log axis and stands on the base line, in cells as
 * in points.
 */
#include "scatter.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/mem.h"
#include "html.h"
#include "svg.h"

enum { SCATTER_WIDTH = 500, SCATTER_HEIGHT = 300 };

static bool scatter_shown(const struct scatter *scatter, size_t i)
{
    return !isnan(scatter->x[i]) && !isnan(scatter->y[i]);
}

/* From a third of the least value above 0, so that the base line is left to zeros. */
static void scatter_range(const struct scatter *scatter, struct axis *axis)
{
    double min = INFINITY, max = 0;
    for (size_t i = 0; i < scatter->n; i++)
        if (scatter_shown(scatter, i) && scatter->y[i] > 0) {
            min = fmin(min, scatter->y[i]);
            max = fmax(max, scatter->y[i]);
        }
    axis->log = true;
    axis->min = max > 0 ? min / 3 : 0.1;
    axis->max = max > 0 ? max * 1.5 : 1;
}

static void scatter_point(FILE *out, const struct scatter *scatter, const struct svg_plot *plot,
                          size_t i)
{
    double y = scatter->y[i];
    const char *class = scatter->class_of(scatter->x[i]);
    fprintf(
        out,
        "<circle class=\"dot %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.4\"><title>latent %zu: %.3f, %.3g"
        "</title></circle>\n",
        class != NULL ? class : "", axis_place(&plot->x, scatter->x[i]),
        y > 0 ? axis_place(&plot->y, y) : plot->y.from, i, scatter->x[i], y);
}

/* ---- cells */

/* The line of a cell: 0 is the base line's, the others divide the axis. */
static size_t scatter_line(const struct axis *axis, double y)
{
    if (!(y > 0))
        return 0;
    double share = (axis_place(axis, y) - axis->from) / (axis->to - axis->from);
    size_t line = (size_t)(share * (SCATTER_LINES - 1));
    return 1 + (line < SCATTER_LINES - 1 ? line : SCATTER_LINES - 2);
}

static void scatter_cell(FILE *out, const struct scatter *scatter, const struct svg_plot *plot,
                         size_t cell, uint64_t count, uint64_t most)
{
    size_t column = cell % SCATTER_COLUMNS, line = cell / SCATTER_COLUMNS;
    double width = (plot->x.to - plot->x.from) / SCATTER_COLUMNS;
    double height = (plot->y.from - plot->y.to) / (SCATTER_LINES - 1);
    double bottom = line == 0 ? plot->y.from + 2 : plot->y.from - height * (double)(line - 1);
    double fill = most > 1 ? 0.2 + 0.8 * log((double)count) / log((double)most) : 1;
    double x = ((double)column + 0.5) / SCATTER_COLUMNS;
    const char *class = scatter->class_of(x);
    fprintf(out,
            "<rect class=\"cell %s\" x=\"%.1f\" y=\"%.1f\" width=\"%.2f\" height=\"%.2f\" "
            "fill-opacity=\"%.2f\"><title>",
            class != NULL ? class : "", plot->x.from + width * (double)column,
            line == 0 ? bottom - 4 : bottom - height, width, line == 0 ? 4 : height, fill);
    html_count(out, count);
    fprintf(out, " latents around %.2f</title></rect>\n", x);
}

static int scatter_cells(FILE *out, const struct scatter *scatter, const struct svg_plot *plot)
{
    size_t cells = (size_t)SCATTER_COLUMNS * SCATTER_LINES;
    uint64_t *counts = mem_alloc_zero(cells, sizeof *counts), most = 0;
    if (counts == NULL)
        return mem_fail("a figure", cells, sizeof *counts);
    for (size_t i = 0; i < scatter->n; i++) {
        if (!scatter_shown(scatter, i))
            continue;
        size_t column = (size_t)(scatter->x[i] * SCATTER_COLUMNS);
        column = column < SCATTER_COLUMNS ? column : SCATTER_COLUMNS - 1;
        size_t cell = scatter_line(&plot->y, scatter->y[i]) * SCATTER_COLUMNS + column;
        most = ++counts[cell] > most ? counts[cell] : most;
    }
    for (size_t cell = 0; cell < cells; cell++)
        if (counts[cell] > 0)
            scatter_cell(out, scatter, plot, cell, counts[cell], most);
    free(counts);
    return 0;
}

int scatter_draw(FILE *out, const struct scatter *scatter)
{
    struct svg_plot plot = {
        .x_label = scatter->x_label,
        .y_label = scatter->y_label,
        .width = SCATTER_WIDTH,
        .height = SCATTER_HEIGHT,
        .bare = true,
        .x = {.min = 0, .max = 1},
        .ticks = scatter->ticks,
        .tick_count = scatter->tick_count,
    };
    int status = 0;
    scatter_range(scatter, &plot.y);
    svg_begin(out, &plot);
    if (scatter->n > SCATTER_MOST_POINTS)
        status = scatter_cells(out, scatter, &plot);
    for (size_t i = 0; scatter->n <= SCATTER_MOST_POINTS && i < scatter->n; i++)
        if (scatter_shown(scatter, i))
            scatter_point(out, scatter, &plot, i);
    svg_end(out);
    return status;
}
