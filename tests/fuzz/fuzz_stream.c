/* fuzz_stream.c - any bytes, and streams with true checksums and false contents (repair.h), through
 * the reader: as a file, from its beginning and from a row in the middle; and, where the rows
 * travel by a data plane, from a pipe as well, which is what those are read from.
 *
 * What must hold: rows that are handed out fill their record, numbers follow each other, and where
 * END was reached it counted what came. From the middle come the rows that came from the beginning.
 * Places lie in the window, END's sum is that of the hashes, and a reader that wants rows refuses
 * them. BEGIN comes back from its own JSON.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/stream.h"
#include "repair.h"

static int input_fd = -1; /* a memory file; /proc/self/fd/N opens it again */
static char input_path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    input_fd = memfd_create("input", 0);
    require(input_fd >= 0);
    snprintf(input_path, sizeof input_path, "/proc/self/fd/%d", input_fd);
    return 0;
}

/* What was read, from a row on. */
struct seen {
    uint64_t rows;
    struct rowsum hashes; /* of rows that travel by a data plane */
};

static void check_hashed(const struct stream_record *record, const struct begin *begin,
                         struct rowsum *hashes)
{
    uint64_t places = (uint64_t)begin->attach.buffers * begin->attach.capacity;
    require(record->data_bytes == record->rows * (size_t)STREAM_HASHED_BYTES);
    for (size_t i = 0; i < record->rows; i++) {
        struct stream_hashed row = stream_hashed_get(record->data + i * STREAM_HASHED_BYTES);
        require(row.place < places);
        rowsum_merge(hashes, &row.hash);
    }
}

static void check_record(const struct stream_record *record, const struct begin *begin,
                         struct seen *seen)
{
    struct stream_sequence sequence;
    size_t offset = 0, count = 0;
    require(record->rows > 0);
    if (begin->plane != BEGIN_INLINE) {
        check_hashed(record, begin, &seen->hashes);
        return;
    }
    if (record->tags != NULL) {
        require(record->data_bytes == record->rows * begin_row_bytes(begin));
        return;
    }
    while (stream_sequence_next(record, &offset, &sequence) == 1)
        count++;
    require(count == record->rows && offset == record->data_bytes);
}

/* Reads on to the end from `row`; what was seen, and the code. */
static int read_on(struct stream_reader *reader, uint64_t row, struct seen *seen)
{
    const struct begin *begin = stream_reader_begin(reader);
    struct stream_record record;
    int status;
    *seen = (struct seen){0};
    while ((status = stream_reader_next(reader, &record)) == 1) {
        check_record(&record, begin, seen);
        require(record.first_row <= row);
        require(record.first_row + record.rows > row);
        seen->rows += record.first_row + record.rows - row;
        row = record.first_row + record.rows;
    }
    return status;
}

/* To JSON and back; what attaches is what was read. */
static void check_begin(const json_t *json)
{
    struct begin begin, again;
    const char *key;
    json_t *value;
    require(begin_from_json(&begin, json, "x") == 0);
    json_t *first = begin_to_json(&begin);
    require(first != NULL && begin_from_json(&again, first, "x") == 0);
    json_t *second = begin_to_json(&again);
    require(json_equal(first, second));
    json_object_foreach(json_object_get(first, "attach"), key, value)
        require(json_equal(value, json_object_get(json_object_get(json, "attach"), key)));
    json_decref(first);
    json_decref(second);
    begin_free(&begin);
    begin_free(&again);
}

/* ---- rows that travel by a data plane */

/* Through a pipe that stays open: behind END nothing is waited for. */
static void read_pipe(const struct frame_buffer *stream, const struct seen *want)
{
    int ends[2];
    char path[64], *paths[] = {path};
    struct stream_reader *reader;
    struct seen seen;
    require(pipe(ends) == 0);
    require(write(ends[1], stream->bytes, stream->size) == (ssize_t)stream->size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
    require(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS_VIA, 2) == 0);
    require(read_on(reader, stream_reader_begin(reader)->first_row, &seen) == 0);
    require(seen.rows == want->rows && rowsum_equal(&seen.hashes, &want->hashes));
    stream_reader_free(reader);
    close(ends[0]);
    close(ends[1]);
}

/* A stream that was refused for what it asks. */
static void read_hashed(const struct frame_buffer *stream, char *paths[1])
{
    struct stream_reader *reader;
    struct seen seen;
    int status = stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS_VIA, 1);
    if (status != 0)
        return;
    const struct begin *begin = stream_reader_begin(reader);
    require(begin->plane != BEGIN_INLINE);
    check_begin(stream_reader_begin_json(reader));
    status = read_on(reader, begin->first_row, &seen);
    if (status == 0) {
        require(stream_reader_end(reader)->rows == seen.rows);
        require(rowsum_equal(&stream_reader_end(reader)->sum, &seen.hashes));
        if (stream->size <= 1u << 16)
            read_pipe(stream, &seen);
    } else {
        require(status == ERR_DATA || status == ERR_TRUNCATED);
    }
    stream_reader_free(reader);
}

/* ---- rows inline, and tokens */

static void read_inline(struct stream_reader *reader)
{
    uint64_t first = stream_reader_begin(reader)->first_row;
    struct seen seen, later;
    int status = read_on(reader, first, &seen);
    if (status == 0) {
        require(stream_reader_end(reader)->rows == seen.rows);
        require(stream_reader_seek(reader, first) == 0);
        require(read_on(reader, first, &later) == 0 && later.rows == seen.rows);
        uint64_t skip = seen.rows / 2;
        /* By the index, which is advice: it may be wrong, and is then an error or of no effect. */
        status = stream_reader_seek(reader, first + skip);
        if (status == 0 && seen.rows > 0 && read_on(reader, first + skip, &later) == 0)
            require(later.rows == seen.rows - skip);
    } else {
        require(status == ERR_DATA || status == ERR_TRUNCATED || status == ERR_USAGE);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct frame_buffer stream;
    repair_input(&stream, bytes, size);
    require(ftruncate(input_fd, 0) == 0);
    require(pwrite(input_fd, stream.bytes, stream.size, 0) == (ssize_t)stream.size);
    char *paths[] = {input_path};
    struct stream_reader *reader;
    int status = stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1);
    require(status <= 0 && (status == 0) == (reader != NULL));
    if (status == ERR_USAGE)
        read_hashed(&stream, paths);
    if (status != 0)
        return 0;
    require(stream_reader_begin(reader)->plane == BEGIN_INLINE);
    check_begin(stream_reader_begin_json(reader));
    read_inline(reader);
    stream_reader_free(reader);
    return 0;
}
