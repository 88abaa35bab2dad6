/* feed.c - a cursor over records.
 *
 * The reader has threads that read and check ahead, so that filling a batch is a copy as long as
 * the input keeps up. A thread of its own for the copy was rejected: on the CPU it would take
 * a core from the step, and with another device the host has nothing else to do meanwhile.
 *
 * A checkpoint says that exactly the rows before `next` were trained on, and `sum` is theirs. So
 * both move by whole batches, and only once a batch is complete: a stream that breaks off in the
 * middle of one leaves them where the last step was.
 *
 * Rows are summed one by one with their tags (rowsum.h): a resumed run that is given the same
 * number of other rows, or the same rows from another draw on, must notice.
 */
#include "feed.h"

#include <inttypes.h>
#include <string.h>

#include "common/log.h"

int feed_open(struct feed *feed, char *const *paths, size_t path_count, unsigned threads)
{
    memset(feed, 0, sizeof *feed);
    int status = stream_reader_open(&feed->reader, paths, path_count, BEGIN_ACTIVATIONS, threads);
    if (status != 0)
        return status;
    feed->row_bytes = begin_row_bytes(stream_reader_begin(feed->reader));
    feed->next = stream_reader_begin(feed->reader)->first_row;
    return 0;
}

void feed_close(struct feed *feed)
{
    stream_reader_free(feed->reader);
    feed->reader = NULL;
}

/* Rows of the present record that are left, after going to the next one if need be: 0 at END. */
static int feed_rows(struct feed *feed, uint32_t *rows)
{
    *rows = feed->record.rows - feed->used;
    if (*rows > 0 || feed->ended)
        return 0;
    int64_t start = io_clock_ns();
    int status = stream_reader_next(feed->reader, &feed->record);
    feed->waited_ns += io_clock_ns() - start;
    feed->used = 0;
    feed->ended = status == 0;
    if (status != 1)
        feed->record.rows = 0;
    *rows = feed->record.rows;
    return status < 0 ? status : 0;
}

/* Takes `count` rows of the record: their sum, and a copy unless `to` is NULL. */
static void feed_take(struct feed *feed, struct rowsum *sum, uint8_t *to, size_t count)
{
    const uint8_t *tags = feed->record.tags + (size_t)feed->used * STREAM_TAG_BYTES;
    const uint8_t *rows = feed->record.data + feed->used * feed->row_bytes;
    for (size_t i = 0; i < count; i++)
        rowsum_add_tagged(sum, tags + i * STREAM_TAG_BYTES, rows + i * feed->row_bytes,
                          feed->row_bytes);
    if (to != NULL)
        memcpy(to, rows, count * feed->row_bytes);
    feed->used += (uint32_t)count;
}

int feed_skip_to(struct feed *feed, uint64_t row)
{
    while (feed->next < row) {
        uint32_t rows;
        int status = feed_rows(feed, &rows);
        if (status != 0)
            return status;
        if (rows == 0)
            return log_fail(ERR_TRUNCATED,
                            "the stream ends at row %" PRIu64 ", before row %" PRIu64
                            " where the checkpoint stands",
                            feed->next, row);
        uint64_t count = row - feed->next < rows ? row - feed->next : rows;
        feed_take(feed, &feed->sum, NULL, (size_t)count);
        feed->next += count;
    }
    return 0;
}

int feed_fill(struct feed *feed, uint8_t *to, size_t rows)
{
    struct rowsum sum = feed->sum;
    size_t done = 0;
    while (done < rows) {
        uint32_t there;
        int status = feed_rows(feed, &there);
        if (status != 0)
            return status;
        if (there == 0) {
            feed->left_over = done;
            return 0;
        }
        size_t count = rows - done < there ? rows - done : there;
        feed_take(feed, &sum, to + done * feed->row_bytes, count);
        done += count;
    }
    feed->sum = sum;
    feed->next += rows;
    return 1;
}

int feed_drain(struct feed *feed, uint64_t most)
{
    struct rowsum ignored = {0};
    while (feed->left_over <= most) {
        uint32_t there;
        int status = feed_rows(feed, &there);
        if (status != 0 || there == 0)
            return status;
        feed_take(feed, &ignored, NULL, there);
        feed->left_over += there;
    }
    return 0;
}
