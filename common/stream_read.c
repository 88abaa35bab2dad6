/* stream_read.c - reading a stream: frames in order, decoded by several threads, checked in order.
 *
 * Worker threads take turns at the input: under `scan` one finds the next frame and copies its
 * bytes into the next slot of a ring, then it leaves the input to another worker and decodes,
 * verifies and sums what it has. The caller takes the slots in the order of the ring and checks
 * what depends on order: run id, sequence and row numbers, BEGIN before rows, END after them, END's
 * count and sum. So a slow codec is spread over threads and nothing is handed out unchecked.
 *
 * Two mutexes, so that a worker that waits for input holds up neither the caller nor the workers
 * that decode: `scan` guards the input, `mutex` the slots' states. Order of locking: scan, mutex.
 */
#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"
#include "json.h"
#include "log.h"
#include "mem.h"
#include "sig.h"
#include "stream.h"
#include "stream_map.h"
#include "stream_order.h"
#include "stream_rows.h"

struct reader_slot {
    struct frame frame;
    struct frame_record record;
    struct stream_rows rows; /* the payload as rows, and their sum */
    const struct io_file *file;
    int status;  /* 1: a frame; 0: the end of all input; or a negative code */
    bool unsaid; /* the frame is bad, and that has not been logged */
    bool ready;
};

struct stream_reader {
    struct io_file *files;
    size_t file_count;
    bool regular;
    struct stream_order order;
    struct stream_map map; /* regular files alone */
    bool finished;
    uint64_t skip_to; /* a seek without index passes over records below this row */

    struct reader_slot *slots;
    size_t slot_count;
    uint64_t claimed, consumed; /* guarded by mutex */
    bool handed_out;            /* slot `consumed` is the caller's at the moment */
    _Atomic size_t current;     /* file, written under scan */
    bool scan_over;             /* no more frames to claim, guarded by scan */

    pthread_t *threads;
    size_t thread_count, thread_target;
    pthread_mutex_t scan, mutex;
    pthread_cond_t freed, ready;
    bool stop;
    int cancel[2];
};

/* ---- workers */

static int reader_no_input(const struct io_file *file)
{
    return log_fail(ERR_TRUNCATED, "'%s' is empty: the stage before ended without a stream",
                    file->name);
}

/* Reads the next frame of all files into the slot. */
static void reader_scan(struct stream_reader *reader, struct reader_slot *slot)
{
    for (;;) {
        slot->file = &reader->files[reader->current];
        slot->status = frame_read(&slot->frame, &reader->files[reader->current]);
        if (slot->status == 0 && slot->file->offset == 0)
            slot->status = reader_no_input(slot->file);
        if (slot->status != 0 || reader->current + 1 == reader->file_count)
            break;
        reader->current++;
    }
    if (slot->status <= 0)
        reader->scan_over = true;
}

/* Decodes and checks what a slot holds; what is wrong with it is logged where `name` is given. */
static int reader_decode(const struct stream_reader *reader, struct reader_slot *slot,
                         const char *name)
{
    if (slot->frame.kind == FRAME_SKIPPABLE)
        return 0;
    int status = frame_decode(&slot->record, &slot->frame, name);
    if (status == 0 && slot->record.header.type == STREAM_DATA)
        status = stream_rows_open(&slot->rows, &reader->order.layout, &slot->record, name,
                                  slot->frame.offset);
    return status;
}

/* What a worker finds wrong is not said yet: a record before it may be the one to be told of, or a
 * BEGIN after which this one's layout means nothing. */
static void reader_decode_ahead(const struct stream_reader *reader, struct reader_slot *slot)
{
    int status = reader_decode(reader, slot, NULL);
    slot->unsaid = status == ERR_DATA;
    if (status != 0)
        slot->status = status;
}

static void *reader_work(void *argument)
{
    struct stream_reader *reader = argument;
    for (;;) {
        pthread_mutex_lock(&reader->scan);
        pthread_mutex_lock(&reader->mutex);
        while (!reader->stop && reader->claimed - reader->consumed == reader->slot_count)
            pthread_cond_wait(&reader->freed, &reader->mutex);
        bool over = reader->stop || reader->scan_over;
        struct reader_slot *slot = &reader->slots[reader->claimed % reader->slot_count];
        if (!over) {
            slot->ready = false;
            reader->claimed++;
        }
        pthread_mutex_unlock(&reader->mutex);
        if (!over)
            reader_scan(reader, slot);
        pthread_mutex_unlock(&reader->scan);
        if (over)
            return NULL;
        slot->unsaid = false;
        if (slot->status == 1)
            reader_decode_ahead(reader, slot);
        pthread_mutex_lock(&reader->mutex);
        slot->ready = true;
        pthread_cond_broadcast(&reader->ready);
        pthread_mutex_unlock(&reader->mutex);
    }
}

