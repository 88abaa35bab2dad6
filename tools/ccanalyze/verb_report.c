/* verb_report.c - `ccanalyze report`: one self-contained page about a crosscoder.
 *
 * The page is made in memory as a whole, and only then is the output opened: a report that fails,
 * for whatever reason, leaves what was there before. If writing itself fails, a file is cut to
 * nothing rather than left as half a page. That the place can be written to is looked at before
 * the rows are read, since that may take hours.
 */
#define _XOPEN_SOURCE 700 /* dirname() */
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io.h"
#include "common/log.h"
#include "common/mem.h"
#include "report.h"
#include "verb.h"

struct report_options {
    struct opt_common common; /* its metrics are read here, not written */
    struct verb_compute compute;
    const char *output, *model, *pair;
    uint64_t per_side, examples, context, batch;
};

#define S struct report_options
static const struct opt report_table[] = {
    OPT_STRING("output", 'o', S, output, "FILE", NULL, OPT_WRITES,
               "write to FILE, not standard output"),
    OPT_STRING("model", 0, S, model, "DIR", NULL, 0,
               "model folder whose tokenizer.json turns ids into text"),
    OPT_STRING("pair", 0, S, pair, "A,B", NULL, 0,
               "the sources to compare, by name or number; default: both, if there are two"),
    OPT_COUNT("per-side", 0, S, per_side, "N", 1, 100, "10", 0,
              "latents to look at one by one, on each side"),
    OPT_COUNT("n", 'n', S, examples, "N", 0, 50, "10", 0,
              "contexts for each of them; 0: none, and rows may come in any order"),
    OPT_COUNT("context", 0, S, context, "N", 0, 100, "16", 0, "tokens before, and after"),
    OPT_COUNT("batch", 0, S, batch, "N", 1, 1e6, "4096", 0,
              "rows over whose mean the explained variance is taken"),
    VERB_COMPUTE_OPTIONS(S),
    OPT_COMMON_METRICS(S, 0, "the run's metrics; default: metrics.jsonl in the run folder"),
    OPT_END,
};
#undef S

static const struct opt_tool report_tool = {
    .name = "ccanalyze report",
    .section = "ccanalyze",
    .summary = "one self-contained page: the run, its figures, and latents with contexts",
    .synopsis = "ccanalyze report CC [ROWS...]",
    .details =
        "CC is a run folder (its newest step), a step folder or a safetensors file; ROWS is a "
        "stream of activations in sequence order, '-' standard input. Without ROWS the page shows "
        "what the weights and the training say; with them also how well rows are rebuilt, how "
        "often latents fire, and the contexts that the most model-specific latents answer to "
        "most. The page needs no network and no scripts, and follows the reader's light or dark "
        "scheme.",
    .examples = "  ccanalyze report run -o report.html\n"
                "  ccanalyze report run validation.lz4 --model models/chat -o report.html",
    .options = report_table,
};

/* ---- the output */

/* ERR_USAGE for a terminal, and for a file that cannot be written. */
static int report_check_output(const char *path)
{
    if (path == NULL || strcmp(path, "-") == 0)
        return isatty(STDOUT_FILENO) ? log_fail(ERR_USAGE, "a page is not for a terminal; give "
                                                           "-o FILE or redirect standard output")
                                     : 0;
    char *copy = strdup(path);
    if (copy == NULL)
        return mem_fail("a path", strlen(path), 1);
    bool there = access(path, F_OK) == 0;
    const char *place = there ? path : dirname(copy);
    int status = access(place, there ? W_OK : W_OK | X_OK) == 0
                     ? 0
                     : log_fail_errno("cannot write '%s': '%s'", path, place);
    free(copy);
    return status;
}

static int report_save(const char *path, const char *text, size_t size)
{
    struct io_file file = IO_FILE_CLOSED;
    int status = io_open_output(&file, path, true);
    if (status != 0)
        return status;
    status = io_write(&file, text, size);
    if (status != 0 && file.regular && file.owned && ftruncate(file.fd, 0) != 0)
        log_warning("'%s' holds part of a page", path);
    int closed = io_close(&file);
    return status != 0 ? status : closed;
}

