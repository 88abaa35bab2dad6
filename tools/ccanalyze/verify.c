/* verify.c - reads everything once, and compares.
 *
 * A stream is read to its END by the same reader that all tools use, so that what passes here is
 * what they accept: frame, header and payload checksums, run id, numbers, finite values, END's
 * counts and sum. The index is nobody's business there; so it is checked afterwards, its checksum
 * first and then each of its entries against the record that the reader found, in a walk over the
 * file that reads BEGIN, END and the indexes alone, as where the DATA frames lie is known by then.
 *
 * A safetensors file has no checksums: its header must describe the file exactly and its values
 * must be finite. A checkpoint has a manifest.
 */
#include "verify.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/checkpoint.h"
#include "common/frame.h"
#include "common/index.h"
#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/stream.h"
#include "filekind.h"

/* ---- the index */

struct verify_index {
    const char *name;
    const struct io_file *file;
    const struct index
        *data;         /* the DATA records that the reader found; offsets from the file's start */
    size_t next;       /* of them, not yet passed */
    struct index part; /* as this part's index should be */
    int64_t start;     /* of the part */
    uint64_t row;      /* that the next record begins with */
    uint64_t indexes, entries;
};

static int verify_index_wrong(const struct verify_index *v, int64_t at, const char *what)
{
    return log_fail(ERR_DATA,
                    "'%s': index at offset %" PRId64
                    ": %s; the rows are whole, 'ccanalyze salvage' "
                    "writes them with a new index",
                    v->name, at, what);
}

/* Compares the index in `frame` with the records of the part. */
static int verify_compare(const struct verify_index *v, const struct frame *frame)
{
    const char *wrong = index_check(frame);
    if (wrong != NULL)
        return verify_index_wrong(v, frame->offset, wrong);
    /* index_encode() is the one place that knows the layout: the same entries give the same bytes.
     */
    struct frame_buffer expected = {0};
    struct index index = v->part;
    index.part_bytes = (uint64_t)(frame->offset - v->start);
    int status = index_encode(&expected, &index);
    if (status == 0 && (expected.size != frame->stored.size ||
                        memcmp(expected.bytes, frame->stored.bytes, expected.size) != 0))
        status =
            verify_index_wrong(v, frame->offset, "it does not agree with the records before it");
    frame_buffer_free(&expected);
    return status;
}

static int verify_add(struct verify_index *v, uint64_t offset, uint64_t first_row, uint32_t rows,
                      size_t bytes)
{
    struct index_entry entry = {offset, first_row, rows, (uint32_t)bytes};
    return index_add(&v->part, &entry);
}

/* The frame at *at, which is no DATA: BEGIN, END, a mark or an index. */
static int verify_other(struct verify_index *v, int64_t *at)
{
    struct frame frame = {0};
    struct frame_record record = {0};
    int status = frame_read_at(&frame, v->file, *at);
    if (status == 1 && frame.kind == FRAME_SKIPPABLE) {
        status = verify_compare(v, &frame);
        v->indexes++;
        v->entries += v->part.count;
    } else if (status == 1 && (status = frame_decode(&record, &frame, v->name)) == 0) {
        if (record.header.type == STREAM_BEGIN) {
            v->part.count = 0;
            v->start = *at;
            v->row = record.header.first_row;
        }
        status = verify_add(v, (uint64_t)(*at - v->start), record.header.first_row, 0,
                            frame.stored.size);
    } else if (status >= 0 || status == ERR_TRUNCATED || status == ERR_DATA) {
        status = log_fail(status < 0 ? status : ERR_TRUNCATED, "'%s' changed while it was verified",
                          v->name);
    }
    *at += (int64_t)frame.stored.size;
    frame_buffer_free(&frame.stored);
    frame_buffer_free(&record.content);
    return status;
}

/* Walks over a file whose DATA records are known. */
static int verify_indexes(struct verify_index *v)
{
    int64_t at = 0, size = io_size(v->file);
    int status = size < 0 ? (int)size : 0;
    while (status == 0 && at < size) {
        const struct index_entry *data =
            v->next < v->data->count ? &v->data->entries[v->next] : NULL;
        if (data != NULL && (int64_t)data->offset == at) {
            status =
                verify_add(v, (uint64_t)(at - v->start), v->row, data->rows, data->stored_bytes);
            v->row += data->rows;
            v->next++;
            at += data->stored_bytes;
        } else {
            status = verify_other(v, &at);
        }
    }
    index_free(&v->part);
    return status;
}

