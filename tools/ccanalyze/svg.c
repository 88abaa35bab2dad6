/* svg.c - the frame of a figure, and the histogram.
 *
 * A bar is a group: over the whole height a rectangle that is not seen, so that small bars can be
 * pointed at, the bar, and a title, which browsers show to who points. The label of the y axis
 * stands level above it: what is turned by 90° is read by nobody.
 */
#include "svg.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/log.h"
#include "html.h"

enum { SVG_LEFT = 54, SVG_RIGHT = 14, SVG_TOP = 30, SVG_BOTTOM = 46, SVG_TITLE = 24 };

/* All selectors are of the figure's class: a <style> inside a page is one for the page. A viewer
 * that shows a file by itself takes white for its ground in either scheme, so a figure has its own.
 */
static const char svg_style[] =
    "<style>.figure text{font:13px system-ui,sans-serif;fill:#333b45}.figure .paper{fill:#fff}"
    ".figure .bar{fill:#5b6b7d;shape-rendering:crispEdges}"
    ".figure .hit{fill:none;pointer-events:all}.figure .axis{stroke:#8a939e;fill:none}"
    ".figure .grid{stroke:#e3e6ea;fill:none}@media(prefers-color-scheme:dark){"
    ".figure text{fill:#c9d1d9}.figure .paper{fill:#15191e}.figure .bar{fill:#8f9dac}"
    ".figure .axis{stroke:#6b7580}.figure .grid{stroke:#2f3740}}</style>\n"
    "<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n";

void svg_text(FILE *out, double x, double y, const char *anchor, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    html_text(out, text);
    fputs("</text>\n", out);
}

static void svg_x_tick(FILE *out, const struct svg_plot *plot, double at, const char *label)
{
    double x = axis_place(&plot->x, at);
    fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fv5\"/>", x, plot->y.from);
    svg_text(out, x, plot->y.from + 19, "middle", label);
}

static void svg_x_axis(FILE *out, const struct svg_plot *plot)
{
    double ticks[AXIS_MOST_TICKS];
    char label[AXIS_LABEL_BYTES];
    for (size_t i = 0; plot->ticks != NULL && i < plot->tick_count; i++)
        svg_x_tick(out, plot, plot->ticks[i].at, plot->ticks[i].label);
    if (plot->ticks != NULL)
        return;
    size_t count = axis_ticks(&plot->x, plot->width < 400 ? 5 : 7, ticks);
    for (size_t i = 0; i < count; i++) {
        axis_label(label, sizeof label, ticks[i]);
        svg_x_tick(out, plot, ticks[i], label);
    }
}

static void svg_y_axis(FILE *out, const struct svg_plot *plot)
{
    double ticks[AXIS_MOST_TICKS];
    char label[AXIS_LABEL_BYTES];
    size_t count = axis_ticks(&plot->y, plot->height < 240 ? 5 : 6, ticks);
    for (size_t i = 0; i < count; i++) {
        double y = axis_place(&plot->y, ticks[i]);
        fprintf(out, "<path class=\"grid\" d=\"M%.1f %.1fH%.1f\"/>", plot->x.from, y, plot->x.to);
        axis_label(label, sizeof label, ticks[i]);
        svg_text(out, plot->x.from - 8, y + 4.5, "end", label);
    }
}

void svg_begin(FILE *out, struct svg_plot *plot)
{
    if (plot->width == 0)
        plot->width = 720;
    if (plot->height == 0)
        plot->height = 420;
    double top = SVG_TOP + (plot->title != NULL ? SVG_TITLE : 0);
    plot->x.from = SVG_LEFT;
    plot->x.to = plot->width - SVG_RIGHT;
    plot->y.from = plot->height - SVG_BOTTOM;
    plot->y.to = top;
    /* Inside a page the name space goes without saying. */
    fprintf(out, "<svg%s viewBox=\"0 0 %u %u\" class=\"figure\" role=\"img\" aria-label=\"",
            plot->bare ? "" : " xmlns=\"http://www.w3.org/2000/svg\"", plot->width, plot->height);
    html_text(out, plot->title != NULL ? plot->title : plot->y_label);
    fputs(" by ", out);
    html_text(out, plot->x_label);
    fputs("\">\n", out);
    if (!plot->bare)
        fputs(svg_style, out);
    if (plot->title != NULL)
        svg_text(out, (plot->x.from + plot->x.to) / 2, 22, "middle", plot->title);
    svg_text(out, 6, top - 13, "start", plot->y_label);
    svg_text(out, (plot->x.from + plot->x.to) / 2, plot->height - 8, "middle", plot->x_label);
    svg_y_axis(out, plot);
    svg_x_axis(out, plot);
    fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fH%.1f\"/>\n", plot->x.from, plot->y.from,
            plot->x.to);
}

