/* parquet_meta.h - the footer of a Parquet file, as far as one column needs it. */
#ifndef TOKSTREAM_PARQUET_META_H
#define TOKSTREAM_PARQUET_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Numbers of the format. */
enum parquet_type { PARQUET_INT32 = 1, PARQUET_INT64 = 2 };
enum parquet_codec {
    PARQUET_UNCOMPRESSED,
    PARQUET_SNAPPY,
    PARQUET_GZIP,
    PARQUET_LZO,
    PARQUET_BROTLI,
    PARQUET_LZ4,
    PARQUET_ZSTD,
    PARQUET_LZ4_RAW
};

/* The list's items: levels say how much of optional (max_definition) and of repeated
 * (repetition 0: a row begins) is there. */
struct parquet_leaf {
    enum parquet_type type;
    bool is_unsigned;
    unsigned max_definition; /* 1 to 3: an item is there */
    unsigned in_list;        /* definition from which on there is an item, perhaps null; one less is
                                an empty list, still less a null one */
    size_t column;           /* number among all leaves of the schema */
};

/* The column's part of a row group: pages, one after the other. */
struct parquet_group {
    uint64_t first_row, rows;
    uint64_t values;   /* levels in all its pages: items, and rows without items */
    int64_t offset;    /* of its first page */
    uint64_t bytes;    /* of all its pages */
    uint64_t expanded; /* the same without compression; only for planning memory */
    enum parquet_codec codec;
};

struct parquet_meta {
    struct parquet_leaf leaf;
    uint64_t rows;
    struct parquet_group *groups;
    size_t group_count;
};

/* Parses the footer (without its length and mark); `data_end` is where it begins in the file, so
 * that pages lie in [4, data_end). ERR_USAGE where there is no such column, it is no list of
 * integers, or something is not built; ERR_DATA. parquet_meta_free() frees, also after a failure.
 */
int parquet_meta_parse(struct parquet_meta *meta, const uint8_t *footer, size_t size,
                       int64_t data_end, const char *column, const char *name) MUST_CHECK;
void parquet_meta_free(struct parquet_meta *meta);

#endif
