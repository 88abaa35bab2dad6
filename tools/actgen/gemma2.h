/* gemma2.h - a Gemma-2 model on the device: its weights up to the last hook, and the forward pass.
 *
 * Letters as in kernels/kernels.h: N tokens of a pass, C of a chunk (chunk_tokens), d, I, H, Hkv,
 * hd.
 */
#ifndef CCPIPE_GEMMA2_H
#define CCPIPE_GEMMA2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/gemma2_config.h"
#include "common/safetensors.h"
#include "kernels/kernels.h"
#include "sources.h"

struct gemma2;

/* Where and in what a model computes. */
struct gemma2_device {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    enum dtype type; /* T */
};

/* Buffers of the forward pass; one set serves models that run one after the other. */
enum gemma2_buffer {
    GEMMA2_X,         /* (N, d) f32, the residual stream */
    GEMMA2_QKV,       /* (N, (H + 2 Hkv) hd) T */
    GEMMA2_ATTENTION, /* (N, H hd) T */
    GEMMA2_NORMED,    /* (C, d) T */
    GEMMA2_GATE_UP,   /* (C, 2 I) T */
    GEMMA2_GATED,     /* (C, I) T */
    GEMMA2_OUT,       /* (C, d) f32, what o_proj and down_proj give */
    GEMMA2_BRANCH,    /* (C, d) f32, the same behind the post-norm, where a hook asks for it */
    GEMMA2_BUFFERS
};

struct gemma2_work {
    void *d_buffers[GEMMA2_BUFFERS];
};

/* A pass as the device has it. */
struct gemma2_pass {
    const uint32_t *d_ids, *d_positions; /* (chunks C) */
    const struct kernels_span *spans;    /* host */
    size_t span_count, chunks;
};

/* What the weights take, in bytes. `staging` is needed while they are read, before `embedding` is
 * there. */
struct gemma2_memory {
    uint64_t packed, norms, embedding, staging;
};

/* Called for each source of the model and each chunk, in order, with the values (C, d) f32 of that
 * chunk; the operations that it queues run before the values change. */
typedef void gemma2_tap(void *context, size_t source, size_t chunk, const float *d_values);

/* Sets up the products. `config` and `sources` stay the caller's and must outlive the model. */
int gemma2_create(struct gemma2 **model, const struct gemma2_device *on,
                  const struct gemma2_config *config, const struct sources *sources,
                  size_t model_index) MUST_CHECK;
void gemma2_free(struct gemma2 *model);

/* Whether a model of which `depth` (struct sources_depth) is computed needs the tensor of that
 * name; a safetensors_wanted. */
bool gemma2_wants(const char *name, const void *depth);

/* `tensors` say how the embedding is stored. ERR_DATA or ERR_USAGE, naming the tensor, where one
 * that is needed is missing, has another shape or a type that is not F32, BF16 or F16. */
int gemma2_measure(const struct gemma2 *model, const struct safetensors *tensors,
                   struct gemma2_memory *memory) MUST_CHECK;

/* Reads, converts and packs what the hooks need, and nothing above it. `hash` becomes that of all
 * values read, begun with `config_hash`: what the rows depend on. After gemma2_measure() with
 * success. */
int gemma2_load(struct gemma2 *model, char hash[33], const struct safetensors *tensors,
                const char *config_hash) MUST_CHECK;

/* Angles for positions 0 .. length - 1; a longer table replaces a shorter one. */
int gemma2_reserve_positions(struct gemma2 *model, uint32_t length) MUST_CHECK;
uint64_t gemma2_position_bytes(const struct gemma2 *model, uint32_t length);

/* Bytes of a buffer for passes of at most `tokens` tokens (whole chunks); 0 where the model does
 * not use it. */
uint64_t gemma2_buffer_bytes(const struct gemma2 *model, enum gemma2_buffer buffer, size_t tokens);

/* Queues the pass up to the last hook, calling `tap` on the way. Positions lie below the length
 * that was reserved. 0, or ERR_INTERRUPTED between chunks; failures of operations come from the
 * queue. */
int gemma2_forward(const struct gemma2 *model, const struct gemma2_work *work,
                   const struct gemma2_pass *pass, gemma2_tap *tap, void *context) MUST_CHECK;

#endif