void svg_end(FILE *out)
{
    fputs("</svg>\n", out);
}

/* ---- histograms */

/* "0.505 to 0.51: 12 latents" */
static void svg_bar_title(FILE *out, const struct svg_histogram *spec, size_t i)
{
    double step = (spec->max - spec->min) / (double)spec->bins;
    const char *unit = spec->unit != NULL ? spec->unit : "latents";
    fprintf(out, "<title>%.4g to %.4g: ", spec->min + step * (double)i,
            spec->min + step * (double)(i + 1));
    html_count(out, spec->counts[i]);
    fputc(' ', out);
    html_text(out, unit);
    fputs("</title>", out);
}

static void svg_bar(FILE *out, const struct svg_histogram *spec, const struct svg_plot *plot,
                    size_t i)
{
    double step = (plot->x.to - plot->x.from) / (double)spec->bins;
    double x = plot->x.from + step * (double)i, base = plot->y.from;
    double tall = base - axis_place(&plot->y, (double)spec->counts[i]);
    double gap = step > 6 ? 1 : 0; /* between narrow bars it would be a pattern of its own */
    const char *class = spec->classes != NULL ? spec->classes[i] : NULL;
    /* A single latent among thousands must still be seen. */
    tall = tall < 1.5 ? 1.5 : tall;
    fprintf(out, "<g><path class=\"hit\" d=\"M%.2f %.1fV%.1fh%.2fV%.1fz\"/>", x, base, plot->y.to,
            step, base);
    fprintf(out, "<path class=\"bar%s%s\" d=\"M%.2f %.2fh%.2fV%.1fh-%.2fz\"/>",
            class != NULL ? " " : "", class != NULL ? class : "", x, base - tall, step - gap, base,
            step - gap);
    svg_bar_title(out, spec, i);
    fputs("</g>\n", out);
}

void svg_histogram(FILE *out, const struct svg_histogram *spec)
{
    uint64_t most = 1;
    for (size_t i = 0; i < spec->bins; i++)
        most = spec->counts[i] > most ? spec->counts[i] : most;
    struct svg_plot plot = {
        .title = spec->title,
        .x_label = spec->x_label,
        .y_label = spec->y_label,
        .width = spec->width,
        .height = spec->height,
        .bare = spec->bare,
        .x = {.min = spec->min, .max = spec->max},
        /* From half a latent up, so that a bar of one can be seen. */
        .y = {.min = spec->log_y ? 0.5 : 0,
              .max = (double)most * 1.04,
              .log = spec->log_y,
              .whole = true},
        .ticks = spec->ticks,
        .tick_count = spec->tick_count,
    };
    svg_begin(out, &plot);
    for (size_t i = 0; i < spec->bins; i++)
        if (spec->counts[i] > 0)
            svg_bar(out, spec, &plot, i);
    svg_end(out);
}

int svg_histogram_file(const char *path, const struct svg_histogram *spec)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return log_fail_errno("cannot write '%s'", path);
    svg_histogram(out, spec);
    int status = fflush(out) != 0 || ferror(out) ? log_fail_errno("cannot write '%s'", path) : 0;
    if (fclose(out) != 0 && status == 0)
        status = log_fail_errno("cannot write '%s'", path);
    return status;
}

void svg_count(uint64_t *counts, size_t bins, double min, double max, double value)
{
    if (!(value >= min && value <= max))
        return;
    size_t bin = (size_t)((value - min) / (max - min) * (double)bins);
    counts[bin < bins ? bin : bins - 1]++;
}
