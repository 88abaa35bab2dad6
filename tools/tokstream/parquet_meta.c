/* parquet_meta.c - FileMetaData: the schema, then the row groups with the column's chunks.
 *
 * Each number is checked against the file before anybody uses it: chunks lie between the mark at
 * the front and the footer, rows add up. What is not read (statistics, indexes, encryption of other
 * columns) is passed over.
 */
#include "parquet_meta.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "parquet_codec.h"
#include "parquet_schema.h"
#include "parquet_thrift.h"

struct meta_parser {
    struct parquet_meta *meta;
    struct thrift thrift;
    int64_t data_end;
    size_t leaves; /* columns in the schema */
    const char *column, *name;
};

/* ColumnMetaData and what is around it, as written. */
struct meta_chunk {
    int64_t type, codec, values, expanded, bytes, data_page, dictionary_page;
    bool present, elsewhere, encrypted;
};

static int meta_corrupt(const struct meta_parser *parser, const char *what)
{
    return log_fail(ERR_DATA, "'%s': Parquet footer: %s", parser->name, what);
}

/* ---- a column chunk */

static void meta_read_column(struct thrift *thrift, uint8_t type, struct meta_chunk *chunk)
{
    struct thrift_field field = {0};
    chunk->present = thrift_struct(thrift, type);
    while (thrift_field_next(thrift, &field)) {
        switch (field.id) {
        case 1:
            chunk->type = thrift_int(thrift, field.type);
            break;
        case 4:
            chunk->codec = thrift_int(thrift, field.type);
            break;
        case 5:
            chunk->values = thrift_int(thrift, field.type);
            break;
        case 6:
            chunk->expanded = thrift_int(thrift, field.type);
            break;
        case 7:
            chunk->bytes = thrift_int(thrift, field.type);
            break;
        case 9:
            chunk->data_page = thrift_int(thrift, field.type);
            break;
        case 11:
            chunk->dictionary_page = thrift_int(thrift, field.type);
            break;
        default:
            thrift_skip(thrift, field.type);
        }
    }
}

static struct meta_chunk meta_read_chunk(struct thrift *thrift)
{
    struct meta_chunk chunk = {.type = -1, .codec = -1, .values = -1, .bytes = -1, .data_page = -1};
    struct thrift_field field = {0};
    size_t size;
    while (thrift_field_next(thrift, &field)) {
        switch (field.id) {
        case 1:
            (void)thrift_binary(thrift, field.type, &size);
            chunk.elsewhere = size > 0;
            break;
        case 3:
            meta_read_column(thrift, field.type, &chunk);
            break;
        case 8:
            chunk.encrypted = true;
            thrift_skip(thrift, field.type);
            break;
        default:
            thrift_skip(thrift, field.type);
        }
    }
    return chunk;
}

/* From what is written to what can be relied on. */
static int meta_check_chunk(const struct meta_parser *parser, const struct meta_chunk *chunk,
                            struct parquet_group *group)
{
    if (chunk->encrypted)
        return log_fail(ERR_USAGE, "'%s': column '%s' is encrypted, which is not read",
                        parser->name, parser->column);
    if (chunk->elsewhere)
        return log_fail(ERR_USAGE, "'%s': column '%s' lies in another file, which is not read",
                        parser->name, parser->column);
    if (!chunk->present || chunk->type != (int64_t)parser->meta->leaf.type)
        return meta_corrupt(parser, "a column chunk is of another type than the schema says");
    int status = parquet_codec_check(chunk->codec, parser->column, parser->name);
    if (status != 0)
        return status;
    if (chunk->values == 0) /* then there are no pages, and writers say where in many ways */
        return 0;
    bool before = chunk->dictionary_page > 0 && chunk->dictionary_page < chunk->data_page;
    int64_t first = before ? chunk->dictionary_page : chunk->data_page;
    if (chunk->values < 0 || chunk->bytes < 0 || first < 4 || first > parser->data_end ||
        chunk->bytes > parser->data_end - first)
        return meta_corrupt(parser, "a column chunk lies outside of the file");
    group->values = (uint64_t)chunk->values;
    group->offset = first;
    group->bytes = (uint64_t)chunk->bytes;
    group->expanded = chunk->expanded > 0 ? (uint64_t)chunk->expanded : 0;
    group->codec = (enum parquet_codec)chunk->codec;
    return 0;
}

/* ---- row groups */

