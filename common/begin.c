/* begin.c - BEGIN as a struct, as JSON, and compared. */
#include "begin.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "json.h"
#include "log.h"
#include "mem.h"
#include "opt.h"
#include "stream.h"

int begin_init(struct begin *begin, enum begin_kind kind, const char *tool)
{
    memset(begin, 0, sizeof *begin);
    begin->kind = kind;
    begin->options = json_object();
    begin->extra = json_object();
    begin->tokenizer_hash = strdup("");
    size_t size = strlen(tool) + sizeof " " OPT_VERSION;
    char *name = mem_alloc(size, 1);
    if (name != NULL)
        snprintf(name, size, "%s " OPT_VERSION, tool);
    begin->tool = name;
    if (begin->options == NULL || begin->extra == NULL || begin->tokenizer_hash == NULL ||
        name == NULL) {
        begin_free(begin);
        return mem_fail("BEGIN", 1, sizeof *begin);
    }
    return 0;
}

static void begin_source_free(struct begin_source *source)
{
    free(source->name);
    free(source->model);
    free(source->hook);
    free(source->model_hash);
}

void begin_free(struct begin *begin)
{
    for (size_t i = 0; i < begin->source_count; i++)
        begin_source_free(&begin->sources[i]);
    free(begin->sources);
    free(begin->tokenizer_hash);
    free((char *)begin->tool);
    json_decref(begin->options);
    json_decref(begin->upstream);
    json_decref(begin->extra);
    memset(begin, 0, sizeof *begin);
}

int begin_copy(struct begin *to, const struct begin *from)
{
    json_t *json = begin_to_json(from);
    if (json == NULL)
        return mem_fail("BEGIN", 1, sizeof *to);
    int status = begin_from_json(to, json, "BEGIN");
    json_decref(json);
    return status;
}

int begin_add_source(struct begin *begin, const char *name, const char *model, const char *hook,
                     const char *model_hash, uint32_t width, double scale)
{
    size_t count = begin->source_count;
    struct begin_source *grown = mem_resize(begin->sources, count + 1, sizeof *grown);
    if (grown == NULL)
        return mem_fail("sources", count + 1, sizeof *grown);
    begin->sources = grown;
    struct begin_source *source = &grown[count];
    *source = (struct begin_source){.name = strdup(name),
                                    .model = strdup(model),
                                    .hook = strdup(hook),
                                    .model_hash = strdup(model_hash),
                                    .width = width,
                                    .scale = scale};
    if (source->name == NULL || source->model == NULL || source->hook == NULL ||
        source->model_hash == NULL) {
        begin_source_free(source);
        return mem_fail("sources", count + 1, sizeof *grown);
    }
    begin->source_count++;
    return 0;
}

size_t begin_width(const struct begin *begin)
{
    size_t width = 0;
    for (size_t i = 0; i < begin->source_count; i++)
        width += begin->sources[i].width;
    return width;
}

size_t begin_row_bytes(const struct begin *begin)
{
    if (begin->kind == BEGIN_TOKENS)
        return 0;
    size_t quanta = begin->dtype == DTYPE_I8 ? 4 * begin->source_count : 0;
    return quanta + begin_width(begin) * dtype_size(begin->dtype);
}

size_t begin_data_bytes(const struct begin *begin)
{
    return begin->plane == BEGIN_INLINE ? begin_row_bytes(begin) : STREAM_HASHED_BYTES;
}

static const char *const begin_planes[] = {"inline", "cuda-ipc", "nccl"};

const char *begin_plane_name(enum begin_plane plane)
{
    return begin_planes[plane];
}

/* ---- JSON */

/* The member of "attach" that holds the key, and the key's bytes. */
static const char *begin_key_name(enum begin_plane plane, size_t *bytes)
{
    *bytes = plane == BEGIN_CUDA_IPC ? 64 : 128;
    return plane == BEGIN_CUDA_IPC ? "handle" : "id";
}

