/* pack.c - every input is a column: a width and shards behind each other, each a plain array of
 * rows in a file. A .npy is a column of one shard. Rows are columns side by side.
 *
 * Sizes in headers are believed after they have been compared with the size of the file. One shard
 * of each column is open at a time.
 */
#include "pack.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/json.h"
#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/npy.h"
#include "common/stream.h"
#include "filekind.h"

#define PACK_MAX_JSON (1u << 20)
#define PACK_MAX_SHARDS (1u << 20)
#define PACK_NPY_HEAD 4096

struct pack_shard {
    char *path;
    uint64_t rows;
    int64_t offset; /* of the first element */
};

struct pack_column {
    uint64_t width; /* elements */
    enum dtype dtype;
    struct pack_shard *shards;
    size_t shard_count;
    uint64_t rows;
    /* reading */
    struct io_file file; /* of shards[current] */
    size_t current;
    uint64_t row; /* next one in it */
};

struct pack {
    struct pack_column *columns;
    size_t column_count;
    enum dtype dtype; /* of the rows */
    size_t row_bytes, row_width;
    uint64_t rows, done;
    uint8_t *raw; /* a block of one column as stored */
    float *values;
    size_t block; /* rows of it */
};

/* ---- shards */

static int pack_add_shard(struct pack_column *column, char *path, uint64_t rows, int64_t offset)
{
    struct pack_shard *grown =
        path == NULL ? NULL : mem_resize(column->shards, column->shard_count + 1, sizeof *grown);
    if (grown == NULL) {
        free(path);
        return mem_fail("shards", column->shard_count + 1, sizeof *grown);
    }
    column->shards = grown;
    grown[column->shard_count++] = (struct pack_shard){path, rows, offset};
    column->rows += rows; /* each is in a file: no overflow */
    return 0;
}

/* The file must hold the elements from `offset` on and nothing behind them. */
static int pack_check_size(const struct io_file *file, uint64_t elements, size_t size,
                           int64_t offset)
{
    uint64_t bytes;
    int64_t length = io_size(file);
    if (length < 0)
        return (int)length;
    if (__builtin_mul_overflow(elements, (uint64_t)size, &bytes) || bytes > INT64_MAX / 2)
        return log_fail(ERR_DATA, "'%s': the shape overflows", file->name);
    if (length == offset + (int64_t)bytes)
        return 0;
    return log_fail(length < offset + (int64_t)bytes ? ERR_TRUNCATED : ERR_DATA,
                    "'%s' has %" PRId64 " bytes, its shape needs %" PRId64, file->name, length,
                    offset + (int64_t)bytes);
}

/* ---- .npy */

static int pack_npy_type(struct pack_column *column, const struct npy_header *header,
                         const char *path)
{
    if (strcmp(header->type, "<f4") == 0)
        column->dtype = DTYPE_F32;
    else if (strcmp(header->type, "<f2") == 0)
        column->dtype = DTYPE_F16;
    else
        return log_fail(ERR_USAGE, "'%s' is of type '%s'; float32 or float16 is needed", path,
                        header->type);
    if (header->rank != 2 && header->rank != 3)
        return log_fail(ERR_USAGE, "'%s' has %u dimensions; (N, D) or (N, S, d) is needed", path,
                        header->rank);
    column->width = header->shape[1];
    if (header->rank == 3 &&
        __builtin_mul_overflow(column->width, header->shape[2], &column->width))
        return log_fail(ERR_DATA, "'%s': the shape overflows", path);
    return 0;
}

/* (N, S, d) must be S sources of one width. */
static int pack_check_sources(const struct npy_header *header, const struct begin *begin,
                              const char *path)
{
    if (header->rank != 3)
        return 0;
    bool fits = header->shape[1] == begin->source_count;
    for (size_t s = 0; s < begin->source_count; s++)
        fits = fits && header->shape[2] == begin->sources[s].width;
    return fits ? 0
                : log_fail(ERR_USAGE,
                           "'%s' is (%" PRIu64 ", %" PRIu64 ", %" PRIu64
                           "): that many --source NAME:%" PRIu64 " are needed",
                           path, header->shape[0], header->shape[1], header->shape[2],
                           header->shape[2]);
}

