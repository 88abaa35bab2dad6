/* forward.h - a crosscoder on a device: rows in, latents and reconstruction out.
 *
 *     f = relu(x W_enc + b_enc)        x̂ = f W_dec + b_dec
 *
 * in the compute type asked for; what comes back is f32 in host memory. One product has one shape
 * for all calls: a short block is filled up with zeros, and a row's result depends on that row
 * alone.
 */
#ifndef CCANALYZE_FORWARD_H
#define CCANALYZE_FORWARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/crosscoder.h"
#include "common/dtype.h"
#include "common/err.h"

struct forward;

struct forward_setup {
    const struct crosscoder *cc; /* its weights are copied to the device */
    const char *device;          /* as kernels_open() takes it */
    enum dtype dtype;            /* F32 or BF16 */
    unsigned threads;
    bool decode; /* x̂ is wanted */
};

/* Opens the device. Call it before the program has threads. */
int forward_open(struct forward **forward, const struct forward_setup *setup) MUST_CHECK;
void forward_free(struct forward *forward);

/* Rows of a block: as many as keep a block's latents within 64 MiB, at most 512. */
size_t forward_block(const struct crosscoder *cc);

/* Bytes that forward_open() takes on the device and in host memory. */
uint64_t forward_bytes(const struct forward_setup *setup);

/* rows <= forward_block(): f (rows, F) and, with decode, xhat (rows, D) from x (rows, D). The
 * results stay valid until the next call. */
int forward_run(struct forward *forward, const float *x, size_t rows, const float **f,
                const float **xhat) MUST_CHECK;

#endif