static json_t *begin_attach_json(const struct begin *begin)
{
    const struct begin_attach *attach = &begin->attach;
    char hex[2 * sizeof attach->key + 1];
    size_t bytes;
    const char *name = begin_key_name(begin->plane, &bytes);
    for (size_t i = 0; i < bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", attach->key[i]);
    return json_pack("{s:s, s:I, s:I, s:s}", "socket", attach->socket, "buffers",
                     (json_int_t)attach->buffers, "capacity", (json_int_t)attach->capacity, name,
                     hex);
}

static json_t *begin_sources_json(const struct begin *begin)
{
    json_t *list = json_array();
    size_t offset = 0;
    for (size_t i = 0; i < begin->source_count && list != NULL; i++) {
        const struct begin_source *s = &begin->sources[i];
        json_t *source =
            json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:f}", "name", s->name, "model", s->model,
                      "hook", s->hook, "model_hash", s->model_hash, "offset", (json_int_t)offset,
                      "width", (json_int_t)s->width, "scale", s->scale);
        if (source == NULL || json_array_append_new(list, source) != 0) {
            json_decref(list);
            return NULL;
        }
        offset += s->width;
    }
    return list;
}

static json_t *begin_count_or_null(bool has, uint64_t value)
{
    return has ? json_integer((json_int_t)value) : json_null();
}

json_t *begin_to_json(const struct begin *begin)
{
    bool tokens = begin->kind == BEGIN_TOKENS;
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:I, s:O, s:O, s:O?}", "kind", tokens ? "tokens" : "activations",
                  "tool", begin->tool, "rows", begin_count_or_null(begin->has_rows, begin->rows),
                  "first_row", (json_int_t)begin->first_row, "options", begin->options, "extra",
                  begin->extra, "upstream", begin->upstream);
    if (json == NULL)
        return NULL;
    int failed = 0;
    if (tokens) {
        failed |= json_object_set_new(json, "seq_len",
                                      begin_count_or_null(begin->has_seq_len, begin->seq_len));
    } else {
        failed |= json_object_set_new(json, "dtype", json_string(dtype_name(begin->dtype)));
        failed |= json_object_set_new(json, "width", json_integer((json_int_t)begin_width(begin)));
        failed |= json_object_set_new(json, "sources", begin_sources_json(begin));
        failed |= json_object_set_new(json, "tokenizer_hash", json_string(begin->tokenizer_hash));
        failed |=
            json_object_set_new(json, "data_plane", json_string(begin_plane_name(begin->plane)));
        if (begin->plane != BEGIN_INLINE)
            failed |= json_object_set_new(json, "attach", begin_attach_json(begin));
    }
    if (failed != 0) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static int begin_read_optional_count(const json_t *json, const char *key, const char *name,
                                     bool *has, uint64_t *value)
{
    const json_t *member = json_object_get(json, key);
    *has = member != NULL && !json_is_null(member);
    return *has ? json_get_count(json, key, name, value) : 0;
}

static int begin_read_source(struct begin *begin, const json_t *json, const char *file,
                             size_t *offset)
{
    const char *name, *model, *hook, *hash;
    uint64_t at, width;
    double scale;
    int status;
    if ((status = json_get_string(json, "name", file, &name)) != 0 ||
        (status = json_get_string(json, "model", file, &model)) != 0 ||
        (status = json_get_string(json, "hook", file, &hook)) != 0 ||
        (status = json_get_string(json, "model_hash", file, &hash)) != 0 ||
        (status = json_get_count(json, "offset", file, &at)) != 0 ||
        (status = json_get_count(json, "width", file, &width)) != 0 ||
        (status = json_get_real(json, "scale", file, &scale)) != 0)
        return status;
    if (at != *offset || width == 0 || width > BEGIN_MAX_WIDTH - *offset)
        return log_fail(ERR_DATA,
                        "'%s': BEGIN: source '%s' has offset %" PRIu64 " and width %" PRIu64
                        ", expected offset %zu and at most %u elements in a row",
                        file, name, at, width, *offset, BEGIN_MAX_WIDTH);
    if (!(scale > 0 && scale < 1e30))
        return log_fail(ERR_DATA, "'%s': BEGIN: source '%s' has a scale that is not positive", file,
                        name);
    *offset += (size_t)width;
    return begin_add_source(begin, name, model, hook, hash, (uint32_t)width, scale);
}

