/* salvage.c - two passes: the first finds the whole records and counts, the second copies them.
 *
 * Two, because BEGIN stands first and says how many rows follow. The first pass decodes every
 * record, so the second finds no surprise unless the file changes under it.
 *
 * A frame whose checksum fails may also have a wrong length, so the next record is never sought
 * where the damaged one claims to end, but byte by byte behind its beginning: a place counts that
 * begins with a frame's magic and holds a whole record of the run (its 128-bit id is in every
 * header), or a BEGIN. Records that repeat or come before what has been kept are passed over as
 * damage.
 */
#include "salvage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/frame.h"
#include "common/index.h"
#include "common/json.h"
#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/sig.h"
#include "common/stream_order.h"
#include "common/stream_rows.h"

#define SALVAGE_CHUNK (1u << 20) /* bytes searched at a time */

struct salvage_part {
    struct stream_order order; /* BEGIN, layout, and what the next record must follow */
    struct index records;      /* the whole ones; offsets from the file's start */
    uint64_t rows;             /* in them */
    uint64_t gap_rows;         /* missing before and between them */
    json_t *gaps;              /* [[row, count], ...] */
    bool has_total;
    uint64_t total;  /* rows that the part had: of END, else of BEGIN */
    json_t *skipped; /* of END, or NULL */
    bool ended;
};

struct salvage {
    struct io_file file;
    int64_t size;
    struct salvage_part *parts;
    size_t part_count;
    uint64_t damages;
    /* the record at hand */
    struct frame frame;
    struct frame_record record;
    struct stream_rows rows;
};

static struct salvage_part *salvage_part(struct salvage *salvage)
{
    return salvage->part_count == 0 ? NULL : &salvage->parts[salvage->part_count - 1];
}

/* ---- one record */

/* Decodes the frame at `at`: 1, or 0 where no whole one is, with *code why; ERR_IO, ERR_MEMORY. */
static int salvage_look(struct salvage *salvage, int64_t at, int *code)
{
    int status = frame_read_at(&salvage->frame, &salvage->file, at);
    if (status == 1 && salvage->frame.kind != FRAME_SKIPPABLE) {
        status = frame_decode(&salvage->record, &salvage->frame, NULL);
        status = status == 0 ? 1 : status;
    } else if (status == 1 && !index_recognise(&salvage->frame)) {
        status = ERR_DATA;
    }
    *code = status;
    return status == ERR_DATA || status == ERR_TRUNCATED ? 0 : status;
}

/* Whether the record at hand is of the run of the part at hand. */
static bool salvage_same_run(struct salvage *salvage)
{
    const struct salvage_part *part = salvage_part(salvage);
    return part != NULL &&
           memcmp(salvage->record.header.run, part->order.part.run, RECORD_RUN_BYTES) == 0;
}

static bool salvage_is_begin(const struct salvage *salvage)
{
    const struct record_header *header = &salvage->record.header;
    uint8_t run[RECORD_RUN_BYTES];
    if (header->type != STREAM_BEGIN || header->sequence != 0)
        return false;
    record_run_id(run, salvage->record.payload, header->payload_bytes);
    return memcmp(run, header->run, sizeof run) == 0;
}

/* ---- taking it */

static int salvage_take_begin(struct salvage *salvage)
{
    const char *name = salvage->file.name;
    struct salvage_part *grown = mem_resize(salvage->parts, salvage->part_count + 1, sizeof *grown);
    if (grown == NULL)
        return mem_fail("parts", salvage->part_count + 1, sizeof *grown);
    salvage->parts = grown;
    struct salvage_part *part = &grown[salvage->part_count];
    memset(part, 0, sizeof *part);
    int status =
        stream_order_begin(&part->order, &salvage->record, false, name, salvage->frame.offset);
    if (status != 0)
        return status;
    salvage->part_count++; /* from here on salvage_free() frees it */
    part->has_total = part->order.begin.has_rows;
    part->total = part->order.begin.rows;
    part->gaps = json_array();
    if (part->gaps == NULL)
        return mem_fail("parts", 1, sizeof *part);
    return salvage->part_count == 1
               ? 0
               : begin_compatible(&grown[0].order.begin, name, &part->order.begin, name);
}