static int pack_read_npy(struct pack_column *column, const struct begin *begin,
                         const struct io_file *file)
{
    uint8_t head[PACK_NPY_HEAD];
    struct npy_header header;
    int64_t length = io_size(file);
    size_t size = length < (int64_t)sizeof head ? (size_t)length : sizeof head;
    int status = length < 0 ? (int)length : io_pread(file, head, size, 0);
    if (status == 0)
        status = npy_parse(&header, head, size, file->name);
    if (status == 1)
        status = log_fail((int64_t)header.data_offset > length ? ERR_TRUNCATED : ERR_DATA,
                          "'%s': the header of %zu bytes is cut, or longer than any array's",
                          file->name, header.data_offset);
    if (status == 0)
        status = pack_npy_type(column, &header, file->name);
    if (status == 0)
        status = pack_check_sources(&header, begin, file->name);
    if (status == 0)
        status =
            pack_check_size(file, header.elements, header.item_bytes, (int64_t)header.data_offset);
    if (status == 0)
        status = pack_add_shard(column, strdup(file->name), header.shape[0],
                                (int64_t)header.data_offset);
    return status;
}

static int pack_open_npy(struct pack_column *column, const struct begin *begin, const char *path)
{
    struct io_file file;
    int status = io_open_input(&file, path);
    if (status != 0)
        return status;
    status = pack_read_npy(column, begin, &file);
    int ignored = io_close(&file); /* it was read only */
    (void)ignored;
    return status;
}

/* ---- a folder of dictionary_learning's cache */

static int pack_read_meta(struct pack_column *column, const char *path, bool first, uint64_t *rows)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {
        {"torch.bfloat16", DTYPE_BF16}, {"torch.float16", DTYPE_F16}, {"torch.float32", DTYPE_F32}};
    json_t *meta = NULL;
    const char *name = NULL;
    int status = json_read_file(&meta, path, PACK_MAX_JSON);
    if (status != 0)
        return status;
    const json_t *shape = json_object_get(meta, "shape");
    json_int_t n = json_integer_value(json_array_get(shape, 0));
    json_int_t d = json_integer_value(json_array_get(shape, 1));
    size_t type = 0, count = sizeof types / sizeof *types;
    status = json_get_string(meta, "dtype", path, &name);
    while (status == 0 && type < count && strcmp(types[type].name, name) != 0)
        type++;
    if (status == 0 && type == count)
        status = log_fail(ERR_USAGE,
                          "'%s': dtype '%s'; torch.bfloat16, torch.float16 or torch.float32 is "
                          "needed",
                          path, name);
    if (status == 0 && (json_array_size(shape) != 2 || n < 0 || d < 1))
        status = log_fail(ERR_DATA, "'%s': 'shape' is not [rows, width]", path);
    if (status == 0 && !first &&
        (types[type].dtype != column->dtype || (uint64_t)d != column->width))
        status = log_fail(ERR_DATA, "'%s': dtype or width are not those of the first shard", path);
    if (status == 0) {
        column->dtype = types[type].dtype;
        column->width = (uint64_t)d;
        *rows = (uint64_t)n;
    }
    json_decref(meta);
    return status;
}

static int pack_add_memmap(struct pack_column *column, const char *folder, uint64_t number)
{
    char name[48];
    uint64_t rows = 0;
    struct io_file file = IO_FILE_CLOSED;
    snprintf(name, sizeof name, "shard_%" PRIu64 ".meta", number);
    char *meta = io_join(folder, name);
    snprintf(name, sizeof name, "shard_%" PRIu64 ".memmap", number);
    char *data = io_join(folder, name);
    int status = meta == NULL || data == NULL ? mem_fail("a path", strlen(folder), 1)
                                              : pack_read_meta(column, meta, number == 0, &rows);
    if (status == 0)
        status = io_open_input(&file, data);
    uint64_t elements = 0;
    if (status == 0 && __builtin_mul_overflow(rows, column->width, &elements))
        status = log_fail(ERR_DATA, "'%s': the shape overflows", meta);
    if (status == 0)
        status = pack_check_size(&file, elements, dtype_size(column->dtype), 0);
    if (status == 0) {
        status = pack_add_shard(column, data, rows, 0);
        data = NULL;
    }
    int ignored = io_close(&file); /* it was read only */
    (void)ignored;
    free(meta);
    free(data);
    return status;
}

