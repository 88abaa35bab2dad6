/* bench_operations.c - every operation beside the products, at the sizes of Gemma-2-2b: a sequence
 * of 1024 tokens, and a batch of 2048 rows for 16,384 latents (quick: 2,048).
 *
 * The bound of an operation that waits for memory is the time in which the bytes that it must read
 * and write are copied. Attention is compared with products in f32, of which it consists: 4 heads
 * head_dim operations for each visible (query, key).
 */
#include "tests/bench/bench.h"

#include <stdio.h>

enum {
    TOKENS = 1024,
    D = 2304,
    INNER = 9216,
    HEADS = 8,
    KEY_HEADS = 4,
    HD = 256,
    QKV = (HEADS + 2 * KEY_HEADS) * HD,
    ROWS = 2048,
    WIDTH = 2 * D
};

/* Memory that all operations share. */
struct operands {
    size_t latents;
    void *d_t[2];      /* of T, each as large as the largest matrix of T */
    float *d_f[4];     /* of f32: as large as the decoder */
    uint32_t *d_index; /* 0 .. ROWS - 1 backwards */
    uint32_t *d_counts;
    double *d_sums;
    float *d_one;
};

static const struct kernels_columns columns[] = {{0, D}, {D, D}};

static const struct kernels_adam adam_step = {1e-6, 0.9, 0.999, 1e-8, 0.5, 0.5};

static void run_cast(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->cast(b->queue, o->d_t[0], DTYPE_BF16, o->d_f[0], DTYPE_F32, ROWS * WIDTH);
}

static void run_embed(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->embed(b->queue, o->d_f[0], o->d_index, o->d_t[0], b->type, 48.0f, TOKENS, D);
}

static void run_rms_norm(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->rms_norm(b->queue, o->d_t[0], o->d_f[0], o->d_f[1], 1e-6f, TOKENS, D);
}

static void run_post_norm(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->post_norm(b->queue, o->d_f[0], NULL, o->d_t[0], o->d_f[1], o->d_f[2], o->d_f[3],
                          1e-6f, TOKENS, D);
}

static void run_rope(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->rope(b->queue, o->d_t[0], o->d_index, o->d_f[0], TOKENS, HEADS + KEY_HEADS, HD,
                     QKV);
}

static void run_geglu(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->geglu(b->queue, o->d_t[0], o->d_t[1], TOKENS, INNER);
}

static void run_row_norms(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->row_norms(b->queue, o->d_f[0], o->d_f[1], TOKENS, D);
}

static void run_emit(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->emit_rows(b->queue, o->d_t[0], o->d_f[0], o->d_index, 0.5f, DTYPE_BF16, TOKENS,
                          2 * D, 0, 0, D);
}

static void run_emit_int8(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->emit_rows(b->queue, o->d_t[0], o->d_f[0], o->d_index, 0.5f, DTYPE_I8, TOKENS, 4 + D,
                          4, 0, D);
}

static void run_load(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->load_rows(b->queue, o->d_t[0], o->d_t[1], DTYPE_BF16, columns, 2, ROWS, WIDTH);
}

static void run_load_int8(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->load_rows(b->queue, o->d_t[0], o->d_t[1], DTYPE_I8, columns, 2, ROWS, WIDTH);
}

static void run_latent_sums(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->latent_sums(b->queue, o->d_f[0], o->d_counts, o->d_t[0], ROWS, o->latents);
}

static void run_column_means(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->column_means(b->queue, o->d_f[0], o->d_t[0], ROWS, WIDTH);
}

static void run_recon(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->recon(b->queue, o->d_t[0], (struct kernels_recon_sums *)o->d_sums, o->d_f[0],
                      o->d_t[1], o->d_f[1], columns, 2, 1e-3f, ROWS, WIDTH);
}

static void run_relu_backward(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->relu_backward(b->queue, o->d_t[0], o->d_f[0], o->d_t[1], ROWS, o->latents);
}

static void run_decoder_norms(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->decoder_norms(b->queue, o->d_f[0], o->d_f[1], o->d_f[2], columns, 2, o->latents,
                              WIDTH);
}

static void run_decoder_norm_grad(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->decoder_norm_grad(b->queue, o->d_f[0], o->d_f[1], o->d_f[2], o->d_f[3], 1e-9f,
                                  columns, 2, o->latents, WIDTH);
}

static void run_scale(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->scale(b->queue, o->d_f[0], o->d_f[1], 0.5f, o->latents * WIDTH);
}

static void run_dot(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->dot(b->queue, o->d_sums, o->d_f[0], o->d_f[0], o->latents * WIDTH);
}

static void run_adam(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->adam(b->queue, o->d_f[0], o->d_f[1], o->d_f[2],
                     b->type == DTYPE_F32 ? NULL : o->d_t[0], o->d_f[3], o->d_one, &adam_step,
                     o->latents * WIDTH);
}

static void run_attention(struct bench *b, void *argument)
{
    static const struct kernels_span spans[] = {{0, TOKENS}};
    static const struct kernels_attention attention = {HEADS, KEY_HEADS, HD, 1.0f / 16, 50, 4096};
    const struct operands *o = argument;
    b->kernels->attention(b->queue, o->d_t[0], o->d_t[1], &attention, spans, 1);
}

