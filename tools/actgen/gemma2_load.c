/* gemma2_load.c - weights from safetensors to the device.
 *
 * A matrix is read in pieces, converted to f32 on the host and to T on the device, put together
 * with its neighbours (q, k, v; gate, up) in a staging buffer, and packed; then the buffer takes
 * the next one. So only one matrix exists twice. The largest matrices come first, while the others
 * are not there yet, and the embedding last, when staging is gone: of memory above what stays,
 * loading needs the two pieces alone.
 *
 * The embedding stays as it is stored, as only single rows of it are read.
 *
 * The model's identity is a hash over the values as they pass by. A fine-tune may have the headers
 * of its base model and differ in a few rows of one tensor, so nothing less tells them apart; and
 * since what lies above the hook is not in it, it needs no byte that is not read anyway.
 */
#include "gemma2_model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sig.h"

#define EMBEDDING "model.embed_tokens.weight"
enum { PIECE_BYTES = 16 << 20, PIECE = PIECE_BYTES / 4, NAME_MAX_BYTES = 96 };

struct loader {
    struct gemma2 *model;
    const struct safetensors *tensors;
    void *piece;     /* (PIECE_BYTES) host */
    float *d_piece;  /* (PIECE) */
    void *d_staging; /* the matrix as stored, T */
    XXH3_state_t *hash;
};

/* A tensor that is a part of a product's matrix. */
struct part {
    enum gemma2_product product;
    const char *name;
};

static const struct part parts[] = {
    {GEMMA2_PRODUCT_GATE_UP, "mlp.gate_proj"}, {GEMMA2_PRODUCT_GATE_UP, "mlp.up_proj"},
    {GEMMA2_PRODUCT_DOWN, "mlp.down_proj"},    {GEMMA2_PRODUCT_QKV, "self_attn.q_proj"},
    {GEMMA2_PRODUCT_QKV, "self_attn.k_proj"},  {GEMMA2_PRODUCT_QKV, "self_attn.v_proj"},
    {GEMMA2_PRODUCT_O, "self_attn.o_proj"},
};
enum { PARTS = sizeof parts / sizeof *parts };

static const char *const norm_names[] = {
    [GEMMA2_NORM_INPUT] = "input_layernorm",
    [GEMMA2_NORM_POST_ATTENTION] = "post_attention_layernorm",
    [GEMMA2_NORM_PRE_FEEDFORWARD] = "pre_feedforward_layernorm",
    [GEMMA2_NORM_POST_FEEDFORWARD] = "post_feedforward_layernorm",
};

/* ---- what has to be there */

/* Rows of a part, (out, in) as stored. */
static size_t part_rows(const struct gemma2_config *config, const struct part *part)
{
    switch (part->product) {
    case GEMMA2_PRODUCT_QKV:
        return (size_t)(strcmp(part->name, "self_attn.q_proj") == 0 ? config->heads
                                                                    : config->key_heads) *
               config->head_dim;
    case GEMMA2_PRODUCT_GATE_UP:
        return config->inner;
    default:
        return config->width;
    }
}

static void tensor_name(char name[NAME_MAX_BYTES], uint32_t layer, const char *part)
{
    snprintf(name, NAME_MAX_BYTES, "model.layers.%" PRIu32 ".%s.weight", layer, part);
}

