/* report_figures.c - how latents divide between the sources: counts, and the figures of a pair.
 *
 * Bars and points have the colour of their class. A bin of the histogram of R lies within one
 * class, as the bounds of the classes are multiples of a bin.
 */
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "html.h"
#include "report.h"
#include "scatter.h"
#include "svg.h"

enum { RELATIVE_BINS = 200, COSINE_BINS = 100, FIGURE_WIDTH = 500, FIGURE_HEIGHT = 300 };

static const struct svg_tick relative_ticks[] = {
    {0, "0"}, {0.25, "\u00bc"}, {0.5, "\u00bd"}, {0.75, "\u00be"}, {1, "1"}};

/* ---- counts */

static void report_class_keys(FILE *out, const struct report *report)
{
    for (enum norms_class class = 0; class < NORMS_CLASS_COUNT; class ++) {
        fprintf(out, "<span class=\"key %s\">", report_class_style(class));
        report_class_name(out, report, class);
        fputs("</span>", out);
    }
}

static void report_counts_row(FILE *out, const char *name, const char *bounds,
                              const uint64_t *counts)
{
    fprintf(out, "<tr><th class=\"t\">%s</th>", name);
    for (enum norms_class class = 0; class < NORMS_CLASS_COUNT; class ++) {
        fputs("<td>", out);
        html_count(out, counts[class]);
        fputs("</td>", out);
    }
    fprintf(out, "<td class=\"t\">%s</td></tr>\n", bounds);
}

static void report_pair_counts(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    uint64_t relative[NORMS_CLASS_COUNT] = {0}, delta[NORMS_CLASS_COUNT] = {0};
    for (size_t j = 0; j < norms->latents; j++) {
        relative[norms_class_by_relative(norms->relative[j])]++;
        delta[norms_class_by_delta(norms->pair_delta[j])]++;
    }
    fputs("<p>The relative norm R is the share of <b>", out);
    html_text(out, norms->labels[norms->b]);
    fputs("</b> in the two lengths of a latent&#39;s decoder vectors: 0 is a latent of ", out);
    html_text(out, norms->labels[norms->a]);
    fputs(" alone, &frac12; one that both have in equal measure, 1 one of ", out);
    html_text(out, norms->labels[norms->b]);
    fputs(" alone. Two definitions of the classes are in use; they differ, so both are given.</p>\n"
          "<div class=\"wide\"><table id=\"clusters\"><thead><tr><th class=\"t\">Latents by</th>",
          out);
    for (enum norms_class class = 0; class < NORMS_CLASS_COUNT; class ++) {
        fprintf(out, "<th><span class=\"key %s\">", report_class_style(class));
        report_class_name(out, report, class);
        fputs("</span></th>", out);
    }
    fputs("<th class=\"t\">Bounds</th></tr></thead><tbody>\n", out);
    report_counts_row(out, "relative norm R", "&lt;&nbsp;0.1, 0.3&nbsp;to&nbsp;0.7, &gt;&nbsp;0.9",
                      relative);
    report_counts_row(out, "&Delta;", "&lt;&nbsp;0.1, 0.4&nbsp;to&nbsp;0.6, &gt;&nbsp;0.9", delta);
    fputs("</tbody></table></div>\n", out);
}

