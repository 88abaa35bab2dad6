/* stream_order.c - the checks that need the records in order, in one thread. */
#include "stream_order.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "index.h"
#include "json.h"
#include "log.h"
#include "mem.h"

static int order_parse_begin(const struct frame_record *record, const char *name, int64_t offset,
                             struct begin *begin, json_t **json)
{
    const struct record_header *header = &record->header;
    uint8_t run[RECORD_RUN_BYTES];
    record_run_id(run, record->payload, header->payload_bytes);
    if (header->type != STREAM_BEGIN)
        return log_fail(ERR_DATA,
                        "'%s': record at offset %" PRId64 ": the stream does not start with BEGIN",
                        name, offset);
    if (header->sequence != 0 || memcmp(run, header->run, sizeof run) != 0)
        return log_fail(
            ERR_DATA, "'%s': record at offset %" PRId64 ": BEGIN's run id or number does not match",
            name, offset);
    *json = json_parse((const char *)record->payload, header->payload_bytes, name);
    if (*json == NULL)
        return ERR_DATA;
    int status = begin_from_json(begin, *json, name);
    if (status == 0 && header->first_row != begin->first_row) {
        begin_free(begin);
        status = log_fail(ERR_DATA, "'%s': BEGIN's first row does not match its header", name);
    }
    if (status != 0) {
        json_decref(*json);
        *json = NULL;
    }
    return status;
}

void stream_order_restart(struct stream_order *order, const struct frame_record *record,
                          uint64_t rows_before)
{
    const struct record_header *header = &record->header;
    order->part = (struct stream_order_part){
        .sequence = 1, .row = header->first_row, .first_row = header->first_row};
    memcpy(order->part.run, header->run, RECORD_RUN_BYTES);
    order->rows_before = rows_before;
    order->between = false;
}

static int order_refuse_plane(const struct begin *begin, const char *name)
{
    const char *plane = begin_plane_name(begin->plane);
    return log_fail(ERR_USAGE,
                    "'%s' holds no rows: they travel by %s, straight into a cctrain that reads the "
                    "same pipe; for a file, shufbuf, ccanalyze or cctrain --attach run actgen "
                    "without --via %s",
                    name, plane, plane);
}

int stream_order_begin(struct stream_order *order, const struct frame_record *record, bool via,
                       const char *name, int64_t offset)
{
    memset(order, 0, sizeof *order);
    int status = order_parse_begin(record, name, offset, &order->begin, &order->begin_json);
    if (status != 0)
        return status;
    const struct begin *begin = &order->begin;
    if (begin->plane != BEGIN_INLINE && !via) {
        status = order_refuse_plane(begin, name);
        stream_order_free(order);
        return status;
    }
    order->end.skipped = json_object();
    order->begin_name = strdup(name);
    if (order->end.skipped == NULL || order->begin_name == NULL) {
        stream_order_free(order);
        return mem_fail("BEGIN", strlen(name), 1);
    }
    order->layout = (struct stream_layout){
        .tokens = begin->kind == BEGIN_TOKENS,
        .dtype = begin->dtype,
        .quanta = begin->dtype == DTYPE_I8 ? begin->source_count : 0,
        .row_bytes = begin_data_bytes(begin),
        .places = (uint64_t)begin->attach.buffers * begin->attach.capacity,
    };
    stream_order_restart(order, record, begin->first_row);
    return 0;
}

void stream_order_free(struct stream_order *order)
{
    begin_free(&order->begin);
    json_decref(order->begin_json);
    json_decref(order->end.skipped);
    free(order->begin_name);
    memset(order, 0, sizeof *order);
}

static int order_bad(const char *name, int64_t offset, const struct record_header *header,
                     const char *what)
{
    char run[33];
    record_run_hex(run, header->run);
    return log_fail(ERR_DATA, "'%s': record at offset %" PRId64 " (run %.8s, row %" PRIu64 "): %s",
                    name, offset, run, header->first_row, what);
}

static int order_next_part(struct stream_order *order, const struct frame_record *record,
                           const char *name, int64_t offset)
{
    struct begin begin = {0};
    json_t *json = NULL;
    int status = order_parse_begin(record, name, offset, &begin, &json);
    if (status != 0)
        return status;
    status = begin_compatible(&order->begin, order->begin_name, &begin, name);
    begin_free(&begin);
    json_decref(json);
    if (status == 0)
        stream_order_restart(order, record,
                             order->rows_before + order->part.row - order->part.first_row);
    return status;
}

