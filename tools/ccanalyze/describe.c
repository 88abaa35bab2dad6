/* describe.c - one function per kind of file; each puts its members into the object.
 *
 * Members that could not be made (memory) leave the object short of them: json_object_set_new()
 * refuses NULL, and `failed` collects that to one ERR_MEMORY at the end.
 */
#include "describe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/checkpoint.h"
#include "common/frame.h"
#include "common/gemma2_config.h"
#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/npy.h"
#include "common/safetensors.h"
#include "common/stream.h"
#include "common/stream_map.h"
#include "common/tokenizer.h"
#include "filekind.h"
#include "pack.h"

#define DESCRIBE_MAX_DIGITS 18        /* of a count that fits 63 bits */
#define DESCRIBE_MAX_NORM (16u << 20) /* bytes of a norm file */

struct describe {
    json_t *object;
    bool failed;
};

static void describe_set(struct describe *out, const char *key, json_t *value)
{
    if (json_object_set_new(out->object, key, value) != 0)
        out->failed = true;
}

static void describe_text(struct describe *out, const char *key, const char *value)
{
    describe_set(out, key, value == NULL ? json_null() : json_string(value));
}

static void describe_count(struct describe *out, const char *key, uint64_t value)
{
    describe_set(out, key, json_integer((json_int_t)value));
}

/* ---- streams */

static json_t *describe_sources(const struct begin *begin)
{
    json_t *sources = json_array();
    for (size_t s = 0; s < begin->source_count; s++) {
        const struct begin_source *source = &begin->sources[s];
        int failed = json_array_append_new(
            sources,
            json_pack("{s:s, s:s, s:s, s:I, s:f, s:s}", "name", source->name, "model",
                      source->model, "hook", source->hook, "width", (json_int_t)source->width,
                      "scale", source->scale, "model_hash", source->model_hash));
        if (failed != 0) {
            json_decref(sources);
            return NULL;
        }
    }
    return sources;
}

/* The programs that the rows came through, the last one first. */
static json_t *describe_tools(const json_t *begin)
{
    json_t *tools = json_array();
    for (; json_is_object(begin); begin = json_object_get(begin, "upstream"))
        if (json_array_append(tools, json_object_get(begin, "tool")) != 0) {
            json_decref(tools);
            return NULL;
        }
    return tools;
}

static void describe_begin(struct describe *out, const struct begin *begin, const json_t *json)
{
    bool tokens = begin->kind == BEGIN_TOKENS;
    describe_text(out, "type", tokens ? "tokens" : "activations");
    describe_set(out, tokens ? "sequences" : "rows",
                 begin->has_rows ? json_integer((json_int_t)begin->rows) : json_null());
    describe_count(out, "first_row", begin->first_row);
    if (tokens) {
        describe_set(out, "seq_len",
                     begin->has_seq_len ? json_integer((json_int_t)begin->seq_len) : json_null());
    } else {
        describe_text(out, "dtype", dtype_name(begin->dtype));
        describe_count(out, "width", begin_width(begin));
        describe_count(out, "row_bytes", begin_row_bytes(begin));
        describe_set(out, "sources", describe_sources(begin));
        describe_text(out, "tokenizer_hash", begin->tokenizer_hash);
    }
    describe_set(out, "tools", describe_tools(json));
    describe_set(out, "options", json_incref(begin->options));
    char identity[33];
    if (begin_identity(begin, identity) == 0)
        describe_text(out, "identity", identity);
    else
        out->failed = true;
}

/* The codec of the frame at the beginning. */
static int describe_codec(struct describe *out, const struct io_file *file)
{
    static const char *const names[] = {"none", "lz4", "zstd", "none"};
    int64_t end;
    enum frame_kind kind;
    int status = frame_measure(file, 0, &end, &kind);
    if (status == 1)
        describe_text(out, "codec", names[kind]);
    return status < 0 ? status : 0;
}

/* What the parts' ENDs say was left out, by reason. */
static int describe_skipped(struct describe *out, const struct stream_map *map)
{
    json_t *sums = json_object();
    int status = sums == NULL ? mem_fail("counts", 1, sizeof *map->parts) : 0;
    for (size_t i = 0; i < map->count && status == 0; i++)
        status = json_add_counts(sums, map->parts[i].skipped);
    if (status != 0) {
        json_decref(sums);
        return status;
    }
    describe_set(out, "skipped", sums);
    return 0;
}