/* Of more than two sources: those whose decoder is nearly all there is. */
static void report_source_counts(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    fputs("<p>Relative norms compare two sources, and this crosscoder has ", out);
    html_count(out, norms->source_count);
    fputs(": name two of them with <code>--pair A,B</code> for their figures. Counted here are "
          "latents of one source by &Delta; &gt; 0.9, which says that its decoder is at least five "
          "times as long as all the others together.</p>\n"
          "<div class=\"wide\"><table id=\"clusters\"><thead><tr><th class=\"t\">Source</th>"
          "<th>Latents of it alone</th></tr></thead><tbody>\n",
          out);
    for (size_t s = 0; s < norms->source_count; s++) {
        uint64_t count = 0;
        for (size_t j = 0; j < norms->latents; j++)
            count += norms->delta[j * norms->source_count + s] > 0.9;
        fputs("<tr><th class=\"t\">", out);
        html_text(out, norms->labels[s]);
        fputs("</th><td>", out);
        html_count(out, count);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
}

/* ---- histograms of a pair */

/* In wholes, since 0.7 has no double and half a bin is far from it. */
static const char *report_bin_style(size_t bin)
{
    double middle = ((double)bin + 0.5) / RELATIVE_BINS;
    return report_class_style(norms_class_by_relative(middle));
}

static void report_relative_figure(FILE *out, const struct report *report, bool log_y)
{
    uint64_t counts[RELATIVE_BINS] = {0};
    const char *classes[RELATIVE_BINS];
    for (size_t j = 0; j < report->norms->latents; j++)
        svg_count(counts, RELATIVE_BINS, 0, 1, report->norms->relative[j]);
    for (size_t i = 0; i < RELATIVE_BINS; i++)
        classes[i] = report_bin_style(i);
    struct svg_histogram figure = {
        .x_label = "Relative Norm",
        .y_label = log_y ? "Number of Latents, logarithmic" : "Number of Latents",
        .max = 1,
        .counts = counts,
        .bins = RELATIVE_BINS,
        .ticks = relative_ticks,
        .tick_count = sizeof relative_ticks / sizeof *relative_ticks,
        .log_y = log_y,
        .width = FIGURE_WIDTH,
        .height = FIGURE_HEIGHT,
        .bare = true,
        .classes = classes,
    };
    fputs("<figure>\n", out);
    svg_histogram(out, &figure);
    if (log_y) {
        fputs("<figcaption>The same on a logarithmic axis, where single latents can be seen: the "
              "one-sided ones at both ends are few among many shared ones.</figcaption>",
              out);
    } else {
        fputs("<figcaption>How long latents are in one source relative to both, in 200 bins. ",
              out);
        report_class_keys(out, report);
        fputs("</figcaption>", out);
    }
    fputs("</figure>\n", out);
}

static void report_cosine_figure(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    uint64_t counts[COSINE_BINS] = {0}, count = 0;
    for (size_t j = 0; j < norms->latents; j++)
        if (norms_class_by_relative(norms->relative[j]) == NORMS_SHARED &&
            !isnan(norms->decoder_cosine[j])) {
            svg_count(counts, COSINE_BINS, -1, 1, norms->decoder_cosine[j]);
            count++;
        }
    if (count == 0) {
        fputs(
            "<p class=\"note\">There are no cosines to show: no latent is shared, or the widths of "
            "the "
            "two sources differ, and vectors of different widths have no angle between them.</p>\n",
            out);
        return;
    }
    struct svg_histogram figure = {
        .x_label = "Cosine of the two decoders of a shared latent",
        .y_label = "Number of Latents, logarithmic",
        .min = -1,
        .max = 1,
        .counts = counts,
        .bins = COSINE_BINS,
        .log_y = true,
        .width = FIGURE_WIDTH,
        .height = FIGURE_HEIGHT,
        .bare = true,
    };
    fputs("<figure>\n", out);
    svg_histogram(out, &figure);
    fputs("<figcaption>Do shared latents point the same way in both? The cosine between the two "
          "decoders of the ",
          out);
    html_count(out, count);
    fputs(" latents with 0.3 &lt; R &lt; 0.7, in 100 bins. Near 1: one direction, kept. Near 0 or "
          "below: the latent fires for the same inputs but writes different things.</figcaption>"
          "</figure>\n",
          out);
}

static const char *report_style_of(double relative)
{
    return report_class_style(norms_class_by_relative(relative));
}

static int report_frequency_figure(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    double *frequency = mem_alloc(norms->latents, sizeof *frequency);
    if (frequency == NULL)
        return mem_fail("a figure", norms->latents, sizeof *frequency);
    for (size_t j = 0; j < norms->latents; j++)
        frequency[j] = stats_frequency(&report->stats, j);
    struct scatter figure = {
        .x = norms->relative,
        .y = frequency,
        .n = norms->latents,
        .x_label = "Relative Norm",
        .y_label = "Frequency: share of rows in which a latent fires",
        .ticks = relative_ticks,
        .tick_count = sizeof relative_ticks / sizeof *relative_ticks,
        .class_of = report_style_of,
    };
    fputs("<figure>\n", out);
    int status = scatter_draw(out, &figure);
    fputs(norms->latents > SCATTER_MOST_POINTS
              ? "<figcaption>Are one-sided latents rare or common? The fuller a cell, the more "
                "latents lie in it, on a logarithmic scale. "
              : "<figcaption>Are one-sided latents rare or common? Each point is a latent. ",
          out);
    fputs("Those that never fired stand on the base line. ", out);
    report_class_keys(out, report);
    fputs("</figcaption></figure>\n", out);
    free(frequency);
    return status;
}

int report_figures(FILE *out, const struct report *report)
{
    int status = 0;
    fputs("<section id=\"latents\">\n<h2>How the latents divide</h2>\n", out);
    if (report->norms->paired) {
        report_pair_counts(out, report);
        fputs("<div class=\"figures\">\n", out);
        report_relative_figure(out, report, false);
        report_relative_figure(out, report, true);
        report_cosine_figure(out, report);
        if (report->has_rows && report->rows > 0)
            status = report_frequency_figure(out, report);
        fputs("</div>\n", out);
    } else if (report->norms->source_count == 1) {
        fputs("<p>With one source there is nothing to compare: it is a sparse autoencoder, and "
              "relative norms do not exist.</p>\n",
              out);
    } else {
        report_source_counts(out, report);
    }
    fputs("</section>\n", out);
    return status;
}
