/* modeldir.c - what is known of a model before its weights are read. */
#include "modeldir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/tokenizer.h"
#include "gemma2.h"

enum { CONFIG_MAX_BYTES = 1 << 20 };

/* Of the values, not of the text: white space and the order of keys change nothing. */
static int hash_config(struct modeldir *model)
{
    json_t *config = NULL;
    char *path = io_join(model->folder, "config.json");
    if (path == NULL)
        return mem_fail("a path", strlen(model->folder), 1);
    int status = json_read_file(&config, path, CONFIG_MAX_BYTES);
    free(path);
    if (status != 0)
        return status;
    char *text = json_text(config);
    json_decref(config);
    if (text == NULL)
        return mem_fail("a configuration", 1, CONFIG_MAX_BYTES);
    XXH128_hash_t hash = XXH3_128bits(text, strlen(text));
    snprintf(model->config_hash, sizeof model->config_hash, "%016" PRIx64 "%016" PRIx64,
             (uint64_t)hash.high64, (uint64_t)hash.low64);
    free(text);
    return 0;
}

static int hash_tokenizer(struct modeldir *model)
{
    struct tokenizer *tokenizer;
    int status = tokenizer_open_folder(&tokenizer, model->folder);
    if (status != 0)
        return status;
    if (tokenizer != NULL)
        tokenizer_hash(tokenizer, model->tokenizer_hash);
    else
        log_note("model '%s': '%s' has no tokenizer.json, so it cannot be compared", model->name,
                 model->folder);
    tokenizer_free(tokenizer);
    return 0;
}

int modeldir_open(struct modeldir *model, const char *name, const char *folder,
                  struct sources_depth depth)
{
    *model = (struct modeldir){.name = name, .folder = folder};
    int status = gemma2_config_read(&model->config, folder);
    if (status == 0)
        status = safetensors_open_wanted(&model->tensors, folder, gemma2_wants, &depth);
    if (status == 0)
        status = hash_config(model);
    if (status == 0)
        status = hash_tokenizer(model);
    if (status != 0)
        modeldir_close(model);
    return status;
}

void modeldir_close(struct modeldir *model)
{
    safetensors_free(model->tensors);
    gemma2_config_free(&model->config);
    memset(model, 0, sizeof *model);
}

int modeldir_agree(const struct modeldir *models, size_t count)
{
    const struct modeldir *named = NULL; /* the first that has a tokenizer */
    for (size_t i = 0; i < count; i++) {
        const struct modeldir *model = &models[i];
        if (model->config.vocab != models[0].config.vocab)
            return log_fail(
                ERR_USAGE, "models differ in vocab_size: %" PRIu32 " in '%s', %" PRIu32 " in '%s'",
                models[0].config.vocab, models[0].folder, model->config.vocab, model->folder);
        if (model->tokenizer_hash[0] == '\0')
            continue;
        if (named == NULL)
            named = model;
        else if (strcmp(named->tokenizer_hash, model->tokenizer_hash) != 0)
            return log_fail(ERR_USAGE,
                            "models differ in their tokenizers: %s in '%s', %s in '%s'; the same "
                            "ids would be other text",
                            named->tokenizer_hash, named->folder, model->tokenizer_hash,
                            model->folder);
    }
    return 0;
}
