/* verb_cosine.c - `ccanalyze cosine`: do the two decoders of a shared latent point the same way? */
#include "norms.h"
#include "svg.h"
#include "verb.h"

struct cosine_options {
    struct opt_common common;
    struct table_form form;
    const char *pair, *svg;
};

#define S struct cosine_options
static const struct opt cosine_table[] = {
    OPT_STRING("pair", 0, S, pair, "A,B", NULL, 0,
               "the two sources to compare, by name or number; default: both, if there are two"),
    OPT_STRING("svg", 0, S, svg, "FILE", NULL, OPT_WRITES, "draw the histogram"),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool cosine_tool = {
    .name = "ccanalyze cosine",
    .section = "ccanalyze",
    .summary = "cosine between the two decoders of each shared latent",
    .synopsis = "ccanalyze cosine CC",
    .details =
        "Shared are the latents whose relative norm lies between 0.3 and 0.7, bounds left out. "
        "Between sources of different widths there is no cosine, and the fields are empty. norms "
        "has the cosine of every latent.",
    .examples = "  ccanalyze cosine run --svg cosines.svg -o cosines.tsv",
    .options = cosine_table,
};

enum { COSINE_BINS = 100 };

static int cosine_draw(const char *path, const struct norms *norms)
{
    static const struct svg_tick ticks[] = {
        {-1, "\u22121"}, {-0.5, "\u22120.5"}, {0, "0"}, {0.5, "0.5"}, {1, "1"}};
    uint64_t counts[COSINE_BINS] = {0};
    for (size_t j = 0; j < norms->latents; j++)
        if (norms_class_by_relative(norms->relative[j]) == NORMS_SHARED)
            svg_count(counts, COSINE_BINS, -1, 1, norms->decoder_cosine[j]);
    struct svg_histogram figure = {
        .x_label = "Cosine of the Decoders of Shared Latents",
        .y_label = "Number of Latents (log scale)",
        .min = -1,
        .max = 1,
        .counts = counts,
        .bins = COSINE_BINS,
        .ticks = ticks,
        .tick_count = sizeof ticks / sizeof *ticks,
        .log_y = true,
    };
    return svg_histogram_file(path, &figure);
}

static int cosine_print(const struct table_form *form, const struct norms *norms)
{
    static const char *const columns[] = {"index", "cosine"};
    struct table *table = NULL;
    int status = table_open(&table, form, "latents", columns, 2);
    for (size_t j = 0; status == 0 && j < norms->latents; j++) {
        if (norms_class_by_relative(norms->relative[j]) != NORMS_SHARED)
            continue;
        table_count(table, j);
        table_real(table, norms->decoder_cosine[j]);
        status = table_row(table);
    }
    if (status == 0)
        status = table_end(table, NULL);
    table_free(table);
    return status;
}

static int cosine_work(const void *values, const struct norms *norms)
{
    const struct cosine_options *options = values;
    int status = norms_require_pair(norms, "cosine");
    if (status == 0 && options->svg != NULL)
        status = cosine_draw(options->svg, norms);
    return status != 0 ? status : cosine_print(&options->form, norms);
}

static int cosine_run(const void *values)
{
    const struct cosine_options *options = values;
    return verb_run_norms(options, options->pair, cosine_work);
}

const struct verb verb_cosine = {&cosine_tool, sizeof(struct cosine_options), cosine_run};
