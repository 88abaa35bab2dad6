/* test_report.c - which latents a report looks at, and how large its page becomes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/mem.h"
#include "tools/ccanalyze/report.h"
#include "tools/ccanalyze/verb.h"

static void chosen_are(const struct report *report, size_t group, const uint64_t *expected,
                       size_t count)
{
    const struct report_group *at = &report->groups[group];
    assert_int_equal(at->count, count);
    assert_memory_equal(report->chosen + at->first, expected, count * sizeof *expected);
}

/* 0.7 and 0.3 themselves, NaN and the shared ones belong to no side; of equals the lower number
 * comes first. */
static void sides_are_ranked_by_relative_norm(void **state)
{
    (void)state;
    double relative[] = {0.5, 0.95, 0.05, 1, 0.7, 0.3, NAN, 0.95, 0.29, 0.71};
    struct norms norms = {
        .source_count = 2, .latents = 10, .paired = true, .a = 0, .b = 1, .relative = relative};
    struct report report = {.norms = &norms, .most = 2};
    assert_int_equal(report_choose(&report), 0);
    assert_int_equal(report.group_count, 2);
    assert_int_equal(report.groups[0].source, 1);
    assert_int_equal(report.groups[1].source, 0);
    chosen_are(&report, 0, (uint64_t[]){3, 1, 7, 9}, 4);
    chosen_are(&report, 1, (uint64_t[]){2, 8}, 2);
    report_free(&report);
}

/* As many are shown as were asked for, of those that fire; without rows the first ones. */
static void silent_latents_are_not_shown(void **state)
{
    (void)state;
    double relative[12];
    uint64_t *counts = mem_alloc_zero(12, sizeof *counts);
    size_t shown[2];
    assert_non_null(counts);
    for (size_t j = 0; j < 12; j++) {
        relative[j] = 1 - 0.01 * (double)j;
        counts[j] = j % 3 == 2;
    }
    struct norms norms = {
        .source_count = 2, .latents = 12, .paired = true, .a = 0, .b = 1, .relative = relative};
    struct report report = {.norms = &norms, .most = 2, .stats = {.count = counts}};
    assert_int_equal(report_choose(&report), 0);
    chosen_are(&report, 0, (uint64_t[]){0, 1, 2, 3, 4, 5, 6, 7}, 8); /* four times as many */
    assert_int_equal(report_shown(&report, &report.groups[0], shown), 2);
    assert_true(shown[0] == 0 && shown[1] == 1);
    report.has_rows = true;
    assert_int_equal(report_shown(&report, &report.groups[0], shown), 2);
    assert_true(shown[0] == 2 && shown[1] == 5);
    assert_int_equal(report_shown(&report, &report.groups[1], shown), 0);
    report_free(&report);
}

static void three_sources_are_ranked_by_delta(void **state)
{
    (void)state;
    double delta[] = {0.9, 0.2, 0.1, 0.5, 0.5, 0.5, 0.6, 0.1, 0.2, 0.1, 0.1, NAN};
    struct norms norms = {.source_count = 3, .latents = 4, .delta = delta};
    struct report report = {.norms = &norms, .most = 1};
    assert_int_equal(report_choose(&report), 0);
    assert_int_equal(report.group_count, 3);
    chosen_are(&report, 0, (uint64_t[]){0, 2}, 2);
    chosen_are(&report, 1, NULL, 0);
    chosen_are(&report, 2, NULL, 0);
    report_free(&report);
}

static void one_source_is_ranked_by_its_decoders(void **state)
{
    (void)state;
    double weight[] = {1, 3, 0, 2};
    struct norms norms = {.source_count = 1, .latents = 4, .code_weight = weight};
    struct report report = {.norms = &norms, .most = 5};
    assert_int_equal(report_choose(&report), 0);
    chosen_are(&report, 0, (uint64_t[]){1, 3, 0}, 3);
    assert_int_equal(report.groups[0].source, 1); /* nobody's */
    report_free(&report);
}

