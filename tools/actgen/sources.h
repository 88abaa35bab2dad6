/* sources.h - which activations of which models make up a row: --model and --hook resolved. */
#ifndef CCPIPE_SOURCES_H
#define CCPIPE_SOURCES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/opt.h"

/* Where in a layer a value is taken: what enters it, what its two halves add (behind the
 * post-norm), and the residual stream after each of them. */
enum sources_kind {
    SOURCES_RESID_PRE,
    SOURCES_ATTN_OUT,
    SOURCES_RESID_MID,
    SOURCES_MLP_OUT,
    SOURCES_RESID_POST
};

struct source {
    char *name;       /* "base.blocks.3.hook_resid_pre" */
    const char *hook; /* its part behind the model */
    size_t model;
    uint32_t layer;
    enum sources_kind kind;
};

struct sources_model {
    char *name;          /* "base" */
    const char *folder;  /* borrowed */
    size_t first, count; /* its sources are items[first] .. items[first + count - 1] */
};

struct sources {
    struct sources_model *models;
    size_t model_count;
    struct source *items; /* in the order of a row */
    size_t count;
};

/* What of a model has to be computed for its sources: whole layers 0 .. layers - 1, and of the
 * layer behind them the attention half. */
struct sources_depth {
    uint32_t layers;
    bool attention;
};

/* Resolves NAME=DIR and HOOK or MODEL:HOOK: models in the order given, within each its hooks in the
 * order given. ERR_USAGE, logged, for what cannot be read, is doubled, or fits no model.
 * sources_free() is legal on a zeroed struct. */
int sources_parse(struct sources *sources, const struct opt_list *models,
                  const struct opt_list *hooks) MUST_CHECK;
void sources_free(struct sources *sources);

/* ERR_USAGE where a hook of the model names a layer that is not among its `layers`. */
int sources_check_layers(const struct sources *sources, size_t model, uint32_t layers) MUST_CHECK;

struct sources_depth sources_depth(const struct sources *sources, size_t model);

#endif
