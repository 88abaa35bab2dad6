/* test_io.c - reads and writes on files, pipes, full devices, and under signals.
 *
 * What a signal does is tried in a child, because the handlers stay. Pipes stand in for whatever
 * keeps a reader or writer waiting; nothing here waits for a time, but for the other end.
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
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/io.h"
#include "common/log.h"
#include "common/sig.h"
#include "tests/unit/terminal.h"

static char folder[] = "/tmp/test_io.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    signal(SIGPIPE, SIG_IGN);
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* The path of a file in the folder; good until the next call. */
static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- files */

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct io_file file;
    uint8_t bytes[10000], back[10001];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    const char *path = in_folder("file");
    assert_int_equal(io_open_output(&file, path, true), 0);
    assert_true(file.regular);
    assert_int_equal(io_write(&file, bytes, 6000), 0);
    assert_int_equal(io_write(&file, bytes + 6000, 4000), 0);
    assert_int_equal(file.offset, 10000);
    assert_int_equal(io_close(&file), 0);
    assert_int_equal(io_close(&file), 0); /* legal on a closed file */

    assert_int_equal(io_open_input(&file, path), 0);
    assert_int_equal(io_size(&file), 10000);
    assert_int_equal(io_read(&file, back, 3), 3);
    assert_int_equal(io_pread(&file, back, 5, 9995), 0);
    assert_memory_equal(back, bytes + 9995, 5);
    assert_int_equal(io_pread(&file, back, 6, 9995), ERR_TRUNCATED);
    assert_int_equal(io_pread(&file, back, 1, 10000), ERR_TRUNCATED);
    assert_int_equal(io_pread(&file, back, 0, 10000), 0);
    assert_int_equal(io_read(&file, back + 3, 9998), 9997); /* a short count is the end */
    assert_memory_equal(back + 3, bytes + 3, 9997);
    assert_int_equal(io_read(&file, back, 1), 0);
    assert_int_equal(file.offset, 10000);
    assert_int_equal(file.waited_ns, 0);
    assert_int_equal(io_close(&file), 0);

    /* An existing file is replaced. */
    assert_int_equal(io_open_output(&file, path, true), 0);
    assert_int_equal(io_write(&file, "x", 1), 0);
    assert_int_equal(io_close(&file), 0);
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_size, 1);
    assert_int_equal(unlink(path), 0);
}

static void what_cannot_be_opened_is_told(void **state)
{
    (void)state;
    struct io_file file;
    assert_int_equal(io_open_input(&file, in_folder("none")), ERR_USAGE);
    assert_int_equal(file.fd, -1);
    assert_int_equal(io_open_input(&file, folder), ERR_USAGE);
    assert_int_equal(file.fd, -1);
    assert_int_equal(io_open_output(&file, folder, true), ERR_IO);
    assert_int_equal(io_open_output(&file, in_folder("none/file"), true), ERR_IO);
    assert_int_equal(file.fd, -1);
    assert_int_equal(io_close(&file), 0);
}

static void a_terminal_takes_no_binary_data(void **state)
{
    (void)state;
    struct io_file file;
    const char *terminal;
    int master = terminal_open(&terminal);
    assert_int_equal(io_open_output(&file, terminal, true), ERR_USAGE);
    assert_int_equal(io_open_output(&file, terminal, false), 0);
    assert_int_equal(io_close(&file), 0);
    close(master);
}

static void a_full_disk_is_an_error_that_stays(void **state)
{
    (void)state;
    struct io_file file;
    assert_int_equal(io_open_output(&file, "/dev/full", true), 0);
    assert_int_equal(io_write(&file, "x", 1), ERR_IO);
    assert_int_equal(io_write(&file, "x", 1), ERR_IO);
    assert_int_equal(file.offset, 0);
    assert_int_equal(io_close(&file), 0);
}

static void whole_files_are_read_up_to_a_limit(void **state)
{
    (void)state;
    char *text, path[256];
    size_t size;
    snprintf(path, sizeof path, "%s", in_folder("long"));
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 200000; i++)
        assert_true(fputc('a' + i % 26, file) != EOF);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(io_read_file(&text, &size, path, 199999), ERR_DATA);
    static const size_t limits[] = {200000, 200001, 1u << 30};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(io_read_file(&text, &size, path, limits[i]), 0);
        assert_int_equal(size, 200000);
        assert_int_equal(text[199999], 'a' + 199999 % 26);
        assert_int_equal(text[size], 0);
        free(text);
    }
    assert_int_equal(io_read_file(&text, &size, "/dev/null", 0), 0);
    assert_int_equal(size, 0);
    assert_int_equal(text[0], 0);
    free(text);
    assert_int_equal(io_read_file(&text, &size, "/dev/zero", 100000), ERR_DATA);
    assert_int_equal(io_read_file(&text, &size, in_folder("none"), 10), ERR_USAGE);
    assert_int_equal(unlink(path), 0);
}

