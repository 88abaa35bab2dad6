/* stream_write.c - writing a stream: rows into records, records into frames, frames in order.
 *
 * The caller's thread fills a record and writes finished frames; with a codec, worker threads
 * compress in between. Records go round a ring of slots: the caller fills slot n, hands it over,
 * and before it fills slot n + SLOTS it waits for slot n's frame and writes it. So order is that of
 * the ring, memory is SLOTS records, and all writing (and every signal) happens in one thread.
 *
 * Records are cut when they hold record_rows rows, which depends on the row's size alone; a token
 * record also when its bytes reach the target. Nothing else cuts, except stream_writer_flush().
 */
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "index.h"
#include "json.h"
#include "log.h"
#include "mem.h"
#include "sig.h"
#include "stream.h"

#define WRITER_TARGET_BYTES (1u << 20)
#define WRITER_MAX_ROWS 65536u
#define WRITER_MAX_SEQUENCES 64u

enum writer_slot_state { SLOT_FREE, SLOT_FULL, SLOT_TAKEN, SLOT_DONE };

struct writer_slot {
    struct frame_buffer record; /* header and payload */
    struct frame_buffer frame;
    struct frame_buffer planes;
    struct index_entry entry;
    uint16_t type;
    enum writer_slot_state state;
    int status;
};

enum writer_phase { WRITER_OPEN, WRITER_BEGUN, WRITER_ENDED };

struct stream_writer {
    struct io_file file;
    enum stream_codec codec;
    enum writer_phase phase;

    /* of the stream */
    uint8_t run[RECORD_RUN_BYTES];
    bool tokens, hashed; /* hashed: rows travel by a data plane */
    size_t row_bytes;    /* in DATA */
    size_t plane_size;   /* 2 or 4: rows are split into planes; 0: not */
    size_t quanta;       /* bytes of a row in front that are not split */
    size_t record_rows;
    uint64_t sequence, records, rows, first_row;
    struct rowsum sum;
    struct index index;
    int64_t part_start; /* where BEGIN lies in the output */

    /* the record being filled: slots[next % slot_count] */
    struct writer_slot *slots;
    size_t slot_count;
    uint64_t next, written;
    uint32_t filled; /* rows in it */

    /* workers; `mutex` guards the slots' states */
    pthread_t *threads;
    size_t thread_count;
    pthread_mutex_t mutex;
    pthread_cond_t full, done;
    bool stop;
};

/* ---- workers */

static int writer_compress(const struct stream_writer *writer, struct writer_slot *slot)
{
    struct frame_buffer *record = &slot->record;
    if (slot->type == STREAM_DATA && !writer->tokens && writer->plane_size != 0) {
        size_t rows = slot->entry.rows;
        uint8_t *data = record->bytes + STREAM_HEADER_BYTES + rows * STREAM_TAG_BYTES;
        size_t bytes = rows * writer->row_bytes;
        int status = frame_buffer_reserve(&slot->planes, bytes);
        if (status != 0)
            return status;
        record_planes_split(slot->planes.bytes, data, bytes / writer->plane_size,
                            writer->plane_size);
        memcpy(data, slot->planes.bytes, bytes);
        struct record_header header;
        const char *wrong = record_header_get(&header, record->bytes);
        assert(wrong == NULL);
        (void)wrong;
        header.flags |= STREAM_PLANES;
        header.payload_hash =
            record_hash(record->bytes + STREAM_HEADER_BYTES, header.payload_bytes);
        record_header_put(record->bytes, &header);
    }
    return frame_encode(&slot->frame, writer->codec, record->bytes, record->size);
}

static struct writer_slot *writer_find_full(struct stream_writer *writer)
{
    for (uint64_t i = writer->written; i < writer->next; i++) {
        struct writer_slot *slot = &writer->slots[i % writer->slot_count];
        if (slot->state == SLOT_FULL)
            return slot;
    }
    return NULL;
}

