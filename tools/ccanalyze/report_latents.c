/* report_latents.c - latents one by one: a table of them, and with rows a card for each, with the
 * distribution of its activations and the contexts that it answers to most.
 *
 * A token's shading is its activation as a share of the latent's largest one on all rows, in
 * eighths, so that contexts of one latent can be compared by eye.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "html.h"
#include "report.h"
#include "svg.h"

enum { SPREAD_BINS = 50, CONTEXTS_OPEN = 4, SHADES = 8 };

/* The class of the style sheet: the colour of a side is that of its latents in all figures. */
static const char *report_group_style(const struct report *report, const struct report_group *group)
{
    if (!report->norms->paired)
        return "s";
    return group->source == report->norms->a ? "a" : "b";
}

/* ---- tokens */

/* A byte piece that is no character by itself, or a piece in angle brackets, is shown as the file
 * has it: it stands for a mark, not for letters. */
static bool report_is_mark(const char *piece, const char *text)
{
    size_t length = piece == NULL ? 0 : strlen(piece);
    bool bracketed = length > 2 && piece[0] == '<' && piece[length - 1] == '>';
    return bracketed && (strcmp(piece, text) == 0 || strstr(text, "\ufffd") != NULL);
}

/* What an id is shown as: *text, which the caller frees, NULL for the number itself; *mark where it
 * is not to be read as letters. */
static int report_token_text(const struct report *report, uint32_t id, char **text, bool *mark)
{
    *text = NULL;
    *mark = true;
    if (report->tokenizer == NULL)
        return 0;
    const char *piece = tokenizer_piece(report->tokenizer, id);
    *text = tokenizer_text(report->tokenizer, &id, 1);
    *mark = *text != NULL && (piece == NULL || report_is_mark(piece, *text));
    if (*mark && piece != NULL) {
        free(*text);
        *text = strdup(piece);
    }
    return *text == NULL ? mem_fail("a token", 1, 64) : 0;
}

/* The activation itself is told to who points at the token. */
static int report_token(FILE *out, const struct report *report, const struct top_example *example,
                        size_t i, double most)
{
    double f = (double)example->activations[i];
    int shade = f > 0 && most > 0 ? (int)ceil(SHADES * f / most) : 0;
    char *text;
    bool mark;
    int status = report_token_text(report, example->ids[i], &text, &mark);
    if (status != 0)
        return status;
    fprintf(out, "<span class=\"t%d%s%s\"", shade < SHADES ? shade : SHADES, mark ? " x" : "",
            i == example->at ? " at" : "");
    if (f > 0)
        fprintf(out, " title=\"%.4g\"", f);
    fputc('>', out);
    if (text == NULL)
        fprintf(out, "%" PRIu32, example->ids[i]);
    else if (mark)
        html_text(out, text);
    else
        html_token(out, text);
    fputs(text == NULL ? "</span> " : "</span>", out);
    free(text);
    return 0;
}

/* Rows that were packed from an array have no tokens around them: a number is what they go by. */
static int report_tokens(FILE *out, const struct report *report, const struct top_example *example,
                         double most)
{
    int status = 0;
    if (report->tokenizer == NULL && example->length == 1) {
        fputs("<span class=\"x\">sequence ", out);
        html_count(out, example->sequence);
        fprintf(out, ", token %" PRIu32 "</span>", example->token);
        return 0;
    }
    for (size_t i = 0; status == 0 && i < example->length; i++)
        status = report_token(out, report, example, i, most);
    return status;
}

/* One line of the list; where it comes from is told to who points at the number. */
static int report_context(FILE *out, const struct report *report, const struct top_example *example,
                          double most)
{
    fputs("<li><span class=\"f\" title=\"sequence ", out);
    html_count(out, example->sequence);
    fputs(", position ", out);
    html_count(out, example->position);
    fputs("\">", out);
    html_real(out, (double)example->activation, 3);
    fputs("</span><p class=\"text\">", out);
    int status = report_tokens(out, report, example, most);
    fputs("</p></li>\n", out);
    return status;
}

