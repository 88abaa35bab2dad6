/* modeldir.h - a Hugging Face folder of a Gemma-2 model: configuration, weights' headers, identity.
 */
#ifndef CCPIPE_MODELDIR_H
#define CCPIPE_MODELDIR_H

#include <stddef.h>

#include "common/err.h"
#include "common/gemma2_config.h"
#include "common/safetensors.h"
#include "sources.h"

struct modeldir {
    const char *name, *folder; /* borrowed */
    struct gemma2_config config;
    struct safetensors *tensors;
    char config_hash[33];    /* of the values in config.json, in hexadecimal */
    char tokenizer_hash[33]; /* "" where the folder has no tokenizer.json */
};

/* Reads config.json, the headers of those weights that `depth` needs, and tokenizer.json.
 * modeldir_close() is legal on a zeroed struct. */
int modeldir_open(struct modeldir *model, const char *name, const char *folder,
                  struct sources_depth depth) MUST_CHECK;
void modeldir_close(struct modeldir *model);

/* ERR_USAGE, both printed, where vocab_size or tokenizers differ; a folder without a tokenizer
 * passes with a note. */
int modeldir_agree(const struct modeldir *models, size_t count) MUST_CHECK;

#endif
