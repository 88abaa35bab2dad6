/* tiny_model.h - small Gemma-2 models with random weights, as folders, and the forward pass written
 * out in f64 from its definition: no tiles, no chunks, one loop a sum.
 */
#ifndef CCPIPE_TESTS_TINY_MODEL_H
#define CCPIPE_TESTS_TINY_MODEL_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actgen.h"
#include "common/safetensors.h"

enum { TINY_MAX_TENSORS = 128, TINY_MAX_LAYERS = 8 };

struct tiny_config {
    uint32_t vocab, width, inner, layers, heads, key_heads, head_dim;
    uint32_t window; /* 0: null */
    double cap;      /* 0: null */
    double eps, theta, query_scalar;
    bool full_first; /* layer_types is given, and says the opposite of the default */
};

static const struct tiny_config tiny_default = {.vocab = 50,
                                                .width = 24,
                                                .inner = 40,
                                                .layers = 3,
                                                .heads = 4,
                                                .key_heads = 2,
                                                .head_dim = 6,
                                                .window = 5,
                                                .cap = 3,
                                                .eps = 1e-3,
                                                .theta = 100,
                                                .query_scalar = 3};

struct tiny_tensor {
    char name[96];
    unsigned rank;
    uint64_t shape[2];
    float *values;
};

struct tiny {
    struct tiny_config config;
    enum safetensors_type type; /* as stored; the values are rounded to it */
    struct tiny_tensor tensors[TINY_MAX_TENSORS];
    size_t count;
    uint64_t state;
};

/* ---- weights */

static inline double tiny_random(struct tiny *tiny)
{
    uint64_t z = tiny->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1.0;
}

/* A float whose value F16 and BF16 have, too: 8 bits of mantissa, no small exponent. */
static inline float tiny_round(double value, enum safetensors_type type)
{
    if (type == SAFETENSORS_F32)
        return (float)value;
    return fabs(value) < 1e-3 ? 0.0f : dtype_bf16_to_f32(dtype_f32_to_bf16((float)value));
}

static inline void tiny_add(struct tiny *tiny, const char *name, uint64_t rows, uint64_t columns,
                            double scale)
{
    assert_true(tiny->count < TINY_MAX_TENSORS);
    struct tiny_tensor *tensor = &tiny->tensors[tiny->count++];
    size_t n = (size_t)(rows * (columns == 0 ? 1 : columns));
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    tensor->rank = columns == 0 ? 1 : 2;
    tensor->shape[0] = rows;
    tensor->shape[1] = columns;
    tensor->values = malloc(n * sizeof(float));
    assert_non_null(tensor->values);
    for (size_t i = 0; i < n; i++)
        tensor->values[i] = tiny_round(scale * tiny_random(tiny), tiny->type);
}

static inline void tiny_add_part(struct tiny *tiny, uint32_t layer, const char *part, uint64_t rows,
                                 uint64_t columns)
{
    char name[96];
    snprintf(name, sizeof name, "model.layers.%u.%s.weight", (unsigned)layer, part);
    tiny_add(tiny, name, rows, columns, columns == 0 ? 0.5 : 2 / sqrt((double)columns));
}

static inline void tiny_make(struct tiny *tiny, const struct tiny_config *config,
                             enum safetensors_type type, uint64_t seed)
{
    memset(tiny, 0, sizeof *tiny);
    tiny->config = *config;
    tiny->type = type;
    tiny->state = seed;
    uint64_t d = config->width, queries = config->heads * config->head_dim;
    uint64_t keys = config->key_heads * config->head_dim;
    tiny_add(tiny, "model.embed_tokens.weight", config->vocab, d, 1);
    for (uint32_t i = 0; i < config->layers; i++) {
        tiny_add_part(tiny, i, "input_layernorm", d, 0);
        tiny_add_part(tiny, i, "self_attn.q_proj", queries, d);
        tiny_add_part(tiny, i, "self_attn.k_proj", keys, d);
        tiny_add_part(tiny, i, "self_attn.v_proj", keys, d);
        tiny_add_part(tiny, i, "self_attn.o_proj", d, queries);
        tiny_add_part(tiny, i, "post_attention_layernorm", d, 0);
        tiny_add_part(tiny, i, "pre_feedforward_layernorm", d, 0);
        tiny_add_part(tiny, i, "mlp.gate_proj", config->inner, d);
        tiny_add_part(tiny, i, "mlp.up_proj", config->inner, d);
        tiny_add_part(tiny, i, "mlp.down_proj", d, config->inner);
        tiny_add_part(tiny, i, "post_feedforward_layernorm", d, 0);
    }
    tiny_add(tiny, "model.norm.weight", d, 0, 0.5);
}