static int reader_start(struct stream_reader *reader)
{
    reader->stop = false;
    reader->scan_over = false;
    reader->claimed = reader->consumed = 0;
    reader->handed_out = false;
    while (reader->thread_count < reader->thread_target) {
        int status = sig_thread_create(&reader->threads[reader->thread_count], reader_work, reader);
        if (status != 0)
            return status;
        reader->thread_count++;
    }
    return 0;
}

/* Ends the workers, also one that waits for input. */
static void reader_stop(struct stream_reader *reader)
{
    pthread_mutex_lock(&reader->mutex);
    reader->stop = true;
    pthread_cond_broadcast(&reader->freed);
    pthread_mutex_unlock(&reader->mutex);
    /* The pipe is empty, and one byte fits; what was not written is not waited for. */
    bool woken = reader->thread_count > 0 && write(reader->cancel[1], "", 1) == 1;
    while (reader->thread_count > 0)
        pthread_join(reader->threads[--reader->thread_count], NULL);
    char byte;
    if (woken && read(reader->cancel[0], &byte, 1) != 1)
        log_verbose("the reader's wake-up pipe is empty");
}

/* ---- opening */

static int reader_open_files(struct stream_reader *reader, char *const *paths, size_t count)
{
    static char *const standard_input[] = {(char *)"-"};
    if (count == 0) {
        paths = standard_input;
        count = 1;
    }
    reader->files = mem_alloc_zero(count, sizeof *reader->files);
    if (reader->files == NULL)
        return mem_fail("files", count, sizeof *reader->files);
    reader->regular = true;
    for (size_t i = 0; i < count; i++) {
        struct io_file *file = &reader->files[i];
        int status = io_open_input(file, paths[i]);
        if (status != 0)
            return status;
        file->cancel_fd = reader->cancel[0];
        reader->file_count++;
        if (isatty(file->fd))
            return log_fail(ERR_USAGE,
                            "'%s' is a terminal, and streams are binary; name files, or "
                            "let a pipe bring one",
                            file->name);
        /* Known before the first row; of a pipe only once it ends. */
        if (file->regular && io_size(file) == 0)
            return reader_no_input(file);
        reader->regular = reader->regular && reader->files[i].regular;
    }
    return 0;
}

/* Reads the first BEGIN in the caller's thread: what follows cannot be decoded without it. */
static int reader_first(struct stream_reader *reader, enum begin_kind kind)
{
    struct reader_slot *slot = &reader->slots[0];
    reader_scan(reader, slot);
    if (slot->status < 0)
        return slot->status;
    if (slot->frame.kind == FRAME_SKIPPABLE)
        return log_fail(ERR_DATA, "'%s' does not start with a record", slot->file->name);
    int status = frame_decode(&slot->record, &slot->frame, slot->file->name);
    if (status == 0)
        status = stream_order_begin(&reader->order, &slot->record, kind == BEGIN_ACTIVATIONS_VIA,
                                    slot->file->name, slot->frame.offset);
    if (kind == BEGIN_ACTIVATIONS_VIA)
        kind = BEGIN_ACTIVATIONS;
    if (status == 0 && kind != BEGIN_ANY && reader->order.begin.kind != kind)
        return log_fail(ERR_USAGE, "'%s' is a stream of %s, but %s are needed here",
                        slot->file->name, kind == BEGIN_TOKENS ? "activations" : "tokens",
                        kind == BEGIN_TOKENS ? "tokens" : "activations");
    return status;
}

static int reader_map(struct stream_reader *reader)
{
    int status = stream_map_build(&reader->map, reader->files, reader->file_count);
    struct begin *begin = &reader->order.begin;
    if (status != 0)
        return status;
    /* With several parts BEGIN spoke of the first alone, and with one it could not know what would
     * be left out. Any other difference is a fault, which shows when the rows are counted. */
    bool joined = stream_map_is_joined(&reader->map);
    uint64_t not_finite = stream_part_skipped(&reader->map.parts[0], "not_finite");
    if (!begin->has_rows || joined)
        begin->has_rows = stream_map_rows(&reader->map, &begin->rows);
    else if (not_finite <= begin->rows)
        begin->rows -= not_finite;
    if (joined && begin->has_seq_len) {
        status = stream_map_same_length(&reader->map, reader->files);
        begin->has_seq_len = status == 1;
    }
    return status < 0 ? status : 0;
}

