/* report_summary.c - the heading, and what the checkpoint and the rows say in numbers.
 *
 * A checkpoint of another program says little about itself; what is not known has no line, and a
 * number that does not exist is a dash, never 0.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "html.h"
#include "report.h"

/* ---- heading */

static void report_title(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    fputs("<p class=\"eyebrow\">Crosscoder report</p>\n<h1>", out);
    if (norms->paired) {
        html_text(out, norms->labels[norms->a]);
        fputs(" and ", out);
        html_text(out, norms->labels[norms->b]);
    } else if (norms->source_count == 1) {
        html_text(out, norms->labels[0]);
    } else {
        fprintf(out, "%zu sources", norms->source_count);
    }
    fputs("</h1>\n", out);
}

/* What this is, for who does not know. */
static void report_lead(FILE *out, const struct report *report)
{
    const struct norms *norms = report->norms;
    const char *hook = crosscoder_get(report->cc, "hook");
    fputs("<p class=\"lead\">A dictionary of ", out);
    html_count(out, norms->latents);
    fputs(" directions, learned from ", out);
    if (norms->source_count > 1)
        fputs("the activations of all sources at once", out);
    else
        fputs("activations", out);
    if (hook != NULL && hook[0] != '\0') {
        fputs(" at <code>", out);
        html_text(out, hook);
        fputs("</code>", out);
    }
    fputs(". Each entry, a <em>latent</em>, ", out);
    if (norms->source_count == 1) {
        fputs("has a vector that is added whenever it fires.</p>\n", out);
        return;
    }
    fputs("has a vector in each of them. ", out);
    if (norms->paired)
        fputs("Where both vectors are about as long, the two represent the same thing; where "
              "one is near zero, the latent stands for something that the other one alone "
              "represents.</p>\n",
              out);
    else
        fputs("Where one is much longer than the others, the latent stands for something that its "
              "source alone represents.</p>\n",
              out);
}

static void report_tile_begin(FILE *out, const char *class)
{
    fprintf(out, "<div class=\"%s\"><dt>", class);
}

/* How many latents are of a class, by R. */
static void report_class_tile(FILE *out, const struct report *report, enum norms_class class,
                              const char *bounds)
{
    uint64_t count = 0;
    for (size_t j = 0; j < report->norms->latents; j++)
        count += norms_class_by_relative(report->norms->relative[j]) == class;
    report_tile_begin(out, report_class_style(class));
    report_class_name(out, report, class);
    fputs("</dt><dd>", out);
    html_count(out, count);
    fprintf(out, "<small>%s</small></dd></div>\n", bounds);
}

/* Nothing where the value does not exist. */
static void report_real_tile(FILE *out, const char *name, double value, int digits,
                             const char *remark)
{
    if (!isfinite(value))
        return;
    report_tile_begin(out, "");
    fprintf(out, "%s</dt><dd>", name);
    html_real(out, value, digits);
    fprintf(out, "<small>%s</small></dd></div>\n", remark);
}

static void report_dead_tile(FILE *out, const struct report *report)
{
    uint64_t dead = 0;
    for (size_t j = 0; j < report->norms->latents; j++)
        dead += report->stats.count[j] == 0;
    report_tile_begin(out, "");
    fputs("dead</dt><dd>", out);
    html_count(out, dead);
    fputs("<small>latents that never fire here</small></dd></div>\n", out);
}

void report_heading(FILE *out, const struct report *report)
{
    report_title(out, report);
    report_lead(out, report);
    fputs("<dl class=\"tiles\">\n", out);
    if (report->norms->paired) {
        report_class_tile(out, report, NORMS_A_ONLY, "latents, R&nbsp;&lt;&nbsp;0.1");
        report_class_tile(out, report, NORMS_SHARED,
                          "latents, 0.3&nbsp;&lt;&nbsp;R&nbsp;&lt;&nbsp;0.7");
        report_class_tile(out, report, NORMS_B_ONLY, "latents, R&nbsp;&gt;&nbsp;0.9");
    }
    if (report->has_rows) {
        const struct evaluate_figures *all = &report->figures[report->norms->source_count];
        report_real_tile(out, "explained variance", all->explained_variance, 3,
                         "on the rows given");
        report_real_tile(out, "L0", all->l0, 3, "latents active in a row");
        report_dead_tile(out, report);
    } else {
        report_real_tile(out, "explained variance",
                         history_last(report->history, "explained_variance"), 3,
                         "of the last batch in training");
        report_real_tile(out, "L0", history_last(report->history, "l0_loss"), 3,
                         "latents active in a row, in training");
    }
    fputs("</dl>\n", out);
}

/* ---- tables */

/* The scale of sources that the file does not name is not known, though it counts as 1. */
static void report_sources(FILE *out, const struct report *report)
{
    const struct crosscoder *cc = report->cc;
    fputs("<h3>Sources</h3>\n<div class=\"wide\"><table><thead><tr><th class=\"t\">Source</th>"
          "<th>Width</th><th>Scale</th><th>Mean decoder norm</th></tr></thead><tbody>\n",
          out);
    for (size_t s = 0; s < cc->source_count; s++) {
        double sum = 0;
        for (size_t j = 0; j < report->norms->latents; j++)
            sum += report->norms->decoder[j * cc->source_count + s];
        fputs("<tr><th class=\"t\"><code>", out);
        html_text(out, cc->sources[s].name);
        fputs("</code></th><td>", out);
        html_count(out, cc->sources[s].width);
        fputs("</td><td>", out);
        html_real(out, cc->named ? cc->sources[s].scale : (double)NAN, 6);
        fputs("</td><td>", out);
        html_fixed(out, sum / (double)report->norms->latents, 3);
        fputs("</td></tr>\n", out);
    }
    fputs(
        "</tbody></table></div>\n<p class=\"note\">Width: numbers in a row. Scale: the factor that "
        "the activations were multiplied by, so that both small and large models count the "
        "same.</p>\n",
        out);
}

