/* test_axis.c - places, ticks and labels against what one would write by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tools/ccanalyze/axis.h"

/* The labels of the ticks, with spaces between. */
static void ticks(double min, double max, bool log_axis, bool whole, size_t most,
                  const char *expected)
{
    struct axis axis = {.min = min, .max = max, .log = log_axis, .whole = whole};
    double at[AXIS_MOST_TICKS];
    char text[AXIS_MOST_TICKS * AXIS_LABEL_BYTES] = "";
    size_t used = 0, count = axis_ticks(&axis, most, at);
    assert_true(count <= most);
    for (size_t i = 0; i < count; i++) {
        char label[AXIS_LABEL_BYTES];
        axis_label(label, sizeof label, at[i]);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "", label);
    }
    assert_string_equal(text, expected);
}

static void places_are_linear_or_logarithmic(void **state)
{
    (void)state;
    struct axis x = {.min = -1, .max = 1, .from = 50, .to = 250};
    assert_float_equal(axis_place(&x, -1), 50, 1e-12);
    assert_float_equal(axis_place(&x, 0.5), 200, 1e-12);
    struct axis y = {.min = 0.01, .max = 100, .log = true, .from = 400, .to = 0};
    assert_float_equal(axis_place(&y, 0.01), 400, 1e-9);
    assert_float_equal(axis_place(&y, 0.1), 300, 1e-9);
    assert_float_equal(axis_place(&y, 1000), -100, 1e-9);
}

static void linear_ticks_are_round(void **state)
{
    (void)state;
    ticks(0, 1, false, false, 6, "0 0.2 0.4 0.6 0.8 1");
    ticks(-1, 1, false, false, 6, "−1 −0.5 0 0.5 1");
    ticks(0, 97655, false, false, 5, "0 20,000 40,000 60,000 80,000");
    ticks(3.1, 3.19, false, false, 6, "3.1 3.12 3.14 3.16 3.18");
    ticks(-0.04, 0.26, false, false, 6, "0 0.05 0.1 0.15 0.2 0.25");
    ticks(0, 2.4e9, false, false, 4, "0 10⁹ 2×10⁹");
}

static void counts_have_whole_ticks(void **state)
{
    (void)state;
    ticks(0, 1.04, false, true, 6, "0 1");
    ticks(0, 3.12, false, true, 6, "0 1 2 3");
    ticks(0.5, 1.04, true, true, 6, "1");
    ticks(0.5, 700, true, true, 6, "1 10 100");
    ticks(0.5, 9, true, true, 6, "1 2 5");
}

static void log_ticks_are_powers(void **state)
{
    (void)state;
    ticks(0.001, 1, true, false, 6, "0.001 0.01 0.1 1");
    ticks(20, 600, true, false, 6, "20 50 100 200 500");
    ticks(1e-9, 1, true, false, 5, "10⁻⁸ 10⁻⁶ 10⁻⁴ 0.01 1");
    ticks(31, 32, true, false, 6, "31 31.2 31.4 31.6 31.8 32");
}

static void a_label(double value, const char *expected)
{
    char label[AXIS_LABEL_BYTES];
    axis_label(label, sizeof label, value);
    assert_string_equal(label, expected);
}

static void labels_are_for_people(void **state)
{
    (void)state;
    a_label(0, "0");
    a_label(0.30000000000000004, "0.3");
    a_label(9999, "9999");
    a_label(16000, "16,000");
    a_label(-16005, "−16,005");
    a_label(1e6, "10⁶");
    a_label(2e-5, "2×10⁻⁵");
    a_label(-1e-12, "−10⁻¹²");
    a_label(1e300, "10³⁰⁰");
}

/* Any axis has ticks that lie on it and rise. */
static void ticks_lie_on_the_axis(void **state)
{
    (void)state;
    for (int i = 0; i < 4000; i++) {
        double size = pow(10, (i * 37 % 61) / 3.0 - 10);
        struct axis axis = {
            .min = size * (i % 7 + 1) / 7.0, .log = i % 2 == 1, .whole = i % 5 == 0};
        axis.max = axis.min * (1 + (i * 13 % 97 + 1) / 10.0);
        double at[AXIS_MOST_TICKS];
        size_t most = (size_t)(i % 7 + 2), count = axis_ticks(&axis, most, at);
        assert_true(count <= most && (count > 0 || axis.whole || most < 5));
        for (size_t k = 0; k < count; k++) {
            double size_of = axis.whole ? 1 : axis.log ? at[k] : axis.max - axis.min;
            double slack = 1e-8 * fmax(size_of, axis.max - axis.min);
            assert_true(at[k] >= axis.min - slack && at[k] <= axis.max + slack);
            assert_true(k == 0 || at[k] > at[k - 1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_linear_or_logarithmic),
        cmocka_unit_test(linear_ticks_are_round),
        cmocka_unit_test(counts_have_whole_ticks),
        cmocka_unit_test(log_ticks_are_powers),
        cmocka_unit_test(labels_are_for_people),
        cmocka_unit_test(ticks_lie_on_the_axis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
