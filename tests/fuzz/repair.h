/* repair.h - lets a fuzzer past the checksums: bytes as a stream whose hashes and lengths agree.
 *
 * The first byte of an input chooses: 0 the rest as it is; 1 bare records made from it, every
 * header with its magic, version, lengths, run id and hashes put right, all else as the fuzzer has
 * it; 2 the same, each record in an LZ4 frame of its own, and an index behind them; 3 and 4 as 1
 * and 2, and END counts and sums what came.
 */
#ifndef TESTS_FUZZ_REPAIR_H
#define TESTS_FUZZ_REPAIR_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/frame.h"
#include "common/index.h"
#include "common/json.h"
#include "common/le.h"
#include "common/record.h"
#include "common/stream_order.h"
#include "common/stream_rows.h"
#include "tests/fuzz/fuzz.h"

#define REPAIR_MODES 6

static void repair_append(struct frame_buffer *out, const uint8_t *bytes, size_t size)
{
    require(frame_buffer_reserve(out, out->size + size) == 0);
    if (size > 0)
        memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

/* What END is to say of the part at hand. */
struct repair_part {
    bool begun; /* a BEGIN that can be read */
    struct stream_layout layout;
    uint64_t records, rows;
    struct rowsum sum;
};

/* Begins anew at a BEGIN, counts rows that can be read. */
static void repair_count(struct repair_part *part, const struct frame_record *record)
{
    static struct stream_rows rows;
    struct stream_order order;
    if (record->header.type == STREAM_BEGIN) {
        memset(part, 0, sizeof *part);
        if (stream_order_begin(&order, record, true, "x", 0) == 0) {
            part->begun = true;
            part->layout = order.layout;
            stream_order_free(&order);
        }
    }
    if (record->header.type != STREAM_DATA || !part->begun)
        return;
    part->records++;
    part->rows += record->header.rows;
    if (stream_rows_open(&rows, &part->layout, record, NULL, 0) == 0)
        rowsum_merge(&part->sum, &rows.sum);
}

/* The payload of an END with its counts and its sum put right, where it is JSON. */
static void repair_end(struct frame_buffer *record, const struct repair_part *part)
{
    const char *payload = (const char *)record->bytes + STREAM_HEADER_BYTES;
    json_t *json = json_parse(payload, record->size - STREAM_HEADER_BYTES, NULL);
    char low[17], high[17];
    if (!json_is_object(json)) {
        json_decref(json);
        return;
    }
    snprintf(low, sizeof low, "%016llx", (unsigned long long)part->sum.low);
    snprintf(high, sizeof high, "%016llx", (unsigned long long)part->sum.high);
    json_t *counted = json_pack("{s:I, s:I, s:s, s:s}", "records", (json_int_t)part->records,
                                "rows", (json_int_t)part->rows, "sum_low", low, "sum_high", high);
    require(counted != NULL && json_object_update(json, counted) == 0);
    char *text = json_text(json);
    require(text != NULL);
    record->size = STREAM_HEADER_BYTES;
    repair_append(record, (const uint8_t *)text, strlen(text));
    free(text);
    json_decref(counted);
    json_decref(json);
}

/* Puts one record right: 80 bytes of header with `payload` bytes behind it. */
static struct record_header repair_record(uint8_t *record, size_t payload,
                                          uint8_t run[RECORD_RUN_BYTES])
{
    struct record_header header = {
        .type = le_get16(record + 6),
        .flags = le_get32(record + 8) & 1u,
        .sequence = le_get64(record + 32),
        .first_row = le_get64(record + 40),
        .rows = le_get32(record + 48),
        .payload_bytes = (uint32_t)payload,
        .payload_hash = record_hash(record + STREAM_HEADER_BYTES, payload),
    };
    if (header.type == STREAM_BEGIN)
        record_run_id(run, record + STREAM_HEADER_BYTES, payload);
    memcpy(header.run, run, RECORD_RUN_BYTES);
    record_header_put(record, &header);
    return header;
}

/* Each 25 bytes: a number of an entry, and what its fields are changed by. */
static void repair_bend(struct index *index, const uint8_t *bytes, size_t size)
{
    for (; size >= 25 && index->count > 0; bytes += 25, size -= 25) {
        struct index_entry *entry = &index->entries[bytes[0] % index->count];
        entry->offset ^= le_get64(bytes + 1);
        entry->first_row ^= le_get64(bytes + 9);
        entry->rows ^= le_get32(bytes + 17);
        entry->stored_bytes ^= le_get32(bytes + 21);
    }
}

/* The stream that an input stands for, into `out`. */
static void repair_input(struct frame_buffer *out, const uint8_t *bytes, size_t size)
{
    uint8_t run[RECORD_RUN_BYTES] = {0};
    struct repair_part part = {0};
    struct index index = {0};
    struct frame_buffer frame = {0}, record = {0};
    out->size = 0;
    uint8_t mode = size > 0 ? bytes[0] % REPAIR_MODES : 0;
    bool bare = mode == 1 || mode == 3;
    size_t at = size > 0;
    if (mode == 0) {
        repair_append(out, bytes + at, size - at);
        return;
    }
    while (size - at >= STREAM_HEADER_BYTES) {
        size_t left = size - at - STREAM_HEADER_BYTES, payload = le_get32(bytes + at + 52);
        payload = payload < left ? payload : left;
        record.size = 0;
        repair_append(&record, bytes + at, STREAM_HEADER_BYTES + payload);
        at += record.size;
        if (mode > 2 && le_get16(record.bytes + 6) == STREAM_END)
            repair_end(&record, &part);
        struct frame_record whole = {.payload = record.bytes + STREAM_HEADER_BYTES};
        whole.header = repair_record(record.bytes, record.size - STREAM_HEADER_BYTES, run);
        repair_count(&part, &whole);
        if (bare) {
            repair_append(out, record.bytes, record.size);
            continue;
        }
        require(frame_encode(&frame, STREAM_CODEC_LZ4, record.bytes, record.size) == 0);
        struct index_entry entry = {out->size, le_get64(record.bytes + 40),
                                    le_get32(record.bytes + 48), (uint32_t)frame.size};
        require(index_add(&index, &entry) == 0);
        repair_append(out, frame.bytes, frame.size);
    }
    if (mode == 5)
        repair_bend(&index, bytes + at, size - at);
    if (!bare) {
        index.part_bytes = out->size;
        require(index_encode(&frame, &index) == 0);
        repair_append(out, frame.bytes, frame.size);
    }
    index_free(&index);
    frame_buffer_free(&frame);
    frame_buffer_free(&record);
}

#endif