static int meta_read_columns(struct meta_parser *parser, uint8_t type, struct parquet_group *group)
{
    uint8_t element;
    size_t count = thrift_list(&parser->thrift, type, &element);
    if (count != parser->leaves || element != THRIFT_STRUCT)
        return meta_corrupt(parser, "a row group has another number of columns than the schema");
    for (size_t i = 0; i < count; i++) {
        struct meta_chunk chunk = meta_read_chunk(&parser->thrift);
        if (parser->thrift.state != THRIFT_GOOD)
            return meta_corrupt(parser, "it is damaged");
        int status = i == parser->meta->leaf.column ? meta_check_chunk(parser, &chunk, group) : 0;
        if (status != 0)
            return status;
    }
    return 0;
}

static int meta_read_group(struct meta_parser *parser, struct parquet_group *group)
{
    struct thrift *thrift = &parser->thrift;
    struct thrift_field field = {0};
    bool columns = false;
    int64_t rows = -1;
    while (thrift_field_next(thrift, &field)) {
        if (field.id == 1) {
            int status = meta_read_columns(parser, field.type, group);
            if (status != 0)
                return status;
            columns = true;
        } else if (field.id == 3) {
            rows = thrift_int(thrift, field.type);
        } else {
            thrift_skip(thrift, field.type);
        }
    }
    if (thrift->state != THRIFT_GOOD)
        return meta_corrupt(parser, "it is damaged");
    if (!columns || rows < 0 || (uint64_t)rows > group->values)
        return meta_corrupt(parser, "a row group has no columns, or more rows than values");
    group->rows = (uint64_t)rows;
    return 0;
}

static int meta_read_groups(struct meta_parser *parser, uint8_t type)
{
    struct parquet_meta *meta = parser->meta;
    uint8_t element;
    size_t count = thrift_list(&parser->thrift, type, &element);
    if (count > 0 && element != THRIFT_STRUCT)
        return meta_corrupt(parser, "the row groups are no structs");
    meta->groups = mem_alloc_zero(count, sizeof *meta->groups);
    if (meta->groups == NULL)
        return mem_fail("row groups", count, sizeof *meta->groups);
    uint64_t rows = 0;
    for (; meta->group_count < count; meta->group_count++) {
        struct parquet_group *group = &meta->groups[meta->group_count];
        int status = meta_read_group(parser, group);
        if (status != 0)
            return status;
        group->first_row = rows;
        if (__builtin_add_overflow(rows, group->rows, &rows))
            return meta_corrupt(parser, "the number of rows overflows");
    }
    if (rows != meta->rows)
        return log_fail(ERR_DATA,
                        "'%s': Parquet footer: %" PRIu64 " rows in all, and %" PRIu64
                        " in the row groups",
                        parser->name, meta->rows, rows);
    return 0;
}

/* ---- the footer */

/* Where in the footer the parts stand. */
struct meta_parts {
    struct thrift schema, groups;
    struct thrift_field schema_field, groups_field;
    int64_t rows;
};

static struct meta_parts meta_find_parts(struct thrift *thrift)
{
    struct meta_parts parts = {.rows = -1};
    struct thrift_field field = {0};
    while (thrift_field_next(thrift, &field)) {
        if (field.id == 2) {
            parts.schema = *thrift;
            parts.schema_field = field;
        } else if (field.id == 4) {
            parts.groups = *thrift;
            parts.groups_field = field;
        } else if (field.id == 3) {
            parts.rows = thrift_int(thrift, field.type);
            continue;
        }
        thrift_skip(thrift, field.type);
    }
    return parts;
}

int parquet_meta_parse(struct parquet_meta *meta, const uint8_t *footer, size_t size,
                       int64_t data_end, const char *column, const char *name)
{
    *meta = (struct parquet_meta){.rows = 0};
    struct meta_parser parser = {
        .meta = meta, .data_end = data_end, .column = column, .name = name};
    struct thrift thrift = {.next = footer, .end = footer + size};
    struct meta_parts parts = meta_find_parts(&thrift);
    if (thrift.state != THRIFT_GOOD)
        return meta_corrupt(&parser, "it is damaged");
    if (parts.rows < 0 || parts.schema_field.id == 0 || parts.groups_field.id == 0)
        return meta_corrupt(&parser, "schema, rows or row groups are missing");
    meta->rows = (uint64_t)parts.rows;
    int status = parquet_schema_find(&meta->leaf, &parser.leaves, &parts.schema,
                                     parts.schema_field.type, column, name);
    if (status != 0)
        return status;
    parser.thrift = parts.groups;
    return meta_read_groups(&parser, parts.groups_field.type);
}

void parquet_meta_free(struct parquet_meta *meta)
{
    free(meta->groups);
    *meta = (struct parquet_meta){.rows = 0};
}