/* The tensor of `rows` by `columns` (0: one dimension), or NULL with *code set. */
static const struct safetensors_tensor *find_tensor(const struct safetensors *tensors,
                                                    const char *name, size_t rows, size_t columns,
                                                    int *code)
{
    const struct safetensors_tensor *tensor = safetensors_find(tensors, name);
    if (tensor == NULL) {
        *code = log_fail(ERR_DATA, "'%s': tensor '%s' is missing; is this a Gemma-2 model?",
                         safetensors_name(tensors), name);
        return NULL;
    }
    const char *path = safetensors_path(tensors, tensor);
    unsigned rank = columns == 0 ? 1 : 2;
    if (tensor->rank != rank || tensor->shape[0] != rows ||
        (rank == 2 && tensor->shape[1] != columns)) {
        *code =
            log_fail(ERR_DATA,
                     "'%s': tensor '%s' has %u dimensions and %" PRIu64 " elements; by "
                     "config.json it is %zu by %zu",
                     path, name, tensor->rank, tensor->elements, rows, columns == 0 ? 1 : columns);
        return NULL;
    }
    if (tensor->type != SAFETENSORS_F32 && tensor->type != SAFETENSORS_BF16 &&
        tensor->type != SAFETENSORS_F16) {
        *code = log_fail(ERR_USAGE, "'%s': tensor '%s' is %s; F32, BF16 and F16 can be read", path,
                         name, safetensors_type_name(tensor->type));
        return NULL;
    }
    return tensor;
}

static enum dtype stored_type(const struct safetensors_tensor *tensor)
{
    return tensor->type == SAFETENSORS_F32    ? DTYPE_F32
           : tensor->type == SAFETENSORS_BF16 ? DTYPE_BF16
                                              : DTYPE_F16;
}

static const struct safetensors_tensor *find_part(const struct gemma2 *model,
                                                  const struct safetensors *tensors, uint32_t layer,
                                                  const struct part *part, int *code)
{
    size_t rows, columns;
    char name[NAME_MAX_BYTES];
    gemma2_product_shape(model->config, part->product, &rows, &columns);
    tensor_name(name, layer, part->name);
    return find_tensor(tensors, name, part_rows(model->config, part), columns, code);
}

static const struct safetensors_tensor *find_norm(const struct gemma2 *model,
                                                  const struct safetensors *tensors, uint32_t layer,
                                                  size_t norm, int *code)
{
    char name[NAME_MAX_BYTES];
    tensor_name(name, layer, norm_names[norm]);
    return find_tensor(tensors, name, model->config->width, 0, code);
}

static const struct safetensors_tensor *find_embedding(const struct gemma2 *model,
                                                       const struct safetensors *tensors, int *code)
{
    return find_tensor(tensors, EMBEDDING, model->config->vocab, model->config->width, code);
}

bool gemma2_wants(const char *name, const void *context)
{
    static const char before[] = "model.layers.";
    const struct sources_depth *depth = context;
    char wanted[NAME_MAX_BYTES];
    if (strcmp(name, EMBEDDING) == 0)
        return true;
    if (strncmp(name, before, sizeof before - 1) != 0)
        return false;
    unsigned long number = strtoul(name + sizeof before - 1, NULL, 10);
    uint32_t layer = number > UINT32_MAX ? UINT32_MAX : (uint32_t)number;
    for (size_t i = 0; i < PARTS; i++) {
        tensor_name(wanted, layer, parts[i].name);
        if (strcmp(name, wanted) == 0)
            return gemma2_needs_product(*depth, layer, parts[i].product);
    }
    for (size_t i = 0; i < GEMMA2_NORMS; i++) {
        tensor_name(wanted, layer, norm_names[i]);
        if (strcmp(name, wanted) == 0)
            return gemma2_needs_norm(*depth, layer, (enum gemma2_norm)i);
    }
    return false;
}

/* Finds every tensor of a layer that is used. */
static int check_layer(const struct gemma2 *model, const struct safetensors *tensors,
                       uint32_t layer)
{
    int code = 0;
    for (size_t i = 0; i < PARTS && code == 0; i++)
        if (gemma2_needs_product(model->depth, layer, parts[i].product))
            (void)find_part(model, tensors, layer, &parts[i], &code);
    for (size_t i = 0; i < GEMMA2_NORMS && code == 0; i++)
        if (gemma2_needs_norm(model->depth, layer, (enum gemma2_norm)i))
            (void)find_norm(model, tensors, layer, i, &code);
    return code;
}

static size_t staging_bytes(const struct gemma2 *model)
{
    size_t largest = 0;
    for (size_t i = 0; i < GEMMA2_PRODUCTS; i++) {
        size_t rows, columns;
        gemma2_product_shape(model->config, (enum gemma2_product)i, &rows, &columns);
        size_t bytes = rows * columns * dtype_size(model->on.type);
        if (model->products[i] != NULL && bytes > largest)
            largest = bytes;
    }
    return largest;
}