int stream_reader_open(struct stream_reader **result, char *const *paths, size_t path_count,
                       enum begin_kind kind, unsigned threads)
{
    *result = NULL;
    struct stream_reader *reader = mem_alloc_zero(1, sizeof *reader);
    if (reader == NULL)
        return mem_fail("a stream", 1, sizeof *reader);
    reader->cancel[0] = reader->cancel[1] = -1;
    pthread_mutex_init(&reader->scan, NULL);
    pthread_mutex_init(&reader->mutex, NULL);
    pthread_cond_init(&reader->freed, NULL);
    pthread_cond_init(&reader->ready, NULL);
    reader->slot_count = threads + 2;
    reader->thread_target = threads;
    reader->slots = mem_alloc_zero(reader->slot_count, sizeof *reader->slots);
    reader->threads = mem_alloc_zero(threads, sizeof *reader->threads);
    int status = 0;
    if (reader->slots == NULL || reader->threads == NULL)
        status = mem_fail("records", reader->slot_count, sizeof *reader->slots);
    else if (pipe(reader->cancel) != 0)
        status = log_fail_errno("cannot make a pipe");
    else
        status = reader_open_files(reader, paths, path_count);
    if (status == 0)
        status = reader_first(reader, kind);
    if (status == 0 && reader->regular)
        status = reader_map(reader);
    if (status == 0)
        status = reader_start(reader);
    if (status != 0)
        stream_reader_free(reader);
    else
        *result = reader;
    return status;
}

void stream_reader_free(struct stream_reader *reader)
{
    if (reader == NULL)
        return;
    reader_stop(reader);
    for (size_t i = 0; i < reader->slot_count && reader->slots != NULL; i++) {
        frame_buffer_free(&reader->slots[i].frame.stored);
        frame_buffer_free(&reader->slots[i].record.content);
        stream_rows_free(&reader->slots[i].rows);
    }
    free(reader->slots);
    free(reader->threads);
    for (size_t i = 0; i < reader->file_count; i++) {
        int ignored = io_close(&reader->files[i]); /* opened for reading: nothing is lost */
        (void)ignored;
    }
    free(reader->files);
    for (int i = 0; i < 2; i++)
        if (reader->cancel[i] >= 0)
            close(reader->cancel[i]);
    stream_map_free(&reader->map);
    stream_order_free(&reader->order);
    pthread_cond_destroy(&reader->ready);
    pthread_cond_destroy(&reader->freed);
    pthread_mutex_destroy(&reader->mutex);
    pthread_mutex_destroy(&reader->scan);
    free(reader);
}

/* ---- records in order */

/* One slot in order. 1: *record is to be handed out; 0: go on, or finished. */
static int reader_take(struct stream_reader *reader, struct reader_slot *slot,
                       struct stream_record *record)
{
    if (slot->unsaid)
        return reader_decode(reader, slot, slot->file->name); /* fails again, and says why */
    if (slot->status < 0)
        return slot->status;
    if (slot->status == 0) {
        reader->finished = true;
        return stream_order_finish(&reader->order, slot->file->name);
    }
    uint64_t first_row;
    int status = stream_order_take(&reader->order, &slot->frame, &slot->record, &slot->rows,
                                   slot->file->name, &first_row);
    /* Of one part: its writer waits behind END for what only its reader can say (plane.h), and
     * closes the pipe after that. */
    reader->finished = reader->order.between && reader->order.layout.places > 0;
    if (status != 1)
        return status;
    *record = slot->rows.record;
    record->first_row = first_row;
    record->offset = slot->frame.offset;
    record->stored_bytes = (uint32_t)slot->frame.stored.size;
    return record->first_row + record->rows > reader->skip_to;
}

static void reader_release(struct stream_reader *reader)
{
    pthread_mutex_lock(&reader->mutex);
    reader->consumed++;
    pthread_cond_broadcast(&reader->freed);
    pthread_mutex_unlock(&reader->mutex);
}

int stream_reader_next(struct stream_reader *reader, struct stream_record *record)
{
    if (reader->handed_out) {
        reader->handed_out = false;
        reader_release(reader);
    }
    int status = 0;
    while (status == 0 && !reader->finished) {
        struct reader_slot *slot = &reader->slots[reader->consumed % reader->slot_count];
        pthread_mutex_lock(&reader->mutex);
        while (reader->consumed == reader->claimed || !slot->ready)
            pthread_cond_wait(&reader->ready, &reader->mutex);
        pthread_mutex_unlock(&reader->mutex);
        status = reader_take(reader, slot, record);
        if (status == 1)
            reader->handed_out = true;
        else if (status == 0 && !reader->finished)
            reader_release(reader);
    }
    return status;
}

