/* safetensors.c - reading: the header checked in full, then data by pread.
 *
 * Each file is loaded alone: its JSON header gives tensors, which must tile the file. A folder is
 * the union of its shards, cut down to what weight_map names, so that a tensor that lies in two
 * shards is taken from the one the map says. Names stay in the JSON headers and are borrowed from
 * there; the tensors are sorted by name for the look-up.
 *
 * Invariants once opened: offset + bytes <= size of the file when it was opened, and bytes =
 * product of shape x size of the type, so that no later sum can overflow. pread and not mmap: a
 * file that is cut while it is read gives an error, not SIGBUS.
 */
#include "safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "dtype.h"
#include "io.h"
#include "json.h"
#include "le.h"
#include "log.h"
#include "mem.h"

#define SAFETENSORS_INDEX "model.safetensors.index.json"
#define SAFETENSORS_MAX_INDEX (64u << 20) /* bytes of the index file */
#define SAFETENSORS_CHUNK (1u << 20)      /* bytes read at a time for a conversion */

/* Parsed JSON takes at most this many bytes per byte of text ("{}," is an object of 8 buckets). The
 * memory is asked for only where a header is larger than any model's. */
#define SAFETENSORS_PARSED_RATIO 80
#define SAFETENSORS_LARGE_HEADER (1u << 20)

struct safetensors_file {
    struct io_file io;
    int64_t size;
    json_t *header; /* owns the names */
};

struct safetensors {
    struct safetensors_file *files;
    size_t file_count;
    struct safetensors_tensor *tensors; /* sorted by name once opened */
    size_t count;
    json_t *metadata;
    char *name;                 /* the file or folder that was opened */
    safetensors_wanted *wanted; /* NULL: all */
    const void *context;        /* of wanted, while opening */
};

/* ---- one tensor's entry in the header */

static int safetensors_read_type(struct safetensors_tensor *tensor, const json_t *entry,
                                 const char *path)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (type == NULL)
        return log_fail(ERR_DATA, "'%s': tensor '%s' has no dtype", path, tensor->name);
    for (unsigned i = 0; i < SAFETENSORS_TYPE_COUNT; i++) {
        if (strcmp(type, safetensors_type_name((enum safetensors_type)i)) == 0) {
            tensor->type = (enum safetensors_type)i;
            return 0;
        }
    }
    return log_fail(ERR_DATA, "'%s': tensor '%s' has the unknown dtype '%s'", path, tensor->name,
                    type);
}

static int safetensors_read_shape(struct safetensors_tensor *tensor, const json_t *entry,
                                  const char *path)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape) || json_array_size(shape) > SAFETENSORS_MAX_RANK)
        return log_fail(ERR_DATA, "'%s': tensor '%s' has no shape of at most %d dimensions", path,
                        tensor->name, SAFETENSORS_MAX_RANK);
    tensor->rank = (unsigned)json_array_size(shape);
    tensor->elements = 1;
    for (unsigned i = 0; i < tensor->rank; i++) {
        const json_t *length = json_array_get(shape, i);
        if (!json_is_integer(length) || json_integer_value(length) < 0)
            return log_fail(ERR_DATA, "'%s': dimension %u of tensor '%s' is not a count", path, i,
                            tensor->name);
        tensor->shape[i] = (uint64_t)json_integer_value(length);
        if (__builtin_mul_overflow(tensor->elements, tensor->shape[i], &tensor->elements))
            return log_fail(ERR_DATA, "'%s': the shape of tensor '%s' overflows", path,
                            tensor->name);
    }
    if (__builtin_mul_overflow(tensor->elements, (uint64_t)safetensors_type_size(tensor->type),
                               &tensor->bytes))
        return log_fail(ERR_DATA, "'%s': the size of tensor '%s' overflows", path, tensor->name);
    return 0;
}

/* Reads dtype, shape and data_offsets; `data` is where the file's tensors begin. */
static int safetensors_read_entry(struct safetensors_tensor *tensor, const json_t *entry,
                                  const char *path, int64_t data)
{
    int status = safetensors_read_type(tensor, entry, path);
    if (status == 0)
        status = safetensors_read_shape(tensor, entry, path);
    if (status != 0)
        return status;
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return log_fail(ERR_DATA, "'%s': tensor '%s' has no pair of data_offsets", path,
                        tensor->name);
    uint64_t length = (uint64_t)(json_integer_value(last) - json_integer_value(first));
    if (length != tensor->bytes)
        return log_fail(ERR_DATA,
                        "'%s': tensor '%s' has %" PRIu64 " bytes of data, its shape in %s needs "
                        "%" PRIu64,
                        path, tensor->name, length, safetensors_type_name(tensor->type),
                        tensor->bytes);
    if (__builtin_add_overflow(json_integer_value(first), data, &tensor->offset))
        return log_fail(ERR_DATA, "'%s': the offset of tensor '%s' overflows", path, tensor->name);
    return 0;
}