static void paths_are_joined(void **state)
{
    (void)state;
    char *path = io_join("a/b", "c");
    assert_string_equal(path, "a/b/c");
    free(path);
}

/* ---- pipes */

struct feed {
    int fd;
    size_t pieces;
};

/* Writes pieces of growing length, so that reads come back short. */
static void *feed_run(void *argument)
{
    struct feed *feed = argument;
    uint8_t piece[1024];
    for (size_t i = 0, at = 0; i < feed->pieces; i++) {
        size_t size = 1 + i % sizeof piece;
        for (size_t j = 0; j < size; j++)
            piece[j] = (uint8_t)(at++ % 251);
        if (write(feed->fd, piece, size) != (ssize_t)size)
            return feed;
    }
    close(feed->fd);
    return NULL;
}

static void short_reads_of_a_pipe_are_joined(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    struct feed feed = {.fd = ends[1], .pieces = 3000};
    pthread_t thread;
    struct io_file file;
    assert_int_equal(io_wrap(&file, ends[0], "a pipe"), 0);
    assert_true(file.pipe && !file.regular);
    assert_int_equal(pthread_create(&thread, NULL, feed_run, &feed), 0);
    uint8_t bytes[7777];
    size_t at = 0;
    ssize_t got;
    do {
        got = io_read(&file, bytes, sizeof bytes);
        assert_true(got >= 0);
        for (ssize_t i = 0; i < got; i++)
            assert_int_equal(bytes[i], at++ % 251);
    } while (got == (ssize_t)sizeof bytes);
    void *failed;
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    size_t sent = 0;
    for (size_t i = 0; i < feed.pieces; i++)
        sent += 1 + i % 1024;
    assert_int_equal(at, sent);
    assert_int_equal(file.offset, sent);
    assert_true(file.waited_ns >= 0);
    assert_int_equal(file.waiting_since_ns, 0);
    assert_int_equal(io_close(&file), 0);
    assert_int_equal(close(ends[0]), 0); /* it was the caller's */
}

static void a_reader_that_went_away_is_closed(void **state)
{
    (void)state;
    int ends[2];
    struct io_file file;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(io_wrap(&file, ends[1], "a pipe"), 0);
    assert_int_equal(io_write(&file, "x", 1), 0);
    close(ends[0]);
    assert_int_equal(io_write(&file, "x", 1), ERR_CLOSED);
    assert_int_equal(io_write(&file, "x", 1), ERR_CLOSED);
    assert_int_equal(file.offset, 1);
    assert_int_equal(io_close(&file), 0);
    close(ends[1]);
}

static void *cancel_run(void *argument)
{
    return write(*(int *)argument, "", 1) == 1 ? NULL : argument;
}

static void a_wait_can_be_ended_by_a_descriptor(void **state)
{
    (void)state;
    int ends[2], cancel[2];
    struct io_file file;
    pthread_t thread;
    char byte;
    assert_int_equal(pipe(ends) | pipe(cancel), 0);
    assert_int_equal(io_wrap(&file, ends[0], "a pipe"), 0);
    file.cancel_fd = cancel[0];
    assert_int_equal(pthread_create(&thread, NULL, cancel_run, &cancel[1]), 0);
    assert_int_equal(io_read(&file, &byte, 1), ERR_INTERRUPTED);
    pthread_join(thread, NULL);
    assert_int_equal(io_close(&file), 0);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(cancel[i]);
    }
}

static void *cancel_when_it_waits(void *argument)
{
    struct io_file *file = argument;
    while (file->waiting_since_ns == 0 || file->offset == 0)
        sched_yield();
    return cancel_run(&file[1].fd);
}

/* More than the pipe takes, and nobody reads: what is there then is what is said to be written. */
static void a_write_can_be_ended_by_a_descriptor(void **state)
{
    (void)state;
    enum { BYTES = 4 << 20 };
    int ends[2], cancel[2], there;
    struct io_file file[2] = {IO_FILE_CLOSED, IO_FILE_CLOSED};
    pthread_t thread;
    void *failed, *bytes = calloc(BYTES, 1);
    assert_non_null(bytes);
    assert_int_equal(pipe(ends) | pipe(cancel), 0);
    assert_int_equal(io_wrap(&file[0], ends[1], "a pipe"), 0);
    file[0].cancel_fd = cancel[0];
    file[1].fd = cancel[1];
    assert_int_equal(pthread_create(&thread, NULL, cancel_when_it_waits, file), 0);
    assert_int_equal(io_write(&file[0], bytes, BYTES), ERR_INTERRUPTED);
    pthread_join(thread, &failed);
    assert_null(failed);
    assert_int_equal(ioctl(ends[0], FIONREAD, &there), 0);
    assert_int_equal(there, file[0].offset);
    assert_in_range(there, 1, BYTES - 1);
    assert_int_equal(io_write(&file[0], bytes, 1), ERR_INTERRUPTED);
    assert_int_equal(io_close(&file[0]), 0);
    for (int i = 0; i < 2; i++) {
        close(ends[i]);
        close(cancel[i]);
    }
    free(bytes);
}