static void *writer_work(void *argument)
{
    struct stream_writer *writer = argument;
    pthread_mutex_lock(&writer->mutex);
    while (!writer->stop) {
        struct writer_slot *slot = writer_find_full(writer);
        if (slot == NULL) {
            pthread_cond_wait(&writer->full, &writer->mutex);
            continue;
        }
        slot->state = SLOT_TAKEN;
        pthread_mutex_unlock(&writer->mutex);
        int status = writer_compress(writer, slot);
        pthread_mutex_lock(&writer->mutex);
        slot->status = status;
        slot->state = SLOT_DONE;
        pthread_cond_signal(&writer->done);
    }
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

static int writer_start_threads(struct stream_writer *writer, unsigned threads)
{
    writer->threads = mem_alloc(threads, sizeof *writer->threads);
    if (writer->threads == NULL)
        return mem_fail("threads", threads, sizeof *writer->threads);
    for (unsigned i = 0; i < threads; i++) {
        int status = sig_thread_create(&writer->threads[i], writer_work, writer);
        if (status != 0)
            return status;
        writer->thread_count++;
    }
    return 0;
}

/* ---- opening and closing */

int stream_writer_open(struct stream_writer **result, const char *path, enum stream_codec codec,
                       unsigned threads)
{
    *result = NULL;
    struct stream_writer *writer = mem_alloc_zero(1, sizeof *writer);
    if (writer == NULL)
        return mem_fail("a stream", 1, sizeof *writer);
    writer->file = (struct io_file)IO_FILE_CLOSED;
    pthread_mutex_init(&writer->mutex, NULL);
    pthread_cond_init(&writer->full, NULL);
    pthread_cond_init(&writer->done, NULL);
    int status = io_open_output(&writer->file, path, true);
    if (status != 0)
        goto fail;
    writer->codec = codec != STREAM_CODEC_AUTO ? codec
                    : writer->file.regular     ? STREAM_CODEC_LZ4
                                               : STREAM_CODEC_NONE;
    bool compressed = writer->codec != STREAM_CODEC_NONE;
    writer->slot_count = compressed ? threads + 1 : 1;
    writer->slots = mem_alloc_zero(writer->slot_count, sizeof *writer->slots);
    if (writer->slots == NULL) {
        status = mem_fail("records", writer->slot_count, sizeof *writer->slots);
        goto fail;
    }
    if (compressed && (status = writer_start_threads(writer, threads)) != 0)
        goto fail;
    *result = writer;
    return 0;
fail:
    stream_writer_free(writer);
    return status;
}

static void writer_stop_threads(struct stream_writer *writer)
{
    pthread_mutex_lock(&writer->mutex);
    writer->stop = true;
    pthread_cond_broadcast(&writer->full);
    pthread_mutex_unlock(&writer->mutex);
    for (size_t i = 0; i < writer->thread_count; i++)
        pthread_join(writer->threads[i], NULL);
    writer->thread_count = 0;
}

void stream_writer_free(struct stream_writer *writer)
{
    if (writer == NULL)
        return;
    writer_stop_threads(writer);
    for (size_t i = 0; i < writer->slot_count && writer->slots != NULL; i++) {
        frame_buffer_free(&writer->slots[i].record);
        frame_buffer_free(&writer->slots[i].frame);
        frame_buffer_free(&writer->slots[i].planes);
    }
    free(writer->slots);
    free(writer->threads);
    index_free(&writer->index);
    int ignored = io_close(&writer->file); /* stream_writer_end() has checked its own close */
    (void)ignored;
    pthread_cond_destroy(&writer->full);
    pthread_cond_destroy(&writer->done);
    pthread_mutex_destroy(&writer->mutex);
    free(writer);
}

/* ---- records in order */

/* Waits for the oldest slot and writes it. */
static int writer_write_oldest(struct stream_writer *writer)
{
    struct writer_slot *slot = &writer->slots[writer->written % writer->slot_count];
    bool compressed = writer->codec != STREAM_CODEC_NONE;
    const struct frame_buffer *bytes = compressed ? &slot->frame : &slot->record;
    pthread_mutex_lock(&writer->mutex);
    while (compressed && slot->state != SLOT_DONE)
        pthread_cond_wait(&writer->done, &writer->mutex);
    slot->state = SLOT_FREE;
    writer->written++;
    pthread_mutex_unlock(&writer->mutex);
    if (slot->status != 0)
        return slot->status;
    slot->entry.offset = (uint64_t)(writer->file.offset - writer->part_start);
    slot->entry.stored_bytes = (uint32_t)bytes->size;
    if (compressed) {
        int status = index_add(&writer->index, &slot->entry);
        if (status != 0)
            return status;
    }
    return io_write(&writer->file, bytes->bytes, bytes->size);
}

/* Hands the record over that the current slot holds: its payload is in place, header not. */
static int writer_submit(struct stream_writer *writer, uint16_t type, uint64_t first_row,
                         uint32_t rows, size_t payload)
{
    struct writer_slot *slot = &writer->slots[writer->next % writer->slot_count];
    struct record_header header = {.type = type,
                                   .sequence = writer->sequence++,
                                   .first_row = first_row,
                                   .rows = rows,
                                   .payload_bytes = (uint32_t)payload};
    const uint8_t *bytes = slot->record.bytes + STREAM_HEADER_BYTES;
    header.payload_hash = record_hash(bytes, payload);
    if (type == STREAM_BEGIN)
        record_run_id(writer->run, bytes, payload);
    memcpy(header.run, writer->run, RECORD_RUN_BYTES);
    record_header_put(slot->record.bytes, &header);
    slot->record.size = STREAM_HEADER_BYTES + payload;
    slot->type = type;
    slot->entry = (struct index_entry){.first_row = first_row, .rows = rows};

    pthread_mutex_lock(&writer->mutex);
    slot->state = SLOT_FULL;
    writer->next++;
    pthread_cond_signal(&writer->full);
    pthread_mutex_unlock(&writer->mutex);
    if (writer->next - writer->written < writer->slot_count)
        return 0;
    return writer_write_oldest(writer);
}

static int writer_drain(struct stream_writer *writer)
{
    while (writer->written < writer->next) {
        int status = writer_write_oldest(writer);
        if (status != 0)
            return status;
    }
    return 0;
}

static int writer_submit_json(struct stream_writer *writer, uint16_t type, const json_t *json)
{
    char *text = json == NULL ? NULL : json_text(json);
    if (text == NULL)
        return mem_fail(record_type_name(type), 1, 1);
    size_t size = strlen(text);
    struct writer_slot *slot = &writer->slots[writer->next % writer->slot_count];
    int status = size > STREAM_MAX_PAYLOAD
                     ? log_fail(ERR_USAGE, "%s is larger than 64 MiB", record_type_name(type))
                     : frame_buffer_reserve(&slot->record, STREAM_HEADER_BYTES + size);
    if (status == 0) {
        memcpy(slot->record.bytes + STREAM_HEADER_BYTES, text, size);
        uint64_t row = type == STREAM_BEGIN ? writer->first_row : writer->first_row + writer->rows;
        status = writer_submit(writer, type, row, 0, size);
    }
    free(text);
    return status;
}

void stream_writer_watch(struct stream_writer *writer, int fd)
{
    writer->file.cancel_fd = fd;
}

int stream_writer_begin(struct stream_writer *writer, const struct begin *begin)
{
    assert(writer->phase != WRITER_BEGUN);
    writer->part_start = writer->file.offset;
    writer->sequence = writer->records = writer->rows = 0;
    writer->sum = (struct rowsum){0};
    writer->index.count = 0;
    writer->tokens = begin->kind == BEGIN_TOKENS;
    writer->hashed = begin->plane != BEGIN_INLINE;
    writer->row_bytes = begin_data_bytes(begin);
    writer->first_row = begin->first_row;
    bool split = writer->codec != STREAM_CODEC_NONE && begin->dtype != DTYPE_I8 && !writer->hashed;
    writer->plane_size = split && !writer->tokens ? dtype_size(begin->dtype) : 0;
    size_t rows = WRITER_TARGET_BYTES / (writer->row_bytes + STREAM_TAG_BYTES);
    writer->record_rows = writer->tokens           ? WRITER_MAX_SEQUENCES
                          : rows < 1               ? 1
                          : rows > WRITER_MAX_ROWS ? WRITER_MAX_ROWS
                                                   : rows;
    json_t *json = begin_to_json(begin);
    int status = writer_submit_json(writer, STREAM_BEGIN, json);
    json_decref(json);
    if (status == 0)
        status = writer_drain(writer); /* a live reader sees at once what is to come */
    if (status == 0)
        writer->phase = WRITER_BEGUN;
    return status;
}

/* Closes the tags' gap of a record that is not full, and hands it over. */
static int writer_cut(struct stream_writer *writer)
{
    struct writer_slot *slot = &writer->slots[writer->next % writer->slot_count];
    uint32_t rows = writer->filled;
    size_t payload = slot->record.size;
    if (!writer->tokens) {
        uint8_t *tags = slot->record.bytes + STREAM_HEADER_BYTES;
        size_t used = rows * (size_t)STREAM_TAG_BYTES;
        if (rows < writer->record_rows)
            memmove(tags + used, tags + writer->record_rows * STREAM_TAG_BYTES,
                    rows * writer->row_bytes);
        payload = used + rows * writer->row_bytes;
    }
    writer->filled = 0;
    writer->records++;
    return writer_submit(writer, STREAM_DATA, writer->first_row + writer->rows - rows, rows,
                         payload);
}

int stream_writer_flush(struct stream_writer *writer)
{
    int status = writer->filled > 0 ? writer_cut(writer) : 0;
    return status != 0 ? status : writer_drain(writer);
}

static void writer_sum(struct stream_writer *writer, const uint8_t *tags, const uint8_t *data,
                       size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *row = data + i * writer->row_bytes;
        struct rowsum hash = {0};
        if (writer->hashed)
            hash = stream_hashed_get(row).hash;
        else
            rowsum_add_tagged(&hash, tags + i * STREAM_TAG_BYTES, row, writer->row_bytes);
        rowsum_merge(&writer->sum, &hash);
    }
}

