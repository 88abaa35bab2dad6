/* crosscoder.c - a crosscoder from and to a safetensors file.
 *
 * Reading goes in two steps. First the shape, from the header alone: which of the two layouts (the
 * seed's four tensors, or tensors per source), S, the widths and F, each tensor checked against
 * what the first ones say. Then the weights. safetensors.c has made sure by then that the file
 * holds as many bytes as its shapes ask for, so memory is bounded by the size of a file that is
 * there.
 *
 * The names and scales of the metadata are taken from files of ccpipe alone ("format"): another
 * program's "sources" may mean anything.
 */
#include "crosscoder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "io.h"
#include "json.h"
#include "log.h"
#include "mem.h"
#include "safetensors.h"

#define CROSSCODER_FORMAT "ccpipe"
#define CROSSCODER_NAME_BYTES 32    /* "W_enc.255" */
#define CROSSCODER_CHUNK (1u << 18) /* elements of a block that is sliced */

/* ---- memory */

void crosscoder_free(struct crosscoder *cc)
{
    for (size_t s = 0; s < cc->source_count && cc->sources != NULL; s++)
        free(cc->sources[s].name);
    free(cc->sources);
    free(cc->w_enc);
    free(cc->w_dec);
    free(cc->b_enc);
    free(cc->b_dec);
    json_decref(cc->metadata);
    free(cc->path);
    memset(cc, 0, sizeof *cc);
}

/* Weights for the shape that cc has. */
static int crosscoder_alloc(struct crosscoder *cc)
{
    size_t f = (size_t)cc->latents, d = (size_t)cc->width, weights, bytes;
    if (!mem_mul(&weights, f, d) || !mem_mul(&bytes, weights + f + d, 2 * sizeof(float)))
        return mem_fail("a crosscoder", f, d);
    int status = mem_require(bytes, "a crosscoder");
    if (status != 0)
        return status;
    cc->w_enc = mem_alloc_zero(weights, sizeof *cc->w_enc);
    cc->w_dec = mem_alloc_zero(weights, sizeof *cc->w_dec);
    cc->b_enc = mem_alloc_zero(f, sizeof *cc->b_enc);
    cc->b_dec = mem_alloc_zero(d, sizeof *cc->b_dec);
    if (cc->w_enc == NULL || cc->w_dec == NULL || cc->b_enc == NULL || cc->b_dec == NULL)
        return mem_fail("a crosscoder", bytes, 1);
    return 0;
}

int crosscoder_init(struct crosscoder *cc, const struct crosscoder_source *sources,
                    size_t source_count, uint64_t latents)
{
    memset(cc, 0, sizeof *cc);
    cc->sources = mem_alloc_zero(source_count, sizeof *cc->sources);
    cc->metadata = json_object();
    int status = 0;
    if (cc->sources == NULL || cc->metadata == NULL)
        status = mem_fail("a crosscoder", source_count, sizeof *cc->sources);
    cc->latents = latents;
    cc->named = true;
    for (size_t s = 0; s < source_count && status == 0; s++) {
        cc->sources[s] = sources[s];
        cc->sources[s].name = strdup(sources[s].name);
        cc->source_count = s + 1;
        cc->width += sources[s].width;
        if (cc->sources[s].name == NULL)
            status = mem_fail("a crosscoder", 1, strlen(sources[s].name));
    }
    if (status == 0)
        status = crosscoder_alloc(cc);
    if (status != 0)
        crosscoder_free(cc);
    return status;
}

uint64_t crosscoder_column(const struct crosscoder *cc, size_t s)
{
    uint64_t column = 0;
    for (size_t i = 0; i < s; i++)
        column += cc->sources[i].width;
    return column;
}

bool crosscoder_is_uniform(const struct crosscoder *cc)
{
    for (size_t s = 1; s < cc->source_count; s++)
        if (cc->sources[s].width != cc->sources[0].width)
            return false;
    return true;
}

/* ---- metadata */

static bool crosscoder_is_ours(const struct crosscoder *cc)
{
    const char *format = json_string_value(json_object_get(cc->metadata, "format"));
    return format != NULL && strcmp(format, CROSSCODER_FORMAT) == 0;
}