/* DATA: 1 where it is taken, 0 where it is damage. */
static int salvage_take_rows(struct salvage *salvage)
{
    struct salvage_part *part = salvage_part(salvage);
    struct stream_order_part *expected = &part->order.part;
    const struct record_header *header = &salvage->record.header;
    bool next = header->sequence == expected->sequence;
    if (header->sequence < expected->sequence || header->first_row < expected->row ||
        (next && header->first_row != expected->row) ||
        header->first_row > (uint64_t)INT64_MAX - header->rows)
        return 0;
    int status = stream_rows_open(&salvage->rows, &part->order.layout, &salvage->record, NULL,
                                  salvage->frame.offset);
    if (status != 0)
        return status == ERR_DATA ? 0 : status;
    uint64_t gap = header->first_row - expected->row;
    if (gap > 0 && json_array_append_new(part->gaps, json_pack("[I, I]", (json_int_t)expected->row,
                                                               (json_int_t)gap)) != 0)
        return mem_fail("gaps", json_array_size(part->gaps), 1);
    struct index_entry entry = {(uint64_t)salvage->frame.offset, header->first_row, header->rows,
                                (uint32_t)salvage->frame.stored.size};
    part->gap_rows += gap;
    part->rows += header->rows;
    expected->sequence = header->sequence + 1;
    expected->row = header->first_row + header->rows;
    status = index_add(&part->records, &entry);
    return status == 0 ? 1 : status;
}

/* END: the part's true total, and what was skipped. 1 or 0 as above. */
static int salvage_take_end(struct salvage *salvage)
{
    struct salvage_part *part = salvage_part(salvage);
    const struct record_header *header = &salvage->record.header;
    json_t *json = json_parse((const char *)salvage->record.payload, header->payload_bytes, NULL);
    json_t *rows = json_object_get(json, "rows"), *skipped = json_object_get(json, "skipped");
    bool good = json_is_integer(rows) && json_integer_value(rows) >= 0 && json_is_counts(skipped);
    if (good) {
        part->has_total = true;
        part->total = (uint64_t)json_integer_value(rows);
        part->skipped = json_incref(skipped);
        part->ended = true;
    }
    json_decref(json);
    return good;
}

/* The record at hand: 1 taken, 0 damage, or negative. */
static int salvage_take(struct salvage *salvage)
{
    if (salvage->frame.kind == FRAME_SKIPPABLE)
        return 1;
    if (salvage_is_begin(salvage)) {
        int status = salvage_take_begin(salvage);
        return status == 0 ? 1 : status;
    }
    if (!salvage_same_run(salvage) || salvage_part(salvage)->ended)
        return 0;
    switch (salvage->record.header.type) {
    case STREAM_DATA:
        return salvage_take_rows(salvage);
    case STREAM_END:
        return salvage_take_end(salvage);
    case STREAM_MARK:
        salvage_part(salvage)->order.part.sequence++;
        return 1;
    default:
        return 1; /* ABORT: there is nothing in it to keep */
    }
}

/* ---- the first pass */

/* Whether a frame can begin with this byte. */
static bool salvage_may_begin(const uint8_t *bytes)
{
    uint32_t magic = le_get32(bytes);
    return memcmp(bytes, RECORD_MAGIC, 4) == 0 || magic == 0x184D2204u || magic == 0xFD2FB528u;
}

/* Searches a whole record from `at` on: *found is where it begins, or the file's size. */
static int salvage_search(struct salvage *salvage, int64_t at, int64_t *found)
{
    uint8_t *chunk = mem_alloc(SALVAGE_CHUNK, 1);
    int status = chunk == NULL ? mem_fail("a piece of the file", SALVAGE_CHUNK, 1) : 0;
    *found = salvage->size;
    while (status == 0 && *found == salvage->size && salvage->size - at >= 4) {
        int64_t left = salvage->size - at;
        size_t size = left < SALVAGE_CHUNK ? (size_t)left : SALVAGE_CHUNK;
        status = sig_pending() != 0 ? ERR_INTERRUPTED : io_pread(&salvage->file, chunk, size, at);
        for (size_t i = 0; i + 4 <= size && status == 0; i++) {
            int code;
            if (!salvage_may_begin(chunk + i))
                continue;
            int whole = salvage_look(salvage, at + (int64_t)i, &code);
            if (whole == 1 && (salvage_same_run(salvage) || salvage_is_begin(salvage))) {
                *found = at + (int64_t)i;
                break;
            }
            status = whole < 0 ? whole : 0;
        }
        at += (int64_t)size - 3; /* a magic may lie across two pieces */
    }
    free(chunk);
    return status;
}

