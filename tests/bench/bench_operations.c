/* bench_operations.c - every operation beside the products: tokens of a forward pass through a
 * layer, rows of a training batch.
 *
 * The bound of an operation that waits for memory is the time in which the bytes that it must read
 * and write are copied. Attention is compared with products, of which it consists (on the CPU those
 * of f32): 4 heads head_dim operations for each visible (query, key).
 *
 * Rows of bytes, two sources of bf16, go to and from slots as cctrain's shuffle has them: at random
 * places. Each call takes the next batch of places and the next piece of the other buffer, so that
 * neither is found in a cache.
 */
#include "tests/bench/bench.h"

#include "common/mem.h"
#include "common/perm.h"

#include <stdio.h>
#include <stdlib.h>

/* Memory that all operations share. */
struct operands {
    struct kernels_columns columns[2];
    void *d_t[2];       /* of T, each as large as the largest matrix of T */
    float *d_f[4];      /* of f32: as large as the decoder */
    uint32_t *d_index;  /* 0 .. rows or tokens, what is more, backwards */
    uint32_t *d_places; /* 0 .. slots, shuffled */
    size_t slots, next; /* rows of bytes that an f32 matrix holds; where the next batch begins */
    uint32_t *d_counts;
    double *d_sums;
    float *d_one, *d_norms; /* and their sums: 3 for each latent */
};

static size_t qkv_width(const struct bench *b)
{
    return (b->sizes.heads + 2 * b->sizes.key_heads) * b->sizes.head_dim;
}

static const struct kernels_adam adam_step = {1e-6, 0.9, 0.999, 1e-8, 0.5, 0.5};

static void run_cast(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->cast(b->queue, o->d_t[0], DTYPE_BF16, o->d_f[0], DTYPE_F32,
                     b->sizes.rows * 2 * b->sizes.width);
}

static void run_embed(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->embed(b->queue, o->d_f[0], o->d_index, o->d_t[0], b->type, 48.0f, b->sizes.tokens,
                      b->sizes.width);
}

static void run_rms_norm(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->rms_norm(b->queue, o->d_t[0], o->d_f[0], o->d_f[1], 1e-6f, b->sizes.tokens,
                         b->sizes.width);
}

static void run_post_norm(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->post_norm(b->queue, o->d_f[0], NULL, o->d_t[0], o->d_f[1], o->d_f[2], o->d_f[3],
                          1e-6f, b->sizes.tokens, b->sizes.width);
}

static void run_rope(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->rope(b->queue, o->d_t[0], o->d_index, o->d_f[0], b->sizes.tokens,
                     b->sizes.heads + b->sizes.key_heads, b->sizes.head_dim, qkv_width(b));
}

static void run_geglu(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->geglu(b->queue, o->d_t[0], o->d_t[1], b->sizes.tokens, b->sizes.inner);
}

static void run_row_norms(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->row_norms(b->queue, o->d_f[0], o->d_f[1], b->sizes.tokens, b->sizes.width);
}

static void run_emit(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->emit_rows(b->queue, o->d_t[0], o->d_f[0], o->d_index, 0.5f, DTYPE_BF16,
                          b->sizes.tokens, 2 * b->sizes.width, 0, 0, b->sizes.width);
}

static void run_emit_int8(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->emit_rows(b->queue, o->d_t[0], o->d_f[0], o->d_index, 0.5f, DTYPE_I8,
                          b->sizes.tokens, 4 + b->sizes.width, 4, 0, b->sizes.width);
}

static void run_load(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->load_rows(b->queue, o->d_t[0], o->d_t[1], DTYPE_BF16, o->columns, 2, b->sizes.rows,
                          2 * b->sizes.width);
}

static void run_load_int8(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->load_rows(b->queue, o->d_t[0], o->d_t[1], DTYPE_I8, o->columns, 2, b->sizes.rows,
                          2 * b->sizes.width);
}

