/* verb_norms.c - `ccanalyze norms`: a line per latent, from the weights alone. */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "norms.h"
#include "verb.h"

struct norms_options {
    struct opt_common common;
    struct table_form form;
    const char *pair;
};

#define S struct norms_options
static const struct opt norms_table[] = {
    OPT_STRING("pair", 0, S, pair, "A,B", NULL, 0,
               "the two sources to compare, by name or number; default: both, if there are two"),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool norms_tool = {
    .name = "ccanalyze norms",
    .section = "ccanalyze",
    .summary = "decoder and encoder norms, relative norm, delta and cosines of each latent",
    .synopsis = "ccanalyze norms CC",
    .details =
        "CC is a run folder (its newest step), a step folder or a safetensors file. With two "
        "sources A and B and decoder norms nA and nB the relative norm is nB / (nA + nB), and "
        "delta is ((nB - nA) / max(nA, nB) + 1) / 2: both are 0 for a latent of A alone and 1 for "
        "one of B alone. With more sources there is a norm and a delta for each, and --pair "
        "compares two. What does not exist (the relative norm of a latent without a decoder) is an "
        "empty field.",
    .examples = "  ccanalyze norms run | sort -t$'\\t' -k4 -g | tail    # the most chat-specific\n"
                "  ccanalyze norms run --json -o norms.json",
    .options = norms_table,
};

/* The names of the columns, to be freed one by one. */
struct norms_columns {
    char **names;
    size_t count;
};

static bool norms_add_column(struct norms_columns *columns, const char *stem, const char *label)
{
    size_t size = strlen(stem) + strlen(label) + 1;
    char *name = mem_alloc(size, 1);
    columns->names[columns->count] = name;
    if (name == NULL)
        return false;
    snprintf(name, size, "%s%s", stem, label);
    columns->count++;
    return true;
}

static int norms_make_columns(struct norms_columns *columns, const struct norms *norms)
{
    size_t sources = norms->source_count;
    columns->names = mem_alloc_zero(6 + 3 * sources, sizeof *columns->names);
    bool made = columns->names != NULL && norms_add_column(columns, "index", "");
    for (size_t s = 0; made && s < sources; s++)
        made = norms_add_column(columns, "norm_", norms->labels[s]);
    if (made && norms->paired)
        made = norms_add_column(columns, "relative_norm", "") &&
               norms_add_column(columns, "delta", "") &&
               norms_add_column(columns, "dec_cosine", "");
    for (size_t s = 0; made && sources > 2 && s < sources; s++)
        made = norms_add_column(columns, "delta_", norms->labels[s]);
    for (size_t s = 0; made && s < sources; s++)
        made = norms_add_column(columns, "enc_norm_", norms->labels[s]);
    if (made && norms->paired)
        made = norms_add_column(columns, "enc_cosine", "");
    return made ? 0 : mem_fail("columns", sources, sizeof *columns->names);
}

static int norms_print_latent(struct table *table, const struct norms *norms, size_t j)
{
    size_t sources = norms->source_count;
    table_count(table, j);
    for (size_t s = 0; s < sources; s++)
        table_real(table, norms->decoder[j * sources + s]);
    if (norms->paired) {
        table_real(table, norms->relative[j]);
        table_real(table, norms->pair_delta[j]);
        table_real(table, norms->decoder_cosine[j]);
    }
    for (size_t s = 0; sources > 2 && s < sources; s++)
        table_real(table, norms->delta[j * sources + s]);
    for (size_t s = 0; s < sources; s++)
        table_real(table, norms->encoder[j * sources + s]);
    if (norms->paired)
        table_real(table, norms->encoder_cosine[j]);
    return table_row(table);
}

static int norms_print(const struct table_form *form, const struct norms *norms)
{
    struct norms_columns columns = {0};
    struct table *table = NULL;
    int status = norms_make_columns(&columns, norms);
    if (status == 0)
        status =
            table_open(&table, form, "latents", (const char *const *)columns.names, columns.count);
    for (size_t j = 0; status == 0 && j < norms->latents; j++)
        status = norms_print_latent(table, norms, j);
    if (status == 0)
        status = table_end(table, NULL);
    table_free(table);
    for (size_t i = 0; i < columns.count; i++)
        free(columns.names[i]);
    free(columns.names);
    return status;
}

static int norms_work(const void *values, const struct norms *norms)
{
    const struct norms_options *options = values;
    return norms_print(&options->form, norms);
}

static int norms_run(const void *values)
{
    const struct norms_options *options = values;
    return verb_run_norms(options, options->pair, norms_work);
}

const struct verb verb_norms = {&norms_tool, sizeof(struct norms_options), norms_run};
