/* checkpoint.h - a trained crosscoder on disk: run folder, step folders, manifest.
 *
 *     RUN/step-N/cc.safetensors     W_enc [S,d,F]  W_dec [F,S,d]  b_enc [F]  b_dec [S,d], f32
 *                                   (unequal widths: W_enc.s [d_s,F]  W_dec.s [F,d_s]  b_dec.s [d_s])
 *     RUN/step-N/cfg.json           the seed's keys, for its loader
 *     RUN/step-N/optim.safetensors  Adam's moments
 *     RUN/step-N/state.json         step, rows, sums, counters
 *     RUN/step-N/manifest.json      sizes and XXH3-128 of the others; written last
 *
 * In memory the weights are always W_enc (D, F), W_dec (F, D), b_enc (F), b_dec (D) in f32, D the sum of the
 * widths with the sources side by side; for equal widths these are the same bytes as the file's
 * shapes, for unequal widths the reader and writer slice.
 */
#ifndef CCPIPE_CHECKPOINT_H
#define CCPIPE_CHECKPOINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "begin.h"
#include "err.h"

struct checkpoint_source {
    char *name;       /* as in BEGIN; "source0" ... where an --init file does not say */
    uint32_t width;
    double scale;
};

/* A crosscoder's weights with what is needed to use them. */
struct crosscoder {
    size_t source_count; /* S */
    struct checkpoint_source *sources;
    uint64_t latents;    /* F */
    uint64_t width;      /* D */
    float *w_enc;        /* (D, F) */
    float *w_dec;        /* (F, D) */
    float *b_enc;        /* (F) */
    float *b_dec;        /* (D) */
    json_t *metadata;    /* __metadata__ of the file, {string: string}; owned */
    char *path;          /* the safetensors file it came from */
};

/* Reads a run folder (its newest step that verifies; what was passed over is warned of), a step
 * folder, or a safetensors file with the seed's tensor names. Shapes are checked against each
 * other; values that are not finite are ERR_DATA. */
int crosscoder_read(struct crosscoder *cc, const char *path) MUST_CHECK;
void crosscoder_free(struct crosscoder *cc);

/* Whether rows of `begin` fit: widths equal (ERR_USAGE), and, where the checkpoint knows them, names
 * and scales too. Logged with both sides. */
int crosscoder_check_begin(const struct crosscoder *cc, const struct begin *begin) MUST_CHECK;

/* Source s begins at this column of a row. */
uint64_t crosscoder_column(const struct crosscoder *cc, size_t s);

/* ---- folders */

/* The newest step of a run folder whose manifest verifies: *step and *folder (free() it). 0; 1 where there is
 * none; or a negative code. With `warn`, steps that do not verify are named in a warning. */
int checkpoint_newest(const char *run, uint64_t *step, char **folder, bool warn) MUST_CHECK;

/* Checks manifest.json of a step folder against its files. 0, or ERR_DATA / ERR_TRUNCATED (logged unless
 * `quiet`). */
int checkpoint_verify(const char *folder, bool quiet) MUST_CHECK;

/* Writes manifest.json for the files named (relative to folder), fsyncs it and the folder. */
int checkpoint_seal(const char *folder, const char *const *files, size_t count) MUST_CHECK;

/* fsync of a folder. */
int checkpoint_sync_folder(const char *folder) MUST_CHECK;

/* Removes a folder with the plain files in it; what is not there is no error. */
int checkpoint_remove(const char *folder) MUST_CHECK;

#endif