static int order_compare_end(const struct stream_order_part *part, uint64_t records, uint64_t rows,
                             const char *low, const char *high, const char **wrong)
{
    char *low_end, *high_end;
    struct rowsum said = {strtoull(low, &low_end, 16), strtoull(high, &high_end, 16)};
    if (strlen(low) != 16 || strlen(high) != 16 || *low_end != '\0' || *high_end != '\0')
        *wrong = "END's sums are not 16 hexadecimal digits";
    else if (!part->partial && (records != part->records || rows != part->rows))
        *wrong = "END counts other rows or records than arrived";
    else if (!part->partial && !rowsum_equal(&said, &part->sum))
        *wrong = "the sum of the rows does not match END's";
    else
        return 0;
    return ERR_DATA;
}

static int order_check_end(struct stream_order *order, const struct frame_record *record,
                           const char *name, int64_t offset)
{
    const char *low, *high, *wrong = NULL;
    uint64_t records, rows;
    struct stream_order_part *part = &order->part;
    json_t *json = json_parse((const char *)record->payload, record->header.payload_bytes, name);
    if (json == NULL)
        return ERR_DATA;
    const json_t *skipped = json_object_get(json, "skipped");
    int status;
    if (!json_is_counts(skipped))
        wrong = "END does not say what was skipped";
    else if ((status = json_get_count(json, "records", name, &records)) == 0 &&
             (status = json_get_count(json, "rows", name, &rows)) == 0 &&
             (status = json_get_string(json, "sum_low", name, &low)) == 0 &&
             (status = json_get_string(json, "sum_high", name, &high)) == 0 &&
             (status = order_compare_end(part, records, rows, low, high, &wrong)) == 0 &&
             (status = json_add_counts(order->end.skipped, skipped)) == 0) {
        order->end.records += part->records;
        order->end.rows += part->rows;
        rowsum_merge(&order->end.sum, &part->sum);
        order->between = true;
    }
    if (wrong != NULL)
        status = order_bad(name, offset, &record->header, wrong);
    json_decref(json);
    return status;
}

static int order_aborted(const struct frame_record *record, const char *name)
{
    json_t *json = json_parse((const char *)record->payload, record->header.payload_bytes, name);
    const char *reason = json_string_value(json_object_get(json, "reason"));
    int status =
        log_fail(ERR_TRUNCATED, "'%s': the stage before stopped after row %" PRIu64 ": %s", name,
                 record->header.first_row, reason == NULL ? "no reason given" : reason);
    json_decref(json);
    return status;
}

static int order_take_rows(struct stream_order *order, const struct frame_record *record,
                           const struct stream_rows *rows, const char *name, int64_t offset,
                           uint64_t *first_row)
{
    struct stream_order_part *part = &order->part;
    if (part->row > (uint64_t)INT64_MAX - record->header.rows)
        return order_bad(name, offset, &record->header, "row numbers overflow");
    *first_row = order->rows_before + (part->row - part->first_row);
    part->row += record->header.rows;
    part->rows += record->header.rows;
    part->records++;
    rowsum_merge(&part->sum, &rows->sum);
    return 1;
}

int stream_order_take(struct stream_order *order, const struct frame *frame,
                      const struct frame_record *record, const struct stream_rows *rows,
                      const char *name, uint64_t *first_row)
{
    if (frame->kind == FRAME_SKIPPABLE) {
        if (order->between && index_recognise(frame))
            return 0;
        return log_fail(ERR_DATA,
                        "'%s': a skippable frame at offset %" PRId64 " that is no index behind END",
                        name, frame->offset);
    }
    const struct record_header *header = &record->header;
    if (header->type == STREAM_BEGIN) {
        if (order->between)
            return order_next_part(order, record, name, frame->offset);
        return log_fail(ERR_TRUNCATED,
                        "'%s': another BEGIN at offset %" PRId64
                        " before END: the stream before it was cut",
                        name, frame->offset);
    }
    if (order->between)
        return order_bad(name, frame->offset, header, "a record behind END");
    if (memcmp(header->run, order->part.run, RECORD_RUN_BYTES) != 0)
        return order_bad(name, frame->offset, header, "it belongs to another run");
    if (header->sequence != order->part.sequence)
        return order_bad(name, frame->offset, header,
                         "a record is missing, repeated or out of order before it");
    if (header->type != STREAM_MARK && header->first_row != order->part.row)
        return order_bad(name, frame->offset, header,
                         "its row number does not follow the rows before it");
    order->part.sequence++;
    switch (header->type) {
    case STREAM_DATA:
        return order_take_rows(order, record, rows, name, frame->offset, first_row);
    case STREAM_END:
        return order_check_end(order, record, name, frame->offset);
    case STREAM_ABORT:
        return order_aborted(record, name);
    default:
        return 0; /* a mark of progress */
    }
}

int stream_order_finish(const struct stream_order *order, const char *name)
{
    if (order->between)
        return 0;
    return log_fail(ERR_TRUNCATED,
                    "'%s': input ends at row %" PRIu64 " without END: the stage "
                    "before was stopped, or the file was cut",
                    name, order->part.row);
}