/* Lower-case hexadecimal digits, as many as fill `bytes`. */
static bool begin_read_hex(uint8_t *key, size_t bytes, const char *hex)
{
    static const char digits[] = "0123456789abcdef";
    if (strlen(hex) != 2 * bytes || strspn(hex, digits) != 2 * bytes)
        return false;
    for (size_t i = 0; i < bytes; i++)
        key[i] = (uint8_t)((strchr(digits, hex[2 * i]) - digits) << 4 |
                           (strchr(digits, hex[2 * i + 1]) - digits));
    return true;
}

static int begin_read_attach(struct begin *begin, const json_t *json, const char *file)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const json_t *attach = json_object_get(json, "attach");
    struct begin_attach *to = &begin->attach;
    const char *socket, *key;
    uint64_t buffers, capacity;
    size_t bytes;
    const char *key_name = begin_key_name(begin->plane, &bytes);
    int status;
    if ((status = json_get_string(attach, "socket", file, &socket)) != 0 ||
        (status = json_get_count(attach, "buffers", file, &buffers)) != 0 ||
        (status = json_get_count(attach, "capacity", file, &capacity)) != 0 ||
        (status = json_get_string(attach, key_name, file, &key)) != 0)
        return status;
    size_t length = strlen(socket);
    if (length == 0 || length >= sizeof to->socket || strspn(socket, allowed) != length)
        return log_fail(ERR_DATA, "'%s': BEGIN: the control socket has no valid name", file);
    if (buffers < 2 || buffers > BEGIN_MAX_BUFFERS || capacity == 0 ||
        capacity > UINT32_MAX / buffers)
        return log_fail(ERR_DATA,
                        "'%s': BEGIN: a window of %" PRIu64 " buffers of %" PRIu64 " rows", file,
                        buffers, capacity);
    if (!begin_read_hex(to->key, bytes, key))
        return log_fail(ERR_DATA, "'%s': BEGIN: '%s' is not %zu bytes in hexadecimal", file,
                        key_name, bytes);
    memcpy(to->socket, socket, length + 1);
    to->buffers = (uint32_t)buffers;
    to->capacity = (uint32_t)capacity;
    return 0;
}

static int begin_read_plane(struct begin *begin, const json_t *json, const char *file)
{
    const char *text;
    int status = json_get_string(json, "data_plane", file, &text);
    if (status != 0)
        return status;
    for (size_t i = 0; i < sizeof begin_planes / sizeof *begin_planes; i++)
        if (strcmp(text, begin_planes[i]) == 0) {
            begin->plane = (enum begin_plane)i;
            return begin->plane == BEGIN_INLINE ? 0 : begin_read_attach(begin, json, file);
        }
    return log_fail(ERR_DATA, "'%s': BEGIN: unknown data plane '%s'", file, text);
}

static int begin_read_activations(struct begin *begin, const json_t *json, const char *file)
{
    const char *text;
    int status = begin_read_plane(begin, json, file);
    if (status != 0)
        return status;
    if ((status = json_get_string(json, "dtype", file, &text)) != 0)
        return status;
    int dtype = dtype_parse(text);
    if (dtype != DTYPE_F32 && dtype != DTYPE_BF16 && dtype != DTYPE_I8)
        return log_fail(ERR_DATA, "'%s': BEGIN: unknown dtype '%s'", file, text);
    begin->dtype = (enum dtype)dtype;
    if ((status = json_get_string(json, "tokenizer_hash", file, &text)) != 0)
        return status;
    free(begin->tokenizer_hash);
    if ((begin->tokenizer_hash = strdup(text)) == NULL)
        return mem_fail("BEGIN", strlen(text), 1);
    const json_t *sources = json_object_get(json, "sources");
    size_t count = json_array_size(sources), offset = 0;
    if (count == 0 || count > BEGIN_MAX_SOURCES)
        return log_fail(ERR_DATA, "'%s': BEGIN: %zu sources, expected 1 to %d", file, count,
                        BEGIN_MAX_SOURCES);
    for (size_t i = 0; i < count; i++)
        if ((status = begin_read_source(begin, json_array_get(sources, i), file, &offset)) != 0)
            return status;
    if (begin_row_bytes(begin) + STREAM_TAG_BYTES > STREAM_MAX_PAYLOAD)
        return log_fail(ERR_DATA, "'%s': BEGIN: a row of %zu bytes does not fit a record", file,
                        begin_row_bytes(begin));
    return 0;
}