static inline void tiny_free(struct tiny *tiny)
{
    for (size_t i = 0; i < tiny->count; i++)
        free(tiny->tensors[i].values);
    tiny->count = 0;
}

static inline struct tiny_tensor *tiny_find(const struct tiny *tiny, const char *name)
{
    for (size_t i = 0; i < tiny->count; i++)
        if (strcmp(tiny->tensors[i].name, name) == 0)
            return (struct tiny_tensor *)(uintptr_t)&tiny->tensors[i];
    fail_msg("the test asks for a tensor '%s'", name);
    return NULL;
}

/* ---- folders */

static inline void tiny_write_text(const char *folder, const char *file, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    assert_true(fputs(text, to) >= 0);
    assert_int_equal(fclose(to), 0);
}

/* All keys that the forward pass needs. */
static inline json_t *tiny_config_json(const struct tiny *tiny)
{
    const struct tiny_config *c = &tiny->config;
    json_t *json = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f}", "model_type", "gemma2",
        "vocab_size", (int)c->vocab, "hidden_size", (int)c->width, "intermediate_size",
        (int)c->inner, "num_hidden_layers", (int)c->layers, "num_attention_heads", (int)c->heads,
        "num_key_value_heads", (int)c->key_heads, "head_dim", (int)c->head_dim, "rms_norm_eps",
        c->eps, "rope_theta", c->theta, "query_pre_attn_scalar", c->query_scalar);
    assert_non_null(json);
    assert_int_equal(
        json_object_set_new(json, "sliding_window",
                            c->window == 0 ? json_null() : json_integer((int)c->window)),
        0);
    assert_int_equal(json_object_set_new(json, "attn_logit_softcapping",
                                         c->cap > 0 ? json_real(c->cap) : json_null()),
                     0);
    json_t *types = json_array();
    for (uint32_t i = 0; i < c->layers; i++)
        json_array_append_new(
            types,
            json_string((i % 2 == 0) == c->full_first ? "full_attention" : "sliding_attention"));
    if (c->full_first)
        json_object_set(json, "layer_types", types);
    json_decref(types);
    return json;
}

static inline void tiny_write_config(const char *folder, json_t *json)
{
    char path[512];
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_write_file(json, path), 0);
    json_decref(json);
}

/* A value as stored. F16 has the same mantissa bits here and another bias, 15 in place of 127. */
static inline void tiny_store(uint8_t *to, float value, enum safetensors_type type)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (type == SAFETENSORS_F32 || type == SAFETENSORS_I32)
        le_put32(to, bits);
    else if (type == SAFETENSORS_BF16)
        le_put16(to, (uint16_t)(bits >> 16));
    else
        le_put16(
            to,
            (uint16_t)((bits >> 16 & 0x8000u) |
                       ((bits & 0x7fffffffu) == 0 ? 0 : (bits >> 13 & 0x3ffffu) - (112u << 10))));
}

static inline size_t tiny_elements(const struct tiny_tensor *tensor)
{
    return (size_t)(tensor->shape[0] * (tensor->rank == 1 ? 1 : tensor->shape[1]));
}