int gemma2_measure(const struct gemma2 *model, const struct safetensors *tensors,
                   struct gemma2_memory *memory)
{
    const struct kernels *kernels = model->on.kernels;
    int code = 0;
    *memory = (struct gemma2_memory){0};
    for (uint32_t layer = 0; layer < model->used && code == 0; layer++) {
        code = check_layer(model, tensors, layer);
        for (size_t i = 0; i < GEMMA2_PRODUCTS; i++)
            if (gemma2_needs_product(model->depth, layer, (enum gemma2_product)i))
                memory->packed += kernels->gemm_packed_bytes(model->products[i]);
    }
    if (code != 0)
        return code;
    const struct safetensors_tensor *embedding = find_embedding(model, tensors, &code);
    if (embedding == NULL)
        return code;
    memory->embedding = embedding->bytes;
    memory->norms = (uint64_t)model->used * GEMMA2_NORMS * model->config->width * sizeof(float);
    memory->staging = staging_bytes(model) + 2 * (uint64_t)PIECE_BYTES;
    return 0;
}

/* ---- reading */

/* Elements of the tensor as T to d_staging from element `at` on. */
static int stage_tensor(const struct loader *loader, const struct safetensors_tensor *tensor,
                        size_t at)
{
    const struct gemma2_device *on = &loader->model->on;
    size_t size = dtype_size(on->type);
    for (uint64_t first = 0; first < tensor->elements; first += PIECE) {
        uint64_t left = tensor->elements - first;
        size_t count = left < PIECE ? (size_t)left : PIECE;
        int status = safetensors_read_f32(loader->tensors, tensor, loader->piece, first, count);
        if (status != 0)
            return status;
        XXH3_128bits_update(loader->hash, loader->piece, count * sizeof(float));
        on->kernels->upload(on->queue, loader->d_piece, loader->piece, count * sizeof(float));
        on->kernels->cast(on->queue, (uint8_t *)loader->d_staging + (at + first) * size, on->type,
                          loader->d_piece, DTYPE_F32, count);
        /* The host's piece is written again at once. */
        if ((status = on->kernels->wait(on->queue)) != 0)
            return status;
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
    }
    return 0;
}

static int load_product(const struct loader *loader, uint32_t layer, enum gemma2_product product)
{
    const struct gemma2_device *on = &loader->model->on;
    struct kernels_gemm *gemm = loader->model->products[product];
    void **d_packed = gemma2_packed(loader->model, layer, product);
    size_t at = 0;
    int status = on->kernels->alloc(on->device, d_packed, on->kernels->gemm_packed_bytes(gemm));
    for (size_t i = 0; i < PARTS && status == 0; i++) {
        if (parts[i].product != product)
            continue;
        const struct safetensors_tensor *tensor =
            find_part(loader->model, loader->tensors, layer, &parts[i], &status);
        if (tensor == NULL)
            break;
        status = stage_tensor(loader, tensor, at);
        at += tensor->elements;
    }
    if (status != 0)
        return status;
    on->kernels->gemm_pack(on->queue, gemm, *d_packed, loader->d_staging);
    return on->kernels->wait(on->queue);
}

static int load_products(const struct loader *loader)
{
    static const enum gemma2_product largest_first[] = {GEMMA2_PRODUCT_GATE_UP, GEMMA2_PRODUCT_DOWN,
                                                        GEMMA2_PRODUCT_QKV, GEMMA2_PRODUCT_O};
    int status = 0;
    for (size_t i = 0; i < GEMMA2_PRODUCTS; i++)
        for (uint32_t layer = 0; layer < loader->model->used && status == 0; layer++)
            if (gemma2_needs_product(loader->model->depth, layer, largest_first[i]))
                status = load_product(loader, layer, largest_first[i]);
    return status;
}