static void pieces_of_another_tokenizer_are_refused(void **state)
{
    (void)state;
    static const char text[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1}}}";
    struct tokenizer *tokenizer;
    struct begin begin;
    char hash[33];
    assert_int_equal(tokenizer_parse(&tokenizer, text, strlen(text), "test"), 0);
    tokenizer_hash(tokenizer, hash);
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    assert_int_equal(verb_check_tokenizer(tokenizer, &begin, "x"), 0); /* the rows do not say */
    free(begin.tokenizer_hash);
    begin.tokenizer_hash = strdup(hash);
    assert_int_equal(verb_check_tokenizer(tokenizer, &begin, "x"), 0);
    begin.tokenizer_hash[31] ^= 1;
    log_init("test", LOG_SILENT);
    assert_int_equal(verb_check_tokenizer(tokenizer, &begin, "x"), ERR_USAGE);
    assert_int_equal(verb_check_tokenizer(NULL, &begin, "x"), 0);
    begin_free(&begin);
    tokenizer_free(tokenizer);
}

/* ---- the page of a large crosscoder, with all that a run and rows can give */

enum { LATENTS = 16384, WIDTH = 2, STEPS = 20000 };

static void fill(struct crosscoder *cc)
{
    for (size_t j = 0; j < LATENTS; j++) {
        float share = (float)((j * 7919) % LATENTS) / LATENTS;
        cc->w_dec[4 * j] = 1 - share;
        cc->w_dec[4 * j + 2] = share;
        cc->w_dec[4 * j + 3] = share * (float)(j % 5) / 5;
    }
}

/* A history by way of its text, eight figures in each of many steps. */
static void make_history(struct history *history)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (int i = 0; i < STEPS; i++)
        fprintf(out,
                "{\"step\":%d,\"loss\":%d,\"l2_loss\":%d,\"l1_loss\":%d,\"l0_loss\":9,\"lr\":1e-4,"
                "\"grad_norm\":%d,\"dead_fraction\":0.1,\"explained_variance\":0.5}\n",
                i, STEPS + i % 77, 1 + i % 55, 1 + i, 1 + i % 13);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(history_parse(history, text, size, "test"), 0);
    free(text);
}

static void a_large_page_stays_small(void **state)
{
    (void)state;
    const struct crosscoder_source sources[] = {{(char[]){"a"}, WIDTH, 1},
                                                {(char[]){"b"}, WIDTH, 1}};
    struct crosscoder cc = {0};
    struct norms norms = {0};
    struct history history;
    assert_int_equal(crosscoder_init(&cc, sources, 2, LATENTS), 0);
    cc.path = strdup("cc.safetensors");
    fill(&cc);
    assert_int_equal(norms_compute(&norms, &cc, NULL), 0);
    make_history(&history);
    struct report report = {
        .cc = &cc, .norms = &norms, .history = &history, .most = 200, .rows = 1000};
    assert_int_equal(report_choose(&report), 0);
    report.figures = mem_alloc_zero(3, sizeof *report.figures);
    report.spreads = mem_alloc_zero(report.chosen_count, sizeof *report.spreads);
    assert_int_equal(stats_init(&report.stats, LATENTS), 0);
    assert_true(report.figures != NULL && report.spreads != NULL);
    report.stats.rows = 1000;
    report.has_rows = true;
    for (size_t j = 0; j < LATENTS; j++)
        report.stats.count[j] = j % 1000;
    for (size_t k = 0; k < report.chosen_count; k++)
        for (int i = 1; i <= 50; i++)
            spread_add(&report.spreads[k], (float)i);
    char *text;
    size_t size;
    assert_int_equal(report_page(&report, &text, &size), 0);
    assert_int_equal(strlen(text), size);
    assert_true(size > 100000 && size < 5000000); /* 400 cards are 20 times the usual */
    assert_non_null(strstr(text, "class=\"cell "));
    assert_null(strstr(text, "nan"));
    assert_string_equal(text + size - strlen("</html>\n"), "</html>\n");
    free(text);
    report_free(&report);
    history_free(&history);
    norms_free(&norms);
    crosscoder_free(&cc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_are_ranked_by_relative_norm),
        cmocka_unit_test(silent_latents_are_not_shown),
        cmocka_unit_test(three_sources_are_ranked_by_delta),
        cmocka_unit_test(one_source_is_ranked_by_its_decoders),
        cmocka_unit_test(pieces_of_another_tokenizer_are_refused),
        cmocka_unit_test(a_large_page_stays_small),
    };
    log_init("test", LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