const char *crosscoder_get(const struct crosscoder *cc, const char *key)
{
    return crosscoder_is_ours(cc) ? json_string_value(json_object_get(cc->metadata, key)) : NULL;
}

int crosscoder_set(struct crosscoder *cc, const char *key, const char *value)
{
    if (json_object_set_new(cc->metadata, key, json_string(value)) != 0 ||
        json_object_set_new(cc->metadata, "format", json_string(CROSSCODER_FORMAT)) != 0)
        return mem_fail("metadata", strlen(value), 1);
    return 0;
}

bool crosscoder_recipe_real(const struct crosscoder *cc, const char *option, double *value)
{
    const char *text = crosscoder_get(cc, "recipe");
    json_t *recipe = text == NULL ? NULL : json_parse(text, strlen(text), NULL);
    const json_t *number = json_object_get(recipe, option);
    bool found = json_is_number(number);
    if (found)
        *value = json_number_value(number);
    json_decref(recipe);
    return found;
}

/* Takes name and scale of source s from the metadata's table. */
static int crosscoder_take_source(struct crosscoder *cc, const json_t *table, size_t s)
{
    const json_t *entry = json_array_get(table, s);
    struct crosscoder_source *source = &cc->sources[s];
    const char *name;
    uint64_t width;
    int status;
    if ((status = json_get_string(entry, "name", cc->path, &name)) != 0 ||
        (status = json_get_count(entry, "width", cc->path, &width)) != 0 ||
        (status = json_get_real(entry, "scale", cc->path, &source->scale)) != 0)
        return status;
    if (width != source->width || !(source->scale > 0))
        return log_fail(ERR_DATA,
                        "'%s': the metadata gives source '%s' width %" PRIu64 " and scale %g; its "
                        "tensors have width %u, and a scale is above 0",
                        cc->path, name, width, source->scale, source->width);
    char *copy = strdup(name);
    if (copy == NULL)
        return mem_fail("a source", strlen(name), 1);
    free(source->name);
    source->name = copy;
    return 0;
}

static int crosscoder_take_metadata(struct crosscoder *cc)
{
    const char *text = crosscoder_get(cc, "sources");
    if (text == NULL)
        return 0;
    json_t *table = json_parse(text, strlen(text), cc->path);
    if (table == NULL)
        return ERR_DATA;
    int status = 0;
    if (json_array_size(table) != cc->source_count)
        status = log_fail(ERR_DATA, "'%s': the metadata names %zu sources, the tensors have %zu",
                          cc->path, json_array_size(table), cc->source_count);
    for (size_t s = 0; s < cc->source_count && status == 0; s++)
        status = crosscoder_take_source(cc, table, s);
    cc->named = status == 0;
    json_decref(table);
    return status;
}

/* ---- the shape, from the header */

/* The name of a tensor of source s. */
static const char *crosscoder_name(char name[CROSSCODER_NAME_BYTES], const char *stem, size_t s)
{
    snprintf(name, CROSSCODER_NAME_BYTES, "%s.%zu", stem, s);
    return name;
}

/* The tensor `name`, which must have this shape; NULL (logged) otherwise. */
static const struct safetensors_tensor *crosscoder_tensor(const struct safetensors *file,
                                                          const char *path, const char *name,
                                                          unsigned rank, const uint64_t *shape)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    if (tensor == NULL) {
        (void)log_fail(ERR_DATA, "'%s' has no tensor '%s'", path, name);
        return NULL;
    }
    char said[128] = "", needed[128] = "";
    bool equal = tensor->rank == rank;
    for (unsigned i = 0; i < tensor->rank && i < 3; i++)
        snprintf(said + strlen(said), sizeof said - strlen(said), "%s%" PRIu64, i > 0 ? ", " : "",
                 tensor->shape[i]);
    for (unsigned i = 0; i < rank; i++) {
        equal = equal && tensor->shape[i] == shape[i];
        snprintf(needed + strlen(needed), sizeof needed - strlen(needed), "%s%" PRIu64,
                 i > 0 ? ", " : "", shape[i]);
    }
    if (equal)
        return tensor;
    (void)log_fail(ERR_DATA,
                   "'%s': tensor '%s' has shape [%s%s], and the other tensors ask for [%s]", path,
                   name, said, tensor->rank > 3 ? ", ..." : "", needed);
    return NULL;
}

