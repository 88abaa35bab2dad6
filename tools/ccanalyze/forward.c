/* forward.c - weights are uploaded, converted and packed once; a block is upload, two products,
 * download. In bf16 the latents are rounded between the two products, as in training.
 */
#include "forward.h"

#include <stdlib.h>

#include "common/mem.h"
#include "kernels/kernels.h"

enum { FORWARD_ROWS = 512, FORWARD_STEP = 16 };
#define FORWARD_BLOCK_BYTES (64u << 20)

struct forward {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    struct kernels_gemm *encode, *decode;
    enum dtype type;
    size_t block, latents, width;
    void *d_enc, *d_dec; /* packed */
    float *d_b_enc, *d_b_dec;
    float *d_rows; /* (block, D) f32 as uploaded; x itself where the type is f32 */
    void *d_x;     /* (block, D) T; NULL where that is d_rows */
    void *d_f;     /* (block, F) T */
    float *d_xhat; /* (block, D) */
    float *f, *xhat;
    uint16_t *halves; /* (block, F) bf16 before they become f */
};

size_t forward_block(const struct crosscoder *cc)
{
    size_t rows = FORWARD_BLOCK_BYTES / sizeof(float) / (size_t)cc->latents;
    if (rows > FORWARD_ROWS)
        return FORWARD_ROWS;
    rows = rows / FORWARD_STEP * FORWARD_STEP;
    return rows < FORWARD_STEP ? FORWARD_STEP : rows;
}

uint64_t forward_bytes(const struct forward_setup *setup)
{
    const struct crosscoder *cc = setup->cc;
    uint64_t matrix = cc->latents * cc->width * dtype_size(setup->dtype);
    uint64_t block = forward_block(cc) * (2 * cc->latents + 4 * cc->width) * sizeof(float);
    return (setup->decode ? 2 : 1) * matrix + cc->latents * cc->width * sizeof(float) + block;
}

/* ---- set-up */

static int forward_alloc(struct forward *forward, void *d_to, size_t count, size_t size)
{
    return kernels_alloc(forward->kernels, forward->device, d_to, count, size, "the device");
}

/* A bias: uploaded as it is. */
static int forward_upload(struct forward *forward, float **d_to, const float *from, size_t n)
{
    int status = forward_alloc(forward, d_to, n, sizeof *from);
    if (status == 0)
        forward->kernels->upload(forward->queue, *d_to, from, n * sizeof *from);
    return status;
}

/* A (k, n) weight matrix: uploaded, converted, packed for its product. */
static int forward_weights(struct forward *forward, struct kernels_gemm *gemm, void **d_packed,
                           const float *weights, size_t k, size_t n)
{
    const struct kernels *kernels = forward->kernels;
    float *d_plain = NULL;
    void *d_halves = NULL;
    int status = forward_upload(forward, &d_plain, weights, k * n);
    if (status == 0 && forward->type != DTYPE_F32)
        status = forward_alloc(forward, &d_halves, k * n, dtype_size(forward->type));
    if (status == 0)
        status = forward_alloc(forward, d_packed, kernels->gemm_packed_bytes(gemm), 1);
    if (status == 0) {
        if (d_halves != NULL)
            kernels->cast(forward->queue, d_halves, forward->type, d_plain, DTYPE_F32, k * n);
        kernels->gemm_pack(forward->queue, gemm, *d_packed, d_halves != NULL ? d_halves : d_plain);
        status = kernels->wait(forward->queue);
    }
    kernels->free(forward->device, d_halves);
    kernels->free(forward->device, d_plain);
    return status;
}

static int forward_load(struct forward *forward, const struct crosscoder *cc, bool decode)
{
    const struct kernels *kernels = forward->kernels;
    struct kernels_gemm_shape shape = {
        .m = (int64_t)forward->block,
        .n = (int64_t)forward->latents,
        .k = (int64_t)forward->width,
        .packed_b = true,
        .bias = true,
        .relu = true,
        .a = forward->type,
        .b = forward->type,
        .c = forward->type,
    };
    int status = kernels->gemm_create(forward->device, &forward->encode, &shape);
    if (status == 0)
        status = forward_weights(forward, forward->encode, &forward->d_enc, cc->w_enc,
                                 forward->width, forward->latents);
    if (status == 0)
        status = forward_upload(forward, &forward->d_b_enc, cc->b_enc, forward->latents);
    if (status != 0 || !decode)
        return status;
    shape.n = (int64_t)forward->width;
    shape.k = (int64_t)forward->latents;
    shape.relu = false;
    shape.c = DTYPE_F32;
    status = kernels->gemm_create(forward->device, &forward->decode, &shape);
    if (status == 0)
        status = forward_weights(forward, forward->decode, &forward->d_dec, cc->w_dec,
                                 forward->latents, forward->width);
    if (status == 0)
        status = forward_upload(forward, &forward->d_b_dec, cc->b_dec, forward->width);
    return status;
}

