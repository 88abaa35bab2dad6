/* gemma2_config.h - config.json of a Gemma-2 model.
 *
 * Every number is read from the file; a key that is absent has the default of transformers'
 * Gemma2Config; a soft cap or window that is null is not applied (0 here). What the forward pass
 * does not do is refused with ERR_USAGE, naming the key: another model_type, RoPE scaling,
 * attention bias, a quantization, another activation, bidirectional attention.
 */
#ifndef CCPIPE_GEMMA2_CONFIG_H
#define CCPIPE_GEMMA2_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct gemma2_config {
    uint32_t vocab;     /* V */
    uint32_t width;     /* d, hidden_size */
    uint32_t inner;     /* I, intermediate_size */
    uint32_t layers;    /* L */
    uint32_t heads;     /* H */
    uint32_t key_heads; /* Hkv */
    uint32_t head_dim;
    uint32_t window; /* sliding_window, 0: none */
    double rms_eps;
    double rope_theta;
    double query_scalar;  /* query_pre_attn_scalar */
    double attention_cap; /* attn_logit_softcapping, 0: none */
    double final_cap;     /* final_logit_softcapping, 0: none */
    uint32_t bos_id;      /* bos_token_id */
    uint8_t *sliding;     /* (L) 1: layer slides; from layer_types, else even layers */
};

/* Reads folder/config.json. gemma2_config_free() frees the member; legal on a zeroed struct. */
int gemma2_config_read(struct gemma2_config *config, const char *folder) MUST_CHECK;
void gemma2_config_free(struct gemma2_config *config);

/* The same from text in memory; `name` for messages. */
int gemma2_config_parse(struct gemma2_config *config, const char *text, size_t size,
                        const char *name) MUST_CHECK;

#endif
