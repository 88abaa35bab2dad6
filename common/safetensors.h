/* safetensors.h - reading and writing safetensors files, single or sharded.
 *
 * Format: u64 little-endian length of the header, a JSON object, then the tensors' bytes. The
 * header is believed only after all of it has been checked: length <= 100,000,000, begins with '{',
 * depth and duplicate keys (json.h), known dtypes, shape product without overflow, length = shape x
 * dtype, and, sorted by offset, tensors that tile the buffer without hole or overlap up to the end
 * of file. Data is read with pread, so a file that is cut while it is read is an error and not a
 * crash.
 */
#ifndef CCPIPE_SAFETENSORS_H
#define CCPIPE_SAFETENSORS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define SAFETENSORS_MAX_HEADER 100000000u
#define SAFETENSORS_MAX_RANK 8
#define SAFETENSORS_METADATA "__metadata__" /* the key that is no tensor */

enum safetensors_type {
    SAFETENSORS_BOOL,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_I16,
    SAFETENSORS_U16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I32,
    SAFETENSORS_U32,
    SAFETENSORS_F32,
    SAFETENSORS_F64,
    SAFETENSORS_I64,
    SAFETENSORS_U64,
    SAFETENSORS_TYPE_COUNT
};

size_t safetensors_type_size(enum safetensors_type type);
const char *safetensors_type_name(enum safetensors_type type);

struct safetensors_tensor {
    const char *name;
    enum safetensors_type type;
    unsigned rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t elements, bytes;
    int64_t offset; /* of its first byte, from the start of its file */
    size_t file;    /* which shard */
};

struct safetensors;

/* Opens one file. */
int safetensors_open(struct safetensors **model, const char *path) MUST_CHECK;

/* Opens the shards of a Hugging Face folder: model.safetensors, or the files that
 * model.safetensors.index.json names (names with '/' or ".." refused; each tensor must lie in the
 * file the index says, and total_size, where given, must agree). */
int safetensors_open_folder(struct safetensors **model, const char *folder) MUST_CHECK;

/* The same for a part of the tensors: of shards that hold none of them not even the headers are
 * read, and a sharded model may lack those files. `wanted` is called while opening alone. */
typedef bool safetensors_wanted(const char *name, const void *context);
int safetensors_open_wanted(struct safetensors **model, const char *folder,
                            safetensors_wanted *wanted, const void *context) MUST_CHECK;
void safetensors_free(struct safetensors *model);

/* The file or folder that was opened. */
const char *safetensors_name(const struct safetensors *model);

/* The tensor of a name, or NULL. Borrowed. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *model,
                                                  const char *name);
size_t safetensors_count(const struct safetensors *model);
const struct safetensors_tensor *safetensors_at(const struct safetensors *model, size_t i);

/* The file that holds a tensor, for messages. */
const char *safetensors_path(const struct safetensors *model,
                             const struct safetensors_tensor *tensor);

/* `__metadata__` of the first file: {string: string}, borrowed; an empty object if absent. */
const json_t *safetensors_metadata(const struct safetensors *model);

/* Reads `bytes` bytes of the tensor's data from `offset` on, as stored. */
int safetensors_read(const struct safetensors *model, const struct safetensors_tensor *tensor,
                     void *to, uint64_t offset, uint64_t bytes) MUST_CHECK;

/* Reads `count` elements from element `first` on, converted from F32, BF16 or F16 to f32.
 * Another type is ERR_USAGE, naming file and tensor. A value that is not finite is ERR_DATA. */
int safetensors_read_f32(const struct safetensors *model, const struct safetensors_tensor *tensor,
                         float *to, uint64_t first, uint64_t count) MUST_CHECK;

/* ---- writing: one tensor after the other, into a file that is complete once it is closed */

struct safetensors_entry {
    const char *name;
    enum safetensors_type type;
    unsigned rank;
    uint64_t shape[SAFETENSORS_MAX_RANK];
    const void *data; /* little-endian, shape x type bytes */
};

/* Writes header and data in the order given, fsyncs, mode 0600. metadata: {string: string} or NULL.
 * The same entries give the same bytes. `path` must not exist. */
int safetensors_write(const char *path, const struct safetensors_entry *entries, size_t count,
                      const json_t *metadata) MUST_CHECK;

/* The piece at byte `offset` of the data of entry `index`: 0 or a negative code. */
typedef int safetensors_fetch(void *context, size_t index, void *to, uint64_t offset,
                              uint64_t bytes);

/* The same, with the data of entries whose `data` is NULL fetched piece by piece: for what does not
 * lie in host memory. */
int safetensors_write_fetched(const char *path, const struct safetensors_entry *entries,
                              size_t count, const json_t *metadata, safetensors_fetch *fetch,
                              void *context) MUST_CHECK;

#endif
