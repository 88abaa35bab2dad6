/* parity.h - what the tests of the kernels share: an open device, random inputs, comparisons.
 *
 * The device is the one that the environment names (PARITY_DEVICE, "cpu" without it;
 * CCPIPE_BACKENDS, CCPIPE_CPU_LEVEL), so the same programs test every backend, at smaller sizes
 * where the device is emulated.
 *
 * Every operation is compared with a plain loop in f64 that stands in the test. Inputs of type BF16
 * are rounded first and the reference takes the rounded values, so that only the operation's own
 * rounding is left to be judged. u = 2^-24 is f32's unit roundoff, 2^-8 is bf16's (8 significant
 * bits); a sum of n products in any order, with or without FMA, is off by at most about n u Σ|a b|.
 */
#ifndef CCPIPE_TESTS_PARITY_H
#define CCPIPE_TESTS_PARITY_H

/* cmocka.h wants these first. */
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
#include "kernels/kernels.h"

#define PARITY_U 0x1p-24
#define PARITY_U_BF16 0x1p-8

struct parity {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    enum dtype type;
    uint64_t state; /* of the random numbers */
};

/* Rounding of a result in T. */
static inline double parity_rounding(enum dtype type)
{
    return type == DTYPE_F32 ? PARITY_U : PARITY_U_BF16;
}

static inline const char *parity_device_name(void)
{
    const char *named = getenv("PARITY_DEVICE");
    return named != NULL ? named : "cpu";
}

/* The device is that of tests/emu, which takes a thousand times longer, or it is watched by another
 * program, of which PARITY_SMALL tells: sizes are cut down. */
static inline bool parity_is_emulated(const struct parity *parity)
{
    return getenv("PARITY_SMALL") != NULL ||
           strstr(parity->kernels->description(parity->device), "emulated device") != NULL;
}

static inline void parity_open(struct parity *parity, unsigned threads, enum dtype type)
{
    const char *folder = getenv("BIN");
    assert_int_equal(setenv("CCPIPE_BACKENDS", folder != NULL ? folder : "bin", 0), 0);
    memset(parity, 0, sizeof *parity);
    parity->type = type;
    parity->state = 49;
    assert_int_equal(
        kernels_open(&parity->kernels, &parity->device, parity_device_name(), threads, type), 0);
    assert_int_equal(parity->kernels->queue_create(parity->device, &parity->queue), 0);
}

static inline void parity_close(struct parity *parity)
{
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
    parity->kernels->queue_free(parity->queue);
    kernels_close(parity->kernels, parity->device);
}

static inline void *parity_alloc(struct parity *parity, size_t bytes)
{
    void *d_memory = NULL;
    assert_int_equal(parity->kernels->alloc(parity->device, &d_memory, bytes), 0);
    assert_non_null(d_memory);
    return d_memory;
}

static inline void parity_free(struct parity *parity, void *d_memory)
{
    parity->kernels->free(parity->device, d_memory);
}

static inline void *parity_host(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    assert_non_null(memory);
    return memory;
}

static inline uint64_t parity_bits(struct parity *parity)
{
    uint64_t z = parity->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Uniform in -1 .. 1. */
static inline float parity_uniform(struct parity *parity)
{
    return (float)((double)(parity_bits(parity) >> 11) * 0x1p-52 - 1.0);
}

/* n values to device memory, rounded to `type`; `values` becomes what the device has. */
static inline void parity_put(struct parity *parity, void *d_to, float *values, enum dtype type,
                              size_t n)
{
    uint16_t *halves = parity_host(n, sizeof *halves);
    if (type == DTYPE_BF16)
        for (size_t i = 0; i < n; i++) {
            halves[i] = dtype_f32_to_bf16(values[i]);
            values[i] = dtype_bf16_to_f32(halves[i]);
        }
    const void *from = type == DTYPE_BF16 ? (const void *)halves : values;
    parity->kernels->upload(parity->queue, d_to, from, n * dtype_size(type));
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
    free(halves);
}

/* n values from device memory as f32. */
static inline void parity_get(struct parity *parity, float *values, const void *d_from,
                              enum dtype type, size_t n)
{
    uint16_t *halves = parity_host(n, sizeof *halves);
    void *to = type == DTYPE_BF16 ? (void *)halves : values;
    parity->kernels->download(parity->queue, to, d_from, n * dtype_size(type));
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
    if (type == DTYPE_BF16)
        for (size_t i = 0; i < n; i++)
            values[i] = dtype_bf16_to_f32(halves[i]);
    free(halves);
}

/* New device memory with n uniform values times `scale`; *values (malloc) is what it has. */
static inline void *parity_random(struct parity *parity, float **values, enum dtype type, size_t n,
                                  float scale)
{
    *values = parity_host(n, sizeof **values);
    for (size_t i = 0; i < n; i++)
        (*values)[i] = scale * parity_uniform(parity);
    void *d_memory = parity_alloc(parity, n * dtype_size(type));
    parity_put(parity, d_memory, *values, type, n);
    return d_memory;
}

/* The check with a device of each compute type, by two threads. */
static inline void parity_each_type(void (*check)(struct parity *parity))
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct parity parity;
        parity_open(&parity, 2, types[i]);
        check(&parity);
        parity_close(&parity);
    }
}

/* Copies of host memory in new device memory, and back into new host memory. */
static inline void *parity_upload(struct parity *parity, const void *from, size_t bytes)
{
    void *d_memory = parity_alloc(parity, bytes);
    parity->kernels->upload(parity->queue, d_memory, from, bytes);
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
    return d_memory;
}

static inline void *parity_download(struct parity *parity, const void *d_from, size_t bytes)
{
    void *memory = parity_host(bytes, 1);
    parity->kernels->download(parity->queue, memory, d_from, bytes);
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
    return memory;
}

/* |got - want| <= tolerance, NaN equals NaN. */
static inline void parity_near(double got, double want, double tolerance, const char *what,
                               size_t index)
{
    if (isnan(want) ? isnan(got) : got == want || fabs(got - want) <= tolerance)
        return;
    fail_msg("%s[%zu] is %.9g, not %.9g within %.3g", what, index, got, want, tolerance);
}

#endif