/* ---- one file */

/* By offset; an empty tensor before the one that begins at the same place. */
static int safetensors_by_offset(const void *left, const void *right)
{
    const struct safetensors_tensor *a = left, *b = right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int safetensors_by_name(const void *left, const void *right)
{
    const struct safetensors_tensor *a = left, *b = right;
    return strcmp(a->name, b->name);
}

/* Sorted by offset, the tensors must cover [data, size) without hole or overlap. */
static int safetensors_check_tiling(struct safetensors_tensor *tensors, size_t count,
                                    const char *path, int64_t data, int64_t size)
{
    qsort(tensors, count, sizeof *tensors, safetensors_by_offset);
    int64_t end = data;
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_tensor *tensor = &tensors[i];
        if (tensor->offset != end)
            return log_fail(ERR_DATA,
                            "'%s': tensor '%s' begins at offset %" PRId64 ", and what comes "
                            "before it ends at %" PRId64,
                            path, tensor->name, tensor->offset, end);
        if (tensor->bytes > (uint64_t)(INT64_MAX - end))
            return log_fail(ERR_DATA, "'%s': the end of tensor '%s' overflows", path, tensor->name);
        end += (int64_t)tensor->bytes;
    }
    if (end > size)
        return log_fail(ERR_TRUNCATED,
                        "'%s' ends at offset %" PRId64 ", its tensors at %" PRId64
                        "; fetch the file again",
                        path, size, end);
    if (end < size)
        return log_fail(ERR_DATA, "'%s' has %" PRId64 " bytes behind its last tensor", path,
                        size - end);
    return 0;
}

static int safetensors_check_metadata(const json_t *metadata, const char *path)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return log_fail(ERR_DATA, "'%s': " SAFETENSORS_METADATA " is not an object", path);
    json_object_foreach((json_t *)metadata, key, value) if (!json_is_string(value)) return log_fail(
        ERR_DATA, "'%s': " SAFETENSORS_METADATA " key '%s' is not a string", path, key);
    return 0;
}

/* Appends the tensors of a parsed header to the model's, checked. */
static int safetensors_add_tensors(struct safetensors *model, size_t index, int64_t data)
{
    const struct safetensors_file *file = &model->files[index];
    const char *path = file->io.name, *key;
    json_t *entry;
    size_t total = model->count + json_object_size(file->header);
    struct safetensors_tensor *grown = mem_resize(model->tensors, total, sizeof *grown);
    if (grown == NULL)
        return mem_fail("tensors", total, sizeof *grown);
    model->tensors = grown;
    struct safetensors_tensor *first = &grown[model->count], *next = first;
    json_object_foreach(file->header, key, entry)
    {
        int status;
        if (strcmp(key, SAFETENSORS_METADATA) == 0) {
            status = safetensors_check_metadata(entry, path);
        } else {
            *next = (struct safetensors_tensor){.name = key, .file = index};
            status = safetensors_read_entry(next++, entry, path, data);
        }
        if (status != 0)
            return status;
    }
    size_t count = (size_t)(next - first);
    model->count += count;
    return safetensors_check_tiling(first, count, path, data, file->size);
}

