/* verb_eval.c - `ccanalyze eval`: how well a crosscoder reconstructs rows that it may not have
 * seen. */
#include <math.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "evaluate.h"
#include "verb.h"

struct eval_options {
    struct opt_common common;
    struct table_form form;
    struct verb_compute compute;
    uint64_t batch;
    double l1;
    bool topk;
};

#define S struct eval_options
static const struct opt eval_table[] = {
    OPT_COUNT("batch", 0, S, batch, "N", 1, 1e6, "4096", 0,
              "rows over whose mean the explained variance is taken"),
    OPT_REAL("l1", 0, S, l1, "X", 0, 1e30, NULL, 0,
             "weight of the L1 term in the loss; default: as in training"),
    OPT_FLAG("topk", 0, S, topk, OPT_NOT_BUILT, "choose the active latents by batch"),
    VERB_COMPUTE_OPTIONS(S),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool eval_tool = {
    .name = "ccanalyze eval",
    .section = "ccanalyze",
    .summary = "loss, L2, L1, L0 and explained variance, in all and per source",
    .synopsis = "ccanalyze eval CC [ROWS...]",
    .details =
        "CC is a run folder (its newest step), a step folder or a safetensors file; ROWS is a "
        "stream of activations, else standard input. explained_variance is the mean over rows of "
        "1 - |x - x'|^2 / |x - m|^2, m the mean of the row's batch (a short last batch has its "
        "own; a row that equals it is left out); fve is 1 - sum |x - x'|^2 / sum |x - m|^2 with m "
        "the mean of all rows; fve_centered is taken batch by batch with the mean of the error "
        "removed. l1 is without its weight. l1 and loss of a source are its part of the whole; l0, "
        "the number of active latents, belongs to all sources together. What does not exist is an "
        "empty field, in JSON null.",
    .examples = "  ccanalyze eval run validation.lz4\n"
                "  actgen ... | ccanalyze eval run --json",
    .options = eval_table,
};

static json_t *eval_json(const struct evaluate_figures *figures, const char *source, uint64_t rows)
{
    return json_pack(
        "{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "source", source, "rows", (json_int_t)rows,
        "loss", table_json_real(figures->loss), "l2", table_json_real(figures->l2), "l1",
        table_json_real(figures->l1), "l0", table_json_real(figures->l0), "explained_variance",
        table_json_real(figures->explained_variance), "fve", table_json_real(figures->fve),
        "fve_centered", table_json_real(figures->fve_centered));
}

/* {"rows":…, "batch":…, "l1_coeff":…, "all":{…}, "sources":[{…}, …]}; NULL where memory is short.
 */
static json_t *eval_whole_json(const struct eval_options *options, const struct crosscoder *cc,
                               const struct evaluate_figures *figures, uint64_t rows, double lambda)
{
    json_t *sources = json_array();
    int failed = 0;
    for (size_t s = 0; s < cc->source_count; s++)
        failed |=
            json_array_append_new(sources, eval_json(&figures[s], cc->sources[s].name, rows)) != 0;
    json_t *whole =
        json_pack("{s:I, s:I, s:o, s:o, s:o}", "rows", (json_int_t)rows, "batch",
                  (json_int_t)options->batch, "l1_coeff", table_json_real(lambda), "all",
                  eval_json(&figures[cc->source_count], "all", rows), "sources", sources);
    if (failed == 0)
        return whole;
    json_decref(whole);
    return NULL;
}

static int eval_print_row(struct table *table, const struct evaluate_figures *figures,
                          const char *source, uint64_t rows)
{
    table_text(table, source);
    table_count(table, rows);
    table_real(table, figures->loss);
    table_real(table, figures->l2);
    table_real(table, figures->l1);
    table_real(table, figures->l0);
    table_real(table, figures->explained_variance);
    table_real(table, figures->fve);
    table_real(table, figures->fve_centered);
    return table_row(table);
}

static int eval_print(struct table *table, const struct crosscoder *cc,
                      const struct evaluate_figures *figures, uint64_t rows)
{
    int status = eval_print_row(table, &figures[cc->source_count], "all", rows);
    for (size_t s = 0; status == 0 && s < cc->source_count; s++)
        status = eval_print_row(table, &figures[s], cc->sources[s].name, rows);
    return status != 0 ? status : table_end(table, NULL);
}

static int eval_scan(const struct scan_setup *setup, struct evaluate *evaluate)
{
    struct scan *scan = NULL;
    struct scan_block block;
    int status = scan_open(&scan, setup);
    if (status == 0)
        while ((status = scan_next(scan, &block)) == 1)
            evaluate_add(evaluate, &block);
    int closed = scan_close(scan);
    return status != 0 ? status : closed;
}

static int eval_finish(const struct eval_options *options, struct table *table,
                       const struct crosscoder *cc, struct evaluate *evaluate, double lambda)
{
    struct evaluate_figures *figures = mem_alloc_zero(cc->source_count + 1, sizeof *figures);
    if (figures == NULL)
        return mem_fail("figures", cc->source_count + 1, sizeof *figures);
    uint64_t rows = evaluate_finish(evaluate, figures);
    int status = options->form.json
                     ? table_end(table, eval_whole_json(options, cc, figures, rows, lambda))
                     : eval_print(table, cc, figures, rows);
    free(figures);
    return status;
}

static int eval_measure(const struct eval_options *options, const struct crosscoder *cc)
{
    static const char *const columns[] = {
        "source", "rows", "loss", "l2", "l1", "l0", "explained_variance", "fve", "fve_centered"};
    struct norms norms = {0};
    struct evaluate *evaluate = NULL;
    struct table *table = NULL;
    bool given = opt_given(&options->common, "l1");
    double lambda = given ? options->l1 : evaluate_lambda(cc);
    struct scan_setup setup = verb_scan_setup(cc, &options->common, &options->compute);
    setup.decode = true;
    if (options->common.plan)
        return verb_plan_scan(&setup, evaluate_bytes(cc, options->batch) + norms_bytes(cc));
    if (isnan(lambda))
        log_warning("'%s' does not say its L1 weight: no loss; give it with --l1", cc->path);
    int status = norms_compute(&norms, cc, NULL);
    if (status == 0)
        status = evaluate_open(&evaluate, cc, &norms, options->batch, lambda);
    if (status == 0)
        status =
            table_open(&table, &options->form, NULL, columns, sizeof columns / sizeof *columns);
    if (status == 0)
        status = eval_scan(&setup, evaluate);
    if (status == 0)
        status = eval_finish(options, table, cc, evaluate, lambda);
    table_free(table);
    evaluate_free(evaluate);
    norms_free(&norms);
    return status;
}

static int eval_run(const void *values)
{
    const struct eval_options *options = values;
    struct crosscoder cc = {0};
    int status = verb_read(&cc, &options->common, true, !options->common.plan);
    if (status == 0)
        status = eval_measure(options, &cc);
    crosscoder_free(&cc);
    return status;
}

const struct verb verb_eval = {&eval_tool, sizeof(struct eval_options), eval_run};
