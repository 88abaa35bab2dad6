/* test_evaluate.c - the sums of eval and freq where f64 is tried: large means, columns that do not
 * vary, blocks cut anywhere, a short last batch. Expected values are two-pass sums in long double.
 *
 * Tolerance. The largest column is 1e4 with a spread of 1. A batch's mean is off by at most rows *
 * 2^-53 * 1e4 < 1e-9, which enters squared; each x - mean is off by 2^-53 * 1e4 = 1e-12.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/rng.h"
#include "tools/ccanalyze/evaluate.h"
#include "tools/ccanalyze/stats.h"

enum { A = 3, B = 4, D = A + B, F = 5, N = 250 };
#define TOLERANCE 1e-11

/* cmocka compares floats. */
static void assert_near(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.17g is not %.17g", value, expected);
}

struct fixture {
    struct crosscoder cc;
    struct norms norms;
    float x[N * D], xhat[N * D], f[N * F];
};

static struct fixture fixture;

static float normal(uint64_t stream, size_t i)
{
    return (float)rng_normal(23, stream, i);
}

static int make_fixture(void **state)
{
    (void)state;
    struct crosscoder_source sources[] = {{(char *)"a.blocks.0.x", A, 1},
                                          {(char *)"b.blocks.0.x", B, 1}};
    if (crosscoder_init(&fixture.cc, sources, 2, F) != 0)
        return -1;
    for (size_t i = 0; i < F * D; i++)
        fixture.cc.w_dec[i] = normal(0, i);
    if (norms_compute(&fixture.norms, &fixture.cc, NULL) != 0)
        return -1;
    for (size_t i = 0; i < N * D; i++) {
        size_t column = i % D;
        float mean = column == 1 ? 1e4f : column == 5 ? -3e3f : 0;
        fixture.x[i] = column == 0 ? 1e3f / 3 : mean + normal(1, i);
        fixture.xhat[i] = fixture.x[i] + normal(2, i) / 4 + 0.25f;
    }
    for (size_t i = 0; i < N * F; i++)
        fixture.f[i] = normal(3, i) > 0.5f && i % F != 2 ? fabsf(normal(4, i)) : 0;
    return 0;
}

static int free_fixture(void **state)
{
    (void)state;
    norms_free(&fixture.norms);
    crosscoder_free(&fixture.cc);
    return 0;
}

/* ---- two passes in long double */

/* Σ of squares of v about its mean, rows first ... end - 1, columns from ... to - 1. */
static long double spread(const float *v, const float *minus, size_t first, size_t end, size_t from,
                          size_t to)
{
    long double sum = 0;
    for (size_t c = from; c < to; c++) {
        long double mean = 0;
        for (size_t i = first; i < end; i++)
            mean += ((long double)v[i * D + c] - (minus == NULL ? 0 : minus[i * D + c])) /
                    (long double)(end - first);
        for (size_t i = first; i < end; i++) {
            long double d =
                (long double)v[i * D + c] - (minus == NULL ? 0 : minus[i * D + c]) - mean;
            sum += d * d;
        }
    }
    return sum;
}

static long double row_spread(size_t row, size_t first, size_t end, size_t from, size_t to)
{
    long double sum = 0;
    for (size_t c = from; c < to; c++) {
        long double mean = 0;
        for (size_t i = first; i < end; i++)
            mean += (long double)fixture.x[i * D + c];
        long double d = (long double)fixture.x[row * D + c] - mean / (long double)(end - first);
        sum += d * d;
    }
    return sum;
}

static long double row_error(size_t row, size_t from, size_t to)
{
    long double sum = 0;
    for (size_t c = from; c < to; c++) {
        long double e = (long double)fixture.x[row * D + c] - fixture.xhat[row * D + c];
        sum += e * e;
    }
    return sum;
}