void stream_reader_interrupt(struct stream_reader *reader)
{
    ssize_t put = write(reader->cancel[1], "", 1);
    (void)put; /* an empty pipe takes one byte; a full one wakes as well */
}

/* ---- going to another place */

/* Lets the next scan begin at byte `at` of a file. */
static int reader_stand(struct stream_reader *reader, size_t file, int64_t at)
{
    for (size_t i = file; i < reader->file_count; i++) {
        int64_t to = i == file ? at : 0;
        if (lseek(reader->files[i].fd, to, SEEK_SET) < 0)
            return log_fail_errno("cannot go to offset %" PRId64 " of '%s'", to,
                                  reader->files[i].name);
        reader->files[i].offset = to;
    }
    reader->current = file;
    return 0;
}

/* The part that holds `row`, where the parts before it are known and it has an index. */
static const struct stream_part *reader_find_part(const struct stream_reader *reader, uint64_t row,
                                                  uint64_t *before)
{
    *before = reader->order.begin.first_row;
    for (size_t i = 0; i < reader->map.count; i++) {
        const struct stream_part *part = &reader->map.parts[i];
        if (!part->has_end)
            return NULL;
        if (row - *before < part->rows)
            return part->index.count > 2 ? part : NULL;
        *before += part->rows;
    }
    return NULL;
}

/* The last entry whose first row is not above `row`; entry 0 is BEGIN, the last one END. */
static size_t reader_find_entry(const struct index *index, uint64_t row)
{
    size_t low = 1, high = index->count - 1;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (index->entries[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Reads the BEGIN at `at` of a file and stands behind it. */
static int reader_enter_part(struct stream_reader *reader, size_t file, int64_t at,
                             uint64_t rows_before)
{
    struct reader_slot *slot = &reader->slots[0];
    int status = reader_stand(reader, file, at);
    if (status != 0)
        return status;
    reader_scan(reader, slot);
    if (slot->status != 1)
        return slot->status < 0 ? slot->status : reader_no_input(slot->file);
    status = frame_decode(&slot->record, &slot->frame, slot->file->name);
    if (status == 0 && slot->record.header.type != STREAM_BEGIN)
        status = log_fail(ERR_DATA, "'%s': no BEGIN at offset %" PRId64, slot->file->name, at);
    if (status == 0)
        stream_order_restart(&reader->order, &slot->record, rows_before);
    return status;
}

int stream_reader_rewind(struct stream_reader *reader)
{
    return stream_reader_seek(reader, reader->order.begin.first_row);
}

int stream_reader_seek(struct stream_reader *reader, uint64_t row)
{
    if (!reader->regular)
        return log_fail(ERR_USAGE,
                        "'%s' is not a regular file: it cannot be read from another "
                        "place or again",
                        reader->files[0].name);
    assert(row >= reader->order.begin.first_row);
    reader_stop(reader);
    reader->order.end = (struct stream_end){.skipped = reader->order.end.skipped};
    json_object_clear(reader->order.end.skipped);
    reader->finished = false;
    reader->skip_to = row;

    uint64_t before, first = reader->order.begin.first_row;
    /* The beginning is where it is, whatever an index says. */
    const struct stream_part *part = row == first ? NULL : reader_find_part(reader, row, &before);
    int status;
    if (part == NULL) {
        status = reader_enter_part(reader, 0, 0, first);
    } else {
        uint64_t row_in_part = part->first_row + (row - before);
        size_t entry = reader_find_entry(&part->index, row_in_part);
        status = reader_enter_part(reader, part->file, part->start, before);
        if (status == 0 && entry > 1) {
            reader->order.part.sequence = entry;
            reader->order.part.row = part->index.entries[entry].first_row;
            reader->order.part.partial = true;
            status = reader_stand(reader, part->file,
                                  part->start + (int64_t)part->index.entries[entry].offset);
        }
    }
    return status != 0 ? status : reader_start(reader);
}

/* ---- what is known */

const struct begin *stream_reader_begin(const struct stream_reader *reader)
{
    return &reader->order.begin;
}

const json_t *stream_reader_begin_json(const struct stream_reader *reader)
{
    return reader->order.begin_json;
}

const struct stream_end *stream_reader_end(const struct stream_reader *reader)
{
    return &reader->order.end;
}

bool stream_reader_is_regular(const struct stream_reader *reader)
{
    return reader->regular;
}

const struct io_file *stream_reader_file(const struct stream_reader *reader)
{
    return &reader->files[reader->current];
}
