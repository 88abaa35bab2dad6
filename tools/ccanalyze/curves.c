/* curves.c - at most CURVES_MOST_POINTS points are drawn however long the run was, so that the size
 * of a page is bounded; what that hides is shown as a band between least and largest value.
 */
#include "curves.h"

#include <math.h>
#include <string.h>

#include "html.h"

enum { CURVES_WIDTH = 350, CURVES_HEIGHT = 220 };

struct curves_drawing {
    const struct curves *curves;
    struct svg_plot plot;
    struct curves_point points[CURVES_MOST_SERIES][CURVES_MOST_POINTS];
    size_t count; /* points of a line */
};

/* A value to be drawn, or NaN. */
static double curves_value(const struct curves *curves, size_t series, size_t row)
{
    const struct curves_series *from = &curves->series[series];
    double value = from->values[row] * from->factor;
    return isfinite(value) && (!curves->log_y || value > 0) ? value : (double)NAN;
}

static void curves_add(struct curves_point *point, double step, double value)
{
    if (isnan(value))
        return;
    point->min = point->count == 0 ? value : fmin(point->min, value);
    point->max = point->count == 0 ? value : fmax(point->max, value);
    point->count++;
    point->step += (step - point->step) / (double)point->count;
    point->mean += (value - point->mean) / (double)point->count;
}

size_t curves_join(const struct curves *curves, size_t series, struct curves_point *points)
{
    bool join = curves->rows > CURVES_MOST_POINTS;
    size_t count = join ? CURVES_MOST_POINTS : curves->rows;
    memset(points, 0, count * sizeof *points);
    for (size_t row = 0; row < curves->rows; row++) {
        double first = curves->steps[0], span = curves->steps[curves->rows - 1] - first;
        size_t at = join ? (size_t)((curves->steps[row] - first) / span * (double)count) : row;
        curves_add(&points[at < count ? at : count - 1], curves->steps[row],
                   curves_value(curves, series, row));
    }
    return count;
}

bool curves_any(const struct curves *curves)
{
    for (size_t s = 0; s < curves->series_count; s++)
        for (size_t row = 0; row < curves->rows; row++)
            if (!isnan(curves_value(curves, s, row)))
                return true;
    return false;
}

/* ---- ranges */

static void curves_y_range(const struct curves_drawing *drawing, struct axis *axis)
{
    const struct curves *curves = drawing->curves;
    double min = INFINITY, max = -INFINITY;
    for (size_t s = 0; s < curves->series_count; s++)
        for (size_t i = 0; i < drawing->count; i++) {
            const struct curves_point *point = &drawing->points[s][i];
            min = point->count > 0 ? fmin(min, point->min) : min;
            max = point->count > 0 ? fmax(max, point->max) : max;
        }
    axis->log = curves->log_y;
    if (curves->log_y) {
        axis->min = min / 1.15;
        axis->max = max * 1.15;
        return;
    }
    min = curves->from_zero ? 0 : min;
    /* A constant still needs an axis with two ends. */
    double room = max > min ? 0.05 * (max - min) : fmax(fabs(min), 1) * 0.5;
    axis->min = curves->from_zero ? 0 : min - room;
    axis->max = fmax(max, min) + room;
}

static double curves_y(const struct curves_drawing *drawing, double value)
{
    const struct axis *axis = &drawing->plot.y;
    return axis_place(axis, fmin(fmax(value, axis->min), axis->max));
}

/* ---- lines */

static void curves_band(FILE *out, const struct curves_drawing *drawing, size_t s)
{
    const struct curves_point *points = drawing->points[s];
    char command = 'M';
    fprintf(out, "<path class=\"band c%zu\" d=\"", s);
    for (size_t i = 0; i < 2 * drawing->count; i++) {
        bool back = i >= drawing->count;
        const struct curves_point *point = &points[back ? 2 * drawing->count - 1 - i : i];
        if (point->count == 0)
            continue;
        fprintf(out, "%c%.1f %.1f", command, axis_place(&drawing->plot.x, point->step),
                curves_y(drawing, back ? point->min : point->max));
        command = 'L';
    }
    fputs("z\"/>\n", out);
}