/* Reads the header of an open file; *data is where its tensors begin. */
static int safetensors_read_header(struct safetensors_file *file, int64_t *data)
{
    const char *path = file->io.name;
    uint8_t prefix[8];
    int status = io_pread(&file->io, prefix, sizeof prefix, 0);
    if (status != 0)
        return status;
    uint64_t length = le_get64(prefix);
    if (length > SAFETENSORS_MAX_HEADER)
        return log_fail(ERR_DATA,
                        "'%s' is not a safetensors file: its first 8 bytes give a header of "
                        "%" PRIu64 " bytes, more than %u",
                        path, length, SAFETENSORS_MAX_HEADER);
    if ((int64_t)length > file->size - (int64_t)sizeof prefix)
        return log_fail(ERR_TRUNCATED,
                        "'%s' ends at offset %" PRId64 ", inside its header of %" PRIu64 " bytes",
                        path, file->size, length);
    if (length > SAFETENSORS_LARGE_HEADER &&
        (status = mem_require(length * SAFETENSORS_PARSED_RATIO, "a safetensors header")) != 0)
        return status;
    char *text = mem_alloc((size_t)length, 1);
    if (text == NULL)
        return mem_fail("a safetensors header", (size_t)length, 1);
    *data = (int64_t)(sizeof prefix + length);
    status = io_pread(&file->io, text, (size_t)length, sizeof prefix);
    if (status == 0 && (length == 0 || text[0] != '{'))
        status = log_fail(ERR_DATA, "'%s' is not a safetensors file: no '{' at offset 8", path);
    if (status == 0 && (file->header = json_parse(text, (size_t)length, path)) == NULL)
        status = ERR_DATA;
    free(text);
    return status;
}

/* Opens a file and adds its tensors to the model. */
static int safetensors_add_file(struct safetensors *model, const char *path)
{
    struct stat found;
    if (stat(path, &found) == 0 && !S_ISREG(found.st_mode)) /* open() of a pipe would wait */
        return log_fail(ERR_USAGE, "'%s' is not a regular file", path);
    size_t index = model->file_count;
    struct safetensors_file *grown = mem_resize(model->files, index + 1, sizeof *grown);
    if (grown == NULL)
        return mem_fail("shards", index + 1, sizeof *grown);
    model->files = grown;
    struct safetensors_file *file = &grown[index];
    *file = (struct safetensors_file){.io = IO_FILE_CLOSED};
    int status = io_open_input(&file->io, path);
    if (status != 0)
        return status;
    model->file_count++; /* from here on safetensors_free() closes it */
    if (!file->io.regular)
        return log_fail(ERR_USAGE, "'%s' is not a regular file", path);
    file->size = io_size(&file->io);
    if (file->size < 0)
        return (int)file->size;
    int64_t data = 0;
    status = safetensors_read_header(file, &data);
    return status != 0 ? status : safetensors_add_tensors(model, index, data);
}

/* ---- shards */

static bool safetensors_wants(const struct safetensors *model, const char *name)
{
    return model->wanted == NULL || model->wanted(name, model->context);
}

static bool safetensors_plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strstr(name, "..") == NULL;
}

/* Opens each file that weight_map names for a tensor that is wanted, once. */
static int safetensors_add_shards(struct safetensors *model, const char *folder,
                                  const json_t *weight_map, const char *path)
{
    const char *name;
    json_t *value;
    int status = 0;
    json_t *seen = json_object();
    if (seen == NULL)
        return mem_fail("shards", 1, 1);
    json_object_foreach((json_t *)weight_map, name, value)
    {
        const char *file = json_string_value(value);
        if (file == NULL || !safetensors_plain_name(file)) {
            status = log_fail(ERR_DATA,
                              "'%s': tensor '%s' is not in a plain file name of the "
                              "folder",
                              path, name);
            break;
        }
        if (json_object_get(seen, file) != NULL || !safetensors_wants(model, name))
            continue;
        char *shard = io_join(folder, file);
        if (shard == NULL || json_object_set(seen, file, value) != 0)
            status = mem_fail("shards", model->file_count + 1, 1);
        else
            status = safetensors_add_file(model, shard);
        free(shard);
        if (status != 0)
            break;
    }
    json_decref(seen);
    return status;
}

/* The file name of weight_map for a tensor lies in the tensor's own file. */
static bool safetensors_is_mapped(const struct safetensors *model, const json_t *weight_map,
                                  const struct safetensors_tensor *tensor)
{
    const char *path = safetensors_path(model, tensor);
    const char *slash = strrchr(path, '/');
    const char *file = json_string_value(json_object_get(weight_map, tensor->name));
    return file != NULL && strcmp(file, slash == NULL ? path : slash + 1) == 0;
}

