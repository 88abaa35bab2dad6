/* gemma2.c - the forward pass of Gemma-2 up to the last hook.
 *
 *   x = embed[ids] sqrt(d)
 *   per layer: h = rms(x, input); q | k | v = h W_qkv'; rotate q and k; attend;
 *              x += rms(attended W_o', post_attention)
 *              h = rms(x, pre_feedforward)
 *              x += rms((gelu(h W_gate') (h W_up')) W_down', post_feedforward)
 *
 * Attention sees whole sequences; everything else goes chunk by chunk of the device's chunk_tokens,
 * through all operations between one attention and the next, so that what lies between them (the
 * widest is (C, 2 I)) stays in the cache and takes memory for one chunk alone. It also gives every
 * product one shape, whatever the pass is. A last chunk that is not full is computed in full;
 * attention leaves its rows behind the last sequence alone, and what is in them reaches no other
 * row.
 *
 * The residual stream is f32 in both compute types; the embedding factor is rounded to T, as the
 * model was trained with.
 */
#include "gemma2_model.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sig.h"
#include "pass.h"

/* ---- set-up */

void gemma2_product_shape(const struct gemma2_config *config, enum gemma2_product product,
                          size_t *rows, size_t *columns)
{
    size_t attended = (size_t)config->heads * config->head_dim;
    *rows = config->width;
    *columns = config->width;
    switch (product) {
    case GEMMA2_PRODUCT_QKV:
        *rows = gemma2_qkv_width(config);
        break;
    case GEMMA2_PRODUCT_O:
        *columns = attended;
        break;
    case GEMMA2_PRODUCT_GATE_UP:
        *rows = 2 * (size_t)config->inner;
        break;
    default:
        *columns = config->inner;
    }
}

static int create_product(struct gemma2 *model, enum gemma2_product product)
{
    size_t rows, columns;
    gemma2_product_shape(model->config, product, &rows, &columns);
    bool residual = product == GEMMA2_PRODUCT_O || product == GEMMA2_PRODUCT_DOWN;
    struct kernels_gemm_shape shape = {.m = model->on.kernels->chunk_tokens,
                                       .n = (int64_t)rows,
                                       .k = (int64_t)columns,
                                       .trans_b = true,
                                       .packed_b = true,
                                       .a = model->on.type,
                                       .b = model->on.type,
                                       .c = residual ? DTYPE_F32 : model->on.type};
    return model->on.kernels->gemm_create(model->on.device, &model->products[product], &shape);
}

int gemma2_create(struct gemma2 **created, const struct gemma2_device *on,
                  const struct gemma2_config *config, const struct sources *sources,
                  size_t model_index)
{
    *created = NULL;
    struct gemma2 *model = mem_alloc_zero(1, sizeof *model);
    if (model == NULL)
        return mem_fail("a model", 1, sizeof *model);
    model->on = *on;
    model->config = config;
    model->sources = sources;
    model->index = model_index;
    model->depth = sources_depth(sources, model_index);
    model->used = model->depth.layers + (model->depth.attention ? 1 : 0);
    assert(model->used <= config->layers);
    model->d_packed = mem_alloc_zero(model->used, GEMMA2_PRODUCTS * sizeof *model->d_packed);
    int status = model->d_packed == NULL ? mem_fail("a model", model->used, GEMMA2_PRODUCTS) : 0;
    for (size_t i = 0; i < GEMMA2_PRODUCTS && status == 0; i++)
        if (gemma2_needs_product(model->depth, 0, (enum gemma2_product)i))
            status = create_product(model, (enum gemma2_product)i);
    if (status != 0) {
        gemma2_free(model);
        return status;
    }
    *created = model;
    return 0;
}

