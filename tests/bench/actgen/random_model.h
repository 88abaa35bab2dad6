/* random_model.h - the weights of a Gemma-2 model of any shape, random and never zeros: some
 * processors multiply those faster. A value depends on the seed, its tensor and its place alone, so
 * nothing is held in memory.
 */
#ifndef CCPIPE_TESTS_RANDOM_MODEL_H
#define CCPIPE_TESTS_RANDOM_MODEL_H

#include <stdio.h>
#include <string.h>

#include "common/dtype.h"
#include "common/gemma2_config.h"
#include "common/le.h"
#include "common/mem.h"
#include "common/safetensors.h"

enum { RANDOM_MODEL_NAME_BYTES = 96, RANDOM_MODEL_TENSORS = 512 };

struct random_model {
    struct safetensors_entry entries[RANDOM_MODEL_TENSORS];
    char names[RANDOM_MODEL_TENSORS][RANDOM_MODEL_NAME_BYTES];
    float scales[RANDOM_MODEL_TENSORS];
    size_t count;
    uint64_t seed;
};

/* 64 random bits of a counter (splitmix64). */
static inline uint64_t random_bits(uint64_t counter)
{
    uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* n values, uniform in -scale .. scale, as BF16, little-endian. */
static inline void random_bf16(uint8_t *to, uint64_t counter, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++) {
        float value = scale * (float)(int32_t)(random_bits(counter + i) >> 32) * 0x1p-31f;
        le_put16(to + 2 * i, dtype_f32_to_bf16(value));
    }
}

/* A safetensors_fetch. */
static inline int random_model_fetch(void *context, size_t index, void *to, uint64_t offset,
                                     uint64_t bytes)
{
    const struct random_model *model = context;
    uint64_t first = (model->seed << 48) + ((uint64_t)index << 36) + offset / 2;
    random_bf16(to, first, (size_t)(bytes / 2), model->scales[index]);
    return 0;
}

static inline void random_model_add(struct random_model *model, const char *name, uint64_t rows,
                                    uint64_t columns, float scale)
{
    size_t i = model->count++;
    snprintf(model->names[i], RANDOM_MODEL_NAME_BYTES, "%s", name);
    model->scales[i] = scale;
    model->entries[i] = (struct safetensors_entry){.name = model->names[i],
                                                   .type = SAFETENSORS_BF16,
                                                   .rank = columns == 1 ? 1 : 2,
                                                   .shape = {rows, columns}};
}

static inline void random_model_add_layer(struct random_model *model,
                                          const struct gemma2_config *config, uint32_t layer)
{
    const uint64_t d = config->width, inner = config->inner, hd = config->head_dim;
    const struct {
        const char *name;
        uint64_t rows, columns;
    } parts[] = {{"self_attn.q_proj", config->heads * hd, d},
                 {"self_attn.k_proj", config->key_heads * hd, d},
                 {"self_attn.v_proj", config->key_heads * hd, d},
                 {"self_attn.o_proj", d, config->heads * hd},
                 {"mlp.gate_proj", inner, d},
                 {"mlp.up_proj", inner, d},
                 {"mlp.down_proj", d, inner},
                 {"input_layernorm", d, 1},
                 {"post_attention_layernorm", d, 1},
                 {"pre_feedforward_layernorm", d, 1},
                 {"post_feedforward_layernorm", d, 1}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[RANDOM_MODEL_NAME_BYTES];
        snprintf(name, sizeof name, "model.layers.%u.%s.weight", (unsigned)layer, parts[i].name);
        random_model_add(model, name, parts[i].rows, parts[i].columns,
                         parts[i].columns == 1 ? 0.2f : 0.03f);
    }
}

/* Writes the embedding and the first `layers` (at most 26) layers to a new safetensors file. */
static inline int random_model_write(const char *path, const struct gemma2_config *config,
                                     uint32_t layers, uint64_t seed)
{
    struct random_model *model = mem_alloc_zero(1, sizeof *model);
    if (model == NULL)
        return mem_fail("a model", 1, sizeof *model);
    model->seed = seed;
    random_model_add(model, "model.embed_tokens.weight", config->vocab, config->width, 0.05f);
    for (uint32_t i = 0; i < layers; i++)
        random_model_add_layer(model, config, i);
    int status = safetensors_write_fetched(path, model->entries, model->count, NULL,
                                           random_model_fetch, model);
    free(model);
    return status;
}

#endif