/* Drops the tensors that the map does not place where they are, and finds what it misses. */
static int safetensors_apply_map(struct safetensors *model, const json_t *weight_map,
                                 const char *path)
{
    size_t kept = 0;
    for (size_t i = 0; i < model->count; i++) {
        const struct safetensors_tensor *tensor = &model->tensors[i];
        if (!safetensors_wants(model, tensor->name))
            continue;
        if (safetensors_is_mapped(model, weight_map, tensor))
            model->tensors[kept++] = *tensor;
        else
            log_verbose("'%s': tensor '%s' is not used, the index does not place it there",
                        safetensors_path(model, tensor), tensor->name);
    }
    model->count = kept;
    qsort(model->tensors, kept, sizeof *model->tensors, safetensors_by_name);
    const char *name;
    json_t *file;
    json_object_foreach(
        (json_t *)weight_map, name,
        file) if (safetensors_wants(model, name) &&
                  safetensors_find(model, name) ==
                      NULL) return log_fail(ERR_DATA,
                                            "'%s' places tensor '%s' in '%s', which does not have "
                                            "it",
                                            path, name, json_string_value(file));
    return 0;
}

static int safetensors_check_total(const struct safetensors *model, const json_t *index,
                                   const char *path)
{
    const json_t *total = json_object_get(json_object_get(index, "metadata"), "total_size");
    if (total == NULL || json_is_null(total) || model->wanted != NULL)
        return 0;
    uint64_t sum = 0; /* of bytes in files: cannot overflow with fewer than 2^31 tensors */
    for (size_t i = 0; i < model->count; i++)
        sum += model->tensors[i].bytes;
    if (!json_is_number(total) || json_number_value(total) != (double)sum)
        return log_fail(ERR_DATA,
                        "'%s': total_size is %.0f, the tensors have %" PRIu64 " bytes together",
                        path, json_number_value(total), sum);
    return 0;
}

static int safetensors_load_index(struct safetensors *model, const char *folder, const char *path)
{
    json_t *index = NULL;
    int status = json_read_file(&index, path, SAFETENSORS_MAX_INDEX);
    if (status != 0)
        return status;
    const json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        status = log_fail(ERR_DATA, "'%s' has no weight_map", path);
    if (status == 0)
        status = safetensors_add_shards(model, folder, weight_map, path);
    if (status == 0)
        status = safetensors_apply_map(model, weight_map, path);
    if (status == 0)
        status = safetensors_check_total(model, index, path);
    json_decref(index);
    return status;
}

/* ---- opening and closing */

static struct safetensors *safetensors_new(const char *name)
{
    struct safetensors *model = mem_alloc_zero(1, sizeof *model);
    if (model != NULL && (model->name = strdup(name)) == NULL) {
        free(model);
        return NULL;
    }
    return model;
}

/* Ends an opening: metadata of the first file, or everything undone. */
static int safetensors_finish(struct safetensors **result, struct safetensors *model, int status)
{
    if (status == 0) {
        json_t *metadata = model->file_count > 0
                               ? json_object_get(model->files[0].header, SAFETENSORS_METADATA)
                               : NULL;
        model->metadata = metadata != NULL ? json_incref(metadata) : json_object();
        if (model->metadata == NULL)
            status = mem_fail("metadata", 1, 1);
    }
    if (status != 0) {
        safetensors_free(model);
        return status;
    }
    qsort(model->tensors, model->count, sizeof *model->tensors, safetensors_by_name);
    *result = model;
    return 0;
}

int safetensors_open(struct safetensors **model, const char *path)
{
    *model = NULL;
    struct safetensors *opened = safetensors_new(path);
    if (opened == NULL)
        return mem_fail("a model", 1, sizeof *opened);
    return safetensors_finish(model, opened, safetensors_add_file(opened, path));
}

int safetensors_open_folder(struct safetensors **model, const char *folder)
{
    return safetensors_open_wanted(model, folder, NULL, NULL);
}

int safetensors_open_wanted(struct safetensors **model, const char *folder,
                            safetensors_wanted *wanted, const void *context)
{
    *model = NULL;
    struct stat found;
    struct safetensors *opened = safetensors_new(folder);
    char *single = io_join(folder, "model.safetensors"),
         *index = io_join(folder, SAFETENSORS_INDEX);
    int status;
    if (opened != NULL) {
        opened->wanted = wanted;
        opened->context = context;
    }
    if (opened == NULL || single == NULL || index == NULL)
        status = mem_fail("a model", 1, sizeof *opened);
    else if (stat(single, &found) == 0)
        status = safetensors_add_file(opened, single);
    else if (stat(index, &found) == 0)
        status = safetensors_load_index(opened, folder, index);
    else
        status = log_fail(ERR_USAGE, "'%s' has neither model.safetensors nor " SAFETENSORS_INDEX,
                          folder);
    free(single);
    free(index);
    return safetensors_finish(model, opened, status);
}