static struct evaluate_figures expect(size_t from, size_t to, size_t rows, size_t batch)
{
    long double error = 0, explained = 0, centered = 0;
    for (size_t first = 0; first < rows; first += batch) {
        size_t end = first + batch < rows ? first + batch : rows;
        for (size_t i = first; i < end; i++) {
            error += row_error(i, from, to);
            explained += 1 - row_error(i, from, to) / row_spread(i, first, end, from, to);
        }
        centered += (long double)(end - first) *
                    (1 - spread(fixture.x, fixture.xhat, first, end, from, to) /
                             spread(fixture.x, NULL, first, end, from, to));
    }
    return (struct evaluate_figures){
        .l2 = (double)(error / rows),
        .explained_variance = (double)(explained / rows),
        .fve = (double)(1 - error / spread(fixture.x, NULL, 0, rows, from, to)),
        .fve_centered = (double)(centered / rows),
    };
}

/* ---- running */

static void run(struct evaluate_figures figures[3], size_t rows, size_t batch, size_t cut,
                double lambda)
{
    struct evaluate *evaluate;
    assert_int_equal(evaluate_open(&evaluate, &fixture.cc, &fixture.norms, batch, lambda), 0);
    for (size_t at = 0; at < rows; at += cut) {
        struct scan_block block = {.first_row = at,
                                   .rows = at + cut < rows ? cut : rows - at,
                                   .x = fixture.x + at * D,
                                   .f = fixture.f + at * F,
                                   .xhat = fixture.xhat + at * D};
        evaluate_add(evaluate, &block);
    }
    assert_true(evaluate_finish(evaluate, figures) == rows);
    evaluate_free(evaluate);
}

static void figures_are_those_of_two_passes(void **state)
{
    (void)state;
    static const size_t batches[] = {7, 100, 249, 250, 4096};
    for (size_t k = 0; k < 5; k++) {
        struct evaluate_figures figures[3];
        run(figures, k == 2 ? 248 : N, batches[k], 13, 0);
        for (size_t s = 0; s < 3; s++) {
            size_t from = s == 1 ? A : 0, to = s == 0 ? A : D;
            struct evaluate_figures expected = expect(from, to, k == 2 ? 248 : N, batches[k]);
            assert_near(figures[s].l2, expected.l2, TOLERANCE * expected.l2);
            assert_near(figures[s].explained_variance, expected.explained_variance, TOLERANCE);
            assert_near(figures[s].fve, expected.fve, TOLERANCE);
            assert_near(figures[s].fve_centered, expected.fve_centered, TOLERANCE);
        }
    }
}

static void the_loss_has_its_parts(void **state)
{
    (void)state;
    struct evaluate_figures figures[3];
    long double l1 = 0, active = 0;
    for (size_t i = 0; i < N * F; i++) {
        l1 += (long double)fixture.f[i] * fixture.norms.code_weight[i % F];
        active += fixture.f[i] > 0;
    }
    run(figures, N, 50, N, 0.5);
    assert_near(figures[2].l1, (double)(l1 / N), 1e-12);
    assert_near(figures[2].l0, (double)(active / N), 1e-12);
    assert_near(figures[0].l1 + figures[1].l1, figures[2].l1, 1e-12);
    for (size_t s = 0; s < 3; s++)
        assert_near(figures[s].loss, figures[s].l2 + 0.5 * figures[s].l1, 1e-12);
    assert_true(isnan(figures[0].l0));
    run(figures, N, 50, N, (double)NAN);
    assert_true(isnan(figures[2].loss) && isfinite(figures[2].l1));
}

static void blocks_have_no_influence(void **state)
{
    (void)state;
    struct evaluate_figures figures[3], other[3];
    run(figures, N, 64, 1, 1);
    run(other, N, 64, 199, 1);
    for (size_t s = 0; s < 3; s++) {
        assert_true(figures[s].loss == other[s].loss && figures[s].fve == other[s].fve);
        assert_true(figures[s].explained_variance == other[s].explained_variance);
        assert_true(figures[s].fve_centered == other[s].fve_centered);
    }
}