/* The first few are open, the others unfold: a page of many latents is to be read at a glance. */
static int report_contexts(FILE *out, const struct report *report, size_t k)
{
    double most = (double)report->stats.max[report->chosen[k]];
    size_t count = top_count(report->top, k);
    int status = 0;
    fputs("<div><ol class=\"contexts\">\n", out);
    for (size_t rank = 0; status == 0 && rank < count; rank++) {
        if (rank == CONTEXTS_OPEN)
            fprintf(out,
                    "</ol>\n<details><summary>%zu more contexts</summary>"
                    "<ol class=\"contexts\">\n",
                    count - rank);
        status = report_context(out, report, top_example(report->top, k, rank), most);
    }
    fputs(count > CONTEXTS_OPEN ? "</ol></details></div>\n" : "</ol></div>\n", out);
    return status;
}

/* ---- cards */

static void report_number(FILE *out, const char *name, double value,
                          void (*write)(FILE *out, double value, int digits), int digits)
{
    fprintf(out, "<div><dt>%s</dt><dd>", name);
    write(out, value, digits);
    fputs("</dd></div>\n", out);
}

static void report_card_facts(FILE *out, const struct report *report, uint64_t j)
{
    const struct norms *norms = report->norms;
    fputs("<dl class=\"facts\">\n", out);
    if (norms->paired) {
        report_number(out, "relative norm R", norms->relative[j], html_fixed, 4);
        report_number(out, "&Delta;", norms->pair_delta[j], html_fixed, 4);
        report_number(out, "decoder cosine", norms->decoder_cosine[j], html_fixed, 3);
    }
    fputs("<div><dt>fires in rows</dt><dd>", out);
    html_count(out, report->stats.count[j]);
    fputs("</dd></div>\n", out);
    report_number(out, "frequency", stats_frequency(&report->stats, j), html_real, 3);
    report_number(out, "mean where it fires", stats_mean(&report->stats, j), html_real, 3);
    report_number(out, "largest", (double)report->stats.max[j], html_real, 3);
    fputs("</dl>\n", out);
}

/* Logarithmic, since most activations are small and the largest, which matter, are few. */
static void report_card_figure(FILE *out, const struct report *report, size_t k, const char *class)
{
    uint64_t counts[SPREAD_BINS];
    const char *classes[SPREAD_BINS];
    double width = spread_bins(&report->spreads[k], counts, SPREAD_BINS);
    for (size_t i = 0; i < SPREAD_BINS; i++)
        classes[i] = class;
    struct svg_histogram figure = {
        .x_label = "Activation, where above 0",
        .y_label = "Rows, logarithmic",
        .max = width * SPREAD_BINS,
        .counts = counts,
        .bins = SPREAD_BINS,
        .log_y = true,
        .width = 340,
        .height = 210,
        .bare = true,
        .classes = classes,
        .unit = "rows",
    };
    svg_histogram(out, &figure);
}

static int report_card(FILE *out, const struct report *report, const struct report_group *group,
                       size_t k)
{
    const struct norms *norms = report->norms;
    uint64_t j = report->chosen[k];
    const char *style = report_group_style(report, group);
    fprintf(out,
            "<article class=\"%s\" id=\"latent-%" PRIu64 "\">\n<header><h4>Latent %" PRIu64 "</h4>",
            style, j, j);
    if (norms->paired) {
        enum norms_class class = norms_class_by_relative(norms->relative[j]);
        fprintf(out, "<span class=\"key %s soft\">", report_class_style(class));
        report_class_name(out, report, class);
        fputs("</span>", out);
    }
    fputs("</header>\n<div class=\"body\">\n<div>", out);
    report_card_facts(out, report, j);
    report_card_figure(out, report, k, style);
    fputs("</div>\n", out);
    int status = report->top != NULL ? report_contexts(out, report, k) : 0;
    fputs("</div>\n</article>\n", out);
    return status;
}

/* ---- the table of a group */

static void report_table_head(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    fputs("<div class=\"wide\"><table><thead><tr><th class=\"t\">Latent</th>", out);
    if (norms->paired)
        fputs("<th>R</th><th>&Delta;</th><th>Cosine</th>", out);
    for (size_t s = 0; s < norms->source_count; s++) {
        fputs("<th>Norm in ", out);
        html_text(out, norms->labels[s]);
        fputs("</th>", out);
    }
    if (report->has_rows)
        fputs("<th>Frequency</th><th>Largest f</th>", out);
    fputs("</tr></thead><tbody>\n", out);
}

static void report_cell(FILE *out, double value, void (*write)(FILE *out, double value, int digits),
                        int digits)
{
    fputs("<td>", out);
    write(out, value, digits);
    fputs("</td>", out);
}