void gemma2_free(struct gemma2 *model)
{
    if (model == NULL)
        return;
    const struct kernels *kernels = model->on.kernels;
    struct kernels_device *device = model->on.device;
    for (size_t i = 0; i < GEMMA2_PRODUCTS; i++)
        kernels->gemm_free(model->products[i]);
    for (size_t i = 0; model->d_packed != NULL && i < (size_t)model->used * GEMMA2_PRODUCTS; i++)
        kernels->free(device, model->d_packed[i]);
    kernels->free(device, model->d_norms);
    kernels->free(device, model->d_embedding);
    kernels->free(device, model->d_angles);
    free(model->d_packed);
    free(model);
}

uint64_t gemma2_buffer_bytes(const struct gemma2 *model, enum gemma2_buffer buffer, size_t tokens)
{
    const struct gemma2_config *config = model->config;
    uint64_t type = dtype_size(model->on.type), inner = model->depth.layers > 0 ? config->inner : 0;
    uint64_t width = config->width, attended = (uint64_t)config->heads * config->head_dim;
    uint64_t chunk = model->on.kernels->chunk_tokens;
    if (model->used == 0 && buffer != GEMMA2_X)
        return 0;
    switch (buffer) {
    case GEMMA2_X:
        return tokens * width * sizeof(float);
    case GEMMA2_QKV:
        return tokens * gemma2_qkv_width(config) * type;
    case GEMMA2_ATTENTION:
        return tokens * attended * type;
    case GEMMA2_NORMED:
        return chunk * width * type;
    case GEMMA2_GATE_UP:
        return chunk * 2 * inner * type;
    case GEMMA2_GATED:
        return chunk * inner * type;
    default:
        return chunk * width * sizeof(float);
    }
}

uint64_t gemma2_position_bytes(const struct gemma2 *model, uint32_t length)
{
    return model->used == 0 ? 0 : (uint64_t)length * model->config->head_dim * sizeof(float);
}

/* As the reference computes them: inverse frequencies and their products with the position are f32.
 */
static void fill_angles(float *angles, const struct gemma2_config *config, uint32_t length)
{
    size_t half = config->head_dim / 2;
    for (size_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)config->head_dim;
        float inverse = 1.0f / (float)pow(config->rope_theta, (double)exponent);
        for (size_t position = 0; position < length; position++) {
            float angle = (float)position * inverse;
            angles[position * 2 * half + i] = (float)cos((double)angle);
            angles[position * 2 * half + half + i] = (float)sin((double)angle);
        }
    }
}

int gemma2_reserve_positions(struct gemma2 *model, uint32_t length)
{
    const struct gemma2_device *on = &model->on;
    if (model->used == 0 || length <= model->length)
        return 0;
    size_t count = (size_t)length * model->config->head_dim;
    float *angles = mem_alloc(count, sizeof *angles);
    if (angles == NULL)
        return mem_fail("angles of positions", count, sizeof *angles);
    fill_angles(angles, model->config, length);
    on->kernels->free(on->device, model->d_angles);
    model->d_angles = NULL;
    model->length = 0;
    void *d_angles = NULL;
    int status = on->kernels->alloc(on->device, &d_angles, count * sizeof *angles);
    if (status == 0) {
        model->d_angles = d_angles;
        model->length = length;
        on->kernels->upload(on->queue, d_angles, angles, count * sizeof *angles);
        status = on->kernels->wait(on->queue);
    }
    free(angles);
    return status;
}

/* ---- the forward pass */

struct forward {
    const struct gemma2 *model;
    const struct kernels *kernels;
    struct kernels_queue *queue;
    const struct gemma2_work *work;
    const struct gemma2_pass *pass;
    gemma2_tap *tap;
    void *context;
    size_t chunk; /* tokens */
    float eps;
};

/* Row `first token of the chunk` of a buffer of whole passes. */
static void *chunk_rows(const struct forward *run, enum gemma2_buffer buffer, size_t chunk,
                        size_t row_bytes)
{
    return (uint8_t *)run->work->d_buffers[buffer] + chunk * run->chunk * row_bytes;
}

static float *chunk_residual(const struct forward *run, size_t chunk)
{
    return chunk_rows(run, GEMMA2_X, chunk, run->model->config->width * sizeof(float));
}