static int load_norms(const struct loader *loader)
{
    const struct gemma2 *model = loader->model;
    const struct gemma2_device *on = &model->on;
    size_t width = model->config->width;
    int status = 0;
    for (uint32_t layer = 0; layer < model->used; layer++) {
        for (size_t i = 0; i < GEMMA2_NORMS; i++) {
            if (!gemma2_needs_norm(model->depth, layer, (enum gemma2_norm)i))
                continue;
            const struct safetensors_tensor *tensor =
                find_norm(model, loader->tensors, layer, i, &status);
            if (tensor == NULL)
                return status;
            status = safetensors_read_f32(loader->tensors, tensor, loader->piece, 0, width);
            if (status != 0)
                return status;
            XXH3_128bits_update(loader->hash, loader->piece, width * sizeof(float));
            on->kernels->upload(on->queue, gemma2_norm(model, layer, (enum gemma2_norm)i),
                                loader->piece, width * sizeof(float));
            if ((status = on->kernels->wait(on->queue)) != 0)
                return status;
        }
    }
    return 0;
}

static int load_embedding(const struct loader *loader)
{
    struct gemma2 *model = loader->model;
    const struct gemma2_device *on = &model->on;
    int status = 0;
    const struct safetensors_tensor *tensor = find_embedding(model, loader->tensors, &status);
    if (tensor == NULL)
        return status;
    model->embedding_type = stored_type(tensor);
    status = on->kernels->alloc(on->device, &model->d_embedding, tensor->bytes);
    for (uint64_t first = 0; first < tensor->bytes && status == 0; first += PIECE_BYTES) {
        uint64_t left = tensor->bytes - first, size = left < PIECE_BYTES ? left : PIECE_BYTES;
        status = safetensors_read(loader->tensors, tensor, loader->piece, first, size);
        if (status != 0)
            break;
        XXH3_128bits_update(loader->hash, loader->piece, size);
        on->kernels->upload(on->queue, (uint8_t *)model->d_embedding + first, loader->piece, size);
        status = on->kernels->wait(on->queue);
        if (status == 0 && sig_pending() != 0)
            status = ERR_INTERRUPTED;
    }
    return status;
}

/* Everything; the loader's host memory is there. */
static int load_all(struct loader *loader)
{
    struct gemma2 *model = loader->model;
    const struct gemma2_device *on = &model->on;
    size_t norms = (size_t)model->used * GEMMA2_NORMS * model->config->width;
    void *d_piece = NULL, *d_norms = NULL;
    int status = on->kernels->alloc(on->device, &d_piece, PIECE_BYTES);
    if (status == 0)
        status = on->kernels->alloc(on->device, &loader->d_staging, staging_bytes(model));
    if (status == 0)
        status = on->kernels->alloc(on->device, &d_norms, norms * sizeof(float));
    loader->d_piece = d_piece;
    model->d_norms = d_norms;
    if (status == 0)
        status = load_norms(loader);
    if (status == 0)
        status = load_products(loader);
    on->kernels->free(on->device, loader->d_staging);
    on->kernels->free(on->device, d_piece);
    return status != 0 ? status : load_embedding(loader);
}

int gemma2_load(struct gemma2 *model, char hash[33], const struct safetensors *tensors,
                const char *config_hash)
{
    struct loader loader = {.model = model,
                            .tensors = tensors,
                            .piece = mem_alloc(PIECE_BYTES, 1),
                            .hash = XXH3_createState()};
    int status;
    if (loader.piece == NULL || loader.hash == NULL) {
        status = mem_fail("reading weights", PIECE_BYTES, 1);
    } else {
        XXH3_128bits_reset(loader.hash);
        XXH3_128bits_update(loader.hash, config_hash, strlen(config_hash));
        status = load_all(&loader);
    }
    if (status == 0) {
        XXH128_hash_t sum = XXH3_128bits_digest(loader.hash);
        snprintf(hash, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)sum.high64, (uint64_t)sum.low64);
    }
    XXH3_freeState(loader.hash);
    free(loader.piece);
    return status;
}