static void run_column_means(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->column_means(b->queue, o->d_f[0], o->d_t[0], b->sizes.rows, 2 * b->sizes.width);
}

static void run_column_sums(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->column_sums(b->queue, o->d_f[0], o->d_t[0], b->sizes.rows, 2 * b->sizes.width);
}

static void run_recon(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->recon(b->queue, o->d_t[0], (struct kernels_recon_sums *)o->d_sums, o->d_f[0],
                      o->d_t[1], o->d_f[1], o->columns, 2, 1e-3f, b->sizes.rows,
                      2 * b->sizes.width);
}

static void run_relu_backward(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->relu_backward(b->queue, o->d_t[0], o->d_f[0], o->d_f[1], o->d_counts, o->d_t[1],
                              o->d_f[2], b->sizes.rows, b->sizes.latents);
}

static void run_decoder_norms(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->decoder_norms(b->queue, o->d_f[0], o->d_f[1], o->d_f[2], o->columns, 2,
                              b->sizes.latents, 2 * b->sizes.width);
}

static struct kernels_decoder decoder_of(const struct bench *b, const struct operands *o)
{
    return (struct kernels_decoder){.columns = o->columns,
                                    .sources = 2,
                                    .latents = b->sizes.latents,
                                    .width = 2 * b->sizes.width,
                                    .d_norms = o->d_norms,
                                    .d_weight = o->d_norms + 2 * b->sizes.latents,
                                    .d_sums = o->d_norms,
                                    .factor = 1e-9f};
}

static void run_decoder_square(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    struct kernels_decoder decoder = decoder_of(b, o);
    b->kernels->decoder_square(b->queue, o->d_sums, o->d_f[3], o->d_f[0], &decoder);
}

static void run_scale(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->scale(b->queue, o->d_f[0], o->d_f[1], 0.5f, b->sizes.latents * 2 * b->sizes.width);
}

static void run_dot(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->dot(b->queue, o->d_sums, o->d_f[0], o->d_f[0],
                    b->sizes.latents * 2 * b->sizes.width);
}

static void run_adam(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    b->kernels->adam(b->queue, o->d_f[0], o->d_f[1], o->d_f[2],
                     b->type == DTYPE_F32 ? NULL : o->d_t[0], o->d_f[3], o->d_one, &adam_step,
                     b->sizes.latents * 2 * b->sizes.width);
}

static void run_decoder_adam(struct bench *b, void *argument)
{
    const struct operands *o = argument;
    struct kernels_decoder decoder = decoder_of(b, o);
    b->kernels->decoder_adam(b->queue, o->d_f[0], o->d_f[1], o->d_f[2],
                             b->type == DTYPE_F32 ? NULL : o->d_t[0], o->d_f[3], o->d_one,
                             &adam_step, &decoder);
}

static size_t slot_bytes(const struct bench *b)
{
    return 2 * b->sizes.width * dtype_size(DTYPE_BF16);
}

/* A batch's first place; it was last used `slots` rows ago. */
static size_t next_batch(const struct bench *b, struct operands *o)
{
    size_t first = o->next + b->sizes.rows <= o->slots ? o->next : 0;
    o->next = first + b->sizes.rows;
    return first;
}

static void run_move_to_slots(struct bench *b, void *argument)
{
    struct operands *o = argument;
    size_t first = next_batch(b, o), bytes = slot_bytes(b);
    b->kernels->move_rows(b->queue, (uint8_t *)o->d_f[0], o->d_places + first,
                          (uint8_t *)o->d_f[1] + first * bytes, NULL, b->sizes.rows, bytes);
}

static void run_move_from_slots(struct bench *b, void *argument)
{
    struct operands *o = argument;
    size_t first = next_batch(b, o), bytes = slot_bytes(b);
    b->kernels->move_rows(b->queue, (uint8_t *)o->d_f[1] + first * bytes, NULL,
                          (uint8_t *)o->d_f[0], o->d_places + first, b->sizes.rows, bytes);
}

