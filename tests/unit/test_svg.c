/* test_svg.c - the bars of a histogram are measured in the text of the figure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tools/ccanalyze/svg.h"

enum { BINS = 5 };

static const struct svg_tick ticks[] = {{0, "0"}, {0.5, "\u00bd"}, {1, "1"}};

static struct svg_histogram histogram(const uint64_t *counts, bool log_y)
{
    return (struct svg_histogram){.x_label = "x",
                                  .y_label = "y",
                                  .max = 1,
                                  .counts = counts,
                                  .bins = BINS,
                                  .ticks = ticks,
                                  .tick_count = 3,
                                  .log_y = log_y};
}

/* The figure as text; the caller frees it. */
static char *draw(const struct svg_histogram *spec)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    svg_histogram(out, spec);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* x and height of the bars, "M<x> <top>h<width>V<base>h-<width>z" each; their number. */
static size_t bars(const char *text, double *x, double *height)
{
    static const char bar[] = "class=\"bar\" d=\"";
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, bar)) != NULL;) {
        double top, width, base, back;
        int used = 0;
        at += strlen(bar);
        assert_true(count < BINS);
        assert_int_equal(
            sscanf(at, "M%lf %lfh%lfV%lfh%lfz%n", &x[count], &top, &width, &base, &back, &used), 5);
        assert_true(width == -back && width > 0 && at[used] == '"');
        height[count++] = base - top;
    }
    return count;
}

static void bars_are_as_high_as_their_counts(void **state)
{
    (void)state;
    static const uint64_t counts[BINS] = {3, 0, 12, 1, 6};
    double x[BINS], height[BINS];
    struct svg_histogram spec = histogram(counts, false);
    char *text = draw(&spec);
    assert_int_equal(bars(text, x, height), 4);
    for (size_t i = 0; i < 4; i++) /* two digits are printed */
        assert_true(fabs(height[i] / height[1] - (double[]){3, 12, 1, 6}[i] / 12) < 1e-4);
    assert_true(fabs((x[1] - x[0]) / (x[2] - x[1]) - 2) < 1e-3);
    free(text);
}

static void bars_of_a_log_scale_begin_at_half_a_latent(void **state)
{
    (void)state;
    static const uint64_t counts[BINS] = {1, 0, 50, 5, 500};
    double x[BINS], height[BINS];
    struct svg_histogram spec = histogram(counts, true);
    char *text = draw(&spec);
    assert_int_equal(bars(text, x, height), 4);
    double decade = height[3] - height[1]; /* 500 and 50 */
    assert_true(fabs(height[1] - height[2] - decade) < 0.03);
    assert_true(fabs(height[0] - decade * log10(2)) < 0.03);
    free(text);
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        count++;
    return count;
}

static void y_ticks_are_few_and_round(void **state)
{
    (void)state;
    static const struct {
        uint64_t most;
        bool log_y;
        size_t ticks;
        const char *labels[4];
    } cases[] = {
        {0, false, 2, {">0<", ">1<"}},
        {1, false, 2, {">0<", ">1<"}},
        {5, false, 6, {">5<"}},
        {6, false, 4, {">2<", ">4<", ">6<"}},
        {11, false, 6, {">10<"}},
        {12, false, 3, {">5<", ">10<"}},
        {2048, false, 5, {">500<", ">1000<", ">1500<", ">2000<"}},
        {UINT64_MAX, false, 4, {">1.5×10¹⁹<"}},
        {0, true, 1, {">1<"}},
        {1, true, 1, {">1<"}},
        {7, true, 3, {">1<", ">2<", ">5<"}},
        {99, true, 3, {">1<", ">10<", ">100<"}},
        {2048, true, 4, {">1<", ">10<", ">100<", ">1000<"}},
        {UINT64_MAX, true, 5, {">10¹⁶<"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const uint64_t counts[BINS] = {0, cases[i].most};
        struct svg_histogram spec = histogram(counts, cases[i].log_y);
        spec.tick_count = 0;
        char *text = draw(&spec);
        print_message("# %zu\n", i);
        assert_int_equal(count_of(text, "text-anchor=\"end\""), cases[i].ticks);
        for (size_t k = 0; k < 4 && cases[i].labels[k] != NULL; k++)
            assert_int_equal(count_of(text, cases[i].labels[k]), 1);
        free(text);
    }
}

static void a_figure_has_both_schemes_and_no_script(void **state)
{
    (void)state;
    static const uint64_t counts[BINS] = {1};
    struct svg_histogram spec = histogram(counts, false);
    spec.title = "<script>&\"\x01";
    char *text = draw(&spec);
    assert_non_null(strstr(text, "prefers-color-scheme:dark"));
    assert_non_null(strstr(text, "&#60;script&#62;&#38;&#34;\u2401"));
    assert_null(strstr(text, "<script"));
    assert_int_equal(count_of(text, "\u00bd"), 1);
    assert_int_equal(count_of(text, "<svg "), 1);
    assert_string_equal(text + strlen(text) - 7, "</svg>\n");
    free(text);
}

static void values_are_counted_in_their_bins(void **state)
{
    (void)state;
    uint64_t counts[4] = {0};
    static const double values[] = {-1, -0.5001, -0.5, -0.0001, 0, 0.4999, 0.5, 1};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        svg_count(counts, 4, -1, 1, values[i]);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(counts[i], 2);
    svg_count(counts, 4, -1, 1, (double)NAN);
    svg_count(counts, 4, -1, 1, 1.0001);
    svg_count(counts, 4, -1, 1, -1.0001);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(counts[i], 2);
}

static void a_figure_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    static const uint64_t counts[BINS] = {1};
    struct svg_histogram spec = histogram(counts, false);
    assert_int_equal(svg_histogram_file("/no/such/folder/x.svg", &spec), ERR_IO);
    assert_int_equal(svg_histogram_file("/dev/full", &spec), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_are_as_high_as_their_counts),
        cmocka_unit_test(bars_of_a_log_scale_begin_at_half_a_latent),
        cmocka_unit_test(y_ticks_are_few_and_round),
        cmocka_unit_test(a_figure_has_both_schemes_and_no_script),
        cmocka_unit_test(values_are_counted_in_their_bins),
        cmocka_unit_test(a_figure_that_cannot_be_written_is_an_error),
    };
    log_init("test_svg", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