static void what_does_not_vary_has_nothing_to_explain(void **state)
{
    (void)state;
    struct evaluate_figures figures[3];
    static float kept[N * D];
    memcpy(kept, fixture.x, sizeof kept);
    for (size_t i = 0; i < N * D; i++)
        if (i % D < A)
            fixture.x[i] = 1.1f * (float)(1 + i % D);
    run(figures, N, 30, 7, 1);
    assert_true(isnan(figures[0].explained_variance) && isnan(figures[0].fve));
    assert_true(isnan(figures[0].fve_centered) && figures[0].l2 > 0);
    assert_true(isfinite(figures[1].fve) && isfinite(figures[2].explained_variance));
    memcpy(fixture.x, kept, sizeof kept);
}

/* 201 rows in batches of 100: the last batch is one row, which equals its mean. */
static void a_batch_of_one_row_is_left_out(void **state)
{
    (void)state;
    struct evaluate_figures short_last[3], whole[3];
    run(short_last, 201, 100, 50, 1);
    run(whole, 200, 100, 50, 1);
    for (size_t s = 0; s < 3; s++) {
        assert_true(short_last[s].explained_variance == whole[s].explained_variance);
        assert_true(short_last[s].fve_centered == whole[s].fve_centered);
        assert_true(short_last[s].fve != whole[s].fve && short_last[s].l2 != whole[s].l2);
    }
}

static void no_rows_have_no_figures(void **state)
{
    (void)state;
    struct evaluate_figures figures[3];
    run(figures, 0, 10, 1, 1);
    for (size_t s = 0; s < 3; s++)
        assert_true(isnan(figures[s].loss) && isnan(figures[s].l2) && isnan(figures[s].l1) &&
                    isnan(figures[s].l0) && isnan(figures[s].explained_variance) &&
                    isnan(figures[s].fve) && isnan(figures[s].fve_centered));
}

static void a_batch_larger_than_memory_is_refused(void **state)
{
    (void)state;
    struct evaluate *evaluate;
    assert_int_equal(evaluate_open(&evaluate, &fixture.cc, &fixture.norms, (uint64_t)1 << 50, 1),
                     ERR_MEMORY);
    assert_null(evaluate);
    evaluate_free(NULL);
}

/* ---- freq */

static void counts_are_exact_in_any_order(void **state)
{
    (void)state;
    struct stats stats, backwards;
    assert_int_equal(stats_init(&stats, F), 0);
    assert_int_equal(stats_init(&backwards, F), 0);
    assert_true(isnan(stats_frequency(&stats, 0)) && isnan(stats_mean(&stats, 0)));
    struct scan_block all = {.rows = N, .f = fixture.f};
    stats_add(&stats, &all);
    for (size_t i = N; i-- > 0;) {
        struct scan_block block = {.rows = 1, .f = fixture.f + i * F};
        stats_add(&backwards, &block);
    }
    for (size_t j = 0; j < F; j++) {
        uint64_t count = 0;
        long double sum = 0;
        float max = 0;
        for (size_t i = 0; i < N; i++) {
            float f = fixture.f[i * F + j];
            count += f != 0;
            sum += (long double)f;
            max = fmaxf(max, f);
        }
        assert_true(stats.count[j] == count && backwards.count[j] == count);
        assert_true(stats.max[j] == max && backwards.max[j] == max);
        assert_near(stats_frequency(&stats, j), (double)count / N, 1e-15);
        if (j == 2) {
            assert_true(count == 0 && isnan(stats_mean(&stats, j)));
            continue;
        }
        assert_near(stats_mean(&stats, j), (double)(sum / count), 1e-13);
        assert_near(stats_mean(&backwards, j), stats_mean(&stats, j), 1e-13);
    }
    stats_free(&stats);
    stats_free(&backwards);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_are_those_of_two_passes),
        cmocka_unit_test(the_loss_has_its_parts),
        cmocka_unit_test(blocks_have_no_influence),
        cmocka_unit_test(what_does_not_vary_has_nothing_to_explain),
        cmocka_unit_test(a_batch_of_one_row_is_left_out),
        cmocka_unit_test(no_rows_have_no_figures),
        cmocka_unit_test(a_batch_larger_than_memory_is_refused),
        cmocka_unit_test(counts_are_exact_in_any_order),
    };
    log_init("test_evaluate", LOG_SILENT);
    return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