static void run_hash(struct bench *b, void *argument)
{
    struct operands *o = argument;
    b->kernels->hash_rows(b->queue, o->d_t[0], o->d_t[1], (uint8_t *)o->d_f[0],
                          o->d_places + next_batch(b, o), b->sizes.rows, slot_bytes(b));
}

/* Sequences of 1024 tokens, or one where there are fewer. */
static void run_attention(struct bench *b, void *argument)
{
    enum { MOST = 64 };
    const struct operands *o = argument;
    struct kernels_span spans[MOST];
    uint32_t count = 0, length = (uint32_t)bench_sequence(b);
    for (; count < MOST && (count + 1) * length <= b->sizes.tokens; count++)
        spans[count] = (struct kernels_span){count * length, length};
    struct kernels_attention attention = {.heads = (uint32_t)b->sizes.heads,
                                          .key_heads = (uint32_t)b->sizes.key_heads,
                                          .head_dim = (uint32_t)b->sizes.head_dim,
                                          .scale = 1.0f / 16,
                                          .cap = 50,
                                          .window = 4096};
    b->kernels->attention(b->queue, o->d_t[0], o->d_t[1], &attention, spans, count);
}

static void bench_attention(struct bench *b, struct operands *o)
{
    char shape[64];
    double length = (double)bench_sequence(b), tokens = (double)b->sizes.tokens;
    double seconds = bench_time(b, run_attention, o);
    double operations =
        4.0 * (double)(b->sizes.heads * b->sizes.head_dim) * tokens * (length + 1) / 2;
    snprintf(shape, sizeof shape, "%zu tokens, %zu/%zu heads of %zu", b->sizes.tokens,
             b->sizes.heads, b->sizes.key_heads, b->sizes.head_dim);
    bench_result(b, "attention", shape, seconds, operations / seconds, "GF/s", b->product_rate);
}

static void bench_memory_bound(struct bench *b, struct operands *o)
{
    const size_t n = b->sizes.tokens, d = b->sizes.width, inner = b->sizes.inner;
    const size_t rotated = (b->sizes.heads + b->sizes.key_heads) * b->sizes.head_dim;
    const size_t rows = b->sizes.rows, width = 2 * d, latents = b->sizes.latents;
    const double t = (double)dtype_size(b->type), copy = t < 4 ? 2 : 0;
    const struct {
        const char *name;
        bench_call *run;
        size_t count, width; /* the shape of the largest operand */
        double bytes;        /* that each of its values costs */
    } operations[] = {
        {"cast to bf16", run_cast, rows, width, 6},
        {"embed", run_embed, n, d, 4 + t},
        {"rms_norm", run_rms_norm, n, d, 4 + t},
        {"post_norm", run_post_norm, n, d, 12 + t},
        {"rope", run_rope, n, rotated, 2 * t + 4 * (double)b->sizes.head_dim / (double)rotated},
        {"geglu", run_geglu, n, inner, 3 * t},
        {"row_norms", run_row_norms, n, d, 4},
        {"emit_rows as bf16", run_emit, n, d, 6},
        {"emit_rows as int8", run_emit_int8, n, d, 5},
        {"load_rows of bf16", run_load, rows, width, 2 + t},
        {"load_rows of int8", run_load_int8, rows, width, 1 + t},
        {"column_means", run_column_means, rows, width, t},
        {"column_sums", run_column_sums, rows, width, t},
        {"recon", run_recon, rows, width, 4 + 2 * t},
        {"relu_backward", run_relu_backward, rows, latents, 3 * t},
        {"decoder_norms", run_decoder_norms, latents, width, 4},
        {"decoder_square", run_decoder_square, latents, width, 8},
        {"scale", run_scale, latents, width, 8},
        {"dot", run_dot, latents, width, 4},
        {"adam", run_adam, latents, width, 28 + copy},
        {"decoder_adam", run_decoder_adam, latents, width, 28 + copy},
        {"move_rows to slots", run_move_to_slots, rows, width, 4},
        {"move_rows from slots", run_move_from_slots, rows, width, 4},
        {"hash_rows of slots", run_hash, rows, width, 2 + 32 / (double)width},
    };
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        char shape[64];
        snprintf(shape, sizeof shape, "%zu x %zu", operations[i].count, operations[i].width);
        double values = (double)operations[i].count * (double)operations[i].width;
        double seconds = bench_time(b, operations[i].run, o);
        bench_result(b, operations[i].name, shape, seconds, operations[i].bytes * values / seconds,
                     "GB/s", b->copy_rate);
    }
}

