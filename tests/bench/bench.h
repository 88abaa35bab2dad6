/* bench.h - what the two halves of bench_kernels share: an open device, clocks, and results.
 *
 * A result is a time beside a bound that was measured in the same run: for a product oneDNN's own
 * time for the same shape and layout, for an operation that waits for memory the time in which as
 * many bytes are copied, for attention the speed of the fastest product in f32.
 */
#ifndef CCPIPE_TESTS_BENCH_H
#define CCPIPE_TESTS_BENCH_H

#include "kernels/kernels.h"

struct bench {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    enum dtype type;
    unsigned threads;
    bool quick;
    bool processor_time; /* of the one thread, instead of the time that passes */
    double copy_rate;    /* bytes read and written a second */
    double product_rate; /* f32 operations a second */
};

/* Device memory of n values in -1 .. 1 of `type`; ends the program where there is none. */
void *bench_random(const struct bench *bench, enum dtype type, size_t n);

typedef void bench_call(struct bench *bench, void *argument);

/* Shortest of several calls, after one that is not counted. */
double bench_time(struct bench *bench, bench_call *call, void *argument);

/* The same for two calls in turn, so that what else the machine does falls on both. */
void bench_times(double times[2], struct bench *bench, bench_call *const calls[2], void *argument);

/* One row of the table, and a line of JSON kept for the end: `rate` in `unit`, and its part of
 * `bound`. */
void bench_result(const struct bench *bench, const char *name, const char *shape, double seconds,
                  double rate, const char *unit, double bound);

/* The products of actgen and cctrain (bench_products.c). Sets product_rate if it is 0. */
void bench_products(struct bench *bench);

/* Everything else that computes (bench_operations.c). */
void bench_operations(struct bench *bench);

void bench_fail(const char *what) __attribute__((noreturn));

#endif