static int forward_buffers(struct forward *forward, bool decode)
{
    size_t rows = forward->block, type = dtype_size(forward->type);
    bool narrow = forward->type != DTYPE_F32;
    int status = forward_alloc(forward, &forward->d_rows, rows * forward->width, sizeof(float));
    if (status == 0 && narrow)
        status = forward_alloc(forward, &forward->d_x, rows * forward->width, type);
    if (status == 0)
        status = forward_alloc(forward, &forward->d_f, rows * forward->latents, type);
    if (status == 0 && decode)
        status = forward_alloc(forward, &forward->d_xhat, rows * forward->width, sizeof(float));
    if (status != 0)
        return status;
    forward->f = mem_alloc(rows * forward->latents, sizeof(float));
    forward->xhat = mem_alloc(decode ? rows * forward->width : 0, sizeof(float));
    forward->halves = mem_alloc(narrow ? rows * forward->latents : 0, sizeof *forward->halves);
    if (forward->f == NULL || forward->xhat == NULL || forward->halves == NULL)
        return mem_fail("latents", rows * forward->latents, sizeof(float));
    return 0;
}

int forward_open(struct forward **result, const struct forward_setup *setup)
{
    *result = NULL;
    int status = mem_require(forward_bytes(setup), "the crosscoder's weights");
    if (status != 0)
        return status;
    struct forward *forward = mem_alloc_zero(1, sizeof *forward);
    if (forward == NULL)
        return mem_fail("the device", 1, sizeof *forward);
    forward->type = setup->dtype;
    forward->block = forward_block(setup->cc);
    forward->latents = (size_t)setup->cc->latents;
    forward->width = (size_t)setup->cc->width;
    status = kernels_open(&forward->kernels, &forward->device, setup->device, setup->threads,
                          setup->dtype);
    if (status == 0)
        status = forward->kernels->queue_create(forward->device, &forward->queue);
    if (status == 0)
        status = forward_load(forward, setup->cc, setup->decode);
    if (status == 0)
        status = forward_buffers(forward, setup->decode);
    if (status != 0) {
        forward_free(forward);
        return status;
    }
    *result = forward;
    return 0;
}

void forward_free(struct forward *forward)
{
    if (forward == NULL)
        return;
    const struct kernels *kernels = forward->kernels;
    if (kernels != NULL && forward->device != NULL) {
        void *memory[] = {forward->d_enc,  forward->d_dec, forward->d_b_enc, forward->d_b_dec,
                          forward->d_rows, forward->d_x,   forward->d_f,     forward->d_xhat};
        for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
            kernels->free(forward->device, memory[i]);
        kernels->gemm_free(forward->encode);
        kernels->gemm_free(forward->decode);
        kernels->queue_free(forward->queue);
        kernels_close(kernels, forward->device);
    }
    free(forward->f);
    free(forward->xhat);
    free(forward->halves);
    free(forward);
}

/* ---- a block */

int forward_run(struct forward *forward, const float *x, size_t rows, const float **f,
                const float **xhat)
{
    const struct kernels *kernels = forward->kernels;
    struct kernels_queue *queue = forward->queue;
    size_t used = rows * forward->width * sizeof(float);
    size_t all = forward->block * forward->width * sizeof(float);
    if (used < all)
        kernels->clear(queue, forward->d_rows, all);
    kernels->upload(queue, forward->d_rows, x, used);
    const void *d_x = forward->d_rows;
    if (forward->d_x != NULL) {
        kernels->cast(queue, forward->d_x, forward->type, d_x, DTYPE_F32,
                      forward->block * forward->width);
        d_x = forward->d_x;
    }
    kernels->gemm(queue, forward->encode, forward->d_f, d_x, forward->d_enc, forward->d_b_enc);
    size_t latents = rows * forward->latents;
    kernels->download(queue, forward->d_x != NULL ? (void *)forward->halves : (void *)forward->f,
                      forward->d_f, latents * dtype_size(forward->type));
    if (forward->decode != NULL) {
        kernels->gemm(queue, forward->decode, forward->d_xhat, forward->d_f, forward->d_dec,
                      forward->d_b_dec);
        kernels->download(queue, forward->xhat, forward->d_xhat, used);
    }
    int status = kernels->wait(queue);
    if (status != 0)
        return status;
    if (forward->d_x != NULL)
        dtype_to_f32(forward->f, forward->halves, DTYPE_BF16, latents);
    *f = forward->f;
    *xhat = forward->decode != NULL ? forward->xhat : NULL;
    return 0;
}
