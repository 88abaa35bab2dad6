/* fuzz_stream.c - any bytes, and streams with true checksums and false contents (repair.h), through
 * the reader: as a file, from its beginning and from a row in the middle.
 *
 * What must hold: rows that are handed out fill their record, numbers follow each other, and where
 * END was reached it counted what came. From the middle come the rows that came from the beginning.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "common/stream.h"
#include "repair.h"

static int input_fd = -1; /* a memory file; /proc/self/fd/N opens it again */
static char input_path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz", LOG_SILENT);
    input_fd = memfd_create("input", 0);
    require(input_fd >= 0);
    snprintf(input_path, sizeof input_path, "/proc/self/fd/%d", input_fd);
    return 0;
}

static void check_record(const struct stream_record *record, size_t row_bytes)
{
    struct stream_sequence sequence;
    size_t offset = 0, count = 0;
    require(record->rows > 0);
    if (record->tags != NULL) {
        require(record->data_bytes == record->rows * row_bytes);
        return;
    }
    while (stream_sequence_next(record, &offset, &sequence) == 1)
        count++;
    require(count == record->rows && offset == record->data_bytes);
}

/* Reads on to the end from `row`; the rows seen, and the code. */
static int read_on(struct stream_reader *reader, uint64_t row, uint64_t *rows)
{
    size_t row_bytes = begin_row_bytes(stream_reader_begin(reader));
    struct stream_record record;
    int status;
    *rows = 0;
    while ((status = stream_reader_next(reader, &record)) == 1) {
        check_record(&record, row_bytes);
        require(record.first_row <= row);
        require(record.first_row + record.rows > row);
        *rows += record.first_row + record.rows - row;
        row = record.first_row + record.rows;
    }
    return status;
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
    if (status != 0) {
        require(status < 0 && reader == NULL);
        return 0;
    }
    uint64_t first = stream_reader_begin(reader)->first_row, rows, later;
    status = read_on(reader, first, &rows);
    if (status == 0) {
        require(stream_reader_end(reader)->rows == rows);
        require(stream_reader_seek(reader, first) == 0);
        require(read_on(reader, first, &later) == 0 && later == rows);
        uint64_t skip = rows / 2;
        /* By the index, which is advice: it may be wrong, and is then an error or of no effect. */
        status = stream_reader_seek(reader, first + skip);
        if (status == 0 && rows > 0 && read_on(reader, first + skip, &later) == 0)
            require(later == rows - skip);
    } else {
        require(status == ERR_DATA || status == ERR_TRUNCATED || status == ERR_USAGE);
    }
    stream_reader_free(reader);
    return 0;
}