/* Passes over damage at *at. */
static int salvage_pass_over(struct salvage *salvage, int64_t *at, int code)
{
    int64_t next;
    int status = salvage_search(salvage, *at + 1, &next);
    if (status != 0)
        return status;
    const struct salvage_part *part = salvage_part(salvage);
    salvage->damages++;
    log_warning("'%s': the bytes from %" PRId64 " to %" PRId64 ", at row %" PRIu64 ", %s",
                salvage->file.name, *at, next, part == NULL ? 0 : part->order.part.row,
                code == ERR_TRUNCATED && next == salvage->size ? "are a record that was cut"
                                                               : "are no whole record");
    *at = next;
    return 0;
}

static int salvage_scan(struct salvage *salvage)
{
    int first = ERR_TRUNCATED; /* what is wrong where there is no BEGIN */
    for (int64_t at = 0; at < salvage->size;) {
        int code, status = salvage_look(salvage, at, &code);
        if (sig_pending() != 0)
            status = ERR_INTERRUPTED;
        if (status == 1) {
            status = salvage_take(salvage);
            code = ERR_DATA;
        }
        if (status < 0)
            return status;
        if (status == 1) {
            at += (int64_t)salvage->frame.stored.size;
            continue;
        }
        first = salvage->part_count == 0 && salvage->damages == 0 ? code : first;
        if ((status = salvage_pass_over(salvage, &at, code)) != 0)
            return status;
    }
    if (salvage->part_count > 0)
        return 0;
    return log_fail(first,
                    "'%s' has no whole BEGIN: nothing says what its rows are, and nothing can be "
                    "saved",
                    salvage->file.name);
}

int salvage_open(struct salvage **result, const char *path)
{
    *result = NULL;
    struct salvage *salvage = mem_alloc_zero(1, sizeof *salvage);
    if (salvage == NULL)
        return mem_fail("a file", 1, sizeof *salvage);
    int status = io_open_input(&salvage->file, path);
    if (status == 0 && !salvage->file.regular)
        status = log_fail(ERR_USAGE, "'%s' is not a regular file: it cannot be read twice", path);
    if (status == 0 && (salvage->size = io_size(&salvage->file)) < 0)
        status = (int)salvage->size;
    if (status == 0)
        status = salvage_scan(salvage);
    if (status != 0)
        salvage_free(salvage);
    else
        *result = salvage;
    return status;
}

void salvage_free(struct salvage *salvage)
{
    if (salvage == NULL)
        return;
    for (size_t i = 0; i < salvage->part_count; i++) {
        struct salvage_part *part = &salvage->parts[i];
        stream_order_free(&part->order);
        index_free(&part->records);
        json_decref(part->gaps);
        json_decref(part->skipped);
    }
    free(salvage->parts);
    frame_buffer_free(&salvage->frame.stored);
    frame_buffer_free(&salvage->record.content);
    stream_rows_free(&salvage->rows);
    int ignored = io_close(&salvage->file); /* it was read only */
    (void)ignored;
    free(salvage);
}

/* ---- figures */

/* Rows known to be missing from a part, gaps and end. */
static uint64_t salvage_part_lost(const struct salvage_part *part)
{
    uint64_t seen = part->rows + part->gap_rows;
    return part->gap_rows + (part->has_total && part->total > seen ? part->total - seen : 0);
}

struct salvage_figures salvage_count(const struct salvage *salvage)
{
    struct salvage_figures figures = {
        .parts = salvage->part_count, .lost_known = true, .damages = salvage->damages};
    for (size_t i = 0; i < salvage->part_count; i++) {
        const struct salvage_part *part = &salvage->parts[i];
        figures.records += part->records.count;
        figures.rows += part->rows;
        figures.lost += salvage_part_lost(part);
        figures.lost_known = figures.lost_known && part->has_total;
    }
    return figures;
}

/* ---- the second pass */

/* What BEGIN says of gaps; of a stream that was salvaged before, that stays below. */
static json_t *salvage_gaps(const struct salvage_part *part)
{
    json_t *before = json_object_get(part->order.begin.extra, "salvaged");
    json_t *gaps = json_pack("{s:O}", "gaps", part->gaps);
    if (gaps != NULL && before != NULL && json_object_set(gaps, "before", before) != 0) {
        json_decref(gaps);
        return NULL;
    }
    return gaps;
}

