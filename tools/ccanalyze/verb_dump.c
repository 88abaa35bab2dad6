/* verb_dump.c - `ccanalyze dump`: rows and tags of a stream for NumPy, or as text.
 *
 * A .npy header says the number of rows, and stands first. Where that number is not known before
 * (a pipe whose BEGIN has none) the header is written again at the end, which takes a regular file.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/npy.h"
#include "rows.h"
#include "verb.h"

#define DUMP_HEAD_BYTES 128 /* of a header, whatever the count of rows in it */
#define DUMP_HEAD_ROOM 256
#define DUMP_TAG_FIELDS 3

struct dump_options {
    struct opt_common common;
    const char *rows, *npy, *tags;
};

#define S struct dump_options
static const struct opt dump_table[] = {
    OPT_STRING("rows", 0, S, rows, "A:B", NULL, 0,
               "rows A to B - 1 alone, counted from 0; A or B may be left out"),
    OPT_STRING("npy", 0, S, npy, "FILE", NULL, OPT_WRITES,
               "rows as .npy float32 (N, D); - is standard output"),
    OPT_STRING("tags", 0, S, tags, "FILE", NULL, OPT_WRITES,
               "tags as .npy uint64 (N, 3): sequence, position, token"),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool dump_tool = {
    .name = "ccanalyze dump",
    .section = "ccanalyze",
    .summary = "rows and tags of a stream for NumPy, or as text",
    .synopsis = "ccanalyze dump [--rows A:B] [--npy FILE] [--tags FILE] [ROWS...]",
    .details =
        "Values are those of the stream, with the sources' scales in them, as float32. Without "
        "--npy and --tags a line is printed for each row: its number, sequence, position, token, "
        "and its values. Of a file with an index only the rows asked for are read.",
    .examples = "  ccanalyze dump --npy x.npy --tags t.npy acts.lz4\n"
                "  ccanalyze dump --rows :1k --npy - acts.lz4 | python3 -c "
                "'import numpy, sys; print(numpy.load(sys.stdin.buffer).std(0))'\n"
                "  ccanalyze dump --rows 10:20 acts.lz4 | cut -f 1-8",
    .options = dump_table,
};

struct dump_array {
    struct io_file file;
    const char *type;
    uint64_t width; /* elements of a row */
    bool wanted;
    bool file_of_ours; /* a regular file from its beginning: the header can be written again */
};

struct dump {
    struct stream_reader *reader;
    const struct begin *begin;
    uint64_t from, to; /* rows, counted from 0; to = UINT64_MAX: all */
    bool known;        /* count will come: it was asked for, or a file's END has counted */
    uint64_t count;
    uint64_t done;
    struct dump_array npy, tags;
    struct table *table; /* text instead */
    float *values;       /* (room, D) */
    uint8_t *fields;     /* (room, 3) u64 */
    size_t room;
};

/* ---- what is asked for */

static int dump_parse_rows(struct dump *dump, const char *text)
{
    dump->to = UINT64_MAX;
    if (text == NULL)
        return 0;
    const char *colon = strchr(text, ':');
    char *first = colon == NULL ? NULL : strndup(text, (size_t)(colon - text));
    bool good = first != NULL &&
                (*first == '\0' || opt_parse_count(first, 0, INT64_MAX, &dump->from)) &&
                (colon[1] == '\0' || opt_parse_count(colon + 1, 0, INT64_MAX, &dump->to)) &&
                dump->from <= dump->to;
    free(first);
    return good ? 0 : log_fail(ERR_USAGE, "--rows '%s': A:B with A not above B is needed", text);
}

/* How many rows will come, and whether the range lies within the input. */
static int dump_measure(struct dump *dump)
{
    const struct begin *begin = dump->begin;
    if (begin->has_rows &&
        (dump->from > begin->rows || (dump->to != UINT64_MAX && dump->to > begin->rows)))
        return log_fail(ERR_USAGE, "--rows: the input has %" PRIu64 " rows", begin->rows);
    dump->known =
        dump->to != UINT64_MAX || (begin->has_rows && stream_reader_is_regular(dump->reader));
    dump->count = (dump->to != UINT64_MAX ? dump->to : begin->rows) - dump->from;
    return 0;
}

/* ---- arrays */

static int dump_write_header(struct dump_array *array, uint64_t rows, bool again)
{
    uint8_t head[DUMP_HEAD_ROOM];
    const uint64_t shape[] = {rows, array->width};
    size_t size = npy_format(head, array->type, shape, 2);
    assert(size == DUMP_HEAD_BYTES); /* so that it can be written over another one */
    if (!again)
        return io_write(&array->file, head, size);
    ssize_t put = pwrite(array->file.fd, head, size, 0);
    return put == (ssize_t)size
               ? 0
               : log_fail_errno("cannot write the header of '%s'", array->file.name);
}

static int dump_open_array(struct dump *dump, struct dump_array *array, const char *path,
                           const char *type, uint64_t width)
{
    array->wanted = path != NULL;
    array->type = type;
    array->width = width;
    if (path == NULL)
        return 0;
    bool announced = dump->known || dump->begin->has_rows;
    int status = io_open_output(&array->file, path, true);
    array->file_of_ours = array->file.regular && array->file.owned;
    if (status == 0 && !announced && !array->file_of_ours)
        status = log_fail(ERR_USAGE,
                          "the stream does not say how many rows it has, and '%s' is no file whose "
                          "beginning can be written at the end; give --rows A:B or a file",
                          array->file.name);
    return status == 0 ? dump_write_header(array, announced ? dump->count : 0, false) : status;
}

/* The header's count once more, where it was not certain. */
static int dump_end_array(const struct dump *dump, struct dump_array *array, int status)
{
    if (status == 0 && array->wanted && !dump->known) {
        if (array->file_of_ours)
            status = dump_write_header(array, dump->done, true);
        else if (dump->done != dump->count)
            status = log_fail(ERR_DATA,
                              "'%s' was announced %" PRIu64 " rows, and %" PRIu64
                              " came: some were left out; write to a file",
                              array->file.name, dump->count, dump->done);
    }
    int closed = io_close(&array->file);
    return status != 0 ? status : closed;
}

/* ---- rows */

static int dump_reserve(struct dump *dump, size_t rows)
{
    if (rows <= dump->room)
        return 0;
    free(dump->values);
    free(dump->fields);
    dump->room = 0;
    dump->values = mem_alloc(rows * begin_width(dump->begin), sizeof *dump->values);
    dump->fields = mem_alloc(rows, DUMP_TAG_FIELDS * sizeof(uint64_t));
    if (dump->values == NULL || dump->fields == NULL)
        return mem_fail("rows", rows * begin_width(dump->begin), sizeof *dump->values);
    dump->room = rows;
    return 0;
}

static int dump_print(struct dump *dump, const uint8_t *tags, size_t rows)
{
    size_t width = begin_width(dump->begin);
    int status = 0;
    for (size_t i = 0; i < rows && status == 0; i++) {
        struct stream_tag tag = stream_tag_get(tags + i * STREAM_TAG_BYTES);
        table_count(dump->table, dump->from + dump->done + i);
        table_count(dump->table, tag.sequence);
        table_count(dump->table, tag.position);
        table_count(dump->table, tag.token);
        for (size_t j = 0; j < width; j++)
            table_real(dump->table, (double)dump->values[i * width + j]);
        status = table_row(dump->table);
    }
    return status;
}

static int dump_rows(struct dump *dump, const uint8_t *tags, const uint8_t *data, size_t rows)
{
    size_t width = begin_width(dump->begin);
    int status = dump_reserve(dump, rows);
    if (status != 0)
        return status;
    rows_to_f32(dump->values, dump->begin, data, rows);
    for (size_t i = 0; i < rows; i++) {
        struct stream_tag tag = stream_tag_get(tags + i * STREAM_TAG_BYTES);
        uint8_t *to = dump->fields + i * DUMP_TAG_FIELDS * sizeof(uint64_t);
        le_put64(to, tag.sequence);
        le_put64(to + 8, tag.position);
        le_put64(to + 16, tag.token);
    }
    if (dump->npy.wanted)
        status = io_write(&dump->npy.file, dump->values, rows * width * sizeof *dump->values);
    if (status == 0 && dump->tags.wanted)
        status =
            io_write(&dump->tags.file, dump->fields, rows * DUMP_TAG_FIELDS * sizeof(uint64_t));
    if (status == 0 && dump->table != NULL)
        status = dump_print(dump, tags, rows);
    dump->done += rows;
    return status;
}

static int dump_read(struct dump *dump)
{
    struct stream_record record;
    uint64_t base = dump->begin->first_row;
    int status = 0;
    if (dump->from > 0 && stream_reader_is_regular(dump->reader))
        status = stream_reader_seek(dump->reader, base + dump->from);
    uint64_t row_bytes = begin_row_bytes(dump->begin);
    while (status == 0 && dump->from + dump->done < dump->to &&
           (status = stream_reader_next(dump->reader, &record)) == 1) {
        uint64_t first = record.first_row - base, end = first + record.rows;
        uint64_t from = first > dump->from ? first : dump->from;
        uint64_t to = end < dump->to ? end : dump->to;
        status = from >= to
                     ? 0
                     : dump_rows(dump, record.tags + (from - first) * STREAM_TAG_BYTES,
                                 record.data + (from - first) * row_bytes, (size_t)(to - from));
    }
    if (status == 0 && dump->known && dump->done != dump->count)
        status =
            log_fail(ERR_USAGE, "--rows: the input ended after %" PRIu64 " of %" PRIu64 " rows",
                     dump->done, dump->count);
    return status;
}

/* ---- the verb */

/* The header of the text form: row, sequence, position, token, and the columns by number. */
static int dump_open_table(struct dump *dump, char ***columns)
{
    static const char *const fixed[] = {"row", "sequence", "position", "token"};
    static const struct table_form form = {NULL, false};
    size_t width = begin_width(dump->begin), count = 4 + width;
    *columns = mem_alloc_zero(count, sizeof **columns);
    if (*columns == NULL)
        return mem_fail("columns", count, sizeof **columns);
    for (size_t i = 0; i < count; i++) {
        char name[24];
        snprintf(name, sizeof name, "%zu", i - 4);
        (*columns)[i] = strdup(i < 4 ? fixed[i] : name);
        if ((*columns)[i] == NULL)
            return mem_fail("columns", count, sizeof name);
    }
    return table_open(&dump->table, &form, "rows", (const char *const *)*columns, count);
}

static int dump_write(struct dump *dump, const struct dump_options *options)
{
    char **columns = NULL;
    size_t width = begin_width(dump->begin);
    int status = dump_open_array(dump, &dump->npy, options->npy, "<f4", width);
    if (status == 0)
        status = dump_open_array(dump, &dump->tags, options->tags, "<u8", DUMP_TAG_FIELDS);
    if (status == 0 && options->npy == NULL && options->tags == NULL)
        status = dump_open_table(dump, &columns);
    if (status == 0)
        status = dump_read(dump);
    status = dump_end_array(dump, &dump->npy, status);
    status = dump_end_array(dump, &dump->tags, status);
    if (status == 0 && dump->table != NULL)
        status = table_end(dump->table, NULL);
    table_free(dump->table);
    for (size_t i = 0; columns != NULL && i < 4 + width; i++)
        free(columns[i]);
    free(columns);
    free(dump->values);
    free(dump->fields);
    return status;
}

static int dump_plan(const struct dump *dump)
{
    if (dump->known)
        printf("disk\t%" PRIu64 "\nrows\t%" PRIu64 "\n",
               dump->count * begin_width(dump->begin) * sizeof(float), dump->count);
    return 0; /* tool_finish() flushes standard output and sees whether that worked */
}

static int dump_run(const void *values)
{
    const struct dump_options *options = values;
    const struct opt_common *common = &options->common;
    struct dump dump = {.npy.file = IO_FILE_CLOSED, .tags.file = IO_FILE_CLOSED};
    if (options->npy != NULL && options->tags != NULL && strcmp(options->npy, options->tags) == 0)
        return log_fail(ERR_USAGE, "--npy and --tags are both '%s'", options->npy);
    int status = dump_parse_rows(&dump, options->rows);
    if (status == 0)
        status = stream_reader_open(&dump.reader, common->operands, common->operand_count,
                                    BEGIN_ACTIVATIONS, opt_threads(common));
    if (status != 0)
        return status;
    dump.begin = stream_reader_begin(dump.reader);
    status = dump_measure(&dump);
    if (status == 0)
        status = common->plan ? dump_plan(&dump) : dump_write(&dump, options);
    stream_reader_free(dump.reader);
    return status;
}

const struct verb verb_dump = {&dump_tool, sizeof(struct dump_options), dump_run};
