/* svg.c - a histogram of bars in one path, axes and labels; colours follow the reader's scheme.
 *
 * The bars are one path, so that neighbours show no seam where they meet inside a pixel. A figure
 * paints its own ground: a viewer that shows a file by itself takes white for it in either scheme,
 * where light letters could not be read. A page that holds figures may set --figure-paper. All
 * selectors are of the class of the figure, since a <style> inside a page is one for the page.
 */
#include "svg.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/log.h"

enum { WIDTH = 720, HEIGHT = 420, LEFT = 80, RIGHT = 20, TOP = 40, BOTTOM = 60 };
enum { SVG_MAX_TICKS = 5 };

static const char svg_style[] =
    "<style>"
    ".figure text{font:14px sans-serif;fill:#222}"
    ".figure .paper{fill:#fff;fill:var(--figure-paper,#fff)}"
    ".figure .bar{fill:#3566a8}.figure .axis{stroke:#555;fill:none}"
    ".figure .grid{stroke:#e4e4e4;fill:none}"
    "@media(prefers-color-scheme:dark){.figure text{fill:#ddd}"
    ".figure .paper{fill:#181a1f;fill:var(--figure-paper,#181a1f)}"
    ".figure .bar{fill:#7aa7e0}.figure .axis{stroke:#999}.figure .grid{stroke:#33363d}}"
    "</style>\n";

/* Characters that XML cannot hold as they are: markup as references, controls as U+FFFD. */
static void svg_characters(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        if (*text == '<' || *text == '>' || *text == '&')
            fprintf(out, "&#%d;", *text);
        else if ((unsigned char)*text < 0x20)
            fputs("\xef\xbf\xbd", out);
        else
            fputc(*text, out);
}

static void svg_text(FILE *out, double x, double y, const char *anchor, const char *text)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    svg_characters(out, text);
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

/* What follows in 1, 2, 5, 10, 20, 50, ...; 0 behind the last that can be counted. */
static uint64_t svg_next_round(uint64_t number)
{
    uint64_t digit = number;
    while (digit >= 10)
        digit /= 10;
    if (number > UINT64_MAX / 5 * 2)
        return 0;
    return digit == 2 ? number / 2 * 5 : number * 2;
}

static void svg_y_tick(FILE *out, const struct svg_histogram *spec, uint64_t tick, uint64_t most)
{
    char label[24];
    double y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * svg_height(spec, tick, most);
    snprintf(label, sizeof label, "%" PRIu64, tick);
    if (tick > 0)
        fprintf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, WIDTH - RIGHT);
    fprintf(out, "<path class=\"axis\" d=\"M%d %.1fh-5\"/>\n", LEFT, y);
    svg_text(out, LEFT - 8, y + 5, "end", label);
}

/* Linear: at most SVG_MAX_TICKS steps of a round number. */
static void svg_linear_ticks(FILE *out, const struct svg_histogram *spec, uint64_t most)
{
    uint64_t step = 1;
    while (most / step > SVG_MAX_TICKS)
        step = svg_next_round(step);
    for (uint64_t i = 0; i <= most / step; i++)
        svg_y_tick(out, spec, i * step, most);
}

/* Logarithmic: powers of ten, and 2 and 5 between them where these are few. */
static void svg_log_ticks(FILE *out, const struct svg_histogram *spec, uint64_t most)
{
    uint64_t tick = 1;
    for (unsigned i = 0; tick != 0 && tick <= most; i++, tick = svg_next_round(tick))
        if (i % 3 == 0 || most < 100)
            svg_y_tick(out, spec, tick, most);
}

static void svg_x_ticks(FILE *out, const struct svg_histogram *spec)
{
    double width = WIDTH - LEFT - RIGHT, base = HEIGHT - BOTTOM;
    for (size_t i = 0; i < spec->tick_count; i++) {
        double x = LEFT + width * (spec->ticks[i].at - spec->min) / (spec->max - spec->min);
        fprintf(out, "<path class=\"axis\" d=\"M%.1f %.1fv5\"/>\n", x, base);
        svg_text(out, x, base + 20, "middle", spec->ticks[i].label);
    }
}

static void svg_labels(FILE *out, const struct svg_histogram *spec)
{
    double middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    if (spec->title != NULL)
        svg_text(out, middle, TOP - 16, "middle", spec->title);
    svg_text(out, middle, HEIGHT - 16, "middle", spec->x_label);
    fprintf(out, "<g transform=\"translate(18 %d) rotate(-90)\">", (TOP + HEIGHT - BOTTOM) / 2);
    svg_text(out, 0, 0, "middle", spec->y_label);
    fputs("</g>\n", out);
}

/* All of it, into the buffer of `out`; whether that worked is seen when it is flushed. */
static void svg_draw(FILE *out, const struct svg_histogram *spec)
{
    uint64_t most = 0;
    for (size_t i = 0; i < spec->bins; i++)
        most = spec->counts[i] > most ? spec->counts[i] : most;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" class=\"figure\" "
            "role=\"img\">\n<title>",
            WIDTH, HEIGHT);
    svg_characters(out, spec->title != NULL ? spec->title : spec->x_label);
    fprintf(out, "</title>\n%s<rect class=\"paper\" width=\"%d\" height=\"%d\"/>\n", svg_style,
            WIDTH, HEIGHT);
    if (spec->log_y)
        svg_log_ticks(out, spec, most);
    else
        svg_linear_ticks(out, spec, most);
    svg_bars(out, spec, most);
    fprintf(out, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
            WIDTH - RIGHT);
    svg_x_ticks(out, spec);
    svg_labels(out, spec);
    fputs("</svg>\n", out);
}

int svg_histogram(FILE *out, const struct svg_histogram *spec)
{
    svg_draw(out, spec);
    if (fflush(out) == 0 && !ferror(out))
        return 0;
    return errno == EPIPE ? ERR_CLOSED : log_fail_errno("cannot write the figure");
}

int svg_histogram_file(const char *path, const struct svg_histogram *spec)
{
    FILE *out = fopen(path, "w");
    if (out == NULL)
        return log_fail_errno("cannot write '%s'", path);
    svg_draw(out, spec);
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
