/* crosscoder_write.c - a crosscoder to a safetensors file.
 *
 * Equal widths: the arrays in memory are the file's tensors as they lie. Unequal ones: W_enc and
 * b_dec of a source lie together in memory, W_dec's columns are gathered into a copy first.
 */
#include "crosscoder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "mem.h"
#include "safetensors.h"

#define CROSSCODER_NAME_BYTES 32 /* "W_enc.255" */

/* The metadata with format and sources. The caller owns the reference; NULL: no memory. */
static json_t *crosscoder_metadata(const struct crosscoder *cc)
{
    json_t *metadata = json_copy(cc->metadata), *table = json_array();
    int failed = metadata == NULL || table == NULL;
    for (size_t s = 0; s < cc->source_count && !failed; s++) {
        const struct crosscoder_source *source = &cc->sources[s];
        failed = json_array_append_new(table, json_pack("{s:s, s:I, s:f}", "name", source->name,
                                                        "width", (json_int_t)source->width, "scale",
                                                        source->scale));
    }
    char *text = failed ? NULL : json_text(table);
    failed = text == NULL || json_object_set_new(metadata, "sources", json_string(text)) != 0 ||
             json_object_set_new(metadata, "format", json_string("ccpipe")) != 0;
    free(text);
    json_decref(table);
    if (!failed)
        return metadata;
    json_decref(metadata);
    return NULL;
}

static int crosscoder_write_uniform(const struct crosscoder *cc, const char *path,
                                    const json_t *metadata)
{
    uint64_t s = cc->source_count, d = cc->sources[0].width, f = cc->latents;
    const struct safetensors_entry entries[] = {
        {"W_enc", SAFETENSORS_F32, 3, {s, d, f}, cc->w_enc},
        {"W_dec", SAFETENSORS_F32, 3, {f, s, d}, cc->w_dec},
        {"b_enc", SAFETENSORS_F32, 1, {f}, cc->b_enc},
        {"b_dec", SAFETENSORS_F32, 2, {s, d}, cc->b_dec},
    };
    return safetensors_write(path, entries, sizeof entries / sizeof *entries, metadata);
}

/* w_dec (F, D) as one (F, d_s) behind the other. */
static void crosscoder_gather(float *to, const struct crosscoder *cc)
{
    uint64_t column = 0;
    for (size_t s = 0; s < cc->source_count; s++) {
        size_t d = cc->sources[s].width;
        for (uint64_t f = 0; f < cc->latents; f++, to += d)
            memcpy(to, cc->w_dec + f * cc->width + column, d * sizeof *to);
        column += d;
    }
}

static int crosscoder_write_sources(const struct crosscoder *cc, const char *path,
                                    const json_t *metadata)
{
    size_t count = 3 * cc->source_count + 1;
    struct safetensors_entry *entries = mem_alloc_zero(count, sizeof *entries);
    char(*names)[CROSSCODER_NAME_BYTES] = mem_alloc(count, sizeof *names);
    float *w_dec = mem_alloc((size_t)(cc->latents * cc->width), sizeof *w_dec);
    int status = 0;
    if (entries == NULL || names == NULL || w_dec == NULL) {
        status = mem_fail("a copy of W_dec", (size_t)(cc->latents * cc->width), sizeof *w_dec);
        goto cleanup;
    }
    crosscoder_gather(w_dec, cc);
    uint64_t column = 0, f = cc->latents;
    for (size_t s = 0; s < cc->source_count; s++) {
        uint64_t d = cc->sources[s].width;
        struct safetensors_entry *entry = &entries[3 * s];
        char(*name)[CROSSCODER_NAME_BYTES] = &names[3 * s];
        snprintf(name[0], sizeof *name, "W_enc.%zu", s);
        snprintf(name[1], sizeof *name, "W_dec.%zu", s);
        snprintf(name[2], sizeof *name, "b_dec.%zu", s);
        entry[0] =
            (struct safetensors_entry){name[0], SAFETENSORS_F32, 2, {d, f}, cc->w_enc + column * f};
        entry[1] =
            (struct safetensors_entry){name[1], SAFETENSORS_F32, 2, {f, d}, w_dec + column * f};
        entry[2] = (struct safetensors_entry){name[2], SAFETENSORS_F32, 1, {d}, cc->b_dec + column};
        column += d;
    }
    entries[count - 1] = (struct safetensors_entry){"b_enc", SAFETENSORS_F32, 1, {f}, cc->b_enc};
    status = safetensors_write(path, entries, count, metadata);
cleanup:
    free(entries);
    free(names);
    free(w_dec);
    return status;
}

int crosscoder_write(const struct crosscoder *cc, const char *path)
{
    json_t *metadata = crosscoder_metadata(cc);
    if (metadata == NULL)
        return mem_fail("metadata", cc->source_count, sizeof *cc->sources);
    int status = crosscoder_is_uniform(cc) ? crosscoder_write_uniform(cc, path, metadata)
                                           : crosscoder_write_sources(cc, path, metadata);
    json_decref(metadata);
    return status;
}
