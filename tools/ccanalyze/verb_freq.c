/* verb_freq.c - `ccanalyze freq`: how often each latent fires, and how strongly. */
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "norms.h"
#include "scan.h"
#include "stats.h"
#include "verb.h"

struct freq_options {
    struct opt_common common;
    struct table_form form;
    struct verb_compute compute;
    const char *groups;
};

#define S struct freq_options
static const struct opt freq_table[] = {
    OPT_STRING("groups", 0, S, groups, "FILE", NULL, OPT_NOT_BUILT,
               "figures per group of tokens as well"),
    VERB_COMPUTE_OPTIONS(S),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool freq_tool = {
    .name = "ccanalyze freq",
    .section = "ccanalyze",
    .summary = "firing count, frequency, mean and maximum activation of each latent",
    .synopsis = "ccanalyze freq CC [ROWS...]",
    .details =
        "CC is a run folder (its newest step), a step folder or a safetensors file; ROWS is a "
        "stream of activations, else standard input. count is the number of rows in which the "
        "latent is not 0, mean is over these rows, max_scaled is max times the sum of the latent's "
        "decoder norms, and dead is 1 for a latent that never fires in the rows given.",
    .examples =
        "  ccanalyze freq run acts.lz4 -o freq.tsv\n"
        "  ccanalyze freq run acts.lz4 --json | jq '[.latents[] | select(.dead == 1)] | length'",
    .options = freq_table,
};

static int freq_print(struct table *table, const struct stats *stats, const struct norms *norms)
{
    int status = 0;
    for (size_t j = 0; status == 0 && j < stats->latents; j++) {
        double max = stats->rows > 0 ? (double)stats->max[j] : (double)NAN;
        table_count(table, j);
        table_count(table, stats->count[j]);
        table_real(table, stats_frequency(stats, j));
        table_real(table, stats_mean(stats, j));
        table_real(table, max);
        table_real(table, max * norms->code_weight[j]);
        table_count(table, stats->count[j] == 0);
        status = table_row(table);
    }
    return status != 0 ? status
                       : table_end(table, json_pack("{s:I}", "rows", (json_int_t)stats->rows));
}

static int freq_scan(const struct scan_setup *setup, struct stats *stats)
{
    struct scan *scan = NULL;
    struct scan_block block;
    int status = scan_open(&scan, setup);
    if (status == 0)
        while ((status = scan_next(scan, &block)) == 1)
            stats_add(stats, &block);
    int closed = scan_close(scan);
    return status != 0 ? status : closed;
}

static int freq_measure(const struct freq_options *options, const struct crosscoder *cc)
{
    static const char *const columns[] = {"index", "count",      "frequency", "mean",
                                          "max",   "max_scaled", "dead"};
    struct norms norms = {0};
    struct stats stats = {0};
    struct table *table = NULL;
    struct scan_setup setup = verb_scan_setup(cc, &options->common, &options->compute);
    if (options->common.plan)
        return verb_plan_scan(&setup, stats_bytes(cc->latents) + norms_bytes(cc));
    int status = norms_compute(&norms, cc, NULL);
    if (status == 0)
        status = stats_init(&stats, norms.latents);
    if (status == 0)
        status = table_open(&table, &options->form, "latents", columns,
                            sizeof columns / sizeof *columns);
    if (status == 0)
        status = freq_scan(&setup, &stats);
    if (status == 0)
        status = freq_print(table, &stats, &norms);
    table_free(table);
    stats_free(&stats);
    norms_free(&norms);
    return status;
}

static int freq_run(const void *values)
{
    const struct freq_options *options = values;
    struct crosscoder cc = {0};
    int status = verb_read(&cc, &options->common, true, !options->common.plan);
    if (status == 0)
        status = freq_measure(options, &cc);
    crosscoder_free(&cc);
    return status;
}

const struct verb verb_freq = {&freq_tool, sizeof(struct freq_options), freq_run};
