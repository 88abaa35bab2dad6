/* test_figures.c - bars in a page, curves and points against places computed by hand.
 *
 * The frame leaves 54 on the left, 14 on the right, 30 above and 46 below.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/ccanalyze/curves.h"
#include "tools/ccanalyze/scatter.h"
#include "tools/ccanalyze/svg.h"

static char *drawn;
static size_t drawn_size;
static FILE *out;

static void begin(void)
{
    out = open_memstream(&drawn, &drawn_size);
    assert_non_null(out);
}

static void end(void)
{
    assert_int_equal(fclose(out), 0);
}

static size_t occurrences(const char *needle)
{
    size_t count = 0;
    for (const char *at = drawn; (at = strstr(at, needle)) != NULL; at += strlen(needle))
        count++;
    return count;
}

/* ---- histograms */

static void bars_in_a_page_have_classes_and_titles(void **state)
{
    (void)state;
    static const uint64_t counts[] = {0, 1, 4, 2};
    static const char *const classes[] = {"a", "a", "b", "s"};
    struct svg_histogram figure = {.x_label = "x",
                                   .y_label = "y",
                                   .max = 1,
                                   .counts = counts,
                                   .bins = 4,
                                   .width = 500,
                                   .height = 300,
                                   .bare = true,
                                   .classes = classes};
    begin();
    svg_histogram(out, &figure);
    end();
    /* 224 high for 4.16; bins 108 wide, 1 of it gap. */
    assert_non_null(strstr(drawn, "class=\"bar b\" d=\"M270.00 38.62h107.00V254.0h-107.00z\""));
    assert_non_null(strstr(drawn, "class=\"bar a\" d=\"M162.00 200.15h107.00V254.0h-107.00z\""));
    assert_non_null(strstr(drawn, "<title>0.5 to 0.75: 4 latents</title>"));
    assert_int_equal(occurrences("<title>"), 3);
    assert_null(strstr(drawn, "<style>"));
    assert_null(strstr(drawn, "http"));
    free(drawn);
}

/* ---- curves */

static void few_steps_are_drawn_as_they_are(void **state)
{
    (void)state;
    static const double steps[] = {0, 5, 10}, values[] = {-3, NAN, 1}, second[] = {0.5, 0.5, 0.5};
    static const struct curves_series series[] = {{"one", values, 1}, {"<two>", second, 2}};
    struct curves curves = {.steps = steps,
                            .rows = 3,
                            .series = series,
                            .series_count = 2,
                            .y_label = "y",
                            .from_zero = true};
    begin();
    assert_true(curves_any(&curves));
    curves_draw(out, &curves);
    end();
    /* 282 wide, 144 high for 1.05; −3 is drawn on the axis. */
    assert_non_null(strstr(drawn, "class=\"line c0\" d=\"M54.0 174.0L336.0 36.9\""));
    assert_non_null(strstr(drawn, "class=\"line c1\" d=\"M54.0 36.9L195.0 36.9L336.0 36.9\""));
    assert_non_null(strstr(drawn, "<title>step 0\none -3\n&#60;two&#62; 1</title>"));
    assert_non_null(strstr(drawn, "<title>step 5\n&#60;two&#62; 1</title>"));
    assert_null(strstr(drawn, "class=\"band"));
    free(drawn);
}

static void a_log_axis_has_no_place_for_zero(void **state)
{
    (void)state;
    static const double steps[] = {1, 2}, values[] = {0, -1};
    static const struct curves_series series[] = {{"one", values, 1}};
    struct curves curves = {
        .steps = steps, .rows = 2, .series = series, .series_count = 1, .log_y = true};
    assert_false(curves_any(&curves));
    curves.log_y = false;
    assert_true(curves_any(&curves));
}

static void constants_and_single_steps_are_drawn(void **state)
{
    (void)state;
    static const double steps[] = {7, 8}, values[] = {0, 0}, high[] = {5, 5};
    for (int kind = 0; kind < 8; kind++) {
        struct curves_series series = {"one", kind & 1 ? high : values, 1};
        struct curves curves = {.steps = steps,
                                .rows = kind & 2 ? 1 : 2,
                                .series = &series,
                                .series_count = 1,
                                .y_label = "y",
                                .log_y = kind & 4,
                                .from_zero = true};
        if (!curves_any(&curves))
            continue;
        begin();
        curves_draw(out, &curves);
        end();
        assert_null(strstr(drawn, "nan"));
        assert_null(strstr(drawn, "inf"));
        free(drawn);
    }
}

/* 1000 steps on 120 points: the first one holds rows 0 to 8, as 9 · 120 / 999 > 1, the last one 991
 * to 999. */
