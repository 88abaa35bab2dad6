/* parquet_column.h - Parquet files of one column of lists, put together page by page, right and
 * wrong ones.
 */
#ifndef TESTS_PARQUET_COLUMN_H
#define TESTS_PARQUET_COLUMN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <snappy-c.h>
#include <string.h>

#include "memory_file.h"
#include "parquet_writer.h"
#include "tools/tokstream/parquet_crc.h"
#include "tools/tokstream/parquet_page.h"

#define MOST 64

struct written_group {
    int64_t offset, bytes, values, rows;
};

struct written {
    struct bytes_out out;
    struct written_group groups[4];
    size_t group_count;
    int64_t extra_rows; /* that the footer's total claims */
};

enum form { V1, V2, V2_STORED }; /* the last: v2 with is_compressed = false */

struct page {
    enum form form;
    enum parquet_encoding encoding;
    size_t count; /* levels */
    uint32_t repetition[MOST], definition[MOST];
    size_t items;            /* what follows them */
    int64_t values[MOST];    /* PLAIN: ids; dictionary: indices */
    unsigned width;          /* of indices */
    int claimed;             /* added to the count of levels in the header */
    int definition_encoding; /* 0: RLE */
    bool crc;
};

static inline void write_items(struct bytes_out *out, const struct page *page, int item_bytes)
{
    uint32_t indices[MOST];
    if (page->encoding == PARQUET_PLAIN) {
        for (size_t i = 0; i < page->items; i++) {
            if (item_bytes == 4)
                out_32(out, (uint32_t)page->values[i]);
            else
                out_64(out, (uint64_t)page->values[i]);
        }
        return;
    }
    for (size_t i = 0; i < page->items; i++)
        indices[i] = (uint32_t)page->values[i];
    out_byte(out, page->width);
    out_packed(out, indices, page->items, page->width);
}

static inline void compress(struct bytes_out *out, int codec)
{
    static char packed[1 << 17];
    size_t size = sizeof packed;
    if (codec != PARQUET_SNAPPY)
        return;
    assert_int_equal(snappy_compress((char *)out->bytes, out->size, packed, &size), SNAPPY_OK);
    assert_true(size <= sizeof out->bytes);
    memcpy(out->bytes, packed, size);
    out->size = size;
}

static inline void write_header(struct bytes_out *out, const struct page *page, int64_t expanded,
                                const struct bytes_out *stored, const int64_t levels[2])
{
    out_int(out, 1, page->form == V1 ? PARQUET_DATA : PARQUET_DATA_V2);
    out_int(out, 2, expanded);
    out_int(out, 3, (int64_t)stored->size);
    if (page->crc)
        out_int(out, 4, (int32_t)parquet_crc(stored->bytes, stored->size));
    out_field(out, THRIFT_STRUCT, page->form == V1 ? 5 : 8);
    out_int(out, 1, (int64_t)page->count + page->claimed);
    if (page->form == V1) {
        out_int(out, 2, page->encoding);
        out_int(out, 3, page->definition_encoding > 0 ? page->definition_encoding : PARQUET_RLE);
        out_int(out, 4, PARQUET_RLE);
    } else {
        out_int(out, 4, page->encoding);
        out_int(out, 5, levels[1]);
        out_int(out, 6, levels[0]);
        if (page->form == V2_STORED)
            out_field(out, THRIFT_FALSE, 7);
    }
    out_stop(out);
    out_stop(out);
}

static inline void write_page(struct written *file, const struct page *page, int item_bytes,
                              int codec)
{
    static struct bytes_out levels[2], body, items;
    levels[0].size = levels[1].size = body.size = items.size = 0;
    out_packed(&levels[0], page->repetition, page->count, 1);
    out_packed(&levels[1], page->definition, page->count, 2);
    int64_t sizes[2] = {(int64_t)levels[0].size, (int64_t)levels[1].size};
    write_items(&items, page, item_bytes);
    for (int i = 0; i < 2; i++) {
        if (page->form == V1)
            out_32(&body, (uint32_t)levels[i].size);
        out_bytes(&body, levels[i].bytes, levels[i].size);
    }
    int64_t expanded = (int64_t)(body.size + items.size);
    if (page->form == V1) {
        out_bytes(&body, items.bytes, items.size);
        compress(&body, codec);
    } else {
        compress(&items, page->form == V2_STORED ? PARQUET_UNCOMPRESSED : codec);
        out_bytes(&body, items.bytes, items.size);
    }
    write_header(&file->out, page, expanded, &body, sizes);
    out_bytes(&file->out, body.bytes, body.size);
    struct written_group *group = &file->groups[file->group_count];
    group->values += (int64_t)page->count;
    for (size_t i = 0; i < page->count; i++)
        group->rows += page->repetition[i] == 0;
}