int stream_writer_rows(struct stream_writer *writer, const uint8_t *tags, const uint8_t *data,
                       size_t rows)
{
    assert(writer->phase == WRITER_BEGUN && !writer->tokens);
    size_t room_bytes = writer->record_rows * (STREAM_TAG_BYTES + writer->row_bytes);
    while (rows > 0) {
        struct writer_slot *slot = &writer->slots[writer->next % writer->slot_count];
        int status = frame_buffer_reserve(&slot->record, STREAM_HEADER_BYTES + room_bytes);
        if (status != 0)
            return status;
        size_t room = writer->record_rows - writer->filled, n = rows < room ? rows : room;
        uint8_t *to = slot->record.bytes + STREAM_HEADER_BYTES;
        memcpy(to + writer->filled * (size_t)STREAM_TAG_BYTES, tags, n * STREAM_TAG_BYTES);
        memcpy(to + writer->record_rows * STREAM_TAG_BYTES + writer->filled * writer->row_bytes,
               data, n * writer->row_bytes);
        writer_sum(writer, tags, data, n);
        writer->filled += (uint32_t)n;
        writer->rows += n;
        tags += n * STREAM_TAG_BYTES;
        data += n * writer->row_bytes;
        rows -= n;
        if (writer->filled == writer->record_rows && (status = writer_cut(writer)) != 0)
            return status;
    }
    return 0;
}