void safetensors_free(struct safetensors *model)
{
    if (model == NULL)
        return;
    for (size_t i = 0; i < model->file_count; i++) {
        int ignored = io_close(&model->files[i].io); /* nothing was written */
        (void)ignored;
        json_decref(model->files[i].header);
    }
    free(model->files);
    free(model->tensors);
    free(model->name);
    json_decref(model->metadata);
    free(model);
}

/* ---- look-ups */

const struct safetensors_tensor *safetensors_find(const struct safetensors *model, const char *name)
{
    if (model->count == 0)
        return NULL;
    struct safetensors_tensor key = {.name = name};
    return bsearch(&key, model->tensors, model->count, sizeof key, safetensors_by_name);
}

size_t safetensors_count(const struct safetensors *model)
{
    return model->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *model, size_t i)
{
    return i < model->count ? &model->tensors[i] : NULL;
}

const char *safetensors_path(const struct safetensors *model,
                             const struct safetensors_tensor *tensor)
{
    return model->files[tensor->file].io.name;
}

const char *safetensors_name(const struct safetensors *model)
{
    return model->name;
}

const json_t *safetensors_metadata(const struct safetensors *model)
{
    return model->metadata;
}

/* ---- data */

int safetensors_read(const struct safetensors *model, const struct safetensors_tensor *tensor,
                     void *to, uint64_t offset, uint64_t bytes)
{
    assert(offset <= tensor->bytes && bytes <= tensor->bytes - offset);
    return io_pread(&model->files[tensor->file].io, to, (size_t)bytes,
                    tensor->offset + (int64_t)offset);
}

/* ERR_DATA where one of `count` values, the tensor's from `first` on, is not finite. */
static int safetensors_check_finite(const struct safetensors *model,
                                    const struct safetensors_tensor *tensor, const float *values,
                                    uint64_t first, size_t count)
{
    uint32_t bits, wrong = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &values[i], sizeof bits);
        wrong |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (wrong == 0)
        return 0;
    size_t at = 0;
    for (memcpy(&bits, values, sizeof bits); (bits & 0x7f800000u) != 0x7f800000u;
         memcpy(&bits, &values[at], sizeof bits))
        at++;
    return log_fail(ERR_DATA, "'%s': element %" PRIu64 " of tensor '%s' is %f",
                    safetensors_path(model, tensor), first + at, tensor->name, (double)values[at]);
}

/* F16 and BF16 pass through a buffer; F32 is read to where it belongs. */
static int safetensors_read_chunks(const struct safetensors *model,
                                   const struct safetensors_tensor *tensor, float *to,
                                   uint64_t first, uint64_t count, enum dtype type, void *buffer)
{
    const size_t size = dtype_size(type);
    for (uint64_t done = 0; done < count;) {
        uint64_t left = count - done, most = SAFETENSORS_CHUNK / size;
        size_t n = (size_t)(left < most ? left : most);
        void *raw = buffer == NULL ? (void *)(to + done) : buffer;
        int status = safetensors_read(model, tensor, raw, (first + done) * size, n * size);
        if (status != 0)
            return status;
        if (buffer != NULL)
            dtype_to_f32(to + done, buffer, type, n);
        status = safetensors_check_finite(model, tensor, to + done, first + done, n);
        if (status != 0)
            return status;
        done += n;
    }
    return 0;
}

int safetensors_read_f32(const struct safetensors *model, const struct safetensors_tensor *tensor,
                         float *to, uint64_t first, uint64_t count)
{
    assert(first <= tensor->elements && count <= tensor->elements - first);
    enum dtype type;
    switch (tensor->type) {
    case SAFETENSORS_F32:
        return safetensors_read_chunks(model, tensor, to, first, count, DTYPE_F32, NULL);
    case SAFETENSORS_BF16:
        type = DTYPE_BF16;
        break;
    case SAFETENSORS_F16:
        type = DTYPE_F16;
        break;
    default:
        return log_fail(ERR_USAGE, "'%s': tensor '%s' is %s; F32, BF16 or F16 is needed",
                        safetensors_path(model, tensor), tensor->name,
                        safetensors_type_name(tensor->type));
    }
    void *buffer = mem_alloc(SAFETENSORS_CHUNK, 1);
    if (buffer == NULL)
        return mem_fail("a tensor", SAFETENSORS_CHUNK, 1);
    int status = safetensors_read_chunks(model, tensor, to, first, count, type, buffer);
    free(buffer);
    return status;
}