static void bench_memory_bound(struct bench *b, struct operands *o)
{
    double t = (double)dtype_size(b->type), f = (double)o->latents;
    const struct {
        const char *name, *shape;
        bench_call *run;
        double bytes;
    } operations[] = {
        {"cast to bf16", "2048 x 4608", run_cast, 6.0 * ROWS * WIDTH},
        {"embed", "1024 x 2304", run_embed, (4 + t) * TOKENS * D},
        {"rms_norm", "1024 x 2304", run_rms_norm, (4 + t) * TOKENS * D},
        {"post_norm", "1024 x 2304", run_post_norm, (12 + t) * TOKENS * D},
        {"rope", "1024 x 12 x 256", run_rope, (2 * t * (HEADS + KEY_HEADS) + 4) * TOKENS * HD},
        {"geglu", "1024 x 9216", run_geglu, 3 * t * TOKENS * INNER},
        {"row_norms", "1024 x 2304", run_row_norms, 4.0 * TOKENS * D},
        {"emit_rows as bf16", "1024 x 2304", run_emit, 6.0 * TOKENS * D},
        {"emit_rows as int8", "1024 x 2304", run_emit_int8, 5.0 * TOKENS * D},
        {"load_rows of bf16", "2048 x 4608", run_load, (2 + t) * ROWS * WIDTH},
        {"load_rows of int8", "2048 x 4608", run_load_int8, (1 + t) * ROWS * WIDTH},
        {"latent_sums", "2048 x F", run_latent_sums, t * ROWS * f},
        {"column_means", "2048 x 4608", run_column_means, t * ROWS * WIDTH},
        {"recon", "2048 x 4608", run_recon, (4 + 2 * t) * ROWS * WIDTH},
        {"relu_backward", "2048 x F", run_relu_backward, 3 * t * ROWS * f},
        {"decoder_norms", "F x 4608", run_decoder_norms, 4 * f * WIDTH},
        {"decoder_norm_grad", "F x 4608", run_decoder_norm_grad, 12 * f * WIDTH},
        {"scale", "F x 4608", run_scale, 8 * f * WIDTH},
        {"dot", "F x 4608", run_dot, 4 * f * WIDTH},
        {"adam", "F x 4608", run_adam, (28 + (t < 4 ? 2 : 0)) * f * WIDTH},
    };
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        char shape[64];
        const char *text = operations[i].shape, *latents = NULL;
        for (const char *c = text; *c != '\0'; c++)
            latents = *c == 'F' ? c : latents;
        if (latents != NULL)
            snprintf(shape, sizeof shape, "%.*s%zu%s", (int)(latents - text), text, o->latents,
                     latents + 1);
        double seconds = bench_time(b, operations[i].run, o);
        bench_result(b, operations[i].name, latents != NULL ? shape : text, seconds,
                     operations[i].bytes / seconds, "GB/s", b->copy_rate);
    }
}

void bench_operations(struct bench *bench)
{
    struct operands o = {.latents = bench->quick ? 2048 : 16384};
    size_t t_count = (size_t)ROWS * o.latents, f_count = o.latents * WIDTH;
    uint32_t index[ROWS];
    float one = 1;
    if (t_count < (size_t)2 * TOKENS * INNER)
        t_count = (size_t)2 * TOKENS * INNER;
    for (size_t i = 0; i < 2; i++)
        o.d_t[i] = bench_random(bench, bench->type, t_count > f_count ? t_count : f_count);
    for (size_t i = 0; i < 4; i++)
        o.d_f[i] = bench_random(bench, DTYPE_F32, f_count > t_count ? f_count : t_count);
    for (uint32_t i = 0; i < ROWS; i++)
        index[i] = ROWS - 1 - i;
    o.d_index = bench_random(bench, DTYPE_F32, ROWS);
    o.d_counts = bench_random(bench, DTYPE_F32, o.latents);
    o.d_sums = bench_random(bench, DTYPE_F32, 64);
    o.d_one = bench_random(bench, DTYPE_F32, 1);
    bench->kernels->upload(bench->queue, o.d_index, index, sizeof index);
    bench->kernels->upload(bench->queue, o.d_one, &one, sizeof one);
    bench->kernels->clear(bench->queue, o.d_f[2],
                          f_count * sizeof(float)); /* no negative squares */
    double seconds = bench_time(bench, run_attention, &o);
    double operations = 4.0 * HEADS * HD * TOKENS * (TOKENS + 1) / 2;
    bench_result(bench, "attention", "1024 tokens, 8/4 heads of 256", seconds, operations / seconds,
                 "GF/s", bench->product_rate);
    bench_memory_bound(bench, &o);
    void *d_memory[] = {o.d_t[0], o.d_t[1],  o.d_f[0],   o.d_f[1], o.d_f[2],
                        o.d_f[3], o.d_index, o.d_counts, o.d_sums, o.d_one};
    for (size_t i = 0; i < sizeof d_memory / sizeof *d_memory; i++)
        bench->kernels->free(bench->device, d_memory[i]);
}
