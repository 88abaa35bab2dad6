/* test_progress.c - the progress line on a pseudo-terminal, stall lines, and metrics.
 *
 * A test that expects a line reads until it is there; none sleeps and hopes.
 */
#define _XOPEN_SOURCE 700 /* terminal.h */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/progress.h"
#include "tests/unit/terminal.h"

#define SECOND ((int64_t)1000000000)

static char metrics_path[] = "/tmp/test_progress.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    int fd = mkstemp(metrics_path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(metrics_path);
}

/* ---- standard error of the test, for a while */

struct capture {
    int kept, read_end;
    char text[8192];
    size_t size;
};

static void capture_start(struct capture *capture, bool terminal)
{
    int write_end, ends[2];
    *capture = (struct capture){.kept = dup(STDERR_FILENO)};
    if (terminal) {
        const char *name;
        capture->read_end = terminal_open(&name);
        write_end = open(name, O_RDWR | O_NOCTTY);
    } else {
        assert_int_equal(pipe(ends), 0);
        capture->read_end = ends[0];
        write_end = ends[1];
    }
    assert_true(write_end >= 0);
    assert_true(dup2(write_end, STDERR_FILENO) >= 0);
    close(write_end);
}

/* Reads until `text` has been written. */
static void capture_until(struct capture *capture, const char *text)
{
    while (strstr(capture->text, text) == NULL) {
        assert_true(capture->size < sizeof capture->text - 1);
        ssize_t got = read(capture->read_end, capture->text + capture->size,
                           sizeof capture->text - 1 - capture->size);
        assert_true(got > 0);
        capture->size += (size_t)got;
    }
}

static void capture_end(struct capture *capture)
{
    assert_true(dup2(capture->kept, STDERR_FILENO) >= 0);
    close(capture->kept);
    close(capture->read_end);
    log_init("test", LOG_SILENT);
}

/* ---- lines */

static void a_terminal_has_a_redrawn_line(void **state)
{
    (void)state;
    struct capture capture;
    struct progress *progress;
    struct io_file in = {.fd = -1};
    struct progress_setup setup = {.unit = "rows", .total = 3000000, .in = &in};
    capture_start(&capture, true);
    log_init("test", LOG_NOTE);
    assert_int_equal(progress_start(&progress, &setup), 0);
    progress_set(progress, 1234567);
    capture_until(&capture, "\r\033[K1.23M rows of 3.00M, ");
    capture_until(&capture, "waiting 0 % for input and 0 % for output");
    capture_until(&capture, " left");
    log_note("a message");
    capture_until(&capture, "\r\033[Ktest: note: a message\r\n"); /* on a line of its own */
    capture_until(&capture, "message\r\n\r\033[K1.23M rows");
    assert_int_equal(progress_stop(progress), 0);
    log_note("the end");
    capture_until(&capture, "\r\033[Ktest: note: the end"); /* cleared */
    capture_end(&capture);
}

static void in_a_pipe_only_the_last_tool_draws(void **state)
{
    (void)state;
    struct capture capture;
    struct progress *progress;
    struct io_file out = {.fd = -1, .pipe = true};
    /* The long wait makes the thread say something, by which the test knows that it has ticked. */
    out.waiting_since_ns = io_clock_ns() - 61 * SECOND;
    struct progress_setup setup = {.unit = "rows", .out = &out};
    capture_start(&capture, true);
    log_init("test", LOG_NOTE);
    assert_int_equal(progress_start(&progress, &setup), 0);
    capture_until(&capture, "waiting for output for 60 s");
    assert_int_equal(progress_stop(progress), 0);
    log_note("the end");
    capture_until(&capture, "the end");
    assert_null(strstr(capture.text, "rows"));
    capture_end(&capture);
}

static void a_stall_is_told_also_when_quiet(void **state)
{
    (void)state;
    struct capture capture;
    struct progress *progress;
    struct io_file in = {.fd = -1}, out = {.fd = -1};
    in.waiting_since_ns = io_clock_ns() - 185 * SECOND;
    out.waiting_since_ns = io_clock_ns() - 50 * SECOND;
    struct progress_setup setup = {.unit = "rows", .in = &in, .out = &out};
    capture_start(&capture, false);
    log_init("test", LOG_WARNING);
    assert_int_equal(progress_start(&progress, &setup), 0);
    capture_until(&capture, "test: warning: waiting for input for 180 s\n");
    assert_true(progress_wait_fraction(progress) >= 0);
    assert_int_equal(progress_stop(progress), 0);
    assert_null(strstr(capture.text, "output"));
    capture_end(&capture);
}