static int pack_open_folder(struct pack_column *column, const char *folder)
{
    json_t *config = NULL;
    uint64_t shards = 0;
    char *path = io_join(folder, "config.json");
    int status = path == NULL ? mem_fail("a path", strlen(folder), 1)
                              : json_read_file(&config, path, PACK_MAX_JSON);
    if (status == 0)
        status = json_get_count(config, "shard_count", path, &shards);
    if (status == 0 && (shards == 0 || shards > PACK_MAX_SHARDS))
        status = log_fail(ERR_DATA, "'%s': %" PRIu64 " shards; 1 to %u are possible", path, shards,
                          PACK_MAX_SHARDS);
    for (uint64_t i = 0; i < shards && status == 0; i++)
        status = pack_add_memmap(column, folder, i);
    const json_t *total = json_object_get(config, "total_size");
    if (status == 0 && json_is_integer(total) &&
        (uint64_t)json_integer_value(total) != column->rows)
        status = log_fail(ERR_DATA,
                          "'%s': total_size is %" JSON_INTEGER_FORMAT ", its shards have %" PRIu64
                          " rows",
                          path, json_integer_value(total), column->rows);
    json_decref(config);
    free(path);
    return status;
}

/* ---- opening */

static int pack_open_column(struct pack_column *column, const struct begin *begin, const char *path,
                            uint64_t width)
{
    enum filekind kind;
    int status = filekind_of(&kind, path);
    if (status != 0)
        return status;
    if (kind == FILEKIND_NPY)
        status = pack_open_npy(column, begin, path);
    else if (kind == FILEKIND_MEMMAP)
        status = pack_open_folder(column, path);
    else
        status = log_fail(ERR_USAGE, "'%s' is neither a .npy file nor a folder with shard_0.memmap",
                          path);
    if (status == 0 && column->width != width)
        status = log_fail(ERR_USAGE,
                          "'%s' has rows of %" PRIu64 " elements, and --source gives %" PRIu64,
                          path, column->width, width);
    return status;
}

static int pack_open_columns(struct pack *pack, const struct begin *begin, char *const *paths)
{
    bool all_bf16 = true;
    for (size_t i = 0; i < pack->column_count; i++) {
        uint64_t width = pack->column_count == 1 ? begin_width(begin) : begin->sources[i].width;
        int status = pack_open_column(&pack->columns[i], begin, paths[i], width);
        if (status != 0)
            return status;
        if (pack->columns[i].rows != pack->columns[0].rows)
            return log_fail(ERR_USAGE, "'%s' has %" PRIu64 " rows and '%s' has %" PRIu64, paths[0],
                            pack->columns[0].rows, paths[i], pack->columns[i].rows);
        all_bf16 = all_bf16 && pack->columns[i].dtype == DTYPE_BF16;
    }
    pack->dtype = all_bf16 ? DTYPE_BF16 : DTYPE_F32;
    return 0;
}

int pack_open(struct pack **result, struct begin *begin, char *const *paths, size_t path_count)
{
    *result = NULL;
    if (path_count != 1 && path_count != begin->source_count)
        return log_fail(ERR_USAGE,
                        "%zu inputs and %zu sources: one .npy with all of them, or an input for "
                        "each source, is needed",
                        path_count, begin->source_count);
    struct pack *pack = mem_alloc_zero(1, sizeof *pack);
    if (pack == NULL)
        return mem_fail("an input", 1, sizeof *pack);
    pack->columns = mem_alloc_zero(path_count, sizeof *pack->columns);
    int status = pack->columns == NULL ? mem_fail("inputs", path_count, sizeof *pack->columns) : 0;
    for (size_t i = 0; i < path_count && status == 0; i++) {
        pack->columns[i].file = (struct io_file)IO_FILE_CLOSED;
        pack->column_count++;
    }
    if (status == 0)
        status = pack_open_columns(pack, begin, paths);
    if (status != 0) {
        pack_free(pack);
        return status;
    }
    begin->dtype = pack->dtype;
    begin->has_rows = true;
    begin->rows = pack->rows = pack->columns[0].rows;
    pack->row_width = begin_width(begin);
    pack->row_bytes = begin_row_bytes(begin);
    *result = pack;
    return 0;
}