/* Parts, records, rows and sizes of a regular file. */
static int describe_extent(struct describe *out, const struct io_file *file)
{
    struct stream_map map;
    int64_t size = io_size(file);
    int status = size < 0 ? (int)size : describe_codec(out, file);
    if (status == 0)
        status = stream_map_build(&map, file, 1);
    if (status != 0)
        return status;
    bool whole = map.count > 0, indexed = map.count > 0;
    uint64_t records = 0, rows = 0;
    for (size_t i = 0; i < map.count; i++) {
        const struct index *index = &map.parts[i].index;
        whole = whole && map.parts[i].has_end;
        indexed = indexed && index->count >= 2;
        records += index->count >= 2 ? index->count - 2 : 0;
    }
    bool known = stream_map_rows(&map, &rows);
    const char *key = json_object_get(out->object, "rows") != NULL ? "rows" : "sequences";
    describe_set(out, key, known ? json_integer((json_int_t)rows) : json_null());
    describe_set(out, "complete", json_boolean(whole));
    describe_count(out, "parts", map.count);
    describe_set(out, "index", json_boolean(indexed));
    describe_set(out, "records", indexed ? json_integer((json_int_t)records) : json_null());
    describe_count(out, "bytes", (uint64_t)size);
    status = describe_skipped(out, &map);
    stream_map_free(&map);
    return status;
}

static int describe_stream(struct describe *out, const char *path)
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    int status = stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1);
    if (status != 0)
        return status;
    describe_begin(out, stream_reader_begin(reader), stream_reader_begin_json(reader));
    if (stream_reader_is_regular(reader))
        status = describe_extent(out, stream_reader_file(reader));
    stream_reader_free(reader);
    return status;
}

/* ---- checkpoints */

/* A count or a JSON text of the metadata as what it means, any other text as text. */
static json_t *describe_metadata_value(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    if (digits > 0 && digits <= DESCRIBE_MAX_DIGITS && text[digits] == '\0')
        return json_integer(strtoll(text, NULL, 10));
    json_t *value = json_parse(text, strlen(text), NULL);
    return value != NULL ? value : json_string(text);
}

static int describe_crosscoder(struct describe *out, const char *path)
{
    struct crosscoder cc;
    int status = crosscoder_read_shape(&cc, path);
    if (status != 0)
        return status;
    describe_text(out, "weights", cc.path);
    describe_count(out, "latents", cc.latents);
    describe_count(out, "width", cc.width);
    json_t *sources = json_array();
    for (size_t s = 0; s < cc.source_count; s++)
        if (json_array_append_new(sources, json_pack("{s:s, s:I, s:f}", "name", cc.sources[s].name,
                                                     "width", (json_int_t)cc.sources[s].width,
                                                     "scale", cc.sources[s].scale)) != 0)
            out->failed = true;
    describe_set(out, "sources", sources);
    const char *key;
    json_t *value;
    json_object_foreach(cc.metadata, key, value)
    {
        if (json_object_get(out->object, key) == NULL)
            describe_set(out, key, describe_metadata_value(json_string_value(value)));
    }
    crosscoder_free(&cc);
    return 0;
}

static int describe_run(struct describe *out, const char *path)
{
    uint64_t *steps;
    size_t count;
    int status = checkpoint_list(path, &steps, &count);
    json_t *list = json_array();
    for (size_t i = 0; i < count && status == 0; i++)
        if (json_array_append_new(list, json_integer((json_int_t)steps[i])) != 0)
            out->failed = true;
    describe_set(out, "steps", list);
    free(steps);
    return status == 0 ? describe_crosscoder(out, path) : status;
}

/* A safetensors file: a crosscoder, or whatever tensors there are. */
static int describe_tensors(struct describe *out, const struct safetensors *file)
{
    uint64_t bytes = 0, elements = 0;
    json_t *types = json_object();
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        const char *name = safetensors_type_name(tensor->type);
        json_int_t before = json_integer_value(json_object_get(types, name));
        bytes += tensor->bytes;
        elements += tensor->elements;
        if (json_object_set_new(types, name, json_integer(before + 1)) != 0)
            out->failed = true;
    }
    describe_count(out, "tensors", safetensors_count(file));
    describe_set(out, "dtypes", types);
    describe_count(out, "parameters", elements);
    describe_count(out, "bytes", bytes);
    return 0;
}

static int describe_safetensors(struct describe *out, const char *path)
{
    struct safetensors *file;
    int status = safetensors_open(&file, path);
    if (status != 0)
        return status;
    bool crosscoder =
        safetensors_find(file, "W_enc") != NULL || safetensors_find(file, "W_enc.0") != NULL;
    describe_text(out, "type", crosscoder ? "crosscoder" : "safetensors");
    status = describe_tensors(out, file);
    safetensors_free(file);
    return status == 0 && crosscoder ? describe_crosscoder(out, path) : status;
}

/* ---- models */

