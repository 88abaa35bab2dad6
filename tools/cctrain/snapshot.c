/* snapshot.c - the files of a checkpoint: weights, optimiser, state, and cfg.json for the reference
 * implementation's loader.
 *
 * cc.safetensors and optim.safetensors depend on nothing but the training, so that a run that was
 * stopped and resumed has the bytes of one that was not: no date, host, path or number of threads
 * is written, and metadata is set anew from BEGIN and recipe, never passed on from a file read.
 *
 * What resuming needs is in three places. Weights: cc.safetensors, in f32, the master copies, so
 * nothing is lost. Adam's moments and when each latent last fired: optim.safetensors. Where in the
 * stream, and the recipe: state.json. Schedules and random numbers are functions of the step.
 */
#include "snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checkpoint.h"
#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

#define SNAPSHOT_CONFIG "cfg.json"
#define SNAPSHOT_OPTIMISER "optim.safetensors"
#define SNAPSHOT_LAST_ACTIVE "last_active"

const char *const snapshot_files[] = {CHECKPOINT_WEIGHTS, SNAPSHOT_CONFIG, SNAPSHOT_OPTIMISER,
                                      STATE_FILE};
const size_t snapshot_file_count = sizeof snapshot_files / sizeof *snapshot_files;

/* ---- metadata of the weights */

/* The hook of all sources, or theirs joined by ','. The caller frees it; NULL: no memory. */
static char *snapshot_hook(const struct begin *begin)
{
    size_t size = 1;
    bool same = true;
    for (size_t s = 0; s < begin->source_count; s++) {
        size += strlen(begin->sources[s].hook) + 1;
        same = same && strcmp(begin->sources[s].hook, begin->sources[0].hook) == 0;
    }
    char *text = mem_alloc(size, 1);
    size_t at = 0, count = same ? 1 : begin->source_count;
    for (size_t s = 0; text != NULL && s < count; s++)
        at += (size_t)snprintf(text + at, size - at, "%s%s", s > 0 ? "," : "",
                               begin->sources[s].hook);
    return text;
}

static int snapshot_set_count(struct crosscoder *cc, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return crosscoder_set(cc, key, text);
}

static int snapshot_set_metadata(const struct snapshot *snapshot)
{
    struct crosscoder *cc = snapshot->cc;
    char *hook = snapshot_hook(snapshot->begin), *recipe = json_text(snapshot->state.recipe);
    int status = hook == NULL || recipe == NULL ? mem_fail("the checkpoint's metadata", 1, 1) : 0;
    const char *const texts[][2] = {{"hook", hook},
                                    {"recipe", recipe},
                                    {"activation", snapshot->activation},
                                    {"tokenizer_hash", snapshot->begin->tokenizer_hash},
                                    {"data_hash", snapshot->state.stream}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == 0; i++)
        status = crosscoder_set(cc, texts[i][0], texts[i][1]);
    if (status == 0)
        status = snapshot_set_count(cc, "step", snapshot->state.step);
    if (status == 0)
        status = snapshot_set_count(cc, "rows_trained", snapshot->state.rows_trained);
    free(hook);
    free(recipe);
    return status;
}

/* ---- writing */

static int snapshot_write_weights(const struct snapshot *snapshot, const char *path)
{
    int status = dictionary_download(&snapshot->step->dictionary, snapshot->cc);
    if (status == 0)
        status = snapshot_set_metadata(snapshot);
    return status != 0 ? status : crosscoder_write(snapshot->cc, path);
}

static int snapshot_write_optimiser(const struct snapshot *snapshot, const char *path)
{
    struct safetensors_entry entries[DICTIONARY_MOMENTS + 1];
    dictionary_describe_moments(&snapshot->step->dictionary, entries);
    entries[DICTIONARY_MOMENTS] = (struct safetensors_entry){
        .name = SNAPSHOT_LAST_ACTIVE,
        .type = SAFETENSORS_U64,
        .rank = 1,
        .shape = {snapshot->ledger->latents},
        .data = snapshot->ledger->last_active,
    };
    return safetensors_write_fetched(path, entries, DICTIONARY_MOMENTS + 1, NULL,
                                     dictionary_fetch_moment, &snapshot->step->dictionary);
}

