/* stream_rows.c - from a verified payload to rows that a stage may use. */
#include "stream_rows.h"

#include <inttypes.h>
#include <string.h>

#include "le.h"
#include "log.h"

static int rows_bad(const struct frame_record *record, const char *name, int64_t offset,
                    uint64_t row, const char *what)
{
    if (name == NULL)
        return ERR_DATA;
    return log_fail(ERR_DATA, "'%s': record at offset %" PRId64 ", row %" PRIu64 ": %s", name,
                    offset, record->header.first_row + row, what);
}

/* Whether n little-endian values of 2 or 4 bytes are all finite: no exponent of ones. Written as a
 * sum without a branch, so that it vectorises. */
static bool rows_finite(const uint8_t *bytes, size_t n, size_t size)
{
    uint32_t bad = 0;
    if (size == 2) {
        for (size_t i = 0; i < n; i++) {
            uint16_t value;
            memcpy(&value, bytes + 2 * i, 2);
            bad |= (uint32_t)((value & 0x7f80u) == 0x7f80u);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            uint32_t value;
            memcpy(&value, bytes + 4 * i, 4);
            bad |= (uint32_t)((value & 0x7f800000u) == 0x7f800000u);
        }
    }
    return bad == 0;
}

static int rows_open_sequences(struct stream_rows *rows, const struct frame_record *record,
                               const char *name, int64_t offset)
{
    const uint8_t *at = record->payload;
    size_t left = record->header.payload_bytes;
    for (uint32_t i = 0; i < record->header.rows; i++) {
        if (left < 12 || le_get32(at + 8) > (left - 12) / 4)
            return rows_bad(record, name, offset, i, "a sequence runs over the end of its record");
        size_t bytes = 12 + 4 * (size_t)le_get32(at + 8);
        rowsum_add(&rows->sum, at, bytes);
        at += bytes;
        left -= bytes;
    }
    if (left != 0)
        return rows_bad(record, name, offset, 0, "bytes are left over behind the last sequence");
    rows->record.data = record->payload;
    rows->record.data_bytes = record->header.payload_bytes;
    return 0;
}

static int rows_open_activations(struct stream_rows *rows, const struct stream_layout *layout,
                                 const struct frame_record *record, const char *name,
                                 int64_t offset)
{
    size_t n = record->header.rows, size = dtype_size(layout->dtype);
    size_t row_bytes = layout->row_bytes, bytes = n * row_bytes;
    if (record->header.payload_bytes != n * STREAM_TAG_BYTES + bytes)
        return rows_bad(record, name, offset, 0, "the payload's size does not fit its rows");
    const uint8_t *tags = record->payload, *data = record->payload + n * STREAM_TAG_BYTES;
    if ((record->header.flags & STREAM_PLANES) != 0) {
        if (layout->dtype == DTYPE_I8)
            return rows_bad(record, name, offset, 0, "int8 rows cannot be split into planes");
        int status = frame_buffer_reserve(&rows->joined, bytes);
        if (status != 0)
            return status;
        record_planes_join(rows->joined.bytes, data, bytes / size, size);
        data = rows->joined.bytes;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t *row = data + i * row_bytes;
        bool finite = layout->quanta > 0 ? rows_finite(row, layout->quanta, 4)
                                         : rows_finite(row, row_bytes / size, size);
        if (!finite)
            return rows_bad(record, name, offset, i, "a value is not finite");
        rowsum_add_tagged(&rows->sum, tags + i * STREAM_TAG_BYTES, row, row_bytes);
    }
    rows->record.tags = tags;
    rows->record.data = data;
    rows->record.data_bytes = bytes;
    return 0;
}

static int rows_open_hashed(struct stream_rows *rows, const struct stream_layout *layout,
                            const struct frame_record *record, const char *name, int64_t offset)
{
    size_t n = record->header.rows;
    if (record->header.payload_bytes != n * (STREAM_TAG_BYTES + layout->row_bytes))
        return rows_bad(record, name, offset, 0, "the payload's size does not fit its rows");
    if (record->header.flags != 0)
        return rows_bad(record, name, offset, 0, "hashes of rows cannot be split into planes");
    rows->record.tags = record->payload;
    rows->record.data = record->payload + n * STREAM_TAG_BYTES;
    rows->record.data_bytes = n * layout->row_bytes;
    for (size_t i = 0; i < n; i++) {
        struct stream_hashed row = stream_hashed_get(rows->record.data + i * layout->row_bytes);
        if (row.place >= layout->places)
            return rows_bad(record, name, offset, i, "its place lies beyond the window");
        rowsum_merge(&rows->sum, &row.hash);
    }
    return 0;
}

int stream_rows_open(struct stream_rows *rows, const struct stream_layout *layout,
                     const struct frame_record *record, const char *name, int64_t offset)
{
    rows->sum = (struct rowsum){0};
    rows->record =
        (struct stream_record){.first_row = record->header.first_row, .rows = record->header.rows};
    if (record->header.rows == 0)
        return rows_bad(record, name, offset, 0, "a DATA record without rows");
    if (layout->tokens) {
        if (record->header.flags != 0)
            return rows_bad(record, name, offset, 0, "tokens cannot be split into planes");
        return rows_open_sequences(rows, record, name, offset);
    }
    if (layout->places > 0)
        return rows_open_hashed(rows, layout, record, name, offset);
    return rows_open_activations(rows, layout, record, name, offset);
}

void stream_rows_free(struct stream_rows *rows)
{
    frame_buffer_free(&rows->joined);
}

int stream_sequence_next(const struct stream_record *record, size_t *offset,
                         struct stream_sequence *sequence)
{
    if (*offset == record->data_bytes)
        return 0;
    const uint8_t *at = record->data + *offset;
    *sequence = (struct stream_sequence){le_get64(at), le_get32(at + 8), at + 12};
    *offset += 12 + 4 * (size_t)sequence->length;
    return 1;
}