static void many_steps_are_joined(void **state)
{
    (void)state;
    static double steps[1000], values[1000];
    for (int i = 0; i < 1000; i++) {
        steps[i] = 10 * i;
        values[i] = i;
    }
    struct curves_series series = {"one", values, 2};
    struct curves curves = {
        .steps = steps, .rows = 1000, .series = &series, .series_count = 1, .y_label = "y"};
    struct curves_point points[CURVES_MOST_POINTS];
    assert_int_equal(curves_join(&curves, 0, points), CURVES_MOST_POINTS);
    size_t total = 0;
    for (size_t i = 0; i < CURVES_MOST_POINTS; i++)
        total += points[i].count;
    assert_int_equal(total, 1000);
    assert_int_equal(points[0].count, 9);
    assert_true(points[0].min == 0 && points[0].max == 16);
    assert_float_equal(points[0].mean, 8, 1e-12);
    assert_float_equal(points[0].step, 40, 1e-12);
    assert_int_equal(points[119].count, 9);
    assert_float_equal(points[119].mean, 1990, 1e-9);
    begin();
    curves_draw(out, &curves);
    end();
    assert_int_equal(occurrences("class=\"band c0\""), 1);
    assert_int_equal(occurrences("<title>around step "), CURVES_MOST_POINTS);
    assert_non_null(strstr(drawn, "<title>around step 40\none 8 (0 to 16)</title>"));
    free(drawn);
}

/* ---- points and cells */

static const char *side_of(double x)
{
    return x > 0.5 ? "b" : "a";
}

static void points_stand_in_their_places(void **state)
{
    (void)state;
    static const double x[] = {0, 0.75, NAN, 1}, y[] = {0.3, 0, 0.5, 0.03};
    struct scatter scatter = {
        .x = x, .y = y, .n = 4, .x_label = "x", .y_label = "y", .class_of = side_of};
    begin();
    assert_int_equal(scatter_draw(out, &scatter), 0);
    end();
    /* y from 0.01 to 0.45: 254 − 224 · ln(y / 0.01) / ln 45. */
    assert_non_null(strstr(drawn, "class=\"dot a\" cx=\"54.0\" cy=\"53.9\""));
    assert_non_null(strstr(drawn, "class=\"dot b\" cx=\"378.0\" cy=\"254.0\""));
    assert_non_null(strstr(drawn, "class=\"dot b\" cx=\"486.0\" cy=\"189.4\""));
    assert_int_equal(occurrences("<circle"), 3);
    assert_non_null(strstr(drawn, "<title>latent 3: 1.000, 0.03</title>"));
    free(drawn);
}

static void many_points_are_counted_in_cells(void **state)
{
    (void)state;
    enum { N = SCATTER_MOST_POINTS + 1 };
    static double x[N], y[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = i < 2000 ? 0.5 : (double)i / N;
        y[i] = i < 2000 ? 0.01 : i % 7 == 0 ? 0 : (double)(i % 11 + 1) / 11;
    }
    x[2400] = NAN;
    struct scatter scatter = {
        .x = x, .y = y, .n = N, .x_label = "x", .y_label = "y", .class_of = side_of};
    begin();
    assert_int_equal(scatter_draw(out, &scatter), 0);
    end();
    size_t total = 0;
    char *rest = drawn;
    for (const char *at = drawn; (at = strstr(at, "<title>")) != NULL; at = rest) {
        size_t whole = strtoul(at + strlen("<title>"), &rest, 10);
        if (*rest == ',')
            whole = whole * 1000 + strtoul(rest + 1, &rest, 10);
        total += whole;
    }
    assert_int_equal(total, N - 1);
    assert_non_null(strstr(drawn, "fill-opacity=\"1.00\"><title>2,000 latents around 0.51"));
    assert_int_equal(occurrences("<circle"), 0);
    assert_true(occurrences("<rect") <= (size_t)SCATTER_COLUMNS * SCATTER_LINES);
    free(drawn);
}

static void nothing_but_zeros_is_drawn(void **state)
{
    (void)state;
    static const double x[] = {0.2, 0.4}, y[] = {0, 0};
    struct scatter scatter = {
        .x = x, .y = y, .n = 2, .x_label = "x", .y_label = "y", .class_of = side_of};
    begin();
    assert_int_equal(scatter_draw(out, &scatter), 0);
    end();
    assert_int_equal(occurrences("cy=\"254.0\""), 2);
    free(drawn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_in_a_page_have_classes_and_titles),
        cmocka_unit_test(few_steps_are_drawn_as_they_are),
        cmocka_unit_test(a_log_axis_has_no_place_for_zero),
        cmocka_unit_test(constants_and_single_steps_are_drawn),
        cmocka_unit_test(many_steps_are_joined),
        cmocka_unit_test(points_stand_in_their_places),
        cmocka_unit_test(many_points_are_counted_in_cells),
        cmocka_unit_test(nothing_but_zeros_is_drawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
