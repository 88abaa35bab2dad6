/* source.c - which format a file has, and what all formats share.
 *
 * The content decides: Parquet, .npy and archives begin with marks of their own, JSON lines with a
 * bracket, text with a digit. Flat arrays have no mark, so --dtype says that what has none is one;
 * of files found in a folder, where there may be several kinds, the name decides between flat
 * arrays and lines.
 */
#include "source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "common/log.h"
#include "common/mem.h"
#include "lines.h"
#include "parquet.h"

#define SOURCE_SNIFF 4096 /* bytes looked at */

struct source *source_create(size_t size, const struct source_kind *kind, struct bytes *bytes,
                             const struct source_setup *setup)
{
    struct source *source = mem_alloc_zero(1, size);
    if (source == NULL) {
        (void)mem_fail(bytes->file.name, 1, size);
        return NULL;
    }
    source->kind = kind;
    source->setup = setup;
    source->bytes = *bytes;
    *bytes = (struct bytes){.file = IO_FILE_CLOSED};
    return source;
}

void source_free(struct source *source)
{
    if (source == NULL)
        return;
    source->kind->free(source);
    bytes_close(&source->bytes);
    free(source);
}

int source_bad_id(const struct source *source, uint64_t row, int64_t id)
{
    return log_fail(ERR_DATA, "'%s', row %" PRIu64 ": %" PRId64 " is no token id (0 to 4294967295)",
                    source_name(source), row, id);
}

/* ---- marks */

struct source_mark {
    const char *bytes;
    size_t size;
    const char *refused; /* why, where it is not read */
};

static const struct source_mark source_refused[] = {
    {"PARE", 4, "is an encrypted Parquet file, which is not read"},
    {"PK\x03\x04", 4, "is a ZIP archive (torch .pt, .npz): reading those is not built"},
    {"\x1f\x8b", 2, "is compressed by gzip; decompress it: zcat FILE | tokstream"},
    {"\x28\xb5\x2f\xfd", 4, "is compressed by zstd; decompress it: zstdcat FILE | tokstream"},
    {"\x04\x22\x4d\x18", 4, "is compressed by lz4, or a cached stream; it needs no tokstream"},
    {"CCPS", 4, "is a stream already; it needs no tokstream"},
};

static bool source_begins(const struct bytes *bytes, const char *mark, size_t size)
{
    return bytes_have(bytes) >= size && memcmp(bytes_at(bytes), mark, size) == 0;
}

static bool source_named(const char *name, const char *ending)
{
    size_t length = strlen(name), tail = strlen(ending);
    return length >= tail && strcmp(name + length - tail, ending) == 0;
}

static bool source_is_lines(const char *name)
{
    return source_named(name, ".jsonl") || source_named(name, ".json") ||
           source_named(name, ".txt");
}

static int source_unknown(const char *name)
{
    if (source_named(name, ".parquet") || source_named(name, ".npy"))
        return log_fail(ERR_DATA, "'%s' does not begin as its name says: is it damaged?", name);
    if (source_named(name, ".pt"))
        return log_fail(ERR_USAGE, "'%s': reading torch .pt files is not built", name);
    if (source_is_lines(name))
        return log_fail(ERR_DATA, "'%s' begins neither as JSON lines nor with a token id", name);
    return log_fail(ERR_USAGE,
                    "'%s' is none of Parquet, .npy, JSON lines and ids as text; if it is a flat "
                    "array, say so with --dtype u16 or u32 and --seq-len N",
                    name);
}

/* Without marks of its own: a flat array, JSON lines or text. */
static int source_open_bare(struct source **source, struct bytes *bytes, bool listed,
                            const struct source_setup *setup)
{
    const char *name = bytes->file.name;
    bool flat = listed ? source_named(name, ".bin") : setup->raw_bytes > 0;
    if (flat && setup->raw_bytes == 0)
        return log_fail(ERR_USAGE, "'%s' is a flat array: its items need --dtype u16 or u32", name);
    if (flat)
        return array_open_raw(source, bytes, setup);
    if (listed && !source_is_lines(name))
        return source_unknown(name);
    const uint8_t *at = bytes_at(bytes), *end = at + bytes_have(bytes);
    while (at < end && strchr(" \t\r\n", *at) != NULL && *at != '\0')
        at++;
    if (at == end || (*at >= '0' && *at <= '9') || *at == '-')
        return lines_open(source, bytes, LINES_TEXT, setup);
    if (*at == '{' || *at == '[')
        return lines_open(source, bytes, LINES_JSON, setup);
    return source_unknown(name);
}

static int source_detect(struct source **source, struct bytes *bytes, bool listed,
                         const struct source_setup *setup)
{
    int status = bytes_want(bytes, SOURCE_SNIFF, SOURCE_SNIFF);
    if (status != 0)
        return status;
    const char *name = bytes->file.name;
    if (bytes_have(bytes) == 0)
        return log_fail(ERR_TRUNCATED, "'%s' is empty", name);
    if (source_begins(bytes, "PAR1", 4))
        return parquet_open(source, bytes, setup);
    if (source_begins(bytes, "\x93NUMPY", 6))
        return array_open_npy(source, bytes, setup);
    for (size_t i = 0; i < sizeof source_refused / sizeof *source_refused; i++)
        if (source_begins(bytes, source_refused[i].bytes, source_refused[i].size))
            return log_fail(ERR_USAGE, "'%s' %s", name, source_refused[i].refused);
    return source_open_bare(source, bytes, listed, setup);
}

int source_open(struct source **source, const char *path, bool listed,
                const struct source_setup *setup)
{
    struct bytes bytes;
    *source = NULL;
    int status = bytes_open(&bytes, path);
    if (status == 0)
        status = source_detect(source, &bytes, listed, setup);
    bytes_close(&bytes);
    return status;
}