/* Adds a source of the width that a tensor's dimension gives. */
static int crosscoder_add_source(struct crosscoder *cc, uint64_t width)
{
    char name[CROSSCODER_NAME_BYTES];
    if (width == 0 || cc->width + width > BEGIN_MAX_WIDTH || cc->source_count == BEGIN_MAX_SOURCES)
        return log_fail(ERR_DATA,
                        "'%s': a crosscoder has 1 to %d sources, of widths above 0 that "
                        "are at most %u together",
                        cc->path, BEGIN_MAX_SOURCES, BEGIN_MAX_WIDTH);
    struct crosscoder_source *grown = mem_resize(cc->sources, cc->source_count + 1, sizeof *grown);
    if (grown == NULL)
        return mem_fail("sources", cc->source_count + 1, sizeof *grown);
    cc->sources = grown;
    snprintf(name, sizeof name, "source%zu", cc->source_count);
    grown[cc->source_count] =
        (struct crosscoder_source){.name = strdup(name), .width = (uint32_t)width, .scale = 1};
    cc->width += width;
    return grown[cc->source_count++].name == NULL ? mem_fail("sources", 1, sizeof name) : 0;
}

static int crosscoder_check_latents(const struct crosscoder *cc)
{
    return cc->latents > 0 && cc->latents <= CROSSCODER_MAX_LATENTS
               ? 0
               : log_fail(ERR_DATA, "'%s': %" PRIu64 " latents; 1 to %u are possible", cc->path,
                          cc->latents, CROSSCODER_MAX_LATENTS);
}

/* The seed's layout: W_enc [S,d,F] says all. */
static int crosscoder_shape_uniform(struct crosscoder *cc, const struct safetensors *file,
                                    const struct safetensors_tensor *w_enc)
{
    if (w_enc->rank != 3)
        return log_fail(ERR_DATA, "'%s': tensor 'W_enc' has %u dimensions; [S, d, F] is needed",
                        cc->path, w_enc->rank);
    uint64_t s = w_enc->shape[0], d = w_enc->shape[1], f = w_enc->shape[2];
    cc->latents = f;
    int status = crosscoder_check_latents(cc);
    if (status == 0 && s == 0)
        status = log_fail(ERR_DATA, "'%s': tensor 'W_enc' is of no source", cc->path);
    for (uint64_t i = 0; i < s && status == 0; i++)
        status = crosscoder_add_source(cc, d);
    if (status != 0)
        return status;
    const uint64_t dec[] = {f, s, d}, bias[] = {s, d};
    return crosscoder_tensor(file, cc->path, "W_dec", 3, dec) != NULL &&
                   crosscoder_tensor(file, cc->path, "b_enc", 1, &f) != NULL &&
                   crosscoder_tensor(file, cc->path, "b_dec", 2, bias) != NULL
               ? 0
               : ERR_DATA;
}

/* A tensor per source: W_enc.s [d_s,F], as many as there are without a gap. */
static int crosscoder_shape_sources(struct crosscoder *cc, const struct safetensors *file)
{
    char name[CROSSCODER_NAME_BYTES];
    const struct safetensors_tensor *w_enc;
    int status = 0;
    while (status == 0 && (w_enc = safetensors_find(
                               file, crosscoder_name(name, "W_enc", cc->source_count))) != NULL) {
        if (w_enc->rank != 2)
            return log_fail(ERR_DATA, "'%s': tensor '%s' has %u dimensions; [d, F] is needed",
                            cc->path, name, w_enc->rank);
        size_t s = cc->source_count;
        uint64_t d = w_enc->shape[0], f = s == 0 ? w_enc->shape[1] : cc->latents;
        const uint64_t enc[] = {d, f}, dec[] = {f, d};
        cc->latents = f;
        if (crosscoder_tensor(file, cc->path, name, 2, enc) == NULL ||
            crosscoder_tensor(file, cc->path, crosscoder_name(name, "W_dec", s), 2, dec) == NULL ||
            crosscoder_tensor(file, cc->path, crosscoder_name(name, "b_dec", s), 1, &d) == NULL)
            return ERR_DATA;
        status = crosscoder_add_source(cc, d);
    }
    if (status == 0)
        status = crosscoder_check_latents(cc);
    if (status == 0 && crosscoder_tensor(file, cc->path, "b_enc", 1, &cc->latents) == NULL)
        status = ERR_DATA;
    return status;
}