/* Hands the values of a chunk to the sources that are taken here. */
static void tap_values(const struct forward *run, size_t chunk, uint32_t layer,
                       enum sources_kind kind, const float *d_values)
{
    const struct sources *sources = run->model->sources;
    const struct sources_model *of = &sources->models[run->model->index];
    for (size_t i = of->first; i < of->first + of->count; i++)
        if (sources->items[i].layer == layer && sources->items[i].kind == kind)
            run->tap(run->context, i, chunk, d_values);
}

/* Where post_norm() shall leave what is added, or NULL where no source asks for it. */
static float *branch_buffer(const struct forward *run, uint32_t layer, enum sources_kind kind)
{
    const struct sources *sources = run->model->sources;
    const struct sources_model *of = &sources->models[run->model->index];
    for (size_t i = of->first; i < of->first + of->count; i++)
        if (sources->items[i].layer == layer && sources->items[i].kind == kind)
            return run->work->d_buffers[GEMMA2_BRANCH];
    return NULL;
}

static void multiply(const struct forward *run, uint32_t layer, enum gemma2_product product,
                     void *d_out, const void *d_in)
{
    run->kernels->gemm(run->queue, run->model->products[product], d_out, d_in,
                       *gemma2_packed(run->model, layer, product), NULL);
}

static void embed_chunk(const struct forward *run, size_t chunk)
{
    const struct gemma2 *model = run->model;
    float factor = (float)sqrt((double)model->config->width);
    if (model->on.type == DTYPE_BF16)
        factor = dtype_bf16_to_f32(dtype_f32_to_bf16(factor));
    run->kernels->embed(run->queue, chunk_residual(run, chunk),
                        run->pass->d_ids + chunk * run->chunk, model->d_embedding,
                        model->embedding_type, factor, run->chunk, model->config->width);
}

/* q | k | v of the chunk from what is in NORMED. */
static void project_chunk(const struct forward *run, size_t chunk, uint32_t layer)
{
    const struct gemma2_config *config = run->model->config;
    size_t width = gemma2_qkv_width(config);
    void *d_qkv = chunk_rows(run, GEMMA2_QKV, chunk, width * dtype_size(run->model->on.type));
    multiply(run, layer, GEMMA2_PRODUCT_QKV, d_qkv, run->work->d_buffers[GEMMA2_NORMED]);
    run->kernels->rope(run->queue, d_qkv, run->pass->d_positions + chunk * run->chunk,
                       run->model->d_angles, run->chunk, config->heads + config->key_heads,
                       config->head_dim, width);
}

static void attend(const struct forward *run, uint32_t layer)
{
    const struct gemma2_config *config = run->model->config;
    struct kernels_attention attention = {.heads = config->heads,
                                          .key_heads = config->key_heads,
                                          .head_dim = config->head_dim,
                                          .scale = (float)(1.0 / sqrt(config->query_scalar)),
                                          .cap = (float)config->attention_cap,
                                          .window = config->sliding[layer] ? config->window : 0};
    run->kernels->attention(run->queue, run->work->d_buffers[GEMMA2_ATTENTION],
                            run->work->d_buffers[GEMMA2_QKV], &attention, run->pass->spans,
                            run->pass->span_count);
}

/* x += the attention's part; NORMED becomes what enters the feed-forward, if that is used. */
static void finish_attention(const struct forward *run, size_t chunk, uint32_t layer)
{
    const struct gemma2 *model = run->model;
    void *const *d_buffers = run->work->d_buffers;
    size_t attended = (size_t)model->config->heads * model->config->head_dim;
    bool goes_on = layer < model->depth.layers;
    float *d_x = chunk_residual(run, chunk);
    float *d_branch = branch_buffer(run, layer, SOURCES_ATTN_OUT);
    multiply(run, layer, GEMMA2_PRODUCT_O, d_buffers[GEMMA2_OUT],
             chunk_rows(run, GEMMA2_ATTENTION, chunk, attended * dtype_size(model->on.type)));
    run->kernels->post_norm(run->queue, d_x, d_branch, goes_on ? d_buffers[GEMMA2_NORMED] : NULL,
                            d_buffers[GEMMA2_OUT],
                            gemma2_norm(model, layer, GEMMA2_NORM_POST_ATTENTION),
                            goes_on ? gemma2_norm(model, layer, GEMMA2_NORM_PRE_FEEDFORWARD) : NULL,
                            run->eps, run->chunk, model->config->width);
    tap_values(run, chunk, layer, SOURCES_ATTN_OUT, d_branch);
    tap_values(run, chunk, layer, SOURCES_RESID_MID, d_x);
}