/* ---- streams */

static int verify_rows(struct index *data, struct stream_reader *reader)
{
    struct stream_record record;
    int status;
    while ((status = stream_reader_next(reader, &record)) == 1) {
        struct index_entry entry = {(uint64_t)record.offset, record.first_row, record.rows,
                                    record.stored_bytes};
        if ((status = index_add(data, &entry)) != 0)
            return status;
    }
    return status;
}

static int verify_stream(struct verify_report *report, const char *path, unsigned threads)
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    struct index data = {0};
    int status = stream_reader_open(&reader, paths, 1, BEGIN_ANY, threads);
    if (status != 0)
        return status;
    bool tokens = stream_reader_begin(reader)->kind == BEGIN_TOKENS;
    report->type = tokens ? "tokens" : "activations";
    status = verify_rows(&data, reader);
    const struct stream_end *end = stream_reader_end(reader);
    const struct begin *begin = stream_reader_begin(reader);
    if (status == 0 && stream_reader_is_regular(reader) && begin->has_rows &&
        begin->rows != end->rows)
        status =
            log_fail(ERR_DATA, "'%s': BEGIN announces %" PRIu64 " rows and END counts %" PRIu64,
                     path, begin->rows, end->rows);
    struct verify_index v = {.name = path, .file = stream_reader_file(reader), .data = &data};
    if (status == 0 && stream_reader_is_regular(reader))
        status = verify_indexes(&v);
    char index[64] = "no index";
    if (v.indexes > 0)
        snprintf(index, sizeof index, "index of %" PRIu64 " records", v.entries);
    snprintf(report->text, sizeof report->text,
             "%" PRIu64 " %s in %" PRIu64 " records, sum %016" PRIx64 "%016" PRIx64 ", %s",
             end->rows, tokens ? "sequences" : "rows", end->records, end->sum.high, end->sum.low,
             index);
    index_free(&data);
    stream_reader_free(reader);
    return status;
}

/* ---- checkpoints */

static int verify_step(struct verify_report *report, const char *folder)
{
    struct crosscoder cc;
    int status = checkpoint_verify(folder, false);
    if (status == 0)
        status = crosscoder_read_shape(&cc, folder);
    if (status != 0)
        return status;
    report->type = "checkpoint";
    snprintf(report->text, sizeof report->text, "%" PRIu64 " latents, every file of the manifest",
             cc.latents);
    crosscoder_free(&cc);
    return 0;
}

/* All steps, so that each damaged one is named; the code of the first. */
static int verify_run(struct verify_report *report, const char *run)
{
    uint64_t *steps;
    size_t count;
    int status = checkpoint_list(run, &steps, &count), first = 0;
    for (size_t i = 0; i < count && status == 0; i++) {
        char name[32];
        snprintf(name, sizeof name, "step-%" PRIu64, steps[i]);
        char *folder = io_join(run, name);
        int one = folder == NULL ? mem_fail("a path", strlen(run), 1) : verify_step(report, folder);
        first = first != 0 ? first : one;
        free(folder);
    }
    free(steps);
    report->type = "run";
    snprintf(report->text, sizeof report->text, "every file of %zu checkpoints", count);
    return status != 0 ? status : first;
}

static int verify_weights(struct verify_report *report, const char *path)
{
    struct crosscoder cc;
    int status = crosscoder_read(&cc, path);
    if (status != 0)
        return status;
    report->type = "crosscoder";
    snprintf(report->text, sizeof report->text,
             "%" PRIu64 " latents, shapes and finite values; the file has no checksums",
             cc.latents);
    crosscoder_free(&cc);
    return 0;
}

int verify_path(struct verify_report *report, const char *path, unsigned threads)
{
    enum filekind kind;
    int status = filekind_of(&kind, path);
    if (status != 0)
        return status;
    switch (kind) {
    case FILEKIND_STREAM:
        return verify_stream(report, path, threads);
    case FILEKIND_RUN:
        return verify_run(report, path);
    case FILEKIND_STEP:
        return verify_step(report, path);
    case FILEKIND_SAFETENSORS:
        return verify_weights(report, path);
    case FILEKIND_JSON: /* a file, and perhaps a stream whose first byte is damaged */
        return log_fail(ERR_DATA, "'%s' is neither a stream nor a checkpoint", path);
    default:
        return log_fail(ERR_USAGE, "'%s' is neither a stream nor a checkpoint", path);
    }
}