/* Refuses a tensor that changes what the others mean, and names those that nobody reads. */
static int crosscoder_check_rest(const struct crosscoder *cc, const struct safetensors *file,
                                 size_t used)
{
    if (safetensors_find(file, "threshold") != NULL)
        return log_fail(ERR_USAGE,
                        "'%s' has a tensor 'threshold': its activation is not ReLU, and "
                        "others are not built",
                        cc->path);
    if (safetensors_count(file) != used)
        log_warning("'%s': %zu of its tensors belong to no crosscoder and are not read", cc->path,
                    safetensors_count(file) - used);
    return 0;
}

static int crosscoder_read_header(struct crosscoder *cc, const struct safetensors *file)
{
    const struct safetensors_tensor *w_enc = safetensors_find(file, "W_enc");
    if (w_enc == NULL && safetensors_find(file, "W_enc.0") == NULL)
        return log_fail(ERR_USAGE,
                        "'%s' is not a crosscoder: it has neither a tensor 'W_enc' nor one "
                        "'W_enc.0'",
                        cc->path);
    cc->metadata = json_deep_copy(safetensors_metadata(file));
    if (cc->metadata == NULL)
        return mem_fail("metadata", 1, 1);
    int status = w_enc != NULL ? crosscoder_shape_uniform(cc, file, w_enc)
                               : crosscoder_shape_sources(cc, file);
    if (status == 0)
        status = crosscoder_check_rest(cc, file, w_enc != NULL ? 4 : 3 * cc->source_count + 1);
    return status == 0 ? crosscoder_take_metadata(cc) : status;
}

/* ---- the weights */

/* Reads a whole tensor. */
static int crosscoder_load(const struct safetensors *file, const char *name, float *to)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    return safetensors_read_f32(file, tensor, to, 0, tensor->elements);
}

/* W_dec.s (F, d) into the columns from `column` on of w_dec (F, D). */
static int crosscoder_load_columns(struct crosscoder *cc, const struct safetensors *file, size_t s,
                                   uint64_t column)
{
    char name[CROSSCODER_NAME_BYTES];
    const struct safetensors_tensor *tensor =
        safetensors_find(file, crosscoder_name(name, "W_dec", s));
    uint64_t d = cc->sources[s].width, most = CROSSCODER_CHUNK / d > 0 ? CROSSCODER_CHUNK / d : 1;
    float *block = mem_alloc((size_t)(most * d), sizeof *block);
    if (block == NULL)
        return mem_fail("a block of weights", (size_t)(most * d), sizeof *block);
    int status = 0;
    for (uint64_t f = 0; f < cc->latents && status == 0; f += most) {
        uint64_t n = cc->latents - f < most ? cc->latents - f : most;
        status = safetensors_read_f32(file, tensor, block, f * d, n * d);
        for (uint64_t i = 0; i < n && status == 0; i++)
            memcpy(cc->w_dec + (f + i) * cc->width + column, block + i * d, d * sizeof *block);
    }
    free(block);
    return status;
}

static int crosscoder_load_sources(struct crosscoder *cc, const struct safetensors *file)
{
    char name[CROSSCODER_NAME_BYTES];
    int status = 0;
    uint64_t column = 0;
    for (size_t s = 0; s < cc->source_count && status == 0; s++) {
        status = crosscoder_load(file, crosscoder_name(name, "W_enc", s),
                                 cc->w_enc + column * cc->latents);
        if (status == 0)
            status = crosscoder_load(file, crosscoder_name(name, "b_dec", s), cc->b_dec + column);
        if (status == 0)
            status = crosscoder_load_columns(cc, file, s, column);
        column += cc->sources[s].width;
    }
    return status;
}

