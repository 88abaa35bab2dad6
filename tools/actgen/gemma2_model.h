/* gemma2_model.h - the inside of struct gemma2, for the files that make it, load it and run it. */
#ifndef CCPIPE_GEMMA2_MODEL_H
#define CCPIPE_GEMMA2_MODEL_H

#include "gemma2.h"

/* The matrices of a layer: what is multiplied by the same input lies in one. */
enum gemma2_product {
    GEMMA2_PRODUCT_QKV,     /* ((H + 2 Hkv) hd, d): q, k, v */
    GEMMA2_PRODUCT_O,       /* (d, H hd) */
    GEMMA2_PRODUCT_GATE_UP, /* (2 I, d): gate, up */
    GEMMA2_PRODUCT_DOWN,    /* (d, I) */
    GEMMA2_PRODUCTS
};

enum gemma2_norm {
    GEMMA2_NORM_INPUT,
    GEMMA2_NORM_POST_ATTENTION,
    GEMMA2_NORM_PRE_FEEDFORWARD,
    GEMMA2_NORM_POST_FEEDFORWARD,
    GEMMA2_NORMS
};

struct gemma2 {
    struct gemma2_device on;
    const struct gemma2_config *config;
    const struct sources *sources;
    size_t index; /* of the model in `sources` */
    struct sources_depth depth;
    uint32_t used;                                  /* layers of which something is used */
    struct kernels_gemm *products[GEMMA2_PRODUCTS]; /* NULL: not used */
    void **d_packed;                                /* (used, GEMMA2_PRODUCTS) */
    float *d_norms;                                 /* (used, GEMMA2_NORMS, d) */
    void *d_embedding;                              /* (V, d) as stored */
    enum dtype embedding_type;
    float *d_angles; /* (length, hd): cosines, then sines */
    uint32_t length;
};

/* Columns of q | k | v. */
static inline size_t gemma2_qkv_width(const struct gemma2_config *config)
{
    return (config->heads + 2 * (size_t)config->key_heads) * config->head_dim;
}

/* Rows and columns of a product's matrix as it is stored (out, in). */
void gemma2_product_shape(const struct gemma2_config *config, enum gemma2_product product,
                          size_t *rows, size_t *columns);

/* Whether a layer's product or norm is computed: all of those below depth.layers, of that layer the
 * attention's if a hook asks for it, and nothing above. */
static inline bool gemma2_needs_product(struct sources_depth depth, uint32_t layer,
                                        enum gemma2_product product)
{
    bool attention = product == GEMMA2_PRODUCT_QKV || product == GEMMA2_PRODUCT_O;
    return layer < depth.layers || (layer == depth.layers && depth.attention && attention);
}

static inline bool gemma2_needs_norm(struct sources_depth depth, uint32_t layer,
                                     enum gemma2_norm norm)
{
    bool attention = norm == GEMMA2_NORM_INPUT || norm == GEMMA2_NORM_POST_ATTENTION;
    return layer < depth.layers || (layer == depth.layers && depth.attention && attention);
}

static inline void **gemma2_packed(const struct gemma2 *model, uint32_t layer,
                                   enum gemma2_product product)
{
    return &model->d_packed[(size_t)layer * GEMMA2_PRODUCTS + product];
}

static inline float *gemma2_norm(const struct gemma2 *model, uint32_t layer, enum gemma2_norm norm)
{
    return model->d_norms + ((size_t)layer * GEMMA2_NORMS + norm) * model->config->width;
}

#endif
