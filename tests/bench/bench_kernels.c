/* bench_kernels.c - the speed of every operation of a backend beside its bound.
 *
 *   bench_kernels [--device NAME] [--quick | --tiny | --describe] [--threads N | --processor-time]
 *
 * Prints a table in Markdown, then the same as lines of JSON. --quick takes smaller dictionaries
 * and shorter times, --tiny sizes at which an emulated device ends, --describe only says what the
 * device is. Inputs are random and never zeros, as some processors multiply those faster. The
 * machine should have nothing else to do; where it has, --processor-time takes one thread of the
 * CPU and counts what that thread got.
 *
 * A CUDA device has caches as large as what a chunk of 1024 tokens needs, so it gets batches of
 * actgen's and cctrain's real sizes, which have to come from its memory.
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

static void require(int status)
{
    if (status < 0)
        exit(err_exit_status(status));
}

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
    require(bench->kernels->alloc(bench->device, &d_memory, n * size));
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
    require(bench->kernels->wait(bench->queue));
    return d_memory;
}

static double time_calls(struct bench *bench, bench_call *call, void *argument, size_t count)
{
    double start = seconds_now(bench);
    for (size_t i = 0; i < count; i++)
        call(bench, argument);
    require(bench->kernels->wait(bench->queue));
    return (seconds_now(bench) - start) / (double)count;
}

/* How many calls between two looks at the clock: on the CPU they are done when they return. */
static size_t calls_of(struct bench *bench, bench_call *call, void *argument)
{
    const double least = 5e-3;
    if (bench->on_cpu)
        return 1;
    (void)time_calls(bench, call, argument, 1);
    double seconds = time_calls(bench, call, argument, 1);
    return seconds < least ? (size_t)(least / (seconds > 1e-5 ? seconds : 1e-5)) : 1;
}

void bench_times(double times[2], struct bench *bench, bench_call *const calls[2], void *argument)
{
    double all = bench->tiny ? 0 : bench->quick ? 0.04 : bench->on_cpu ? 0.4 : 0.1, spent = 0;
    int least = bench->tiny ? 1 : CALLS_LEAST;
    size_t count = calls_of(bench, calls[0], argument);
    for (int i = 0; i <= least || spent < all; i++) {
        for (int which = 0; which < 2 && calls[which] != NULL; which++) {
            double took = time_calls(bench, calls[which], argument, count);
            spent += took * (double)count;
            if (i <= 1 || took < times[which]) /* the first is not counted */
                times[which] = took;
        }
    }
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
    char line[400];
    snprintf(
        line, sizeof line,
        "{\"device\":\"%s\",\"operation\":\"%s\",\"shape\":\"%s\",\"type\":\"%s\",\"threads\":%u,"
        "\"seconds\":%.6g,\"rate\":%.6g,\"unit\":\"%s\",\"of_bound\":%.4g}",
        bench->device_name, name, shape, type, bench->threads, seconds, rate * 1e-9, unit,
        rate / bound);
    if (line_count < LINES_MOST)
        lines[line_count++] = strdup(line);
}

static void open_device(struct bench *bench, enum dtype type)
{
    bench->type = type;
    require(
        kernels_open(&bench->kernels, &bench->device, bench->device_name, bench->threads, type));
    require(bench->kernels->queue_create(bench->device, &bench->queue));
    bench->on_cpu = strcmp(bench->kernels->name, "cpu") == 0;
}

/* Those of Gemma-2 2b, or such as an emulated device ends with. */
static void choose_sizes(struct bench *bench)
{
    static const struct bench_sizes real = {1024, 2048, 16384, 2304, 9216, 8, 4, 256};
    static const struct bench_sizes tiny = {32, 32, 64, 64, 128, 4, 2, 16};
    bench->sizes = bench->tiny ? tiny : real;
    if (bench->quick)
        bench->sizes.latents = 2048;
    if (!bench->on_cpu && !bench->tiny) {
        bench->sizes.tokens = 16384;
        bench->sizes.rows = 4096;
    }
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
    size_t megabytes = bench->tiny ? 1 : bench->on_cpu ? 128 : 1024; /* more than a cache holds */
    struct copying c = {.bytes = megabytes << 20};
    char shape[32];
    snprintf(shape, sizeof shape, "%zu MiB", megabytes);
    c.d_from = bench_random(bench, DTYPE_F32, c.bytes / 4);
    c.d_to = bench_random(bench, DTYPE_F32, c.bytes / 4);
    double seconds = bench_time(bench, copy, &c);
    bench->copy_rate = 2 * (double)c.bytes / seconds;
    bench_result(bench, "copy (the bound of memory)", shape, seconds, bench->copy_rate, "GB/s",
                 bench->copy_rate);
    bench->kernels->free(bench->device, c.d_from);
    bench->kernels->free(bench->device, c.d_to);
}

static bool parse(struct bench *bench, bool *describe, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            bench->quick = true;
        else if (strcmp(argv[i], "--tiny") == 0)
            bench->tiny = true;
        else if (strcmp(argv[i], "--describe") == 0)
            *describe = true;
        else if (strcmp(argv[i], "--processor-time") == 0)
            bench->processor_time = true;
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
            bench->threads = (unsigned)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc)
            bench->device_name = argv[++i];
        else
            return false;
    }
    if (bench->processor_time)
        bench->threads = 1;
    return bench->threads > 0;
}

/* Everything with one type. */
static void bench_type(struct bench *bench, enum dtype type, bool first)
{
    open_device(bench, type);
    choose_sizes(bench);
    if (first) {
        printf("%s\n\n| operation | shape | type | ms | rate | of its bound |\n"
               "|---|---|---|---:|---:|---:|\n",
               bench->kernels->description(bench->device));
        measure_copying(bench);
    }
    if (!bench->on_cpu)
        bench_peak(bench);
    bench_products(bench);
    bench_operations(bench);
    close_device(bench);
}

int main(int argc, char **argv)
{
    struct bench bench = {.threads = (unsigned)sysconf(_SC_NPROCESSORS_ONLN), .device_name = "cpu"};
    bool describe = false;
    log_init("bench_kernels", LOG_NOTE);
    if (!parse(&bench, &describe, argc, argv))
        return err_exit_status(log_fail(ERR_USAGE,
                                        "usage: [--device NAME] [--quick | --tiny | --describe] "
                                        "[--threads N, at least 1 | --processor-time]"));
    setenv("CCPIPE_BACKENDS", "bin", 0);
    if (describe) {
        open_device(&bench, DTYPE_BF16);
        puts(bench.kernels->description(bench.device));
        close_device(&bench);
        return EXIT_SUCCESS;
    }
    bench_type(&bench, DTYPE_F32, true);
    bench_type(&bench, DTYPE_BF16, false);
    putchar('\n');
    for (size_t i = 0; i < line_count; i++) {
        puts(lines[i]);
        free(lines[i]);
    }
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