static int crosscoder_load_weights(struct crosscoder *cc, const struct safetensors *file)
{
    int status = crosscoder_alloc(cc);
    if (status == 0)
        status = crosscoder_load(file, "b_enc", cc->b_enc);
    if (status != 0)
        return status;
    if (safetensors_find(file, "W_enc") == NULL)
        return crosscoder_load_sources(cc, file);
    status = crosscoder_load(file, "W_enc", cc->w_enc);
    if (status == 0)
        status = crosscoder_load(file, "W_dec", cc->w_dec);
    return status == 0 ? crosscoder_load(file, "b_dec", cc->b_dec) : status;
}

/* ---- reading */

/* The safetensors file that a path stands for, the caller frees it. */
static int crosscoder_locate(char **file, const char *path)
{
    struct stat found;
    char *folder = NULL;
    uint64_t step;
    int status = 0;
    *file = NULL;
    if (stat(path, &found) == 0 && S_ISDIR(found.st_mode)) {
        char *weights = io_join(path, CHECKPOINT_WEIGHTS);
        if (weights == NULL)
            return mem_fail("a path", strlen(path), 1);
        if (stat(weights, &found) == 0) {
            *file = weights;
            return checkpoint_verify(path, false);
        }
        free(weights);
        status = checkpoint_newest(path, &step, &folder, true);
        if (status == 1)
            status = log_fail(ERR_USAGE,
                              "'%s' holds no checkpoint: neither " CHECKPOINT_WEIGHTS
                              " nor a folder step-N",
                              path);
        if (status == 0)
            *file = io_join(folder, CHECKPOINT_WEIGHTS);
        free(folder);
    } else {
        *file = strdup(path);
    }
    return status == 0 && *file == NULL ? mem_fail("a path", strlen(path), 1) : status;
}

static int crosscoder_open(struct crosscoder *cc, const char *path, bool weights)
{
    struct safetensors *file = NULL;
    memset(cc, 0, sizeof *cc);
    int status = crosscoder_locate(&cc->path, path);
    if (status == 0)
        status = safetensors_open(&file, cc->path);
    if (status == 0)
        status = crosscoder_read_header(cc, file);
    if (status == 0 && weights)
        status = crosscoder_load_weights(cc, file);
    safetensors_free(file);
    if (status != 0)
        crosscoder_free(cc);
    return status;
}

int crosscoder_read(struct crosscoder *cc, const char *path)
{
    return crosscoder_open(cc, path, true);
}

int crosscoder_read_shape(struct crosscoder *cc, const char *path)
{
    return crosscoder_open(cc, path, false);
}

/* ---- against a stream */

int crosscoder_check_begin(const struct crosscoder *cc, const struct begin *begin)
{
    const char *path = cc->path == NULL ? "the crosscoder" : cc->path;
    if (cc->source_count != begin->source_count)
        return log_fail(ERR_USAGE, "'%s' has %zu sources, the rows have %zu", path,
                        cc->source_count, begin->source_count);
    for (size_t s = 0; s < cc->source_count; s++) {
        const struct crosscoder_source *ours = &cc->sources[s];
        const struct begin_source *theirs = &begin->sources[s];
        if (ours->width != theirs->width)
            return log_fail(ERR_USAGE,
                            "source %zu is '%s' of width %u in '%s', and '%s' of width "
                            "%u in the rows",
                            s, ours->name, ours->width, path, theirs->name, theirs->width);
        if (cc->named && strcmp(ours->name, theirs->name) != 0)
            return log_fail(ERR_USAGE, "source %zu is '%s' in '%s', and '%s' in the rows", s,
                            ours->name, path, theirs->name);
        if (cc->named && ours->scale != theirs->scale)
            return log_fail(ERR_USAGE,
                            "'%s' is of rows whose source '%s' is scaled by %.9g, in these it "
                            "is scaled by %.9g; make the rows with the --norm FILE of the training",
                            path, ours->name, ours->scale, theirs->scale);
    }
    return 0;
}
