/* safetensors_write.c - writing a safetensors file in one go.
 *
 * The tensors tile the buffer in the order of the entries; the header is canonical JSON (sorted
 * keys), padded with spaces to a multiple of 8 bytes, so that data is aligned and the same entries
 * give the same bytes. write() and not io_write(): a checkpoint is also written because a signal is
 * pending, and must not be ended by it. What is left behind by a failure is the caller's to remove:
 * it wrote into a folder of its own.
 */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "le.h"
#include "log.h"
#include "mem.h"

#define SAFETENSORS_WRITE_MOST (64u << 20) /* bytes of one write() call */
#define SAFETENSORS_PIECE (4u << 20)       /* bytes that are fetched at a time */

static int safetensors_write_all(int fd, const char *path, const void *from, uint64_t size)
{
    const uint8_t *next = from;
    while (size > 0) {
        size_t most = size < SAFETENSORS_WRITE_MOST ? (size_t)size : SAFETENSORS_WRITE_MOST;
        ssize_t n = write(fd, next, most);
        if (n < 0 && errno != EINTR)
            return log_fail_errno("cannot write '%s'", path);
        if (n > 0) {
            next += n;
            size -= (uint64_t)n;
        }
    }
    return 0;
}

/* The bytes of an entry's data, or ERR_USAGE where they overflow. */
static int safetensors_entry_bytes(uint64_t *bytes, const struct safetensors_entry *entry,
                                   const char *path)
{
    *bytes = safetensors_type_size(entry->type);
    bool overflow = entry->rank > SAFETENSORS_MAX_RANK;
    for (unsigned i = 0; i < entry->rank && !overflow; i++)
        overflow = __builtin_mul_overflow(*bytes, entry->shape[i], bytes);
    if (overflow || *bytes > INT64_MAX)
        return log_fail(ERR_USAGE, "'%s': the shape of tensor '%s' is too large", path,
                        entry->name);
    return 0;
}

/* Adds an entry to the header; *end moves from the entry's first byte behind its last. */
static int safetensors_describe(json_t *header, const struct safetensors_entry *entry,
                                const char *path, int64_t *end)
{
    uint64_t bytes;
    int status = safetensors_entry_bytes(&bytes, entry, path);
    if (status != 0)
        return status;
    int64_t first = *end;
    if (__builtin_add_overflow(first, (int64_t)bytes, end))
        return log_fail(ERR_USAGE, "'%s': the tensors are too large together", path);
    if (json_object_get(header, entry->name) != NULL ||
        strcmp(entry->name, SAFETENSORS_METADATA) == 0)
        return log_fail(ERR_USAGE, "'%s': the name of tensor '%s' is taken", path, entry->name);
    json_t *shape = json_array();
    int failed = shape == NULL;
    for (unsigned i = 0; i < entry->rank && !failed; i++)
        failed = json_array_append_new(shape, json_integer((json_int_t)entry->shape[i]));
    json_t *value =
        failed ? NULL
               : json_pack("{s:s, s:O, s:[I, I]}", "dtype", safetensors_type_name(entry->type),
                           "shape", shape, "data_offsets", (json_int_t)first, (json_int_t)*end);
    json_decref(shape);
    if (value == NULL)
        return mem_fail("a safetensors header", 1, 1);
    if (json_object_set_new(header, entry->name, value) != 0)
        return log_fail(ERR_USAGE, "'%s': the name of tensor '%s' is not UTF-8", path, entry->name);
    return 0;
}

/* The length prefix and the padded JSON, *size bytes together; free() it. */
static int safetensors_make_header(uint8_t **result, size_t *size, const char *path,
                                   const struct safetensors_entry *entries, size_t count,
                                   const json_t *metadata)
{
    int status = 0;
    int64_t end = 0;
    char *text = NULL;
    uint8_t *bytes = NULL;
    json_t *header = json_object();
    if (header == NULL)
        return mem_fail("a safetensors header", 1, 1);
    if (metadata != NULL &&
        json_object_set(header, SAFETENSORS_METADATA, (json_t *)metadata) != 0) {
        status = mem_fail("a safetensors header", 1, 1);
        goto cleanup;
    }
    for (size_t i = 0; i < count; i++)
        if ((status = safetensors_describe(header, &entries[i], path, &end)) != 0)
            goto cleanup;
    if ((text = json_text(header)) == NULL) {
        status = mem_fail("a safetensors header", count, 1);
        goto cleanup;
    }
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    if (padded > SAFETENSORS_MAX_HEADER) {
        status = log_fail(ERR_USAGE, "'%s': a header of %zu bytes is more than the format takes",
                          path, padded);
        goto cleanup;
    }
    if ((bytes = mem_alloc(8 + padded, 1)) == NULL) {
        status = mem_fail("a safetensors header", padded, 1);
        goto cleanup;
    }
    le_put64(bytes, padded);
    memcpy(bytes + 8, text, length);
    memset(bytes + 8 + length, ' ', padded - length);
    *result = bytes;
    *size = 8 + padded;
cleanup:
    free(text);
    json_decref(header);
    return status;
}

/* Where the data of entries come from that have none. */
struct safetensors_source {
    safetensors_fetch *fetch;
    void *context;
};

static int safetensors_write_pieces(int fd, const char *path,
                                    const struct safetensors_source *source, size_t index,
                                    uint64_t bytes)
{
    uint64_t most = bytes < SAFETENSORS_PIECE ? bytes : SAFETENSORS_PIECE;
    void *piece = mem_alloc((size_t)most, 1);
    if (piece == NULL)
        return mem_fail(path, (size_t)most, 1);
    int status = 0;
    for (uint64_t at = 0; at < bytes && status == 0; at += most) {
        uint64_t size = bytes - at < most ? bytes - at : most;
        status = source->fetch(source->context, index, piece, at, size);
        if (status == 0)
            status = safetensors_write_all(fd, path, piece, size);
    }
    free(piece);
    return status;
}

static int safetensors_write_data(int fd, const char *path, const struct safetensors_entry *entries,
                                  size_t count, const struct safetensors_source *source)
{
    int status = 0;
    for (size_t i = 0; i < count && status == 0; i++) {
        uint64_t bytes;
        status = safetensors_entry_bytes(&bytes, &entries[i], path);
        if (status == 0 && entries[i].data == NULL && source->fetch != NULL)
            status = safetensors_write_pieces(fd, path, source, i, bytes);
        else if (status == 0)
            status = safetensors_write_all(fd, path, entries[i].data, bytes);
    }
    return status;
}

int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const json_t *metadata)
{
    return safetensors_write_fetched(path, entries, count, metadata, NULL, NULL);
}

int safetensors_write_fetched(const char *path, const struct safetensors_entry *entries,
                              size_t count, const json_t *metadata, safetensors_fetch *fetch,
                              void *context)
{
    const struct safetensors_source source = {fetch, context};
    uint8_t *header = NULL;
    size_t size = 0;
    int status = safetensors_make_header(&header, &size, path, entries, count, metadata);
    if (status != 0)
        return status;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        status = log_fail_errno("cannot create '%s'", path);
        goto cleanup;
    }
    status = safetensors_write_all(fd, path, header, size);
    if (status == 0)
        status = safetensors_write_data(fd, path, entries, count, &source);
    if (status == 0 && fsync(fd) != 0)
        status = log_fail_errno("cannot bring '%s' to the disk", path);
    if (close(fd) != 0 && status == 0)
        status = log_fail_errno("cannot close '%s'", path);
cleanup:
    free(header);
    return status;
}