/* The reference implementation's keys, as far as a run here has them. */
static int snapshot_write_config(const struct snapshot *snapshot, const char *path)
{
    const struct recipe *recipe = snapshot->recipe;
    const struct begin *begin = snapshot->begin;
    char *hook = snapshot_hook(begin);
    uint32_t width = begin->sources[0].width;
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I, s:I, s:s, s:s, s:f, s:I, s:s*}", "seed",
        (json_int_t)recipe->seed, "batch_size", (json_int_t)recipe->batch, "num_tokens",
        (json_int_t)(recipe->batch * recipe->steps), "lr", recipe->lr, "l1_coeff", recipe->l1,
        "beta1", recipe->beta1, "beta2", recipe->beta2, "d_in", (json_int_t)width, "dict_size",
        (json_int_t)recipe->latents, "enc_dtype", "fp32", "device", "cpu", "dec_init_norm",
        DICTIONARY_NORM, "n_models", (json_int_t)begin->source_count, "hook_point", hook);
    int status = json == NULL || hook == NULL ? mem_fail(SNAPSHOT_CONFIG, 1, 1)
                                              : json_write_file(json, path);
    json_decref(json);
    free(hook);
    return status;
}

int snapshot_write(void *context, const char *folder)
{
    const struct snapshot *snapshot = context;
    static int (*const writers[])(const struct snapshot *, const char *) = {
        snapshot_write_weights, snapshot_write_config, snapshot_write_optimiser};
    int status = 0;
    for (size_t i = 0; i < sizeof writers / sizeof *writers && status == 0; i++) {
        char *path = io_join(folder, snapshot_files[i]);
        status = path == NULL ? mem_fail(snapshot_files[i], 1, 1) : writers[i](snapshot, path);
        free(path);
    }
    return status != 0 ? status : state_write(&snapshot->state, folder);
}

/* ---- reading */

/* Both have the same sizes: the one's arrays go to the other. */
static void snapshot_swap_weights(struct crosscoder *a, struct crosscoder *b)
{
    float **ours[] = {&a->w_enc, &a->w_dec, &a->b_enc, &a->b_dec};
    float **theirs[] = {&b->w_enc, &b->w_dec, &b->b_enc, &b->b_dec};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        float *kept = *ours[i];
        *ours[i] = *theirs[i];
        *theirs[i] = kept;
    }
}

static int snapshot_check_sizes(const struct crosscoder *want, const struct crosscoder *found)
{
    if (found->latents != want->latents)
        return log_fail(ERR_USAGE, "'%s' has %" PRIu64 " latents, and --latents is %" PRIu64,
                        found->path, found->latents, want->latents);
    if (found->source_count != want->source_count)
        return log_fail(ERR_USAGE, "'%s' is of %zu sources, and the rows have %zu", found->path,
                        found->source_count, want->source_count);
    for (size_t s = 0; s < want->source_count; s++)
        if (found->sources[s].width != want->sources[s].width)
            return log_fail(ERR_USAGE,
                            "'%s': source %zu has a width of %" PRIu32 ", and that of the rows, "
                            "'%s', %" PRIu32,
                            found->path, s, found->sources[s].width, want->sources[s].name,
                            want->sources[s].width);
    return 0;
}

int snapshot_read_weights(struct snapshot *snapshot, const char *path)
{
    struct crosscoder found;
    int status = crosscoder_read_shape(&found, path);
    if (status != 0)
        return status;
    status = snapshot_check_sizes(snapshot->cc, &found);
    crosscoder_free(&found);
    if (status == 0)
        status = crosscoder_read(&found, path);
    if (status != 0)
        return status;
    snapshot_swap_weights(snapshot->cc, &found);
    crosscoder_free(&found);
    return 0;
}

static int snapshot_read_last_active(const struct snapshot *snapshot,
                                     const struct safetensors *file, const char *path)
{
    const struct ledger *ledger = snapshot->ledger;
    const struct safetensors_tensor *tensor = safetensors_find(file, SNAPSHOT_LAST_ACTIVE);
    if (tensor == NULL || tensor->type != SAFETENSORS_U64 || tensor->elements != ledger->latents)
        return log_fail(ERR_DATA, "'%s' has no tensor '" SNAPSHOT_LAST_ACTIVE "' of %zu u64", path,
                        ledger->latents);
    int status = safetensors_read(file, tensor, ledger->last_active, 0, tensor->bytes);
    for (size_t j = 0; j < ledger->latents && status == 0; j++)
        if (ledger->last_active[j] > snapshot->state.step)
            status =
                log_fail(ERR_DATA, "'%s': latent %zu was last active after the last step", path, j);
    return status;
}

int snapshot_read(struct snapshot *snapshot, const char *folder)
{
    int status = snapshot_read_weights(snapshot, folder);
    if (status == 0)
        status = step_upload(snapshot->step, snapshot->cc);
    if (status != 0)
        return status;
    char *path = io_join(folder, SNAPSHOT_OPTIMISER);
    struct safetensors *file = NULL;
    status = path == NULL ? mem_fail(SNAPSHOT_OPTIMISER, 1, 1) : safetensors_open(&file, path);
    if (status == 0)
        status = dictionary_read_moments(&snapshot->step->dictionary, file);
    if (status == 0)
        status = snapshot_read_last_active(snapshot, file, path);
    safetensors_free(file);
    free(path);
    return status;
}