static int describe_model(struct describe *out, const char *path)
{
    struct gemma2_config config = {0};
    struct safetensors *weights = NULL;
    struct tokenizer *tokenizer = NULL;
    int status = gemma2_config_read(&config, path);
    if (status == 0)
        status = safetensors_open_folder(&weights, path);
    if (status == 0)
        status = tokenizer_open_folder(&tokenizer, path);
    if (status == 0) {
        describe_text(out, "architecture", "gemma2");
        describe_count(out, "layers", config.layers);
        describe_count(out, "width", config.width);
        describe_count(out, "heads", config.heads);
        describe_count(out, "key_heads", config.key_heads);
        describe_count(out, "head_dim", config.head_dim);
        describe_count(out, "inner", config.inner);
        describe_count(out, "vocabulary", config.vocab);
        describe_count(out, "window", config.window);
        status = describe_tensors(out, weights);
        char hash[33] = "";
        if (tokenizer != NULL)
            tokenizer_hash(tokenizer, hash);
        describe_text(out, "tokenizer_hash", tokenizer == NULL ? NULL : hash);
    }
    tokenizer_free(tokenizer);
    safetensors_free(weights);
    gemma2_config_free(&config);
    return status;
}

/* ---- small files */

static int describe_norm(struct describe *out, const char *path)
{
    json_t *json = NULL, *value;
    const char *key;
    int status = json_read_file(&json, path, DESCRIBE_MAX_NORM);
    if (status != 0)
        return status;
    bool numbers = json_is_object(json) && json_object_size(json) > 0;
    json_object_foreach(json, key, value) numbers = numbers && json_is_number(value);
    if (numbers) {
        describe_text(out, "type", "norm");
        describe_set(out, "factors", json_incref(json));
    } else {
        status = log_fail(ERR_USAGE, "'%s' is JSON, and not factors of --norm", path);
    }
    json_decref(json);
    return status;
}

static int describe_npy(struct describe *out, const char *path)
{
    struct io_file file;
    struct npy_header header;
    uint8_t *bytes = NULL;
    size_t size = 256;
    int status = io_open_input(&file, path);
    if (status != 0)
        return status;
    int64_t length = io_size(&file);
    for (status = 1; status == 1; size = header.data_offset) {
        size = (int64_t)size > length ? (size_t)length : size;
        uint8_t *grown = mem_resize(bytes, size + 1, 1);
        if (grown == NULL) {
            status = mem_fail("a .npy header", size, 1);
            break;
        }
        bytes = grown;
        if ((status = io_pread(&file, bytes, size, 0)) == 0)
            status = npy_parse(&header, bytes, size, path);
        if (status == 1 && (int64_t)header.data_offset > length)
            status = log_fail(ERR_TRUNCATED, "'%s' ends inside its header", path);
    }
    if (status == 0) {
        json_t *shape = json_array();
        for (unsigned i = 0; i < header.rank; i++)
            if (json_array_append_new(shape, json_integer((json_int_t)header.shape[i])) != 0)
                out->failed = true;
        describe_text(out, "dtype", header.type);
        describe_set(out, "shape", shape);
        describe_count(out, "bytes", (uint64_t)length);
    }
    free(bytes);
    int ignored = io_close(&file); /* it was read only */
    (void)ignored;
    return status;
}

static int describe_memmap(struct describe *out, const char *path)
{
    struct pack_folder found;
    int status = pack_look(&found, path);
    if (status != 0)
        return status;
    describe_count(out, "rows", found.rows);
    describe_text(out, "dtype", dtype_name(found.dtype));
    describe_count(out, "width", found.width);
    describe_count(out, "shards", found.shards);
    return 0;
}

/* ---- all */

static int describe_kind(struct describe *out, const char *path, enum filekind kind)
{
    switch (kind) {
    case FILEKIND_STREAM:
        return describe_stream(out, path);
    case FILEKIND_RUN:
        describe_text(out, "type", "run");
        return describe_run(out, path);
    case FILEKIND_STEP:
        describe_text(out, "type", "checkpoint");
        return describe_crosscoder(out, path);
    case FILEKIND_SAFETENSORS:
        return describe_safetensors(out, path);
    case FILEKIND_MODEL:
        describe_text(out, "type", "model");
        return describe_model(out, path);
    case FILEKIND_MEMMAP:
        describe_text(out, "type", "memmap");
        return describe_memmap(out, path);
    case FILEKIND_NPY:
        describe_text(out, "type", "npy");
        return describe_npy(out, path);
    default:
        return describe_norm(out, path);
    }
}

int describe_path(json_t **object, const char *path)
{
    enum filekind kind;
    struct describe out = {.object = json_object()};
    *object = NULL;
    int status = filekind_of(&kind, path);
    if (status == 0) {
        describe_text(&out, "file", path);
        status = describe_kind(&out, path, kind);
    }
    if (status == 0 && out.failed)
        status = mem_fail("a description", 1, 1);
    if (status == 0)
        *object = out.object;
    else
        json_decref(out.object);
    return status;
}