int stream_writer_sequence(struct stream_writer *writer, uint64_t index, const uint32_t *ids,
                           uint32_t length)
{
    assert(writer->phase == WRITER_BEGUN && writer->tokens);
    size_t bytes = 12 + 4 * (size_t)length;
    if (bytes > STREAM_MAX_PAYLOAD)
        return log_fail(ERR_USAGE,
                        "sequence %llu has %lu tokens, more than a record can take; cut "
                        "it with --seq-len",
                        (unsigned long long)index, (unsigned long)length);
    struct writer_slot *slot = &writer->slots[writer->next % writer->slot_count];
    int status;
    if (writer->filled > 0 && slot->record.size + bytes > WRITER_TARGET_BYTES) {
        if ((status = writer_cut(writer)) != 0)
            return status;
        slot = &writer->slots[writer->next % writer->slot_count];
    }
    if (writer->filled == 0)
        slot->record.size = 0; /* counts the payload until the record is cut */
    status = frame_buffer_reserve(&slot->record, STREAM_HEADER_BYTES + slot->record.size + bytes);
    if (status != 0)
        return status;
    uint8_t *to = slot->record.bytes + STREAM_HEADER_BYTES + slot->record.size;
    le_put64(to, index);
    le_put32(to + 8, length);
    for (uint32_t i = 0; i < length; i++)
        le_put32(to + 12 + 4 * (size_t)i, ids[i]);
    rowsum_add(&writer->sum, to, bytes);
    slot->record.size += bytes;
    writer->filled++;
    writer->rows++;
    return writer->filled == writer->record_rows ? writer_cut(writer) : 0;
}

