/* report_pass.c - one pass over the rows, from which everything takes what it needs. */
#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "report.h"
#include "verb.h"

static struct top_setup report_top(const struct report_pass *pass, const uint64_t *chosen,
                                   size_t count, size_t latents)
{
    return (struct top_setup){.latents = chosen,
                              .latent_count = count,
                              .all_latents = latents,
                              .n = pass->examples,
                              .context = pass->context};
}

uint64_t report_pass_bytes(const struct crosscoder *cc, size_t most, const struct report_pass *pass)
{
    size_t chosen = report_most_chosen(cc->source_count, most);
    struct top_setup top = report_top(pass, NULL, chosen, (size_t)cc->latents);
    return top_bytes(&top) + evaluate_bytes(cc, pass->batch) + chosen * sizeof(struct spread) +
           stats_bytes(cc->latents);
}

/* Of the chosen latents alone: a row has some hundred of them to look at, not all F. */
static void report_add_spreads(struct report *report, const struct scan_block *block)
{
    for (size_t i = 0; i < block->rows; i++) {
        const float *f = block->f + i * report->norms->latents;
        for (size_t k = 0; k < report->chosen_count; k++)
            if (f[report->chosen[k]] > 0)
                spread_add(&report->spreads[k], f[report->chosen[k]]);
    }
}

/* What can be refused is refused before the first row is computed. */
static int report_scan(struct report *report, const struct scan_setup *setup, const char *model,
                       struct evaluate *evaluate)
{
    struct scan *scan = NULL;
    struct scan_block block;
    int status = scan_open(&scan, setup);
    if (status == 0 && report->top != NULL)
        status = top_check_begin(scan_begin(scan));
    if (status == 0)
        status = verb_check_tokenizer(report->tokenizer, scan_begin(scan), model);
    if (status == 0)
        while ((status = scan_next(scan, &block)) == 1) {
            stats_add(&report->stats, &block);
            evaluate_add(evaluate, &block);
            report_add_spreads(report, &block);
            if (report->top != NULL && (status = top_add(report->top, &block)) != 0)
                break;
        }
    int closed = scan_close(scan);
    if (status == 0 && report->top != NULL)
        status = top_finish(report->top);
    return status != 0 ? status : closed;
}

int report_read_rows(struct report *report, const struct scan_setup *setup,
                     const struct report_pass *pass)
{
    struct evaluate *evaluate = NULL;
    struct top_setup top =
        report_top(pass, report->chosen, report->chosen_count, report->norms->latents);
    size_t figures = report->norms->source_count + 1;
    report->figures = mem_alloc_zero(figures, sizeof *report->figures);
    report->spreads = mem_alloc_zero(report->chosen_count, sizeof *report->spreads);
    if (report->figures == NULL || report->spreads == NULL)
        return mem_fail("figures", report->chosen_count, sizeof *report->spreads);
    int status = stats_init(&report->stats, report->norms->latents);
    if (status == 0 && pass->examples > 0)
        status = top_open(&report->top, &top);
    if (status == 0)
        status = evaluate_open(&evaluate, report->cc, report->norms, pass->batch,
                               evaluate_lambda(report->cc));
    if (status == 0)
        status = report_scan(report, setup, pass->model, evaluate);
    if (status == 0) {
        report->rows = evaluate_finish(evaluate, report->figures);
        report->batch = pass->batch;
        report->has_rows = true;
    }
    evaluate_free(evaluate);
    return status;
}

void report_free(struct report *report)
{
    free(report->chosen);
    free(report->groups);
    free(report->figures);
    free(report->spreads);
    top_free(report->top);
    stats_free(&report->stats);
}