/* ---- the run's metrics */

/* metrics.jsonl beside the step folder that the weights lie in, where there is one. */
static int report_find_history(struct history *history, const char *weights)
{
    char *copy = strdup(weights);
    if (copy == NULL)
        return mem_fail("a path", strlen(weights), 1);
    const char *step = dirname(copy), *slash = strrchr(step, '/');
    char *path = io_join(step, "../metrics.jsonl");
    int status = path == NULL ? mem_fail("a path", strlen(step), 1) : 0;
    if (status == 0 && strncmp(slash == NULL ? step : slash + 1, "step-", 5) == 0 &&
        access(path, F_OK) == 0)
        status = history_read(history, path);
    free(path);
    free(copy);
    return status;
}

static int report_read_history(struct history *history, const struct report_options *options,
                               const struct crosscoder *cc)
{
    if (options->common.metrics == NULL)
        return report_find_history(history, cc->path);
    int status = history_read(history, options->common.metrics);
    if (status == 0 && history->rows == 0)
        status = log_fail(ERR_DATA, "'%s' has no line with a step", options->common.metrics);
    return status;
}

/* ---- running */

static int report_make(struct report *report, const struct report_options *options)
{
    struct report_pass pass = {.examples = (size_t)options->examples,
                               .context = (size_t)options->context,
                               .batch = options->batch,
                               .model = options->model};
    struct scan_setup setup = verb_scan_setup(report->cc, &options->common, &options->compute);
    setup.decode = true;
    setup.metrics = NULL;
    int status = report_choose(report);
    if (status == 0 && setup.path_count > 0)
        status = report_read_rows(report, &setup, &pass);
    char *text = NULL;
    size_t size;
    if (status == 0)
        status = report_page(report, &text, &size);
    if (status == 0)
        status = report_save(options->output, text, size);
    free(text);
    return status;
}

static int report_of(const struct report_options *options, const struct crosscoder *cc)
{
    struct norms norms = {0};
    struct history history = {0};
    struct tokenizer *tokenizer = NULL;
    int status = norms_compute(&norms, cc, options->pair);
    if (status == 0)
        status = report_read_history(&history, options, cc);
    if (status == 0)
        status = verb_open_tokenizer(&tokenizer, options->model);
    if (status == 0) {
        struct report report = {.cc = cc,
                                .norms = &norms,
                                .history = &history,
                                .tokenizer = tokenizer,
                                .most = (size_t)options->per_side};
        status = report_make(&report, options);
        report_free(&report);
    }
    tokenizer_free(tokenizer);
    history_free(&history);
    norms_free(&norms);
    return status;
}

static int report_plan(const struct report_options *options, const struct crosscoder *cc)
{
    struct scan_setup setup = verb_scan_setup(cc, &options->common, &options->compute);
    struct report_pass pass = {.examples = (size_t)options->examples,
                               .context = (size_t)options->context,
                               .batch = options->batch};
    if (setup.path_count == 0)
        return verb_plan(cc, norms_bytes(cc));
    setup.decode = true;
    return verb_plan_scan(&setup,
                          norms_bytes(cc) + report_pass_bytes(cc, options->per_side, &pass));
}

static int report_run(const void *values)
{
    const struct report_options *options = values;
    struct crosscoder cc = {0};
    bool plan = options->common.plan;
    int status = plan ? 0 : report_check_output(options->output);
    if (status == 0)
        status = verb_read(&cc, &options->common, options->common.operand_count > 1, !plan);
    if (status == 0)
        status = plan ? report_plan(options, &cc) : report_of(options, &cc);
    crosscoder_free(&cc);
    return status;
}

const struct verb verb_report = {&report_tool, sizeof(struct report_options), report_run};
