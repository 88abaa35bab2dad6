/* bench_kernels.c - the speed of every operation of the CPU backend beside its bound.
 *
 *   bench_kernels [--quick] [--threads N | --processor-time]
 *
 * Prints a table in Markdown, then the same as lines of JSON. --quick takes smaller dictionaries
 * and shorter times. Inputs are random and never zeros, as some processors multiply those faster.
 * The machine should have nothing else to do; where it has, --processor-time takes one thread and
 * counts what that thread got.
 */
#include "tests/bench/bench.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINES_MOST = 256, CALLS_LEAST = 3 };

static char *lines[LINES_MOST];
static size_t line_count;

static double seconds_now(const struct bench *bench)
{
    struct timespec time;
    clock_gettime(bench->processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void bench_fail(const char *what)
{
    log_fail(ERR_DEVICE, "%s", what);
    exit(EXIT_FAILURE);
}

void *bench_random(const struct bench *bench, enum dtype type, size_t n)
{
    enum { PIECE = 1 << 16 };
    static float values[PIECE];
    uint64_t state = 49;
    void *d_memory = NULL;
    size_t size = dtype_size(type);
    uint16_t *halves = (uint16_t *)values;
    if (bench->kernels->alloc(bench->device, &d_memory, n * size) < 0)
        exit(EXIT_FAILURE);
    for (size_t i = 0; i < PIECE; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float value = (float)(int32_t)(state >> 32) * 0x1p-31f;
        if (type == DTYPE_F32)
            values[i] = value;
        else
            halves[i] = dtype_f32_to_bf16(value);
    }
    for (size_t at = 0; at < n; at += PIECE)
        bench->kernels->upload(bench->queue, (uint8_t *)d_memory + at * size, values,
                               (n - at < PIECE ? n - at : PIECE) * size);
    return d_memory;
}

static double time_once(struct bench *bench, bench_call *call, void *argument)
{
    double start = seconds_now(bench);
    call(bench, argument);
    return seconds_now(bench) - start;
}

void bench_times(double times[2], struct bench *bench, bench_call *const calls[2], void *argument)
{
    double all = bench->quick ? 0.04 : 0.4, spent = 0;
    for (int i = 0; i <= CALLS_LEAST || spent < all; i++) {
        for (int which = 0; which < 2 && calls[which] != NULL; which++) {
            double took = time_once(bench, calls[which], argument);
            spent += took;
            if (i <= 1 || took < times[which]) /* the first is not counted */
                times[which] = took;
        }
    }
    if (bench->kernels->wait(bench->queue) < 0)
        exit(EXIT_FAILURE);
}

double bench_time(struct bench *bench, bench_call *call, void *argument)
{
    bench_call *const calls[2] = {call, NULL};
    double times[2];
    bench_times(times, bench, calls, argument);
    return times[0];
}

void bench_result(const struct bench *bench, const char *name, const char *shape, double seconds,
                  double rate, const char *unit, double bound)
{
    const char *type = dtype_name(bench->type);
    printf("| %s | %s | %s | %.3f | %.1f %s | %.2f |\n", name, shape, type, 1e3 * seconds,
           rate * 1e-9, unit, rate / bound);
    fflush(stdout);
    char line[320];
    snprintf(line, sizeof line,
             "{\"operation\":\"%s\",\"shape\":\"%s\",\"type\":\"%s\",\"threads\":%u,"
             "\"seconds\":%.6g,\"rate\":%.6g,\"unit\":\"%s\",\"of_bound\":%.4g}",
             name, shape, type, bench->threads, seconds, rate * 1e-9, unit, rate / bound);
    if (line_count < LINES_MOST)
        lines[line_count++] = strdup(line);
}

static void open_device(struct bench *bench, enum dtype type)
{
    bench->type = type;
    if (kernels_open(&bench->kernels, &bench->device, "cpu", bench->threads, type) < 0 ||
        bench->kernels->queue_create(bench->device, &bench->queue) < 0)
        exit(EXIT_FAILURE);
}

static void close_device(struct bench *bench)
{
    bench->kernels->queue_free(bench->queue);
    kernels_close(bench->kernels, bench->device);
}

struct copying {
    void *d_from, *d_to;
    size_t bytes;
};

static void copy(struct bench *bench, void *argument)
{
    const struct copying *c = argument;
    bench->kernels->copy(bench->queue, c->d_to, c->d_from, c->bytes);
}

static void measure_copying(struct bench *bench)
{
    struct copying c = {.bytes = (size_t)128 << 20};
    c.d_from = bench_random(bench, DTYPE_F32, c.bytes / 4);
    c.d_to = bench_random(bench, DTYPE_F32, c.bytes / 4);
    double seconds = bench_time(bench, copy, &c);
    bench->copy_rate = 2 * (double)c.bytes / seconds;
    bench_result(bench, "copy (the bound of memory)", "128 MiB", seconds, bench->copy_rate, "GB/s",
                 bench->copy_rate);
    bench->kernels->free(bench->device, c.d_from);
    bench->kernels->free(bench->device, c.d_to);
}

int main(int argc, char **argv)
{
    struct bench bench = {.threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN)};
    log_init("bench_kernels", LOG_NOTE);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench.quick = true;
        else if (strcmp(argv[i], "--processor-time") == 0)
            bench.processor_time = true;
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            bench.threads = (unsigned)strtoul(argv[++i], NULL, 10);
        else
            return err_exit_status(
                log_fail(ERR_USAGE, "usage: [--quick] [--threads N | --processor-time]"));
    }
    if (bench.processor_time)
        bench.threads = 1;
    if (bench.threads == 0)
        return err_exit_status(log_fail(ERR_USAGE, "--threads is at least 1"));
    setenv("CCPIPE_BACKENDS", "bin", 0);
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t t = 0; t < 2; t++) {
        open_device(&bench, types[t]);
        if (t == 0) {
            printf("%s\n\n| operation | shape | type | ms | rate | of its bound |\n"
                   "|---|---|---|---:|---:|---:|\n",
                   bench.kernels->description(bench.device));
            measure_copying(&bench);
        }
        bench_products(&bench);
        bench_operations(&bench);
        close_device(&bench);
    }
    putchar('\n');
    for (size_t i = 0; i < line_count; i++) {
        puts(lines[i]);
        free(lines[i]);
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