static void pack_close_column(struct pack_column *column)
{
    for (size_t j = 0; j < column->shard_count; j++)
        free(column->shards[j].path);
    free(column->shards);
    int ignored = io_close(&column->file); /* it was read only */
    (void)ignored;
}

int pack_look(struct pack_folder *found, const char *folder)
{
    struct pack_column column = {.file = IO_FILE_CLOSED};
    int status = pack_open_folder(&column, folder);
    *found = (struct pack_folder){.rows = column.rows,
                                  .width = column.width,
                                  .shards = column.shard_count,
                                  .dtype = column.dtype};
    pack_close_column(&column);
    return status;
}

void pack_free(struct pack *pack)
{
    if (pack == NULL)
        return;
    for (size_t i = 0; i < pack->column_count; i++)
        pack_close_column(&pack->columns[i]);
    free(pack->columns);
    free(pack->raw);
    free(pack->values);
    free(pack);
}

/* ---- reading */

/* Stands at a shard that has rows left. */
static int pack_next_shard(struct pack_column *column)
{
    while (column->file.fd < 0 || column->row == column->shards[column->current].rows) {
        if (column->file.fd >= 0) {
            int ignored = io_close(&column->file); /* it was read only */
            (void)ignored;
            column->current++;
            column->row = 0;
        }
        int status = io_open_input(&column->file, column->shards[column->current].path);
        if (status != 0)
            return status;
    }
    return 0;
}

static int pack_check_finite(const struct pack *pack, const struct pack_column *column, size_t n)
{
    for (size_t i = 0; i < n * column->width; i++)
        if (!isfinite(pack->values[i]))
            return log_fail(ERR_DATA, "'%s', row %" PRIu64 ", element %" PRIu64 ": %f is no number",
                            column->file.name, column->row + i / column->width, i % column->width,
                            (double)pack->values[i]);
    return 0;
}

/* n rows of a column, at most what its shard has left, to their place in rows at `to`; the count.
 */
static int64_t pack_fill(struct pack *pack, struct pack_column *column, uint8_t *to, size_t n)
{
    int status = pack_next_shard(column);
    if (status != 0)
        return status;
    const struct pack_shard *shard = &column->shards[column->current];
    size_t stored = column->width * dtype_size(column->dtype);
    size_t sent = column->width * dtype_size(pack->dtype);
    n = n < shard->rows - column->row ? n : (size_t)(shard->rows - column->row);
    status = io_pread(&column->file, pack->raw, n * stored,
                      shard->offset + (int64_t)(column->row * stored));
    if (status != 0)
        return status;
    dtype_to_f32(pack->values, pack->raw, column->dtype, n * column->width);
    if ((status = pack_check_finite(pack, column, n)) != 0)
        return status;
    /* f32 to bf16 gives a value back that was bf16 */
    for (size_t i = 0; i < n; i++, to += pack->row_bytes)
        dtype_from_f32(to, pack->dtype, pack->values + i * column->width,
                       sent / dtype_size(pack->dtype));
    column->row += n;
    return (int64_t)n;
}

static int pack_reserve(struct pack *pack, size_t rows)
{
    if (rows <= pack->block)
        return 0;
    free(pack->raw);
    free(pack->values);
    pack->raw = mem_alloc(rows * pack->row_width, sizeof(float));
    pack->values = mem_alloc(rows * pack->row_width, sizeof(float));
    pack->block = pack->raw == NULL || pack->values == NULL ? 0 : rows;
    return pack->block > 0 ? 0 : mem_fail("rows", rows * pack->row_width, sizeof(float));
}

int64_t pack_next(struct pack *pack, uint8_t *to, size_t most)
{
    size_t n = pack->rows - pack->done < most ? (size_t)(pack->rows - pack->done) : most;
    int status = pack_reserve(pack, n);
    if (status != 0)
        return status;
    size_t column_at = 0;
    for (size_t i = 0; i < pack->column_count; i++) {
        struct pack_column *column = &pack->columns[i];
        for (size_t have = 0; have < n;) {
            int64_t got =
                pack_fill(pack, column, to + have * pack->row_bytes + column_at, n - have);
            if (got < 0)
                return got;
            have += (size_t)got;
        }
        column_at += column->width * dtype_size(pack->dtype);
    }
    pack->done += n;
    return (int64_t)n;
}
