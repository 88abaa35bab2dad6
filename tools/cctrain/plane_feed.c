/* plane_feed.c - draws as slot numbers, batches gathered by them.
 *
 * The main thread draws ahead of the device: it notes the slots of a batch, enqueues one gather of
 * them, and goes on. A draw is given back, so that the filler may overwrite its slot, only once the
 * gather has read it: batch t's when batch t + STEP_DEPTH is about to be drawn, by when the host
 * has waited for it anyway. Where the next row is not there yet, the filler may be waiting for just
 * those slots. So before a wait what has been drawn is gathered, the queue of copies waited for,
 * and all draws given back. A buffer smaller than a batch then works as well, in pieces.
 *
 * Sums are of the hashes that the filler found, on this device, to be those of what arrived. At the
 * end what was drawn is compared with what was put.
 */
#include "plane_feed.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "plane_fill.h"

struct plane_feed {
    struct plane_feed_setup setup;
    struct plane *plane;
    struct ring *ring;
    struct ring_drawer *drawer;
    struct plane_fill fill;
    uint8_t *d_slots;               /* (slots, row_bytes) */
    uint32_t *index[STEP_DEPTH];    /* (batch) slots of a batch's rows */
    uint32_t *d_index[STEP_DEPTH];  /* */
    uint64_t positions[STEP_DEPTH]; /* of the ring, behind the batch */
    uint64_t rows;                  /* drawn */
    struct rowsum sum;              /* of them */
    bool over;                      /* there are no more */
    int64_t waited_ns;
};

/* ---- set-up */

static uint64_t feed_slots(const struct plane_feed_setup *setup, const struct begin *begin)
{
    uint64_t rows = begin->has_rows && begin->rows < setup->rows ? begin->rows : setup->rows;
    return rows > 0 ? rows : 1;
}

uint64_t plane_feed_bytes(const struct plane_feed_setup *setup, const struct begin *begin)
{
    uint64_t slots;
    if (__builtin_mul_overflow(feed_slots(setup, begin), begin_row_bytes(begin), &slots))
        return UINT64_MAX / 2;
    return slots + STEP_DEPTH * setup->batch * sizeof(uint32_t) + plane_fill_bytes(begin);
}

static int feed_check(const struct plane_feed_setup *setup, const struct begin *begin)
{
    const char *name = stream_reader_file(setup->reader)->name;
    const char *plane = begin_plane_name(begin->plane);
    const struct kernels *kernels = setup->kernels;
    if (stream_reader_is_regular(setup->reader))
        return log_fail(ERR_USAGE, "'%s' is a file, and its rows went by %s when it was written",
                        name, plane);
    if (begin->plane == BEGIN_CUDA_IPC ? kernels->map == NULL : kernels->link_open == NULL)
        return log_fail(ERR_USAGE,
                        "the rows of '%s' come by %s, and device %s cannot take them; use --device "
                        "cuda, or actgen without --via",
                        name, plane, kernels->name);
    if (feed_slots(setup, begin) > UINT32_MAX)
        return log_fail(ERR_USAGE,
                        "--shuffle-rows %" PRIu64 " are more than %" PRIu32 " slots on a device",
                        setup->rows, UINT32_MAX);
    return 0;
}

static void feed_lost(void *context)
{
    struct plane_feed *feed = context;
    stream_reader_interrupt(feed->setup.reader);
}

static int feed_attach(struct plane_feed *feed, const struct begin *begin)
{
    struct plane_setup setup = {.kind = begin->plane,
                                .buffers = begin->attach.buffers,
                                .capacity = begin->attach.capacity,
                                .lost = feed_lost,
                                .context = feed};
    int status = begin->plane == BEGIN_NCCL
                     ? feed->setup.kernels->link_version(feed->setup.device, &setup.nccl_version,
                                                         &setup.nccl_one_device)
                     : 0;
    if (status != 0)
        return status;
    feed->setup.kernels->identity(feed->setup.device, setup.uuid);
    return plane_attach(&feed->plane, &setup, &begin->attach);
}

int plane_feed_attach(struct plane_feed **result, const struct plane_feed_setup *setup)
{
    const struct begin *begin = stream_reader_begin(setup->reader);
    *result = NULL;
    int status = feed_check(setup, begin);
    if (status != 0)
        return status;
    struct plane_feed *feed = mem_alloc_zero(1, sizeof *feed);
    if (feed == NULL)
        return mem_fail("a data plane", 1, sizeof *feed);
    feed->setup = *setup;
    status = feed_attach(feed, begin);
    if (status != 0)
        free(feed);
    else
        *result = feed;
    return status;
}

static int feed_take(struct plane_feed *feed, const struct begin *begin)
{
    const char *what = "the shuffle buffer (--shuffle-rows)";
    const struct plane_feed_setup *setup = &feed->setup;
    size_t slots = (size_t)feed_slots(setup, begin), batch = (size_t)setup->batch;
    int status = kernels_alloc(setup->kernels, setup->device, &feed->d_slots, slots,
                               begin_row_bytes(begin), what);
    for (size_t i = 0; i < STEP_DEPTH && status == 0; i++) {
        status = kernels_host_alloc(setup->kernels, setup->device, &feed->index[i], batch,
                                    sizeof *feed->index[i], what);
        if (status == 0)
            status = kernels_alloc(setup->kernels, setup->device, &feed->d_index[i], batch,
                                   sizeof *feed->d_index[i], what);
    }
    return status;
}