/* x += the feed-forward's part; NORMED becomes what enters the next layer, if that is used. */
static void feed_forward(const struct forward *run, size_t chunk, uint32_t layer)
{
    const struct gemma2 *model = run->model;
    void *const *d_buffers = run->work->d_buffers;
    bool goes_on = layer + 1 < model->used;
    float *d_x = chunk_residual(run, chunk);
    float *d_branch = branch_buffer(run, layer, SOURCES_MLP_OUT);
    multiply(run, layer, GEMMA2_PRODUCT_GATE_UP, d_buffers[GEMMA2_GATE_UP],
             d_buffers[GEMMA2_NORMED]);
    run->kernels->geglu(run->queue, d_buffers[GEMMA2_GATED], d_buffers[GEMMA2_GATE_UP], run->chunk,
                        model->config->inner);
    multiply(run, layer, GEMMA2_PRODUCT_DOWN, d_buffers[GEMMA2_OUT], d_buffers[GEMMA2_GATED]);
    run->kernels->post_norm(run->queue, d_x, d_branch, goes_on ? d_buffers[GEMMA2_NORMED] : NULL,
                            d_buffers[GEMMA2_OUT],
                            gemma2_norm(model, layer, GEMMA2_NORM_POST_FEEDFORWARD),
                            goes_on ? gemma2_norm(model, layer + 1, GEMMA2_NORM_INPUT) : NULL,
                            run->eps, run->chunk, model->config->width);
    tap_values(run, chunk, layer, SOURCES_MLP_OUT, d_branch);
    tap_values(run, chunk, layer, SOURCES_RESID_POST, d_x);
    tap_values(run, chunk, layer + 1, SOURCES_RESID_PRE, d_x);
}

int gemma2_forward(const struct gemma2 *model, const struct gemma2_work *work,
                   const struct gemma2_pass *pass, gemma2_tap *tap, void *context)
{
    struct forward run = {.model = model,
                          .kernels = model->on.kernels,
                          .queue = model->on.queue,
                          .work = work,
                          .pass = pass,
                          .tap = tap,
                          .context = context,
                          .chunk = model->on.kernels->chunk_tokens,
                          .eps = (float)model->config->rms_eps};
    for (size_t chunk = 0; chunk < pass->chunks; chunk++) {
        embed_chunk(&run, chunk);
        tap_values(&run, chunk, 0, SOURCES_RESID_PRE, chunk_residual(&run, chunk));
        if (model->used == 0)
            continue;
        run.kernels->rms_norm(run.queue, work->d_buffers[GEMMA2_NORMED],
                              chunk_residual(&run, chunk), gemma2_norm(model, 0, GEMMA2_NORM_INPUT),
                              run.eps, run.chunk, model->config->width);
        project_chunk(&run, chunk, 0);
    }
    for (uint32_t layer = 0; layer < model->used; layer++) {
        attend(&run, layer);
        for (size_t chunk = 0; chunk < pass->chunks; chunk++) {
            if (sig_pending() != 0)
                return ERR_INTERRUPTED;
            finish_attention(&run, chunk, layer);
            if (layer < model->depth.layers)
                feed_forward(&run, chunk, layer);
            if (layer + 1 < model->used)
                project_chunk(&run, chunk, layer + 1);
        }
    }
    return 0;
}
