/* modeldir.c - what is known of a model before its weights are read.
 *
 * The identity of a model is XXH3-128 over the text of its configuration and, in order of name,
 * each tensor's name, type, shape and first SAMPLE bytes. A fine-tune has the headers of its base
 * model and differs in every tensor, so a little of each tells them apart without reading gigabytes
 * above the hook; how the tensors are spread over files changes nothing.
 */
#include "modeldir.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/io.h"
#include "common/json.h"
#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/tokenizer.h"

enum { SAMPLE = 4096, CONFIG_MAX_BYTES = 1 << 20 };

static int hash_config(XXH3_state_t *state, const char *folder)
{
    json_t *config = NULL;
    char *path = io_join(folder, "config.json");
    if (path == NULL)
        return mem_fail("a path", strlen(folder), 1);
    int status = json_read_file(&config, path, CONFIG_MAX_BYTES);
    free(path);
    if (status != 0)
        return status;
    char *text = json_text(config);
    json_decref(config);
    if (text == NULL)
        return mem_fail("a configuration", 1, CONFIG_MAX_BYTES);
    XXH3_128bits_update(state, text, strlen(text) + 1);
    free(text);
    return 0;
}

static int hash_tensor(XXH3_state_t *state, const struct safetensors *tensors,
                       const struct safetensors_tensor *tensor)
{
    uint8_t bytes[SAMPLE], number[8];
    const char *type = safetensors_type_name(tensor->type);
    XXH3_128bits_update(state, tensor->name, strlen(tensor->name) + 1);
    XXH3_128bits_update(state, type, strlen(type) + 1);
    le_put64(number, tensor->rank);
    XXH3_128bits_update(state, number, sizeof number);
    for (unsigned i = 0; i < tensor->rank; i++) {
        le_put64(number, tensor->shape[i]);
        XXH3_128bits_update(state, number, sizeof number);
    }
    size_t size = tensor->bytes < SAMPLE ? (size_t)tensor->bytes : SAMPLE;
    int status = safetensors_read(tensors, tensor, bytes, 0, size);
    if (status == 0)
        XXH3_128bits_update(state, bytes, size);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensors_tensor *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

static int hash_tensors(XXH3_state_t *state, const struct safetensors *tensors)
{
    size_t count = safetensors_count(tensors);
    const struct safetensors_tensor **sorted = mem_alloc(count, sizeof *sorted);
    if (sorted == NULL)
        return mem_fail("a model's tensors", count, sizeof *sorted);
    for (size_t i = 0; i < count; i++)
        sorted[i] = safetensors_at(tensors, i);
    qsort(sorted, count, sizeof *sorted, compare_names);
    int status = 0;
    for (size_t i = 0; status == 0 && i < count; i++)
        status = hash_tensor(state, tensors, sorted[i]);
    free(sorted);
    return status;
}

static int hash_model(struct modeldir *model)
{
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL)
        return mem_fail("a hash", 1, 1024);
    XXH3_128bits_reset(state);
    int status = hash_config(state, model->folder);
    if (status == 0)
        status = hash_tensors(state, model->tensors);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(model->hash, sizeof model->hash, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64,
             (uint64_t)hash.low64);
    return status;
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

int modeldir_open(struct modeldir *model, const char *name, const char *folder)
{
    *model = (struct modeldir){.name = name, .folder = folder};
    int status = gemma2_config_read(&model->config, folder);
    if (status == 0)
        status = safetensors_open_folder(&model->tensors, folder);
    if (status == 0)
        status = hash_model(model);
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