static int begin_read_json(struct begin *begin, const json_t *json, const char *kind,
                           const char *tool, const char *file)
{
    int status;
    free((char *)begin->tool);
    if ((begin->tool = strdup(tool)) == NULL)
        return mem_fail("BEGIN", strlen(tool), 1);
    if ((status = begin_read_optional_count(json, "rows", file, &begin->has_rows, &begin->rows)) !=
            0 ||
        (status = json_get_count(json, "first_row", file, &begin->first_row)) != 0 ||
        (status = begin_read_optional_count(json, "seq_len", file, &begin->has_seq_len,
                                            &begin->seq_len)) != 0)
        return status;
    json_t *options = json_object_get(json, "options"), *extra = json_object_get(json, "extra");
    json_t *upstream = json_object_get(json, "upstream");
    if (!json_is_object(options) || !json_is_object(extra))
        return log_fail(ERR_DATA, "'%s': BEGIN: 'options' or 'extra' is not an object", file);
    json_decref(begin->options);
    json_decref(begin->extra);
    begin->options = json_incref(options);
    begin->extra = json_incref(extra);
    begin->upstream = json_is_object(upstream) ? json_incref(upstream) : NULL;
    if (begin->kind == BEGIN_ACTIVATIONS)
        return begin_read_activations(begin, json, file);
    if (strcmp(kind, "tokens") != 0)
        return log_fail(ERR_DATA, "'%s': BEGIN: unknown kind '%s'", file, kind);
    return 0;
}

int begin_from_json(struct begin *begin, const json_t *json, const char *name)
{
    memset(begin, 0, sizeof *begin);
    const char *kind, *tool;
    int status;
    if ((status = json_get_string(json, "kind", name, &kind)) != 0 ||
        (status = json_get_string(json, "tool", name, &tool)) != 0)
        return status;
    bool activations = strcmp(kind, "activations") == 0;
    if ((status = begin_init(begin, activations ? BEGIN_ACTIVATIONS : BEGIN_TOKENS, "")) != 0)
        return status;
    if ((status = begin_read_json(begin, json, kind, tool, name)) != 0)
        begin_free(begin);
    return status;
}

/* ---- comparing */

/* What two BEGINs are called in a message: one file may hold both. */
static const char *begin_both(char *text, size_t size, const char *name_a, const char *name_b)
{
    if (strcmp(name_a, name_b) == 0)
        snprintf(text, size, "two parts of '%s'", name_a);
    else
        snprintf(text, size, "'%s' and '%s'", name_a, name_b);
    return text;
}

static int begin_differ(const char *name_a, const char *a, const char *name_b, const char *b,
                        const char *what)
{
    char both[1024];
    return log_fail(ERR_USAGE,
                    "%s do not belong together: %s is %s in the first and %s in the second",
                    begin_both(both, sizeof both, name_a, name_b), what, a, b);
}

static int begin_compare_source(const struct begin_source *a, const char *name_a,
                                const struct begin_source *b, const char *name_b)
{
    char what[256], left[64], right[64];
    if (strcmp(a->name, b->name) != 0)
        return begin_differ(name_a, a->name, name_b, b->name, "a source");
    if (a->width != b->width) {
        snprintf(what, sizeof what, "the width of '%s'", a->name);
        snprintf(left, sizeof left, "%" PRIu32, a->width);
        snprintf(right, sizeof right, "%" PRIu32, b->width);
        return begin_differ(name_a, left, name_b, right, what);
    }
    if (strcmp(a->model_hash, b->model_hash) != 0) {
        snprintf(what, sizeof what, "the model behind '%s'", a->name);
        return begin_differ(name_a, a->model_hash, name_b, b->model_hash, what);
    }
    if (a->scale != b->scale) {
        char both[1024];
        return log_fail(ERR_USAGE,
                        "%s were normalised by different factors: '%s' by %.9g and %.9g; make both "
                        "with the same actgen --norm FILE",
                        begin_both(both, sizeof both, name_a, name_b), a->name, a->scale, b->scale);
    }
    return 0;
}