/* Tensors first .. end - 1 into a file, replaced. */
static inline void tiny_write_tensors(const struct tiny *tiny, const char *path, size_t first,
                                      size_t end)
{
    size_t size = safetensors_type_size(tiny->type), bytes = 0;
    json_t *header = json_object();
    FILE *file = fopen(path, "wb");
    assert_true(file != NULL && header != NULL);
    for (size_t i = first; i < end; i++) {
        const struct tiny_tensor *tensor = &tiny->tensors[i];
        size_t behind = bytes + tiny_elements(tensor) * size;
        json_t *entry = json_pack(
            "{s:s, s:[I], s:[II]}", "dtype", safetensors_type_name(tiny->type), "shape",
            (json_int_t)tensor->shape[0], "data_offsets", (json_int_t)bytes, (json_int_t)behind);
        if (tensor->rank == 2)
            json_array_append_new(json_object_get(entry, "shape"),
                                  json_integer((json_int_t)tensor->shape[1]));
        assert_int_equal(json_object_set_new(header, tensor->name, entry), 0);
        bytes = behind;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    uint8_t length[8];
    le_put64(length, strlen(text));
    assert_int_equal(fwrite(length, 1, sizeof length, file), sizeof length);
    assert_true(fputs(text, file) >= 0);
    for (size_t i = first; i < end; i++)
        for (size_t j = 0; j < tiny_elements(&tiny->tensors[i]); j++) {
            uint8_t stored[4];
            tiny_store(stored, tiny->tensors[i].values[j], tiny->type);
            assert_int_equal(fwrite(stored, 1, size, file), size);
        }
    assert_int_equal(fclose(file), 0);
    free(text);
    json_decref(header);
}

/* A folder of config.json and model.safetensors; its path. */
static inline char *tiny_write(const struct tiny *tiny, const char *name)
{
    char *folder = actgen_path(name), path[512];
    assert_true(mkdir(folder, 0700) == 0 || access(folder, W_OK) == 0);
    tiny_write_config(folder, tiny_config_json(tiny));
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    tiny_write_tensors(tiny, path, 0, tiny->count);
    return folder;
}

/* ---- the forward pass */

static inline const float *tiny_weights(const struct tiny *tiny, uint32_t layer, const char *part)
{
    char name[96];
    snprintf(name, sizeof name, "model.layers.%u.%s.weight", (unsigned)layer, part);
    return tiny_find(tiny, name)->values;
}

/* out (n, rows) = in (n, columns) times W (rows, columns) transposed. */
static inline void tiny_multiply(double *out, const double *in, const float *w, size_t n,
                                 size_t rows, size_t columns)
{
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < rows; r++) {
            out[i * rows + r] = 0;
            for (size_t c = 0; c < columns; c++)
                out[i * rows + r] += in[i * columns + c] * (double)w[r * columns + c];
        }
}

static inline void tiny_norm(double *out, const double *in, const float *w, size_t n, size_t d,
                             double eps)
{
    for (size_t i = 0; i < n; i++) {
        double square = 0;
        for (size_t j = 0; j < d; j++)
            square += in[i * d + j] * in[i * d + j] / (double)d;
        for (size_t j = 0; j < d; j++)
            out[i * d + j] = in[i * d + j] / sqrt(square + eps) * (1 + (double)w[j]);
    }
}

/* The angles are f32 by definition: what is turned by 2500 rad is far from what f64 would give. */
static inline void tiny_rotate(double *heads, size_t n, size_t count, size_t hd, double theta)
{
    for (size_t i = 0; i < n * count; i++)
        for (size_t j = 0; j < hd / 2; j++) {
            float inverse = 1 / (float)pow(theta, (double)((float)(2 * j) / (float)hd));
            double angle = (double)((float)(i / count) * inverse);
            double a = heads[i * hd + j], b = heads[i * hd + j + hd / 2];
            heads[i * hd + j] = a * cos(angle) - b * sin(angle);
            heads[i * hd + j + hd / 2] = b * cos(angle) + a * sin(angle);
        }
}

static inline void tiny_attend(double *out, const double *q, const double *k, const double *v,
                               const struct tiny_config *c, bool sliding, size_t n)
{
    size_t hd = c->head_dim, H = c->heads, K = c->key_heads;
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < H; h++) {
            size_t kh = h / (H / K), at = (i * H + h) * hd;
            double sum = 0;
            memset(out + at, 0, hd * sizeof *out);
            for (size_t j = 0; j <= i; j++) {
                if (sliding && c->window > 0 && i - j >= c->window)
                    continue;
                double s = 0;
                for (size_t d = 0; d < hd; d++)
                    s += q[at + d] * k[(j * K + kh) * hd + d];
                s /= sqrt(c->query_scalar);
                if (c->cap > 0)
                    s = c->cap * tanh(s / c->cap);
                double p = exp(s); /* scores of these models are small */
                sum += p;
                for (size_t d = 0; d < hd; d++)
                    out[at + d] += p * v[(j * K + kh) * hd + d];
            }
            for (size_t d = 0; d < hd; d++)
                out[at + d] /= sum;
        }
}

/* Buffers for n tokens, and what a layer does to x. */
struct tiny_run {
    const struct tiny *tiny;
    size_t n;
    double *x, *h, *q, *k, *v, *o, *gate, *up, *branch;
};

