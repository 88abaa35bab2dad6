/* bench.h - what the two halves of bench_kernels share: an open device, clocks, and results.
 *
 * A result is a time beside a bound that was measured in the same run: for an operation that waits
 * for memory the time in which as many bytes are copied. A product of the CPU stands beside
 * oneDNN's own time for the same shape and layout and attention beside the fastest product in f32;
 * on a CUDA device, where products are the library's, both stand beside the fastest product of the
 * device's type.
 */
#ifndef CCPIPE_TESTS_BENCH_H
#define CCPIPE_TESTS_BENCH_H

#include "kernels/kernels.h"

/* The shapes: a model's layer, and a crosscoder of two such models. */
struct bench_sizes {
    size_t tokens, rows, latents, width, inner, heads, key_heads, head_dim;
};

struct bench {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    enum dtype type;
    unsigned threads;
    const char *device_name;
    bool on_cpu;
    bool quick, tiny;
    bool processor_time; /* of the one thread, instead of the time that passes */
    struct bench_sizes sizes;
    double copy_rate;    /* bytes read and written a second */
    double product_rate; /* operations a second: of f32 on the CPU, else of `type` */
};

/* Tokens of a sequence: 1024, or all where there are fewer. */
static inline size_t bench_sequence(const struct bench *bench)
{
    return bench->sizes.tokens < 1024 ? bench->sizes.tokens : 1024;
}

/* Device memory of n values in -1 .. 1 of `type`; ends the program where there is none. */
void *bench_random(const struct bench *bench, enum dtype type, size_t n);

typedef void bench_call(struct bench *bench, void *argument);

/* Seconds of the shortest of several calls, after one that is not counted; of many in a row where
 * one returns before its work is done. */
double bench_time(struct bench *bench, bench_call *call, void *argument);

/* The same for two calls in turn, so that what else the machine does falls on both. */
void bench_times(double times[2], struct bench *bench, bench_call *const calls[2], void *argument);

/* One row of the table, and a line of JSON kept for the end: `rate` in `unit`, and its part of
 * `bound`. */
void bench_result(const struct bench *bench, const char *name, const char *shape, double seconds,
                  double rate, const char *unit, double bound);

/* Sets product_rate to that of the fastest of a few large products; for devices other than the CPU.
 */
void bench_peak(struct bench *bench);

/* The products of actgen and cctrain (bench_products.c). On the CPU sets product_rate. */
void bench_products(struct bench *bench);

/* Everything else that computes (bench_operations.c). */
void bench_operations(struct bench *bench);

void bench_fail(const char *what) __attribute__((noreturn));

#endif
