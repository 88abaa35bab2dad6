/* svg.c - a histogram of bars in one path, axes and labels; colours follow the reader's scheme. */
#include "svg.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/log.h"

enum { WIDTH = 720, HEIGHT = 420, LEFT = 70, RIGHT = 20, TOP = 40, BOTTOM = 60 };

static const char svg_style[] =
    "<style>text{font:14px sans-serif;fill:#222}.bar{fill:#3566a8}.axis{stroke:#666;fill:none}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.bar{fill:#7aa7e0}.axis{stroke:#999}}"
    "</style>\n";

static void svg_text(FILE *out, double x, double y, const char *anchor, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text != '\0'; text++)
        if (*text == '<' || *text == '>' || *text == '&')
            fprintf(out, "&#%d;", *text);
        else
            fputc(*text, out);
    fputs("</text>\n", out);
}

/* A count's place on the y axis, 0 ... 1. */
static double svg_height(const struct svg_histogram *spec, uint64_t count, uint64_t most)
{
    if (most == 0 || count == 0)
        return 0;
    if (!spec->log_y)
        return (double)count / (double)most;
    /* From half a latent up, so that a bar of one can be seen. */
    return log(2 * (double)count) / log(2 * (double)most);
}

static void svg_bars(FILE *out, const struct svg_histogram *spec, uint64_t most)
{
    double width = WIDTH - LEFT - RIGHT, height = HEIGHT - TOP - BOTTOM, base = HEIGHT - BOTTOM;
    fputs("<path class=\"bar\" d=\"", out);
    for (size_t i = 0; i < spec->bins; i++) {
        double tall = height * svg_height(spec, spec->counts[i], most);
        double step = width / (double)spec->bins;
        if (tall > 0)
            fprintf(out, "M%.2f %.2fv%.2fh%.2fv%.2fz", LEFT + step * (double)i, base, -tall, step,
                    tall);
    }
    fputs("\"/>\n", out);
}

static void svg_y_ticks(FILE *out, const struct svg_histogram *spec, uint64_t most)
{
    double height = HEIGHT - TOP - BOTTOM, base = HEIGHT - BOTTOM;
    uint64_t step = 1;
    while (!spec->log_y && most / step > 5)
        step *= most / step > 25 ? 10 : most / step > 12 ? 5 : 2;
    for (uint64_t tick = spec->log_y ? 1 : 0; tick <= most;) {
        char label[24];
        double y = base - height * svg_height(spec, tick, most);
        snprintf(label, sizeof label, "%" PRIu64, tick);
        fprintf(out, "<path class=\"axis\" d=\"M%d %.1fh-5\"/>\n", LEFT, y);
        svg_text(out, LEFT - 8, y + 5, "end", label);
        if (spec->log_y && tick > UINT64_MAX / 10)
            break;
        tick = spec->log_y ? tick * 10 : tick + step;
    }
}

static int svg_failed(void)
{
    return errno == EPIPE ? ERR_CLOSED : log_fail_errno("cannot write the figure");
}

int svg_histogram(FILE *out, const struct svg_histogram *spec)
{
    double width = WIDTH - LEFT - RIGHT, base = HEIGHT - BOTTOM;
    uint64_t most = 0;
    for (size_t i = 0; i < spec->bins; i++)
        most = spec->counts[i] > most ? spec->counts[i] : most;
    fprintf(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n",
            WIDTH, HEIGHT);
    fputs(svg_style, out);
    svg_bars(out, spec, most);
    fprintf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
            WIDTH - RIGHT);
    svg_y_ticks(out, spec, most);
    for (size_t i = 0; i < spec->tick_count; i++) {
        double x = LEFT + width * (spec->ticks[i].at - spec->min) / (spec->max - spec->min);
        fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fv5\"/>\n", x, base);
        svg_text(out, x, base + 20, "middle", spec->ticks[i].label);
    }
    if (spec->title != NULL)
        svg_text(out, LEFT + width / 2, TOP - 16, "middle", spec->title);
    svg_text(out, LEFT + width / 2, HEIGHT - 16, "middle", spec->x_label);
    fprintf(out, "<g transform=\"translate(18 %d) rotate(-90)\">", (TOP + HEIGHT - BOTTOM) / 2);
    svg_text(out, 0, 0, "middle", spec->y_label);
    fputs("</g>\n</svg>\n", out);
    return fflush(out) != 0 || ferror(out) ? svg_failed() : 0;
}

int svg_histogram_file(const char *path, const struct svg_histogram *spec)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return log_fail_errno("cannot write '%s'", path);
    int status = svg_histogram(out, spec);
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
