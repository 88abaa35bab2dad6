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
#include "common/mem.h"

/* Rows of a data plane are known by what shufbuf would have written of them. */
static int feed_shuffle(struct feed *feed)
{
    const struct feed_setup *setup = &feed->setup;
    const struct begin *begin = stream_reader_begin(feed->reader);
    json_t *options = json_pack("{s:I, s:I, s:I}", "rows", (json_int_t)setup->shuffle_rows, "seed",
                                (json_int_t)setup->shuffle_seed, "epochs", (json_int_t)1);
    if (options == NULL)
        return mem_fail("BEGIN", 1, 1);
    int status = begin_shuffled(&feed->shuffled, begin, stream_reader_begin_json(feed->reader),
                                options, begin->has_rows, begin->rows, 0);
    json_decref(options);
    feed->begin = &feed->shuffled;
    return status;
}

int feed_open(struct feed *feed, const struct feed_setup *setup)
{
    memset(feed, 0, sizeof *feed);
    feed->setup = *setup;
    int status = stream_reader_open(&feed->reader, setup->paths, setup->path_count,
                                    BEGIN_ACTIVATIONS_VIA, setup->threads);
    if (status != 0)
        return status;
    feed->begin = stream_reader_begin(feed->reader);
    if (feed->begin->plane != BEGIN_INLINE)
        status = feed_shuffle(feed);
    else if (setup->has_shuffle)
        status = log_fail(ERR_USAGE,
                          "'%s' holds its rows, and --shuffle-rows and --shuffle-seed are for "
                          "those that come by actgen --via; shuffle these with shufbuf",
                          stream_reader_file(feed->reader)->name);
    if (status != 0)
        return status;
    feed->row_bytes = begin_row_bytes(feed->begin);
    feed->next = feed->begin->first_row;
    return 0;
}

void feed_close(struct feed *feed)
{
    plane_feed_close(feed->plane);
    stream_reader_free(feed->reader);
    begin_free(&feed->shuffled);
    feed->plane = NULL;
    feed->reader = NULL;
    feed->begin = NULL;
}

/* ---- rows of a data plane */

static struct plane_feed_setup feed_plane_setup(const struct feed *feed, uint64_t batch)
{
    return (struct plane_feed_setup){.reader = feed->reader,
                                     .rows = feed->setup.shuffle_rows,
                                     .seed = feed->setup.shuffle_seed,
                                     .batch = batch};
}

int feed_attach(struct feed *feed, const struct kernels *kernels, struct kernels_device *device,
                uint64_t batch)
{
    struct plane_feed_setup setup = feed_plane_setup(feed, batch);
    setup.kernels = kernels;
    setup.device = device;
    return feed->begin == &feed->shuffled ? plane_feed_attach(&feed->plane, &setup) : 0;
}

uint64_t feed_bytes(const struct feed *feed, uint64_t batch)
{
    struct plane_feed_setup setup = feed_plane_setup(feed, batch);
    return feed->begin == &feed->shuffled
               ? plane_feed_bytes(&setup, stream_reader_begin(feed->reader))
               : 0;
}

int feed_start(struct feed *feed)
{
    return feed->plane != NULL ? plane_feed_start(feed->plane) : 0;
}

int feed_gather(struct feed *feed, struct step *step, uint64_t t)
{
    struct rowsum sum = feed->sum;
    uint64_t done;
    int status = plane_feed_gather(feed->plane, step, t, &done, &sum);
    feed->waited_ns = plane_feed_waited(feed->plane);
    feed->ended = status == 0;
    if (status == 0)
        feed->left_over = done;
    if (status != 1)
        return status;
    feed->sum = sum;
    feed->next += done;
    return 1;
}

/* Passes over `rows`: 1; 0 where the stream ended before; or a code. */
static int feed_pass_over(struct feed *feed, uint64_t rows, uint64_t *done, struct rowsum *sum)
{
    int status = plane_feed_pass_over(feed->plane, rows, done, sum);
    feed->waited_ns = plane_feed_waited(feed->plane);
    feed->ended = status == 0;
    return status;
}

/* ---- rows that are inline */

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

/* At most `most` rows passed over, 0 at END; or a code. */
static int feed_skip(struct feed *feed, uint64_t most, uint64_t *done)
{
    if (feed->plane != NULL) {
        int status = feed_pass_over(feed, most, done, &feed->sum);
        return status < 0 ? status : 0;
    }
    uint32_t rows;
    int status = feed_rows(feed, &rows);
    *done = most < rows ? most : rows;
    if (status == 0)
        feed_take(feed, &feed->sum, NULL, (size_t)*done);
    return status;
}

int feed_skip_to(struct feed *feed, uint64_t row)
{
    while (feed->next < row) {
        uint64_t count;
        int status = feed_skip(feed, row - feed->next, &count);
        if (status != 0)
            return status;
        if (count == 0)
            return log_fail(ERR_TRUNCATED,
                            "the stream ends at row %" PRIu64 ", before row %" PRIu64
                            " where the checkpoint stands",
                            feed->next, row);
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
    if (feed->plane != NULL && feed->left_over <= most) {
        uint64_t done;
        int status = feed_pass_over(feed, most + 1 - feed->left_over, &done, &ignored);
        feed->left_over += done;
        return status < 0 ? status : 0;
    }
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