/* ---- metrics */

/* The line at `number` of the metrics file as JSON, or NULL. */
static json_t *metrics_line(size_t number)
{
    char *text;
    size_t size;
    assert_int_equal(io_read_file(&text, &size, metrics_path, 1u << 20), 0);
    const char *line = text;
    for (; number > 0 && *line != '\0'; number--)
        line += strcspn(line, "\n") + 1;
    assert_true(size == 0 || text[size - 1] == '\n');
    json_t *value = *line == '\0' ? NULL : json_parse(line, strcspn(line, "\n"), "metrics");
    free(text);
    return value;
}

static void lines_are_there_as_soon_as_they_are_handed_over(void **state)
{
    (void)state;
    struct progress *progress;
    struct progress_setup setup = {.unit = "steps", .metrics = metrics_path};
    assert_int_equal(progress_start(&progress, &setup), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(progress_metric(progress, json_pack("{s:i, s:f}", "step", i, "x", 0.1)),
                         0);
        json_t *line = metrics_line((size_t)i);
        assert_int_equal(json_integer_value(json_object_get(line, "step")), i);
        assert_true(json_real_value(json_object_get(line, "x")) == 0.1);
        json_decref(line);
    }
    assert_int_equal(progress_stop(progress), 0);
    assert_null(metrics_line(3));
}

static void figures_are_written_where_no_line_was_handed_over(void **state)
{
    (void)state;
    struct progress *progress;
    struct io_file in = {.fd = -1};
    in.waited_ns = 5 * SECOND; /* before the start: not counted */
    struct progress_setup setup = {
        .unit = "rows", .first = 1000, .in = &in, .metrics = metrics_path};
    assert_int_equal(progress_start(&progress, &setup), 0);
    assert_true(progress_rate(progress) == 0);
    int64_t before = io_clock_ns();
    progress_set(progress, 1500);
    while (io_clock_ns() - before < SECOND / 100)
        continue;
    double rate = progress_rate(progress);
    assert_true(rate > 0 && rate < 500 / 0.01); /* the 500 since the start, in 10 ms or more */
    assert_true(progress_wait_fraction(progress) == 0);
    in.waited_ns += 3600 * SECOND;
    assert_true(progress_wait_fraction(progress) == 1);
    assert_int_equal(progress_stop(progress), 0);
    json_t *line = metrics_line(0);
    assert_int_equal(json_integer_value(json_object_get(line, "rows")), 1500);
    assert_true(json_real_value(json_object_get(line, "seconds")) > 0);
    assert_true(json_real_value(json_object_get(line, "per_s")) > 0);
    assert_true(json_real_value(json_object_get(line, "wait_in_fraction")) == 1);
    assert_true(json_real_value(json_object_get(line, "wait_out_fraction")) == 0);
    json_decref(line);
    assert_null(metrics_line(1));
}

static void lost_metrics_are_told_at_the_stop(void **state)
{
    (void)state;
    struct progress *progress;
    struct progress_setup setup = {.unit = "steps", .metrics = "/dev/full"};
    assert_int_equal(progress_start(&progress, &setup), 0);
    assert_int_equal(progress_metric(progress, json_object()), 0); /* work goes on */
    assert_int_equal(progress_metric(progress, json_object()), 0);
    assert_int_equal(progress_stop(progress), ERR_IO);

    setup.metrics = "/nonexistent/folder/file";
    assert_int_equal(progress_start(&progress, &setup), ERR_IO);
    assert_null(progress);
    assert_int_equal(progress_stop(NULL), 0);

    setup.metrics = NULL;
    assert_int_equal(progress_start(&progress, &setup), 0);
    assert_int_equal(progress_metric(progress, json_object()), 0);
    assert_int_equal(progress_stop(progress), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_terminal_has_a_redrawn_line),
        cmocka_unit_test(in_a_pipe_only_the_last_tool_draws),
        cmocka_unit_test(a_stall_is_told_also_when_quiet),
        cmocka_unit_test(lines_are_there_as_soon_as_they_are_handed_over),
        cmocka_unit_test(figures_are_written_where_no_line_was_handed_over),
        cmocka_unit_test(lost_metrics_are_told_at_the_stop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
