/* cases.h - what the tests of the emulation share.
 *
 * Each case is a process of its own, as faults of a kernel stay, and is one kernel with a mistake
 * or its correct twin. What it says on standard error comes back through a pipe.
 */
#ifndef CCPIPE_EMU_CASES_H
#define CCPIPE_EMU_CASES_H

#include "kernels/cuda/cuda.h"
#include "tests/emu/emu.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" { /* not all of it says so itself */
#include <cmocka.h>
}

enum { THREADS = 96, BLOCKS = 3, COUNT = THREADS * BLOCKS };
static const char *const orders[] = {"forward", "backward", "random:1", "random:2", "random:3"};

struct outcome {
    int status; /* exit status, or 128 + the signal */
    char said[2048];
};

/* Runs body under that order in a child. */
static inline struct outcome in_child(int (*body)(void), const char *order)
{
    struct outcome outcome = {};
    int ends[2], status = 0;
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with its tests */
        setenv("EMU_ORDER", order, 1);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(body());
    }
    close(ends[1]);
    for (ssize_t got;
         (got = read(ends[0], outcome.said + length, sizeof outcome.said - 1 - length)) > 0;)
        length += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return outcome;
}

/* Under every order the case ends with that status (a cudaError_t's low byte, or 1) and says that.
 */
static inline void expect(int (*body)(void), int status, const char *text)
{
    for (const char *order : orders) {
        struct outcome outcome = in_child(body, order);
        if (outcome.status != (status & 0xff) || strstr(outcome.said, text) == NULL)
            fail_msg("%s: status %d, not %d; it said: %s (not: %s)", order, outcome.status,
                     status & 0xff, outcome.said, text);
    }
}

/* How many of the orders end with status 1: a wrong result. */
static inline unsigned wrong_orders(int (*body)(void))
{
    unsigned wrong = 0;
    for (const char *order : orders) {
        struct outcome outcome = in_child(body, order);
        if (outcome.status > 1)
            fail_msg("%s: status %d; it said: %s", order, outcome.status, outcome.said);
        wrong += outcome.status == 1;
    }
    return wrong;
}

/* A stream and memory of COUNT ints, as every case wants them. */
struct bench {
    cudaStream_t stream;
    int *d_values;
};

static inline struct bench make_bench(void)
{
    struct bench bench = {};
    void *memory = NULL;
    if (cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaMalloc(&memory, COUNT * sizeof(int)) != cudaSuccess)
        _exit(99);
    bench.d_values = static_cast<int *>(memory);
    return bench;
}

/* 0 if value i is want(i) for all, 1 if not, or the low byte of an error. */
static inline int check(const struct bench &bench, int (*want)(int i))
{
    int values[COUNT];
    (void)cudaMemcpyAsync(values, bench.d_values, sizeof values, cudaMemcpyDeviceToHost,
                          bench.stream);
    cudaError_t error = cudaStreamSynchronize(bench.stream);
    if (error != cudaSuccess)
        return error & 0xff;
    for (int i = 0; i < COUNT; i++)
        if (values[i] != want(i))
            return 1;
    return 0;
}

/* For check(). */
static inline int nothing(int i)
{
    return 0 * i;
}

static inline int itself(int i)
{
    return i;
}

#define RUN(bench, kernel, ...) \
    emu_launch(#kernel, kernel, BLOCKS, THREADS, 0, (bench).stream, __VA_ARGS__)

#endif