/* Shuffles the slots of an f32 matrix of `count`. */
static void choose_places(struct bench *bench, struct operands *o, size_t count)
{
    struct perm perm;
    o->slots = count * sizeof(float) / slot_bytes(bench);
    uint32_t *places = mem_alloc(o->slots, sizeof *places);
    if (places == NULL)
        bench_fail("there is no memory for the places of rows");
    perm_init(&perm, o->slots, 1, 0);
    for (size_t i = 0; i < o->slots; i++)
        places[i] = (uint32_t)perm_at(&perm, i);
    o->d_places = bench_random(bench, DTYPE_F32, o->slots);
    bench->kernels->upload(bench->queue, o->d_places, places, o->slots * sizeof *places);
    if (bench->kernels->wait(bench->queue) != 0)
        bench_fail("the places of rows did not reach the device");
    free(places);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

void bench_operations(struct bench *bench)
{
    const struct bench_sizes *sizes = &bench->sizes;
    struct operands o = {
        .columns = {{0, (uint32_t)sizes->width}, {(uint32_t)sizes->width, (uint32_t)sizes->width}}};
    size_t decoder = sizes->latents * 2 * sizes->width;
    size_t count =
        larger(larger(decoder, sizes->rows * sizes->latents),
               larger(sizes->tokens * 2 * sizes->inner, sizes->tokens * qkv_width(bench)));
    size_t places = larger(sizes->rows, sizes->tokens);
    uint32_t *index = mem_alloc(places, sizeof *index);
    float one = 1;
    if (index == NULL)
        bench_fail("there is no memory for an index");
    for (size_t i = 0; i < 2; i++)
        o.d_t[i] = bench_random(bench, bench->type, count);
    for (size_t i = 0; i < 4; i++)
        o.d_f[i] = bench_random(bench, DTYPE_F32, count);
    for (size_t i = 0; i < places; i++)
        index[i] = (uint32_t)(places - 1 - i);
    o.d_index = bench_random(bench, DTYPE_F32, places);
    o.d_counts = bench_random(bench, DTYPE_F32, sizes->latents);
    o.d_sums = bench_random(bench, DTYPE_F32, 64);
    o.d_one = bench_random(bench, DTYPE_F32, 1);
    o.d_norms = bench_random(bench, DTYPE_F32, 3 * sizes->latents);
    bench->kernels->upload(bench->queue, o.d_index, index, places * sizeof *index);
    bench->kernels->upload(bench->queue, o.d_one, &one, sizeof one);
    bench->kernels->clear(bench->queue, o.d_f[2],
                          decoder * sizeof(float)); /* no negative squares */
    choose_places(bench, &o, count);
    bench_attention(bench, &o);
    bench_memory_bound(bench, &o);
    void *d_memory[] = {o.d_t[0],  o.d_t[1],   o.d_f[0],   o.d_f[1], o.d_f[2], o.d_f[3],
                        o.d_index, o.d_places, o.d_counts, o.d_sums, o.d_one,  o.d_norms};
    for (size_t i = 0; i < sizeof d_memory / sizeof *d_memory; i++)
        bench->kernels->free(bench->device, d_memory[i]);
    free(index);
}