/* Nothing where the text is not known; a long one, in a line of its own, is code. */
static void report_fact(FILE *out, const char *name, const char *value, bool is_long)
{
    if (value == NULL || value[0] == '\0')
        return;
    fprintf(out, "<div%s><dt>", is_long ? " class=\"long\"" : "");
    html_text(out, name);
    fputs(is_long ? "</dt><dd><code>" : "</dt><dd>", out);
    html_text(out, value);
    fputs(is_long ? "</code></dd></div>\n" : "</dd></div>\n", out);
}

/* A count that the metadata holds as text. */
static void report_count_fact(FILE *out, const char *name, const char *value)
{
    char *end;
    if (value == NULL || value[0] < '0' || value[0] > '9')
        return;
    unsigned long long count = strtoull(value, &end, 10);
    if (*end != '\0')
        return;
    fprintf(out, "<div><dt>%s</dt><dd>", name);
    html_count(out, count);
    fputs("</dd></div>\n", out);
}

static void report_training_facts(FILE *out, const struct report *report)
{
    const struct crosscoder *cc = report->cc;
    fputs("<h3>Training</h3>\n<dl class=\"facts\">\n<div><dt>latents</dt><dd>", out);
    html_count(out, cc->latents);
    fputs("</dd></div>\n", out);
    report_fact(out, "activation", crosscoder_get(cc, "activation"), false);
    report_count_fact(out, "steps", crosscoder_get(cc, "step"));
    report_count_fact(out, "rows trained on", crosscoder_get(cc, "rows_trained"));
    report_fact(out, "hook", crosscoder_get(cc, "hook"), true);
    report_fact(out, "weights", cc->path, true);
    report_fact(out, "hash of the tokenizer", crosscoder_get(cc, "tokenizer_hash"), true);
    report_fact(out, "hash of the training rows", crosscoder_get(cc, "data_hash"), true);
    fputs("</dl>\n", out);
}

static void report_recipe_item(FILE *out, const char *key, const json_t *value)
{
    fputs("<div><dt>", out);
    html_text(out, key);
    fputs("</dt><dd>", out);
    if (json_is_string(value)) {
        html_text(out, json_string_value(value));
    } else if (json_is_integer(value) && json_integer_value(value) >= 0) {
        html_count(out, (uint64_t)json_integer_value(value));
    } else if (json_is_number(value)) {
        fprintf(out, "%g", json_number_value(value));
    } else {
        char *text = json_text(value);
        html_text(out, text != NULL ? text : "");
        free(text);
    }
    fputs("</dd></div>\n", out);
}

/* The options of the training; nothing where the checkpoint does not say. */
static void report_recipe(FILE *out, const struct report *report)
{
    const char *text = crosscoder_get(report->cc, "recipe"), *key;
    json_t *recipe = text == NULL ? NULL : json_parse(text, strlen(text), NULL), *value;
    if (json_is_object(recipe) && json_object_size(recipe) > 0) {
        fputs("<h3>Recipe</h3>\n<dl class=\"facts\">\n", out);
        json_object_foreach(recipe, key, value)
        {
            if (!json_is_null(value))
                report_recipe_item(out, key, value);
        }
        fputs("</dl>\n", out);
    }
    json_decref(recipe);
}

static void report_evaluation_row(FILE *out, const struct evaluate_figures *figures,
                                  const char *name)
{
    fputs("<tr><th class=\"t\">", out);
    html_text(out, name);
    fputs("</th><td>", out);
    html_fixed(out, figures->explained_variance, 4);
    fputs("</td><td>", out);
    html_fixed(out, figures->fve, 4);
    fputs("</td><td>", out);
    html_real(out, figures->l0, 4);
    fputs("</td><td>", out);
    html_real(out, figures->l2, 4);
    fputs("</td><td>", out);
    html_real(out, figures->l1, 4);
    fputs("</td><td>", out);
    html_real(out, figures->loss, 4);
    fputs("</td></tr>\n", out);
}

static void report_evaluation(FILE *out, const struct report *report)
{
    size_t sources = report->norms->source_count;
    fputs("<h3>On the rows given</h3>\n<p>", out);
    html_count(out, report->rows);
    fputs(" rows passed through the crosscoder. Explained variance says how much of what "
          "distinguishes rows is rebuilt: 1 would be all of it.</p>\n"
          "<div class=\"wide\"><table id=\"evaluation\"><thead><tr><th class=\"t\">Source</th>"
          "<th>Explained variance</th><th>FVE</th><th>L0</th><th>L2</th><th>L1</th><th>Loss</th>"
          "</tr></thead><tbody>\n",
          out);
    report_evaluation_row(out, &report->figures[sources], "all");
    for (size_t s = 0; s < sources && sources > 1; s++)
        report_evaluation_row(out, &report->figures[s], report->norms->labels[s]);
    fputs("</tbody></table></div>\n<p class=\"note\">L2: squared error of a row. L1: its "
          "activations, "
          "each times the decoder norms, without its weight. Loss: L2 + the L1 weight times L1. "
          "Batches of ",
          out);
    html_count(out, report->batch);
    fputs(" rows.</p>\n", out);
}

void report_summary(FILE *out, const struct report *report)
{
    fputs("<section id=\"run\">\n<h2>The run</h2>\n", out);
    if (report->has_rows)
        report_evaluation(out, report);
    report_sources(out, report);
    report_training_facts(out, report);
    report_recipe(out, report);
    fputs("</section>\n", out);
}
