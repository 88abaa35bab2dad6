/* parquet.c - a Parquet file as a source.
 *
 * The footer is at the end, so the file must be regular. It is read and checked when the file is
 * opened; after that, row groups are decoded from their beginning on. To go to a row inside of one,
 * the rows before it are decoded and dropped: pages do not say reliably where rows begin.
 */
#include "parquet.h"

#include <inttypes.h>
#include <string.h>

#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "parquet_column.h"
#include "parquet_meta.h"

#define PARQUET_MARK_BYTES 4
#define PARQUET_TAIL_BYTES 8 /* length of the footer, and the mark */
#define PARQUET_MAX_FOOTER ((size_t)1 << 30)

struct parquet {
    struct source source;
    struct parquet_meta meta;
    struct parquet_column *column; /* NULL while at rest */
    size_t group;                  /* the one that is being read */
    uint64_t next;                 /* number of the next row */
};

static struct parquet *parquet_of(struct source *source)
{
    return (struct parquet *)source;
}

/* ---- rows */

static int parquet_start_group(struct parquet *parquet, size_t group)
{
    if (parquet->column == NULL)
        parquet->column = parquet_column_create(&parquet->source, &parquet->meta.leaf);
    if (parquet->column == NULL)
        return ERR_MEMORY;
    parquet->group = group;
    parquet->next = parquet->meta.groups[group].first_row;
    parquet_column_start(parquet->column, &parquet->meta.groups[group]);
    return 0;
}

static int parquet_next(struct source *source, struct source_sequence *sequence)
{
    struct parquet *parquet = parquet_of(source);
    for (;;) {
        if (parquet->column != NULL) {
            int status = parquet_column_next(parquet->column, sequence);
            parquet->next += status == 1;
            if (status != 0)
                return status;
        }
        size_t group = parquet->column != NULL ? parquet->group + 1 : parquet->group;
        if (group >= parquet->meta.group_count)
            return 0;
        int status = parquet_start_group(parquet, group);
        if (status != 0)
            return status;
    }
}

/* The group that holds row i, which is there: the last one that begins at or before it and is not
 * empty. */
static size_t parquet_find_group(const struct parquet *parquet, uint64_t i)
{
    size_t low = 0, high = parquet->meta.group_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (parquet->meta.groups[middle].first_row <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int parquet_seek(struct source *source, uint64_t i)
{
    struct parquet *parquet = parquet_of(source);
    struct source_sequence passed;
    if (i >= source->count)
        return 0;
    size_t group = parquet_find_group(parquet, i);
    if (parquet->column == NULL || group != parquet->group || i < parquet->next) {
        int status = parquet_start_group(parquet, group);
        if (status != 0)
            return status;
    }
    while (parquet->next < i) {
        int status = parquet_next(source, &passed);
        if (status != 1)
            return status;
    }
    return 1;
}

static struct source_group parquet_group(const struct source *source, size_t group)
{
    const struct parquet_group *from = &((const struct parquet *)source)->meta.groups[group];
    return (struct source_group){from->first_row, from->rows, from->values};
}

/* What is decoded next begins with a seek. */
static void parquet_rest(struct source *source)
{
    struct parquet *parquet = parquet_of(source);
    parquet_column_free(parquet->column);
    parquet->column = NULL;
}

static void parquet_free(struct source *source)
{
    struct parquet *parquet = parquet_of(source);
    parquet_column_free(parquet->column);
    parquet_meta_free(&parquet->meta);
}

/* ---- opening */

static const struct source_kind parquet_kind = {
    .name = "Parquet",
    .seek = parquet_seek,
    .next = parquet_next,
    .group = parquet_group,
    .rest = parquet_rest,
    .free = parquet_free,
};

static int parquet_read_meta(struct parquet_meta *meta, struct bytes *bytes,
                             const struct source_setup *setup)
{
    const char *name = bytes->file.name;
    if (bytes->size < 0)
        return log_fail(ERR_USAGE,
                        "'%s' is a pipe, and Parquet is read from its end; name the "
                        "file instead",
                        name);
    int64_t least = PARQUET_MARK_BYTES + PARQUET_TAIL_BYTES;
    if (bytes->size < least)
        return log_fail(ERR_TRUNCATED, "'%s' has %" PRId64 " bytes, too few for Parquet", name,
                        bytes->size);
    bytes_seek(bytes, bytes->size - PARQUET_TAIL_BYTES);
    int status = bytes_want(bytes, PARQUET_TAIL_BYTES, PARQUET_TAIL_BYTES);
    if (status != 0)
        return status;
    if (memcmp(bytes_at(bytes) + 4, "PAR1", PARQUET_MARK_BYTES) != 0)
        return log_fail(ERR_TRUNCATED, "'%s' does not end with the mark of Parquet: was it cut?",
                        name);
    size_t size = le_get32(bytes_at(bytes));
    if ((uint64_t)size > (uint64_t)(bytes->size - least) || size > PARQUET_MAX_FOOTER)
        return log_fail(ERR_DATA, "'%s': a Parquet footer of %zu bytes does not fit into the file",
                        name, size);
    int64_t data_end = bytes->size - PARQUET_TAIL_BYTES - (int64_t)size;
    bytes_seek(bytes, data_end);
    if ((status = bytes_want(bytes, size, size)) != 0)
        return status;
    return parquet_meta_parse(meta, bytes_at(bytes), size, data_end, setup->column, name);
}

/* A page may be as large as its chunk. */
static uint64_t parquet_memory(const struct parquet_meta *meta)
{
    uint64_t most = 0;
    for (size_t i = 0; i < meta->group_count; i++) {
        const struct parquet_group *group = &meta->groups[i];
        bool compressed = group->codec != PARQUET_UNCOMPRESSED;
        uint64_t bytes = group->bytes + (compressed ? group->expanded : 0);
        most = bytes > most ? bytes : most;
    }
    return most + parquet_column_bytes();
}

int parquet_open(struct source **source, struct bytes *bytes, const struct source_setup *setup)
{
    struct parquet_meta meta = {0};
    int status = parquet_read_meta(&meta, bytes, setup);
    bytes_rest(bytes);
    struct source *created =
        status != 0 ? NULL : source_create(sizeof(struct parquet), &parquet_kind, bytes, setup);
    if (created == NULL) {
        parquet_meta_free(&meta);
        return status != 0 ? status : ERR_MEMORY;
    }
    parquet_of(created)->meta = meta;
    created->counted = true;
    created->count = meta.rows;
    created->group_count = meta.group_count;
    created->memory = parquet_memory(&meta);
    *source = created;
    return 0;
}