static inline void tiny_attention(const struct tiny_run *run, uint32_t layer)
{
    const struct tiny *tiny = run->tiny;
    const struct tiny_config *c = &tiny->config;
    size_t n = run->n, d = c->width, queries = c->heads * c->head_dim,
           keys = c->key_heads * c->head_dim;
    tiny_norm(run->h, run->x, tiny_weights(tiny, layer, "input_layernorm"), n, d, c->eps);
    tiny_multiply(run->q, run->h, tiny_weights(tiny, layer, "self_attn.q_proj"), n, queries, d);
    tiny_multiply(run->k, run->h, tiny_weights(tiny, layer, "self_attn.k_proj"), n, keys, d);
    tiny_multiply(run->v, run->h, tiny_weights(tiny, layer, "self_attn.v_proj"), n, keys, d);
    tiny_rotate(run->q, n, c->heads, c->head_dim, c->theta);
    tiny_rotate(run->k, n, c->key_heads, c->head_dim, c->theta);
    tiny_attend(run->o, run->q, run->k, run->v, c, (layer % 2 == 0) != c->full_first, n);
    tiny_multiply(run->h, run->o, tiny_weights(tiny, layer, "self_attn.o_proj"), n, d, queries);
    tiny_norm(run->branch, run->h, tiny_weights(tiny, layer, "post_attention_layernorm"), n, d,
              c->eps);
}

static inline void tiny_feed_forward(const struct tiny_run *run, uint32_t layer)
{
    const struct tiny *tiny = run->tiny;
    const struct tiny_config *c = &tiny->config;
    size_t n = run->n, d = c->width;
    tiny_norm(run->h, run->x, tiny_weights(tiny, layer, "pre_feedforward_layernorm"), n, d, c->eps);
    tiny_multiply(run->gate, run->h, tiny_weights(tiny, layer, "mlp.gate_proj"), n, c->inner, d);
    tiny_multiply(run->up, run->h, tiny_weights(tiny, layer, "mlp.up_proj"), n, c->inner, d);
    for (size_t i = 0; i < n * c->inner; i++) {
        double g = run->gate[i];
        run->up[i] *= 0.5 * g * (1 + tanh(sqrt(2 / acos(-1.0)) * (g + 0.044715 * g * g * g)));
    }
    tiny_multiply(run->h, run->up, tiny_weights(tiny, layer, "mlp.down_proj"), n, d, c->inner);
    tiny_norm(run->branch, run->h, tiny_weights(tiny, layer, "post_feedforward_layernorm"), n, d,
              c->eps);
}

/* out (n, width): what `hook` ("blocks.L.hook_KIND") has for one sequence. */
static inline void tiny_forward(double *out, const struct tiny *tiny, const char *hook,
                                const uint32_t *ids, size_t n)
{
    const struct tiny_config *c = &tiny->config;
    size_t d = c->width, most = 8 * (d + c->inner + c->heads * c->head_dim), want = 0;
    double *memory = calloc(9 * n * most, sizeof *memory);
    char kind[16] = "";
    unsigned layer;
    assert_non_null(memory);
    struct tiny_run run = {.tiny = tiny, .n = n};
    double **buffers[] = {&run.x, &run.h,    &run.q,  &run.k,     &run.v,
                          &run.o, &run.gate, &run.up, &run.branch};
    for (size_t i = 0; i < 9; i++)
        *buffers[i] = memory + i * n * most;
    assert_int_equal(sscanf(hook, "blocks.%u.hook_%15s", &layer, kind), 2);
    static const char *const kinds[] = {"resid_pre", "attn_out", "resid_mid", "mlp_out",
                                        "resid_post"};
    while (strcmp(kinds[want], kind) != 0)
        want++;
    const float *embedding = tiny_find(tiny, "model.embed_tokens.weight")->values;
    for (size_t i = 0; i < n * d; i++)
        run.x[i] = (double)embedding[ids[i / d] * d + i % d] * sqrt((double)d);
    for (uint32_t l = 0; l <= layer; l++) {
        for (size_t step = 0; step < 5; step++) {
            if (step == 1)
                tiny_attention(&run, l);
            if (step == 3)
                tiny_feed_forward(&run, l);
            if (step == 2 || step == 4)
                for (size_t i = 0; i < n * d; i++)
                    run.x[i] += run.branch[i];
            if (l == layer && step == want)
                memcpy(out, step == 1 || step == 3 ? run.branch : run.x, n * d * sizeof *out);
        }
    }
    free(memory);
}

#endif