int plane_feed_start(struct plane_feed *feed)
{
    const struct begin *begin = stream_reader_begin(feed->setup.reader);
    struct ring_setup ring = {.rows = feed->setup.rows,
                              .seed = feed->setup.seed,
                              .slots = feed_slots(&feed->setup, begin),
                              .capacity = feed_slots(&feed->setup, begin),
                              .row_bytes = sizeof feed->sum,
                              .trainers = 1};
    int status = feed_take(feed, begin);
    if (status == 0)
        status = ring_create(&feed->ring, &ring);
    if (status == 0)
        status = ring_attach(&feed->drawer, feed->ring, 0);
    if (status != 0)
        return status;
    feed->fill = (struct plane_fill){.kernels = feed->setup.kernels,
                                     .device = feed->setup.device,
                                     .reader = feed->setup.reader,
                                     .plane = feed->plane,
                                     .ring = feed->ring,
                                     .d_slots = feed->d_slots,
                                     .row_bytes = begin_row_bytes(begin)};
    return plane_fill_start(&feed->fill);
}

void plane_feed_close(struct plane_feed *feed)
{
    if (feed == NULL)
        return;
    const struct kernels *kernels = feed->setup.kernels;
    ring_leave(feed->drawer);
    if (feed->fill.kernels != NULL)
        plane_fill_free(&feed->fill);
    else
        plane_bye(feed->plane);
    plane_free(feed->plane);
    ring_free(feed->ring);
    kernels->free(feed->setup.device, feed->d_slots);
    for (size_t i = 0; i < STEP_DEPTH; i++) {
        kernels->host_free(feed->setup.device, feed->index[i]);
        kernels->free(feed->setup.device, feed->d_index[i]);
    }
    free(feed);
}

int64_t plane_feed_waited(const struct plane_feed *feed)
{
    return feed->waited_ns;
}

/* ---- drawing */

/* There are no more rows: are those that were drawn those that came? 0, or why there are no more.
 */
static int feed_end(struct plane_feed *feed)
{
    const struct plane_fill *fill = &feed->fill;
    feed->over = true;
    if (fill->status != 0)
        return fill->status;
    if (feed->rows != fill->rows || !rowsum_equal(&feed->sum, &fill->sum))
        return log_fail(ERR_DATA, "the rows that were drawn are not those that came: this is a "
                                  "fault of cctrain or of the memory");
    return 0;
}

/* The next row: 1; 0 or a code as feed_end(); RING_LATER unless it is to `wait`. */
static int feed_draw(struct plane_feed *feed, struct ring_row *row, struct rowsum *sum, bool wait)
{
    int64_t start = wait ? io_clock_ns() : 0;
    int status = feed->over ? 0 : ring_draw_ahead(feed->drawer, row, wait);
    if (wait)
        feed->waited_ns += io_clock_ns() - start;
    if (status == 0)
        return feed_end(feed);
    if (status != 1)
        return status;
    struct rowsum hash = {le_get64(row->bytes), le_get64(row->bytes + 8)};
    rowsum_merge(&feed->sum, &hash);
    rowsum_merge(sum, &hash);
    feed->rows++;
    return 1;
}

int plane_feed_pass_over(struct plane_feed *feed, uint64_t rows, uint64_t *done, struct rowsum *sum)
{
    for (*done = 0; *done < rows; ++*done) {
        struct ring_row row;
        int status = feed_draw(feed, &row, sum, false);
        if (status == RING_LATER) {
            ring_release(feed->drawer, ring_position(feed->drawer));
            status = feed_draw(feed, &row, sum, true);
        }
        if (status != 1)
            return status;
    }
    ring_release(feed->drawer, ring_position(feed->drawer));
    return 1;
}

/* Rows [from, to) of batch t. */
static void feed_enqueue(struct plane_feed *feed, struct step *step, uint64_t t, uint64_t from,
                         uint64_t to)
{
    size_t k = t % STEP_DEPTH;
    if (from == to)
        return;
    feed->setup.kernels->upload(step->copies, feed->d_index[k] + from, feed->index[k] + from,
                                (size_t)(to - from) * sizeof *feed->index[k]);
    step_gather(step, t, (size_t)from, feed->d_slots, feed->d_index[k] + from, (size_t)(to - from));
}

int plane_feed_gather(struct plane_feed *feed, struct step *step, uint64_t t, uint64_t *done,
                      struct rowsum *sum)
{
    size_t k = t % STEP_DEPTH;
    uint64_t gathered = 0;
    ring_release(feed->drawer, feed->positions[k]);
    for (*done = 0; *done < feed->setup.batch; ++*done) {
        struct ring_row row;
        int status = feed_draw(feed, &row, sum, false);
        if (status == RING_LATER) {
            feed_enqueue(feed, step, t, gathered, *done);
            gathered = *done;
            if ((status = feed->setup.kernels->wait(step->copies)) != 0)
                return status;
            ring_release(feed->drawer, ring_position(feed->drawer));
            status = feed_draw(feed, &row, sum, true);
        }
        if (status != 1)
            return status;
        feed->index[k][*done] = (uint32_t)row.slot;
    }
    feed_enqueue(feed, step, t, gathered, *done);
    feed->positions[k] = ring_position(feed->drawer);
    return 1;
}
