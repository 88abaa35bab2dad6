/* test_spread.c - counts of a histogram whose range is not known before, against counting again
 * once all values are known. */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tools/ccanalyze/spread.h"

enum { BINS = 50, VALUES = 20000 };

static void nothing_has_no_bins(void **state)
{
    (void)state;
    static struct spread spread;
    uint64_t counts[BINS];
    memset(counts, 255, sizeof counts);
    assert_true(spread_bins(&spread, counts, BINS) == 0);
    for (size_t i = 0; i < BINS; i++)
        assert_int_equal(counts[i], 0);
}

/* 3 sets the fine width to 4/4096; 3, the largest value, is fine bin 3072, so 3073 bins are used,
 * and a shown bin is 62 of them: 62/1024 wide. */
static void edges_are_whole_fine_bins(void **state)
{
    (void)state;
    static struct spread spread;
    uint64_t counts[BINS];
    spread_add(&spread, 3);
    spread_add(&spread, 0.5F);
    spread_add(&spread, 61.5F / 1024);
    spread_add(&spread, 62.0F / 1024);
    assert_true(spread_bins(&spread, counts, BINS) == 62.0 / 1024);
    for (size_t i = 0; i < BINS; i++)
        assert_int_equal(counts[i], i == 0 || i == 1 || i == 8 || i == 49);
}

static float value_at(size_t i)
{
    /* Rising over many powers of two, so that the range doubles again and again. */
    uint64_t mixed = (i * 2654435761u) & 0xffff;
    return (float)(1e-6 + (double)mixed / 65536 * (double)(i + 1) / 100);
}

static void counts_are_exact(void **state)
{
    (void)state;
    static struct spread spread;
    uint64_t counts[BINS], expected[BINS] = {0}, total = 0;
    float most = 0;
    for (size_t i = 0; i < VALUES; i++) {
        spread_add(&spread, value_at(i));
        most = value_at(i) > most ? value_at(i) : most;
    }
    double width = spread_bins(&spread, counts, BINS);
    for (size_t i = 0; i < VALUES; i++)
        expected[(size_t)((double)value_at(i) / width)]++;
    for (size_t i = 0; i < BINS; i++) {
        assert_int_equal(counts[i], expected[i]);
        total += counts[i];
    }
    assert_int_equal(total, VALUES);
    /* At least 2048 fine bins are used, so rounding them up to a multiple of 50 adds under 2.5 %.
     */
    assert_true(width * BINS > (double)most && width * BINS < (double)most * 1.025);
}

static void every_size_of_a_float_fits(void **state)
{
    (void)state;
    static struct spread spread;
    uint64_t counts[BINS];
    spread_add(&spread, FLT_MIN / 8388608);
    spread_add(&spread, FLT_MIN);
    spread_add(&spread, FLT_MAX);
    double width = spread_bins(&spread, counts, BINS);
    assert_int_equal(counts[0], 2);
    assert_int_equal(counts[49], 1);
    assert_true(width * 50 > (double)FLT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_has_no_bins),
        cmocka_unit_test(edges_are_whole_fine_bins),
        cmocka_unit_test(counts_are_exact),
        cmocka_unit_test(every_size_of_a_float_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