static json_t *writer_end_json(const struct stream_writer *writer, const json_t *skipped)
{
    char low[17], high[17];
    snprintf(low, sizeof low, "%016llx", (unsigned long long)writer->sum.low);
    snprintf(high, sizeof high, "%016llx", (unsigned long long)writer->sum.high);
    json_t *copy = skipped == NULL ? json_object() : json_deep_copy(skipped);
    return json_pack("{s:I, s:I, s:o, s:s, s:s}", "records", (json_int_t)writer->records, "rows",
                     (json_int_t)writer->rows, "skipped", copy, "sum_low", low, "sum_high", high);
}

int stream_writer_end_part(struct stream_writer *writer, const json_t *skipped)
{
    assert(writer->phase == WRITER_BEGUN);
    int status = stream_writer_flush(writer);
    if (status != 0)
        return status;
    json_t *json = writer_end_json(writer, skipped);
    status = writer_submit_json(writer, STREAM_END, json);
    json_decref(json);
    if (status == 0)
        status = writer_drain(writer);
    if (status != 0)
        return status;
    writer->phase = WRITER_ENDED;
    if (writer->codec != STREAM_CODEC_NONE) {
        struct frame_buffer *out = &writer->slots[0].frame;
        writer->index.part_bytes = (uint64_t)(writer->file.offset - writer->part_start);
        if ((status = index_encode(out, &writer->index)) != 0 ||
            (status = io_write(&writer->file, out->bytes, out->size)) != 0)
            return status;
    }
    return 0;
}

int stream_writer_close(struct stream_writer *writer)
{
    return io_close(&writer->file);
}

int stream_writer_end(struct stream_writer *writer, const json_t *skipped)
{
    int status = stream_writer_end_part(writer, skipped);
    return status != 0 ? status : stream_writer_close(writer);
}

void stream_writer_abort(struct stream_writer *writer, int code, const char *reason)
{
    char meaning[128];
    if (writer == NULL || writer->phase != WRITER_BEGUN)
        return;
    writer->phase = WRITER_ENDED;
    if (reason == NULL && code == ERR_INTERRUPTED)
        snprintf(meaning, sizeof meaning, "%s was stopped by signal %d", log_program(),
                 sig_pending());
    else if (reason == NULL)
        snprintf(meaning, sizeof meaning, "%s: %s", log_program(), err_meaning(code));
    reason = reason != NULL ? reason : meaning;
    json_t *json = json_pack("{s:i, s:s}", "status", err_exit_status(code), "reason", reason);
    int status = stream_writer_flush(writer);
    if (status == 0)
        status = writer_submit_json(writer, STREAM_ABORT, json);
    if (status == 0)
        status = writer_drain(writer);
    if (status != 0)
        log_verbose("the reason for stopping could not be written to '%s'", writer->file.name);
    json_decref(json);
}

uint64_t stream_writer_row_count(const struct stream_writer *writer)
{
    return writer->rows;
}

const struct rowsum *stream_writer_sum(const struct stream_writer *writer)
{
    return &writer->sum;
}

const struct io_file *stream_writer_file(const struct stream_writer *writer)
{
    return &writer->file;
}