static void report_table_row(FILE *out, const struct report *report, uint64_t j)
{
    const struct norms *norms = report->norms;
    fputs("<tr><th class=\"t\">", out);
    if (report->has_rows)
        fprintf(out, "<a href=\"#latent-%" PRIu64 "\">%" PRIu64 "</a></th>", j, j);
    else
        fprintf(out, "%" PRIu64 "</th>", j);
    if (norms->paired) {
        report_cell(out, norms->relative[j], html_fixed, 4);
        report_cell(out, norms->pair_delta[j], html_fixed, 4);
        report_cell(out, norms->decoder_cosine[j], html_fixed, 3);
    }
    for (size_t s = 0; s < norms->source_count; s++)
        report_cell(out, norms->decoder[j * norms->source_count + s], html_fixed, 4);
    if (report->has_rows) {
        report_cell(out, stats_frequency(&report->stats, j), html_real, 3);
        report_cell(out, (double)report->stats.max[j], html_real, 3);
    }
    fputs("</tr>\n", out);
}

/* ---- groups */

static void report_group_title(FILE *out, const struct report *report,
                               const struct report_group *group)
{
    const struct norms *norms = report->norms;
    if (group->source == norms->source_count) {
        fputs("<h3>The latents with the largest decoders</h3>\n", out);
        return;
    }
    fputs("<h3>Most specific to ", out);
    html_text(out, norms->labels[group->source]);
    fputs("</h3>\n", out);
}

/* The table, and with rows the cards that it leads to. shown (most) is room to work in. */
static int report_group(FILE *out, const struct report *report, const struct report_group *group,
                        size_t *shown)
{
    size_t count = report_shown(report, group, shown);
    int status = 0;
    report_group_title(out, report, group);
    if (count == 0) {
        fputs(group->count == 0 ? "<p>There are none: no decoder is longer there than elsewhere by "
                                  "far.</p>\n"
                                : "<p>None of them fires in the rows given.</p>\n",
              out);
        return 0;
    }
    report_table_head(out, report);
    for (size_t i = 0; i < count; i++)
        report_table_row(out, report, report->chosen[shown[i]]);
    fputs("</tbody></table></div>\n", out);
    for (size_t i = 0; status == 0 && report->has_rows && i < count; i++)
        status = report_card(out, report, group, shown[i]);
    return status;
}

/* What is shown and how to read it, by what the report has. */
static void report_latents_lead(FILE *out, const struct report *report)
{
    if (report->norms->paired)
        fputs("<p>The latents that belong most to one side, by R: those above 0.7 or below 0.3, "
              "the most extreme first.",
              out);
    else if (report->norms->source_count > 1)
        fputs("<p>For each source the latents whose decoder is longer there than in all the "
              "others together, the most one-sided first.",
              out);
    else
        fputs("<p>The latents with the longest decoder vectors.", out);
    if (!report->has_rows) {
        fputs(" With rows (a stream of activations) this page shows how often they fire, and with "
              "which contexts.</p>\n",
              out);
        return;
    }
    fputs(" Those that never fire are passed over.", out);
    if (report->top == NULL) {
        fputs("</p>\n", out);
        return;
    }
    fputs(" Each context is a piece of a sequence, around the place where the latent fires most in "
          "it; the number is its activation there. The more a token is shaded, the stronger the "
          "latent fires on it; the strongest is underlined. ",
          out);
    if (report->tokenizer == NULL)
        fputs("Tokens are shown by their numbers; <code>--model DIR</code> turns them into text.",
              out);
    else
        fputs("&#8629; is a newline, &#8677; a tab, &#9251; a space that is a token of its own.",
              out);
    fprintf(out, "</p>\n<p class=\"legend %s\">activation: 0 ", report->norms->paired ? "b" : "s");
    for (int shade = 1; shade <= SHADES; shade++)
        fprintf(out, "<span class=\"t%d\"></span>", shade);
    fputs(" the latent&#39;s largest</p>\n", out);
}

int report_latents(FILE *out, const struct report *report)
{
    int status = 0;
    size_t *shown = mem_alloc(report->most, sizeof *shown);
    if (shown == NULL)
        return mem_fail("latents", report->most, sizeof *shown);
    fputs("<section id=\"one-by-one\">\n<h2>Latents one by one</h2>\n", out);
    report_latents_lead(out, report);
    for (size_t g = 0; status == 0 && g < report->group_count; g++)
        status = report_group(out, report, &report->groups[g], shown);
    fputs("</section>\n", out);
    free(shown);
    return status;
}
