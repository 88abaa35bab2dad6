/* repair.h - lets a fuzzer past the checksums: bytes as a stream whose hashes and lengths agree.
 *
 * The first byte of an input chooses: 0 the rest as it is; 1 bare records made from it, every
 * header with its magic, version, lengths, run id and hashes put right, all else as the fuzzer has
 * it; 2 the same, each record in an LZ4 frame of its own, and an index behind them.
 */
#ifndef TESTS_FUZZ_REPAIR_H
#define TESTS_FUZZ_REPAIR_H

#include <stdlib.h>
#include <string.h>

#include "common/frame.h"
#include "common/index.h"
#include "common/le.h"
#include "common/record.h"

#define REPAIR_MODES 3

static void require(int condition)
{
    if (!condition)
        abort();
}

static void repair_append(struct frame_buffer *out, const uint8_t *bytes, size_t size)
{
    require(frame_buffer_reserve(out, out->size + size) == 0);
    if (size > 0)
        memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

/* Puts one record right: 80 bytes of header with `payload` bytes behind it. */
static void repair_record(uint8_t *record, size_t payload, uint8_t run[RECORD_RUN_BYTES])
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
}

/* The stream that an input stands for, into `out`. */
static void repair_input(struct frame_buffer *out, const uint8_t *bytes, size_t size)
{
    uint8_t run[RECORD_RUN_BYTES] = {0};
    struct index index = {0};
    struct frame_buffer frame = {0}, record = {0};
    out->size = 0;
    uint8_t mode = size > 0 ? bytes[0] % REPAIR_MODES : 0;
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
        repair_record(record.bytes, payload, run);
        at += record.size;
        if (mode == 1) {
            repair_append(out, record.bytes, record.size);
            continue;
        }
        require(frame_encode(&frame, STREAM_CODEC_LZ4, record.bytes, record.size) == 0);
        struct index_entry entry = {out->size, le_get64(record.bytes + 40),
                                    le_get32(record.bytes + 48), (uint32_t)frame.size};
        require(index_add(&index, &entry) == 0);
        repair_append(out, frame.bytes, frame.size);
    }
    if (mode == 2) {
        index.part_bytes = out->size;
        require(index_encode(&frame, &index) == 0);
        repair_append(out, frame.bytes, frame.size);
    }
    index_free(&index);
    frame_buffer_free(&frame);
    frame_buffer_free(&record);
}

#endif