static void curves_line(FILE *out, const struct curves_drawing *drawing, size_t s)
{
    char command = 'M';
    fprintf(out, "<path class=\"line c%zu\" d=\"", s);
    for (size_t i = 0; i < drawing->count; i++) {
        const struct curves_point *point = &drawing->points[s][i];
        if (point->count == 0)
            continue;
        fprintf(out, "%c%.1f %.1f", command, axis_place(&drawing->plot.x, point->step),
                curves_y(drawing, point->mean));
        command = 'L';
    }
    fputs("\"/>\n", out);
}

/* ---- what is told to who points at a step */

/* The first series that has the point, or series_count. */
static size_t curves_first(const struct curves_drawing *drawing, size_t i)
{
    size_t s = 0;
    while (s < drawing->curves->series_count && drawing->points[s][i].count == 0)
        s++;
    return s;
}

static void curves_title(FILE *out, const struct curves_drawing *drawing, size_t i)
{
    const struct curves *curves = drawing->curves;
    const struct curves_point *point = &drawing->points[curves_first(drawing, i)][i];
    fprintf(out, "<title>%s ", point->count > 1 ? "around step" : "step");
    html_count(out, (uint64_t)llround(fmax(point->step, 0)));
    for (size_t s = 0; s < curves->series_count; s++) {
        point = &drawing->points[s][i];
        if (point->count == 0)
            continue;
        fputs("\n", out);
        html_text(out, curves->series[s].label);
        fprintf(out, " %.4g", point->mean);
        if (point->count > 1)
            fprintf(out, " (%.4g to %.4g)", point->min, point->max);
    }
    fputs("</title>", out);
}

/* A strip that is not seen, with dots that are seen while it is pointed at. */
static void curves_strip(FILE *out, const struct curves_drawing *drawing, size_t i)
{
    const struct axis *axis = &drawing->plot.x;
    size_t first = curves_first(drawing, i);
    if (first == drawing->curves->series_count)
        return;
    double x = axis_place(axis, drawing->points[first][i].step);
    double width = (axis->to - axis->from) / (double)drawing->count;
    fprintf(out, "<g class=\"%s\"><path class=\"hit\" d=\"M%.1f %.1fV%.1fh%.1fV%.1fz\"/>",
            drawing->count == 1 ? "point" : "strip", x - width / 2, drawing->plot.y.from,
            drawing->plot.y.to, width, drawing->plot.y.from);
    for (size_t s = 0; s < drawing->curves->series_count; s++) {
        const struct curves_point *point = &drawing->points[s][i];
        if (point->count > 0)
            fprintf(out, "<circle class=\"c%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", s, x,
                    curves_y(drawing, point->mean));
    }
    curves_title(out, drawing, i);
    fputs("</g>\n", out);
}

void curves_draw(FILE *out, const struct curves *curves)
{
    struct curves_drawing drawing = {.curves = curves};
    for (size_t s = 0; s < curves->series_count; s++)
        drawing.count = curves_join(curves, s, drawing.points[s]);
    double first = curves->steps[0], last = curves->steps[curves->rows - 1];
    drawing.plot = (struct svg_plot){
        .x_label = "Step",
        .y_label = curves->y_label,
        .width = CURVES_WIDTH,
        .height = CURVES_HEIGHT,
        .bare = true,
        .x = {.min = first, .max = last > first ? last : first + 1},
    };
    curves_y_range(&drawing, &drawing.plot.y);
    svg_begin(out, &drawing.plot);
    for (size_t s = 0; s < curves->series_count; s++)
        if (curves->rows > CURVES_MOST_POINTS)
            curves_band(out, &drawing, s);
    for (size_t s = curves->series_count; s > 0; s--) /* the first one on top */
        curves_line(out, &drawing, s - 1);
    for (size_t i = 0; i < drawing.count; i++)
        curves_strip(out, &drawing, i);
    svg_end(out);
}
