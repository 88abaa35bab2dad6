/* test_history.c - a run's metrics as columns, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "tools/ccanalyze/history.h"

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    return 0;
}

static int parse(struct history *history, const char *text)
{
    return history_parse(history, text, strlen(text), "test");
}

static void keys_become_columns(void **state)
{
    (void)state;
    struct history history;
    assert_int_equal(parse(&history, "{\"step\": 0, \"loss\": 8.5, \"lr\": 1}\n"
                                     "{\"step\": 100, \"loss\": 4, \"note\": \"x\", \"fve\": 0.5}\n"
                                     "{\"step\": 250.0, \"lr\": 0.25, \"fve\": null}\n"),
                     0);
    assert_int_equal(history.rows, 3);
    assert_int_equal(history.column_count, 3);
    assert_true(history.steps[0] == 0 && history.steps[1] == 100 && history.steps[2] == 250);
    const double *loss = history_find(&history, "loss"), *lr = history_find(&history, "lr");
    assert_true(loss[0] == 8.5 && loss[1] == 4 && isnan(loss[2]));
    assert_true(lr[0] == 1 && isnan(lr[1]) && lr[2] == 0.25);
    const double *fve = history_find(&history, "fve");
    assert_true(isnan(fve[0]) && fve[1] == 0.5 && isnan(fve[2]));
    assert_null(history_find(&history, "note"));
    assert_null(history_find(&history, "step"));
    assert_true(history_last(&history, "loss") == 4 && history_last(&history, "lr") == 0.25);
    assert_true(isnan(history_last(&history, "none")));
    history_free(&history);
}

static void lines_without_a_step_are_passed_over(void **state)
{
    (void)state;
    struct history history;
    assert_int_equal(parse(&history, "{\"rows\": 5}\n{\"step\": 1, \"a\": 2}\n{\"step\": \"x\"}\n"),
                     0);
    assert_int_equal(history.rows, 1);
    assert_null(history_find(&history, "rows"));
    history_free(&history);
}

static void a_line_that_is_being_written_is_passed_over(void **state)
{
    (void)state;
    struct history history;
    assert_int_equal(parse(&history, "{\"step\": 1, \"a\": 2}\n{\"step\": 2, \"a"), 0);
    assert_int_equal(history.rows, 1);
    history_free(&history);
    assert_int_equal(parse(&history, ""), 0);
    assert_int_equal(history.rows, 0);
    history_free(&history);
}

static void what_is_no_history_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "{\"step\": 1}\n{\"step\": 1}\n",
        "{\"step\": 5}\n{\"step\": 4}\n",
        "[1]\n",
        "3\n",
        "\n",
        "{\"step\": 1}\n\xff\n",
        "{\"step\": 1, \"step\": 2}\n",
        "{\"step\": 1} x\n",
    };
    struct history history;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(parse(&history, wrong[i]), ERR_DATA);
        assert_int_equal(history.column_count, 0);
        assert_null(history.steps);
    }
}

/* More rows than are allocated at first, with a column that comes late. */
static void many_rows_are_kept(void **state)
{
    (void)state;
    struct history history;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    for (int i = 0; i < 1500; i++)
        fprintf(out, i < 700 ? "{\"step\":%d,\"a\":%d}\n" : "{\"step\":%d,\"a\":%d,\"b\":1}\n", i,
                2 * i);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(history_parse(&history, text, size, "test"), 0);
    assert_int_equal(history.rows, 1500);
    const double *a = history_find(&history, "a"), *b = history_find(&history, "b");
    for (int i = 0; i < 1500; i++) {
        assert_true(history.steps[i] == i && a[i] == 2 * i);
        assert_true(i < 700 ? isnan(b[i]) : b[i] == 1);
    }
    history_free(&history);
    free(text);
}

static void columns_are_bounded(void **state)
{
    (void)state;
    struct history history;
    for (int extra = 0; extra < 2; extra++) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        fputs("{\"step\":0", out);
        for (int i = 0; i < HISTORY_MOST_COLUMNS + extra; i++)
            fprintf(out, ",\"k%d\":1", i);
        fputs("}\n", out);
        assert_int_equal(fclose(out), 0);
        assert_int_equal(history_parse(&history, text, size, "test"), extra ? ERR_DATA : 0);
        history_free(&history);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_become_columns),
        cmocka_unit_test(lines_without_a_step_are_passed_over),
        cmocka_unit_test(a_line_that_is_being_written_is_passed_over),
        cmocka_unit_test(what_is_no_history_is_refused),
        cmocka_unit_test(many_rows_are_kept),
        cmocka_unit_test(columns_are_bounded),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
