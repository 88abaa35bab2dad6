/* report_page.c - the frame of the page: head, contents, the parts, and what the words mean.
 *
 * Written into memory and handed over whole: what ends up in a file is a complete page or nothing.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "html.h"
#include "report.h"

void report_class_name(FILE *out, const struct report *report, enum norms_class class)
{
    const struct norms *norms = report->norms;
    if (class == NORMS_A_ONLY || class == NORMS_B_ONLY) {
        html_text(out, norms->labels[class == NORMS_A_ONLY ? norms->a : norms->b]);
        fputs(" only", out);
    } else {
        fputs(class == NORMS_SHARED ? "shared" : "other", out);
    }
}

const char *report_class_style(enum norms_class class)
{
    static const char *const styles[NORMS_CLASS_COUNT] = {
        [NORMS_A_ONLY] = "a", [NORMS_SHARED] = "s", [NORMS_B_ONLY] = "b", [NORMS_OTHER] = "o"};
    return styles[class];
}

/* "base, chat" */
static void report_labels(FILE *out, const struct report *report)
{
    for (size_t s = 0; s < report->norms->source_count; s++) {
        fputs(s > 0 ? ", " : "", out);
        html_text(out, report->norms->labels[s]);
    }
}

static void report_head(FILE *out, const struct report *report)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta name=\"color-scheme\" content=\"light dark\">\n"
          "<meta name=\"generator\" content=\"ccpipe " OPT_VERSION "\">\n<title>Crosscoder of ",
          out);
    report_labels(out, report);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", report_style);
}

static void report_contents(FILE *out, const struct report *report)
{
    fputs("<nav aria-label=\"Contents\"><a href=\"#run\">The run</a>\n", out);
    fputs("<a href=\"#latents\">How the latents divide</a>\n", out);
    if (report->history->rows > 0)
        fputs("<a href=\"#training\">Training</a>\n", out);
    fputs("<a href=\"#one-by-one\">Latents one by one</a>\n", out);
    fputs("<a href=\"#terms\">What the words mean</a></nav>\n", out);
}

static void report_terms(FILE *out, const struct report *report)
{
    fputs("<section id=\"terms\">\n<h2>What the words mean</h2>\n<dl class=\"terms\">\n"
          "<dt>Latent</dt><dd>One entry of the dictionary. For each row it has an activation f "
          "&ge; 0, and most are 0; the row is rebuilt as the sum of activations times decoder "
          "vectors, plus a bias.</dd>\n"
          "<dt>Decoder norm</dt><dd>The length of a latent&#39;s vector in one source. A length "
          "near 0 means that the latent changes nothing there.</dd>\n",
          out);
    if (report->norms->paired)
        fputs("<dt>Relative norm R</dt><dd>n<sub>B</sub> / (n<sub>A</sub> + n<sub>B</sub>), the "
              "second source&#39;s share of the two decoder norms: 0 for a latent of the first "
              "source alone, &frac12; for an equal one, 1 for one of the second alone.</dd>\n"
              "<dt>&Delta;</dt><dd>&frac12; ((n<sub>B</sub> &minus; n<sub>A</sub>) / "
              "max(n<sub>A</sub>, n<sub>B</sub>) + 1), another measure of the same. It calls "
              "fewer latents shared and more of them one-sided where R is above 0.833: R = 0.9 is "
              "&Delta; = 0.944.</dd>\n"
              "<dt>Decoder cosine</dt><dd>The cosine of the angle between a latent&#39;s two "
              "decoder vectors: 1 where both sources use the same direction, 0 where their "
              "directions have nothing in common.</dd>\n",
              out);
    fputs(
        "<dt>Frequency</dt><dd>The share of rows in which the latent is not 0.</dd>\n"
        "<dt>L0</dt><dd>How many latents are not 0 in a row, on average.</dd>\n"
        "<dt>Explained variance</dt><dd>The mean over rows of 1 &minus; |x &minus; x&#770;|&sup2; "
        "/ |x &minus; m|&sup2;, with x&#770; the reconstruction and m the mean of the row&#39;s "
        "batch. FVE is the pooled form, 1 &minus; &Sigma;|x &minus; x&#770;|&sup2; / "
        "&Sigma;|x &minus; m|&sup2; with m the mean of all rows.</dd>\n"
        "<dt>Dead</dt><dd>A latent that fires in none of the rows looked at.</dd>\n"
        "</dl>\n</section>\n",
        out);
}

static int report_write(FILE *out, const struct report *report)
{
    report_head(out, report);
    fputs("<header>\n", out);
    report_heading(out, report);
    report_contents(out, report);
    fputs("</header>\n<main>\n", out);
    report_summary(out, report);
    int status = report_figures(out, report);
    report_curves(out, report);
    if (status == 0)
        status = report_latents(out, report);
    report_terms(out, report);
    fputs("</main>\n<footer>Made by <code>ccanalyze report</code> of ccpipe " OPT_VERSION ". "
          "Numbers are rounded for reading; their &lt;data&gt; elements hold nine "
          "digits.</footer>\n</body>\n</html>\n",
          out);
    return status;
}

int report_page(const struct report *report, char **text, size_t *size)
{
    *text = NULL;
    FILE *out = open_memstream(text, size);
    if (out == NULL)
        return mem_fail("the page", 1, 1);
    int status = report_write(out, report);
    bool failed = ferror(out) != 0;
    if ((fclose(out) != 0 || failed) && status == 0)
        status = mem_fail("the page", *size, 1);
    if (status != 0) {
        free(*text);
        *text = NULL;
    }
    return status;
}
