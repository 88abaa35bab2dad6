/* report_curves.c - the training as small figures, one question each.
 *
 * The panels are a table: a title, a sentence for who has not trained one, and the keys of the
 * metrics. A panel for whose keys there are no values is left out, so that other programs' metrics,
 * and those of runs to come, give the figures that they can. What falls by orders of magnitude has
 * a logarithmic axis.
 */
#include <math.h>
#include <string.h>

#include "curves.h"
#include "html.h"
#include "report.h"

struct report_panel {
    const char *title, *caption;
    bool log_y, from_zero;
    struct {
        const char *key, *label;
    } lines[CURVES_MOST_SERIES]; /* ends with a NULL key */
    bool per_source;             /* and KEY_A, KEY_B ... of the first line's key, for the sources */
    bool relative;               /* each line as a share of its largest value */
};

static const struct report_panel report_panels[] = {
    {.title = "Loss",
     .caption = "What the training minimises, and the part of it that is squared error.",
     .log_y = true,
     .lines = {{"loss", "loss"}, {"l2_loss", "squared error"}}},
    {.title = "Explained variance",
     .caption =
         "How much of what distinguishes rows is rebuilt; 1 would be all. What lies below 0, "
         "at the very beginning, is drawn at 0.",
     .from_zero = true,
     .lines = {{"explained_variance", "all"}},
     .per_source = true},
    {.title = "L0",
     .caption = "Latents active in a row, on average: the fewer, the easier each is to read.",
     .log_y = true,
     .lines = {{"l0_loss", "L0"}}},
    {.title = "L1",
     .caption = "Activations times decoder norms, which the sparsity term presses on.",
     .log_y = true,
     .lines = {{"l1_loss", "L1"}}},
    {.title = "Dead latents",
     .caption =
         "Share of the latents that have been silent over the last rows, at most 10 million.",
     .from_zero = true,
     .lines = {{"dead_fraction", "dead"}}},
    {.title = "Gradient norm",
     .caption = "Length of the gradient before clipping; a calm end says that the run is stable.",
     .log_y = true,
     .lines = {{"grad_norm", "gradient norm"}}},
    {.title = "Schedules",
     .caption = "Learning rate and weight of the sparsity term, each as a share of its largest "
                "value.",
     .from_zero = true,
     .lines = {{"lr", "learning rate"}, {"l1_coeff", "sparsity weight"}},
     .relative = true},
    {.title = "Speed",
     .caption = "Rows trained on in a second, since the start.",
     .from_zero = true,
     .lines = {{"rows_per_s", "rows per second"}}},
};

static double report_largest(const struct history *history, const double *values)
{
    double most = 0;
    for (size_t row = 0; row < history->rows; row++)
        most = isfinite(values[row]) ? fmax(most, values[row]) : most;
    return most;
}

static void report_add_line(struct curves_series *series, size_t *count,
                            const struct report *report, const struct report_panel *panel,
                            const char *key, const char *label)
{
    const double *values = history_find(report->history, key);
    if (values == NULL || *count == CURVES_MOST_SERIES)
        return;
    double most = report_largest(report->history, values);
    series[(*count)++] = (struct curves_series){
        .label = label,
        .values = values,
        .factor = panel->relative && most > 0 ? 1 / most : 1,
    };
}

/* The lines of a panel for which there are values; at most CURVES_MOST_SERIES. */
static size_t report_lines(const struct report *report, const struct report_panel *panel,
                           struct curves_series *series)
{
    const struct norms *norms = report->norms;
    size_t count = 0;
    for (size_t i = 0; i < CURVES_MOST_SERIES && panel->lines[i].key != NULL; i++)
        report_add_line(series, &count, report, panel, panel->lines[i].key, panel->lines[i].label);
    /* Sources are A, B, ... in the metrics; from the 27th on they have none there. */
    for (size_t s = 0;
         panel->per_source && norms->source_count > 1 && s < norms->source_count && s < 26; s++) {
        char key[64];
        snprintf(key, sizeof key, "%s_%c", panel->lines[0].key, (char)('A' + s));
        report_add_line(series, &count, report, panel, key, norms->labels[s]);
    }
    return count;
}

/* "loss 37.7 at the end", with the colour where there are several. */
static void report_line_key(FILE *out, const struct report *report,
                            const struct curves_series *series, size_t i, size_t count)
{
    double last = (double)NAN;
    for (size_t row = report->history->rows; row > 0 && isnan(last); row--)
        last = series[i].values[row - 1];
    if (count > 1)
        fprintf(out, "<span class=\"key c%zu\">", i);
    else
        fputs("<b>", out);
    html_text(out, series[i].label);
    fputs(" ", out);
    html_real(out, last, 3);
    fputs(count > 1 ? "</span>" : "</b>", out);
}

/* Nothing where none of its keys has a value that can be drawn. */
static void report_panel(FILE *out, const struct report *report, const struct report_panel *panel)
{
    struct curves_series series[CURVES_MOST_SERIES];
    size_t count = report_lines(report, panel, series);
    struct curves curves = {
        .steps = report->history->steps,
        .rows = report->history->rows,
        .series = series,
        .series_count = count,
        .y_label = panel->title,
        .log_y = panel->log_y,
        .from_zero = panel->from_zero,
    };
    if (!curves_any(&curves))
        return;
    fputs("<figure>\n", out);
    curves_draw(out, &curves);
    fputs("<figcaption>", out);
    for (size_t i = 0; i < count; i++)
        report_line_key(out, report, series, i, count);
    fprintf(out, "<br>%s</figcaption></figure>\n", panel->caption);
}

void report_curves(FILE *out, const struct report *report)
{
    const struct history *history = report->history;
    if (history->rows == 0)
        return;
    fputs("<section id=\"training\">\n<h2>Training</h2>\n<p>What was measured at ", out);
    html_count(out, history->rows);
    fputs(history->rows == 1 ? " step" : " steps", out);
    fputs(" while the crosscoder was trained. Beside each name stands the value at the end.", out);
    if (history->rows > CURVES_MOST_POINTS)
        fputs(" Steps that lie side by side are joined: the line is their mean, the band reaches "
              "from their smallest to their largest value.",
              out);
    fputs("</p>\n<div class=\"panels\">\n", out);
    for (size_t i = 0; i < sizeof report_panels / sizeof *report_panels; i++)
        report_panel(out, report, &report_panels[i]);
    fputs("</div>\n</section>\n", out);
}