int begin_compatible(const struct begin *a, const char *name_a, const struct begin *b,
                     const char *name_b)
{
    static const char *const kinds[] = {"tokens", "activations"};
    if (a->kind != b->kind)
        return begin_differ(name_a, kinds[a->kind], name_b, kinds[b->kind], "the kind");
    if (a->kind == BEGIN_TOKENS)
        return 0;
    if (a->plane != BEGIN_INLINE || b->plane != BEGIN_INLINE) {
        char both[1024];
        return log_fail(ERR_USAGE, "%s do not belong together: rows that travel by %s come alone",
                        begin_both(both, sizeof both, name_a, name_b),
                        begin_plane_name(a->plane != BEGIN_INLINE ? a->plane : b->plane));
    }
    if (a->dtype != b->dtype)
        return begin_differ(name_a, dtype_name(a->dtype), name_b, dtype_name(b->dtype),
                            "the type of rows");
    if (a->source_count != b->source_count) {
        char left[24], right[24];
        snprintf(left, sizeof left, "%zu", a->source_count);
        snprintf(right, sizeof right, "%zu", b->source_count);
        return begin_differ(name_a, left, name_b, right, "the number of sources");
    }
    for (size_t i = 0; i < a->source_count; i++) {
        int status = begin_compare_source(&a->sources[i], name_a, &b->sources[i], name_b);
        if (status != 0)
            return status;
    }
    return 0;
}

/* As if rows had travelled inline, here and in all BEGINs upstream. */
static int begin_strip_planes(json_t *json)
{
    for (; json_is_object(json); json = json_object_get(json, "upstream")) {
        json_object_del(json, "attach");
        if (json_object_get(json, "data_plane") != NULL &&
            json_object_set_new(json, "data_plane", json_string("inline")) != 0)
            return ERR_MEMORY;
    }
    return 0;
}

/* Takes out what depends on how much of the stream is sent, at all levels. */
static void begin_strip_extent(json_t *json)
{
    for (; json_is_object(json); json = json_object_get(json, "upstream")) {
        json_object_del(json, "rows");
        json_object_del(json, "first_row");
    }
}

int begin_identity(const struct begin *begin, char hex[33])
{
    json_t *json = begin_to_json(begin);
    json_t *copy = json_deep_copy(json);
    begin_strip_extent(copy);
    char *text = copy == NULL || begin_strip_planes(copy) != 0 ? NULL : json_text(copy);
    int status = 0;
    if (text == NULL) {
        status = mem_fail("BEGIN", 1, sizeof *begin);
    } else {
        XXH128_hash_t hash = XXH3_128bits(text, strlen(text));
        snprintf(hex, 33, "%016llx%016llx", (unsigned long long)hash.high64,
                 (unsigned long long)hash.low64);
    }
    free(text);
    json_decref(copy);
    json_decref(json);
    return status;
}

/* ---- a shuffle's */

int begin_shuffled(struct begin *shuffled, const struct begin *begin, const json_t *json,
                   const json_t *options, bool has_total, uint64_t total, uint64_t skip)
{
    struct begin own = {0};
    int status = begin_copy(shuffled, begin);
    if (status != 0)
        return status;
    if ((status = begin_init(&own, BEGIN_ACTIVATIONS, "shufbuf")) != 0) {
        begin_free(shuffled);
        return status;
    }
    const char *tool = shuffled->tool;
    shuffled->tool = own.tool;
    own.tool = tool;
    begin_free(&own);
    json_decref(shuffled->options);
    json_decref(shuffled->upstream);
    json_decref(shuffled->extra);
    shuffled->options = json_deep_copy(options);
    shuffled->upstream = json_deep_copy(json);
    shuffled->extra = json_object();
    shuffled->has_rows = has_total && total >= skip;
    shuffled->rows = shuffled->has_rows ? total - skip : 0;
    shuffled->first_row = skip;
    shuffled->plane = BEGIN_INLINE;
    memset(&shuffled->attach, 0, sizeof shuffled->attach);
    if (shuffled->options != NULL && shuffled->upstream != NULL && shuffled->extra != NULL &&
        begin_strip_planes(shuffled->upstream) == 0)
        return 0;
    begin_free(shuffled);
    return mem_fail("BEGIN", 1, sizeof *shuffled);
}