static inline void write_dictionary(struct written *file, const int64_t *ids, size_t count,
                                    int item_bytes, int codec)
{
    static struct bytes_out body;
    struct page plain = {.encoding = PARQUET_PLAIN, .items = count};
    body.size = 0;
    memcpy(plain.values, ids, count * sizeof *ids);
    write_items(&body, &plain, item_bytes);
    int64_t expanded = (int64_t)body.size;
    compress(&body, codec);
    out_int(&file->out, 1, PARQUET_DICTIONARY);
    out_int(&file->out, 2, expanded);
    out_int(&file->out, 3, (int64_t)body.size);
    out_field(&file->out, THRIFT_STRUCT, 7);
    out_int(&file->out, 1, (int64_t)count);
    out_int(&file->out, 2, PARQUET_PLAIN);
    out_stop(&file->out);
    out_stop(&file->out);
    out_bytes(&file->out, body.bytes, body.size);
}

/* A page that is no data, and is passed over. */
static inline void write_index(struct written *file)
{
    out_int(&file->out, 1, PARQUET_INDEX);
    out_int(&file->out, 2, 5);
    out_int(&file->out, 3, 5);
    out_field(&file->out, THRIFT_STRUCT, 6);
    out_stop(&file->out);
    out_stop(&file->out);
    out_bytes(&file->out, "index", 5);
}

static inline void begin_file(struct written *file)
{
    *file = (struct written){.group_count = 0};
    out_bytes(&file->out, "PAR1", 4);
    file->groups[0].offset = 4;
}

static inline void end_group(struct written *file)
{
    struct written_group *group = &file->groups[file->group_count++];
    group->bytes = (int64_t)file->out.size - group->offset;
    if (file->group_count < 4)
        file->groups[file->group_count].offset = (int64_t)file->out.size;
}

/* optional group ids { repeated group list { optional TYPE element } } */
static inline void end_file(struct written *file, int item_bytes, int codec)
{
    int type = item_bytes == 4 ? PARQUET_INT32 : PARQUET_INT64;
    struct bytes_out *out = &file->out;
    const struct schema_entry schema[] = {{"schema", -1, 0, 1, 0, 0},
                                          {"ids", -1, 1, 1, 3, 0},
                                          {"list", -1, 2, 1, 0, 0},
                                          {"element", type, 1, 0, 0, 0}};
    size_t footer = out->size;
    int64_t rows = file->extra_rows;
    out_int(out, 1, 1);
    out_structs(out, 2, 4);
    for (int i = 0; i < 4; i++)
        out_schema_entry(out, &schema[i]);
    for (size_t i = 0; i < file->group_count; i++)
        rows += file->groups[i].rows;
    out_int(out, 3, rows);
    out_structs(out, 4, file->group_count);
    for (size_t i = 0; i < file->group_count; i++) {
        const struct written_group *group = &file->groups[i];
        out_structs(out, 1, 1);
        out_field(out, THRIFT_STRUCT, 3);
        out_int(out, 1, type);
        out_int(out, 4, codec);
        out_int(out, 5, group->values);
        out_int(out, 7, group->bytes);
        out_int(out, 9, group->offset);
        out_stop(out);
        out_stop(out);
        out_int(out, 3, group->rows);
        out_stop(out);
    }
    out_stop(out);
    uint32_t size = (uint32_t)(out->size - footer);
    out_32(out, size);
    out_bytes(out, "PAR1", 4);
}

/* A page of [10 11] [12, as far as that goes. */
static const struct page first_half = {.count = 3,
                                       .repetition = {0, 1, 0},
                                       .definition = {3, 3, 3},
                                       .items = 3,
                                       .values = {10, 11, 12}};

/* ---- as a file that has a path */

static struct memory_file memory;

static inline int set_up(void **state)
{
    (void)state;
    return memory_file_open(&memory) ? 0 : -1;
}

static inline int tear_down(void **state)
{
    (void)state;
    memory_file_close(&memory);
    return 0;
}

#endif