/* ---- signals: each in a child with handlers of its own */

static void *read_run(void *argument)
{
    char byte;
    static int result;
    result = (int)io_read(argument, &byte, 1);
    return &result;
}

/* Waits for input in a thread that receives no signals, and tells the parent when. */
static int child_reads(int input, int tell)
{
    struct io_file file;
    pthread_t thread;
    void *result;
    if (sig_install() != 0 || io_wrap(&file, input, "a pipe") != 0 ||
        sig_thread_create(&thread, read_run, &file) != 0)
        return 1;
    while (file.waiting_since_ns == 0)
        sched_yield();
    if (write(tell, "", 1) != 1 || pthread_join(thread, &result) != 0)
        return 2;
    if (*(int *)result != ERR_INTERRUPTED)
        return 3;
    int code = err_exit_status(ERR_INTERRUPTED);
    return io_close(&file) == 0 ? code : 4;
}

/* Writes more than a pipe takes. With a reader that lives it is finished although a signal came. */
static int child_writes(int output, int tell)
{
    static uint8_t bytes[8 << 20];
    struct io_file file;
    if (sig_install() != 0 || io_wrap(&file, output, "a pipe") != 0 || write(tell, "", 1) != 1)
        return 1;
    struct pollfd signalled = {.fd = sig_fd(), .events = POLLIN};
    while (sig_pending() == 0)
        poll(&signalled, 1, -1);
    if (io_write(&file, bytes, sizeof bytes) != 0 || io_write(&file, "end", 3) != 0)
        return 2;
    return err_exit_status(ERR_INTERRUPTED);
}

/* The same with a reader that reads nothing: after the grace nothing more is written. */
static int child_is_stuck(int output, int tell)
{
    static uint8_t bytes[8 << 20];
    struct io_file file;
    if (sig_install() != 0 || io_wrap(&file, output, "a pipe") != 0 || write(tell, "", 1) != 1)
        return 1;
    int64_t start = io_clock_ns();
    if (io_write(&file, bytes, sizeof bytes) != ERR_INTERRUPTED)
        return 2;
    int64_t end = io_clock_ns();
    if (end - start < IO_GRACE_NS || io_write(&file, "x", 1) != ERR_INTERRUPTED ||
        io_clock_ns() - end > IO_GRACE_NS / 5)
        return 3;
    return err_exit_status(ERR_INTERRUPTED);
}

/* Starts `run` in a child, sends it `number` when it is ready, and returns its exit status. `fd` is
 * the child's end of a pipe, `other` the test's, read to its end where `drain`. */
static int status_of(int (*run)(int, int), int fd, int other, int number, bool drain,
                     size_t *drained)
{
    int ready[2], status;
    char byte;
    assert_int_equal(pipe(ready), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        close(other);
        close(ready[0]);
        _exit(run(fd, ready[1]));
    }
    close(ready[1]);
    close(fd);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    assert_int_equal(kill(child, number), 0);
    static char sink[65536];
    ssize_t got;
    *drained = 0;
    while (drain && (got = read(other, sink, sizeof sink)) > 0)
        *drained += (size_t)got;
    assert_int_equal(waitpid(child, &status, 0), child);
    close(other);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void a_signal_ends_a_wait_for_input(void **state)
{
    (void)state;
    static const int numbers[] = {SIGINT, SIGTERM, SIGUSR1}, codes[] = {130, 143, 75};
    for (size_t i = 0; i < 3; i++) {
        int ends[2];
        size_t none;
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(status_of(child_reads, ends[0], ends[1], numbers[i], false, &none),
                         codes[i]);
    }
}

static void a_signal_lets_a_write_end_while_the_reader_lives(void **state)
{
    (void)state;
    int ends[2];
    size_t drained;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(status_of(child_writes, ends[1], ends[0], SIGTERM, true, &drained), 143);
    assert_int_equal(drained, (8 << 20) + 3);
}

static void a_signal_ends_a_write_that_nobody_reads(void **state)
{
    (void)state;
    int ends[2];
    size_t none;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(status_of(child_is_stuck, ends[1], ends[0], SIGTERM, false, &none), 143);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_cannot_be_opened_is_told),
        cmocka_unit_test(a_terminal_takes_no_binary_data),
        cmocka_unit_test(a_full_disk_is_an_error_that_stays),
        cmocka_unit_test(whole_files_are_read_up_to_a_limit),
        cmocka_unit_test(paths_are_joined),
        cmocka_unit_test(short_reads_of_a_pipe_are_joined),
        cmocka_unit_test(a_reader_that_went_away_is_closed),
        cmocka_unit_test(a_wait_can_be_ended_by_a_descriptor),
        cmocka_unit_test(a_write_can_be_ended_by_a_descriptor),
        cmocka_unit_test(a_signal_ends_a_wait_for_input),
        cmocka_unit_test(a_signal_lets_a_write_end_while_the_reader_lives),
        cmocka_unit_test(a_signal_ends_a_write_that_nobody_reads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
