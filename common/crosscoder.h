/* crosscoder.h - a crosscoder's weights: in memory, and in a safetensors file.
 *
 *     W_enc [S,d,F]  W_dec [F,S,d]  b_enc [F]  b_dec [S,d]
 *     unequal widths: W_enc.s [d_s,F]  W_dec.s [F,d_s]  b_dec.s [d_s], s from 0, and b_enc [F]
 *
 * In memory the weights are always W_enc (D, F), W_dec (F, D), b_enc (F), b_dec (D) in f32, D the
 * sum of the widths with the sources side by side; for equal widths these are the same bytes as the
 * file's shapes, for unequal widths reader and writer slice.
 *
 * A file that ccpipe wrote says more in __metadata__, all of it text:
 *     format      "ccpipe"; without it nothing else in there is believed
 *     sources     JSON [{"name": "base.blocks.14.hook_resid_pre", "width": 2304, "scale": 0.27},
 * ...] hook        the hook of all sources, or theirs joined by "," recipe      JSON {option:
 * value} of the training activation  "relu" step, rows_trained           counts in decimal
 *     tokenizer_hash, data_hash    XXH3-128 in hexadecimal; data: begin_identity() of the rows
 * crosscoder_write() sees to format and sources, its caller to the others.
 */
#ifndef CCPIPE_CROSSCODER_H
#define CCPIPE_CROSSCODER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "begin.h"
#include "err.h"

#define CROSSCODER_MAX_LATENTS (1u << 30)

struct crosscoder_source {
    char *name;     /* as in BEGIN; "source0" ... where the file does not say */
    uint32_t width; /* d_s */
    double scale;   /* the factor that the rows were multiplied by; 1 where the file does not say */
};

struct crosscoder {
    size_t source_count; /* S */
    struct crosscoder_source *sources;
    bool named;       /* the file says names and scales */
    uint64_t latents; /* F */
    uint64_t width;   /* D */
    float *w_enc;     /* (D, F) */
    float *w_dec;     /* (F, D) */
    float *b_enc;     /* (F) */
    float *b_dec;     /* (D) */
    json_t *metadata; /* __metadata__ of the file, {string: string}; owned */
    char *path;       /* the safetensors file it came from, or NULL */
};

/* Reads a run folder (its newest step that verifies; what was passed over is warned of), a step
 * folder (which must verify), or a safetensors file. F32, BF16 and F16 are taken. Shapes are
 * checked against each other; values that are not finite are ERR_DATA. On failure *cc is zeroed. */
int crosscoder_read(struct crosscoder *cc, const char *path) MUST_CHECK;

/* The same without the weights, whose pointers stay NULL. */
int crosscoder_read_shape(struct crosscoder *cc, const char *path) MUST_CHECK;

/* Weights of these sources (copied) and latents, all 0, named, no metadata ({}). ERR_MEMORY. */
int crosscoder_init(struct crosscoder *cc, const struct crosscoder_source *sources,
                    size_t source_count, uint64_t latents) MUST_CHECK;

/* Legal on a zeroed struct. */
void crosscoder_free(struct crosscoder *cc);

/* Writes a safetensors file in f32 that must not exist yet, and fsyncs it. The same crosscoder
 * gives the same bytes. Where widths differ a copy of W_dec is made. */
int crosscoder_write(const struct crosscoder *cc, const char *path) MUST_CHECK;

/* Sets a text of the metadata. ERR_MEMORY. */
int crosscoder_set(struct crosscoder *cc, const char *key, const char *value) MUST_CHECK;

/* A text of the metadata, borrowed; NULL where the file does not say or is not of ccpipe. */
const char *crosscoder_get(const struct crosscoder *cc, const char *key);

/* The number of an option in the metadata's recipe: true with *value, or false where the file does
 * not say. */
bool crosscoder_recipe_real(const struct crosscoder *cc, const char *option, double *value);

/* Whether rows of `begin` fit: widths equal (ERR_USAGE), and, where the checkpoint knows them,
 * names and scales too. Logged with both sides. */
int crosscoder_check_begin(const struct crosscoder *cc, const struct begin *begin) MUST_CHECK;

/* Source s begins at this column of a row. */
uint64_t crosscoder_column(const struct crosscoder *cc, size_t s);

/* Whether all sources have one width, so that the seed's four tensors hold them. */
bool crosscoder_is_uniform(const struct crosscoder *cc);

#endif