/* BEGIN as it is to be written. */
static int salvage_make_begin(struct begin *begin, const struct salvage_part *part)
{
    int status = begin_copy(begin, &part->order.begin);
    if (status != 0)
        return status;
    /* Readers take off what END counts as not finite: it was announced, and is left out by right.
     */
    json_int_t not_finite = json_integer_value(json_object_get(part->skipped, "not_finite"));
    begin->has_rows = true;
    begin->rows = part->rows + (not_finite > 0 ? (uint64_t)not_finite : 0);
    if (part->gap_rows == 0)
        return 0;
    json_decref(begin->extra);
    begin->extra = json_deep_copy(part->order.begin.extra);
    if (json_object_set_new(begin->extra, "salvaged", salvage_gaps(part)) == 0)
        return 0;
    begin_free(begin);
    return mem_fail("BEGIN", 1, sizeof *begin);
}

static int salvage_write_sequences(struct stream_writer *writer, const struct stream_record *record)
{
    uint32_t *ids = NULL;
    size_t offset = 0, room = 0;
    struct stream_sequence sequence;
    int status = 0;
    while (status == 0 && stream_sequence_next(record, &offset, &sequence) == 1) {
        if (sequence.length > room) {
            uint32_t *grown = mem_resize(ids, sequence.length, sizeof *grown);
            if (grown == NULL) {
                status = mem_fail("a sequence", sequence.length, sizeof *grown);
                break;
            }
            ids = grown;
            room = sequence.length;
        }
        for (uint32_t i = 0; i < sequence.length; i++)
            ids[i] = le_get32(sequence.ids + 4 * (size_t)i);
        status = stream_writer_sequence(writer, sequence.index, ids, sequence.length);
    }
    free(ids);
    return status;
}

static int salvage_copy(struct salvage *salvage, struct stream_writer *writer,
                        const struct salvage_part *part, const struct index_entry *entry)
{
    int code, status = salvage_look(salvage, (int64_t)entry->offset, &code);
    if (status == 1 && salvage->record.header.first_row == entry->first_row &&
        salvage->record.header.rows == entry->rows)
        status = stream_rows_open(&salvage->rows, &part->order.layout, &salvage->record,
                                  salvage->file.name, (int64_t)entry->offset);
    else if (status >= 0)
        status = log_fail(ERR_DATA, "'%s' changed at offset %" PRIu64 " while it was read",
                          salvage->file.name, entry->offset);
    if (status != 0)
        return status;
    const struct stream_record *record = &salvage->rows.record;
    if (part->order.layout.tokens)
        return salvage_write_sequences(writer, record);
    return stream_writer_rows(writer, record->tags, record->data, record->rows);
}

static int salvage_end_part(struct stream_writer *writer, const struct salvage_part *part)
{
    uint64_t lost = salvage_part_lost(part);
    json_t *skipped = part->skipped == NULL ? json_object() : json_deep_copy(part->skipped);
    int status = 0;
    if (skipped == NULL ||
        (lost > 0 && json_object_set_new(skipped, "lost", json_integer((json_int_t)lost)) != 0))
        status = mem_fail("END", 1, 1);
    if (status == 0)
        status = stream_writer_end_part(writer, skipped);
    json_decref(skipped);
    return status;
}

static int salvage_write_part(struct salvage *salvage, struct stream_writer *writer,
                              const struct salvage_part *part, struct progress *progress,
                              uint64_t *done)
{
    struct begin begin = {0};
    int status = salvage_make_begin(&begin, part);
    if (status == 0)
        status = stream_writer_begin(writer, &begin);
    begin_free(&begin);
    for (size_t i = 0; i < part->records.count && status == 0; i++) {
        status = sig_pending() != 0
                     ? ERR_INTERRUPTED
                     : salvage_copy(salvage, writer, part, &part->records.entries[i]);
        *done += part->records.entries[i].rows;
        progress_set(progress, *done);
    }
    return status == 0 ? salvage_end_part(writer, part) : status;
}

int salvage_write(struct salvage *salvage, const char *output, enum stream_codec codec,
                  unsigned threads, const char *metrics)
{
    struct stream_writer *writer;
    struct progress *progress = NULL;
    uint64_t done = 0;
    int status = stream_writer_open(&writer, output, codec, threads);
    if (status != 0)
        return status;
    struct progress_setup setup = {.unit = "rows",
                                   .total = salvage_count(salvage).rows,
                                   .in = &salvage->file,
                                   .out = stream_writer_file(writer),
                                   .metrics = metrics};
    status = progress_start(&progress, &setup);
    for (size_t i = 0; i < salvage->part_count && status == 0; i++)
        status = salvage_write_part(salvage, writer, &salvage->parts[i], progress, &done);
    int told = progress_stop(progress);
    if (status != 0)
        stream_writer_abort(writer, status, NULL);
    else
        status = stream_writer_close(writer);
    stream_writer_free(writer);
    return status != 0 ? status : told;
}
