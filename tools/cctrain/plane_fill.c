/* plane_fill.c - from the window into slots, as many rows at a time as there are slots free.
 *
 * DATA says of each row where it lies in the window; passes say when it is there. Both come in one
 * order: the rows of a pass are `served` rows of DATA behind those of the passes before. So rows
 * are counted off against passes, and a pass is given back once its last row has been moved and
 * hashed.
 *
 * A chunk: slots are reserved (the first one is waited for, the others taken as they are free),
 * rows are moved there, hashed where they now lie, and the hashes compared with those of DATA
 * before the first one is put into the ring. What trains is thus what the generator hashed,
 * whatever happened to it between. Between reserving and putting only the device is waited for, see
 * ring_reserve().
 *
 * NCCL: what is mapped with CUDA IPC is a mirror here, which a pass is received into. The peer may
 * be lost while the device waits for it, so that wait asks after it.
 *
 * Ends. Behind END: all rows are in slots, the ring ends. The generator then waits for passes of
 * which no row was served and for our BYE; the window is let go of before that. Anything else: the
 * ring is cut, and rows are served as far as the order is known, as shufbuf does.
 */
#include "plane_fill.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/sig.h"

enum { PLANE_FILL_CHUNK = 4096 };

/* ---- memory */

static uint64_t fill_window_rows(const struct begin *begin)
{
    return (uint64_t)begin->attach.buffers * begin->attach.capacity;
}

uint64_t plane_fill_bytes(const struct begin *begin)
{
    uint64_t chunk = PLANE_FILL_CHUNK *
                     (uint64_t)(STREAM_TAG_BYTES + 2 * sizeof(uint32_t) + 2 * sizeof(uint64_t));
    uint64_t mirror = begin->plane == BEGIN_NCCL ? fill_window_rows(begin) : 0;
    return chunk + mirror * begin_row_bytes(begin);
}

static int fill_take(struct plane_fill *fill, void *memory, bool device, size_t count, size_t size)
{
    return (device ? kernels_alloc : kernels_host_alloc)(fill->kernels, fill->device, memory, count,
                                                         size, "a data plane");
}

static int fill_take_chunk(struct plane_fill *fill)
{
    const struct {
        void *at;
        bool device;
        size_t size;
    } list[] = {
        {&fill->tags, false, STREAM_TAG_BYTES},
        {&fill->d_tags, true, STREAM_TAG_BYTES},
        {&fill->from, false, sizeof *fill->from},
        {&fill->d_from, true, sizeof *fill->from},
        {&fill->to, false, sizeof *fill->to},
        {&fill->d_to, true, sizeof *fill->to},
        {&fill->hashes, false, 2 * sizeof *fill->hashes},
        {&fill->d_hashes, true, 2 * sizeof *fill->hashes},
    };
    int status = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list && status == 0; i++)
        status = fill_take(fill, list[i].at, list[i].device, PLANE_FILL_CHUNK, list[i].size);
    return status;
}

static int fill_reach_window(struct plane_fill *fill)
{
    const struct begin *begin = stream_reader_begin(fill->reader);
    void *window = NULL;
    int status;
    if (begin->plane == BEGIN_CUDA_IPC) {
        status = fill->kernels->map(fill->device, &window, begin->attach.key);
        fill->d_window = window;
        return status;
    }
    status =
        fill_take(fill, &fill->d_window, true, (size_t)fill_window_rows(begin), fill->row_bytes);
    if (status == 0)
        status = fill->kernels->link_open(fill->device, &fill->link, begin->attach.key, 1,
                                          plane_go_on, fill->plane);
    return status;
}

/* BYE. The generator frees its window then, so a mapped one is let go of before; a link that is
 * closed without a word looks like a loss, so it is closed after. `lost`: waits for nobody. */
static void fill_part(struct plane_fill *fill, bool lost)
{
    if (fill->parted)
        return;
    fill->parted = true;
    if (stream_reader_begin(fill->reader)->plane == BEGIN_CUDA_IPC) {
        if (fill->d_window != NULL)
            fill->kernels->unmap(fill->device, fill->d_window);
        plane_bye(fill->plane);
    } else {
        plane_bye(fill->plane);
        if (fill->link != NULL)
            fill->kernels->link_close(fill->link, lost);
        fill->kernels->free(fill->device, fill->d_window);
    }
}

/* ---- passes */

/* Waits until the queue has passed, or the peer is lost. */
static int fill_wait_for_peer(struct plane_fill *fill)
{
    const struct kernels *kernels = fill->kernels;
    const struct timespec pause = {.tv_nsec = 50000};
    int status;
    kernels->event_record(fill->queue, fill->done);
    while ((status = kernels->event_poll(fill->done)) == 0) {
        if ((status = kernels->link_poll(fill->link)) != 0 ||
            (status = plane_go_on(fill->plane)) != 0)
            break;
        nanosleep(&pause, NULL);
    }
    if (status == ERR_CLOSED)
        return log_fail(ERR_PEER, "the generator ended in the middle of a pass");
    return status < 0 ? status : 0;
}

static int fill_receive(struct plane_fill *fill)
{
    const struct begin_attach *attach = &stream_reader_begin(fill->reader)->attach;
    size_t at = (size_t)fill->pass.buffer * attach->capacity * fill->row_bytes;
    if (fill->link == NULL || fill->pass.rows == 0)
        return 0;
    fill->kernels->link_receive(fill->queue, fill->link, fill->d_window + at,
                                fill->pass.rows * fill->row_bytes);
    return fill_wait_for_peer(fill);
}

/* Gives passes back of which all rows are gone. */
static int fill_leave_pass(struct plane_fill *fill)
{
    if (!fill->has_pass || fill->taken < fill->pass.served)
        return 0;
    fill->has_pass = false;
    return plane_free_pass(fill->plane, fill->pass.number);
}

/* Goes to the next pass: 1; 0 where there are no more; or a code. */
static int fill_enter_pass(struct plane_fill *fill)
{
    int status = plane_next_pass(fill->plane, &fill->pass);
    if (status != 1)
        return status;
    fill->has_pass = true;
    fill->taken = 0;
    status = fill_receive(fill);
    if (status == 0)
        status = fill_leave_pass(fill); /* no row of it may be served */
    return status == 0 ? 1 : status;
}

/* ---- rows */

static int fill_bad(const struct plane_fill *fill, const struct stream_record *record, uint64_t row,
                    const char *what)
{
    return log_fail(ERR_DATA, "'%s': row %" PRIu64 ": %s", stream_reader_file(fill->reader)->name,
                    record->first_row + row, what);
}

/* Reserves slots for rows `first` .. of the record and notes where they come from and go to: how
 * many, at least 1 and at most `most`; or a code. */
static int fill_reserve(struct plane_fill *fill, const struct stream_record *record, uint64_t first,
                        uint64_t most)
{
    const struct begin_attach *attach = &stream_reader_begin(fill->reader)->attach;
    uint64_t buffer = (uint64_t)fill->pass.buffer * attach->capacity;
    int count = 0, status;
    for (uint64_t i = first; count < PLANE_FILL_CHUNK && (uint64_t)count < most; i++, count++) {
        uint64_t slot, place = stream_hashed_get(record->data + i * STREAM_HASHED_BYTES).place;
        if (place < buffer || place - buffer >= fill->pass.rows)
            return fill_bad(fill, record, i, "it lies outside of its pass");
        if ((status = ring_reserve(fill->ring, &slot, count == 0)) < 0)
            return status;
        if (status == 0)
            break;
        fill->from[count] = (uint32_t)place;
        fill->to[count] = (uint32_t)slot;
    }
    return count;
}

/* Window -> slots, and the hashes of what is there now. */
static int fill_move(struct plane_fill *fill, const uint8_t *tags, size_t rows)
{
    const struct kernels *kernels = fill->kernels;
    struct kernels_queue *queue = fill->queue;
    memcpy(fill->tags, tags, rows * STREAM_TAG_BYTES);
    kernels->upload(queue, fill->d_tags, fill->tags, rows * STREAM_TAG_BYTES);
    kernels->upload(queue, fill->d_from, fill->from, rows * sizeof *fill->from);
    kernels->upload(queue, fill->d_to, fill->to, rows * sizeof *fill->to);
    kernels->move_rows(queue, fill->d_slots, fill->d_to, fill->d_window, fill->d_from, rows,
                       fill->row_bytes);
    kernels->hash_rows(queue, fill->d_hashes, fill->d_tags, fill->d_slots, fill->d_to, rows,
                       fill->row_bytes);
    kernels->download(queue, fill->hashes, fill->d_hashes, rows * 2 * sizeof *fill->hashes);
    return kernels->wait(queue);
}

/* A row is not what was sent. A generator that goes takes its window along, and what is read of it
 * then is anything: so that is ERR_PEER. The end of its connection may be a moment behind. */
static int fill_differs(struct plane_fill *fill, const struct stream_record *record, uint64_t row)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    int status = 0;
    for (int i = 0; i < 40 && (status = plane_go_on(fill->plane)) == 0; i++)
        nanosleep(&pause, NULL);
    return status == ERR_PEER
               ? status
               : fill_bad(fill, record, row,
                          "what arrived on the device is not what was sent (its hash differs)");
}

/* Puts the rows that are what was sent; ERR_DATA at the first that is not. */
static int fill_put(struct plane_fill *fill, const struct stream_record *record, uint64_t first,
                    size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        const uint8_t *hash = record->data + (first + i) * STREAM_HASHED_BYTES;
        struct rowsum sent = stream_hashed_get(hash).hash;
        struct rowsum got = {fill->hashes[2 * i], fill->hashes[2 * i + 1]};
        if (!rowsum_equal(&sent, &got))
            return fill_differs(fill, record, first + i);
        ring_put_reserved(fill->ring, fill->to[i], fill->tags + i * STREAM_TAG_BYTES, hash);
        rowsum_merge(&fill->sum, &got);
        fill->rows++;
    }
    return 0;
}

/* All rows of a record. */
static int fill_record(struct plane_fill *fill, const struct stream_record *record)
{
    uint64_t row = 0;
    while (row < record->rows) {
        int status = 1;
        while (!fill->has_pass && status == 1)
            status = fill_enter_pass(fill);
        if (status == 0)
            return fill_bad(fill, record, row, "it is of no pass");
        if (status < 0)
            return status;
        uint64_t left = record->rows - row, most = fill->pass.served - fill->taken;
        int count = fill_reserve(fill, record, row, left < most ? left : most);
        if (count < 0)
            return count;
        status = fill_move(fill, record->tags + row * STREAM_TAG_BYTES, (size_t)count);
        if (status == 0)
            status = fill_put(fill, record, row, (size_t)count);
        ring_publish(fill->ring);
        fill->taken += (uint32_t)count;
        row += (uint64_t)count;
        if (status == 0)
            status = fill_leave_pass(fill);
        if (status != 0)
            return status;
    }
    return 0;
}

/* END has come: its count against what BEGIN said, but for rows that were not finite. */
static int fill_check_count(const struct plane_fill *fill)
{
    const struct begin *begin = stream_reader_begin(fill->reader);
    const json_t *skipped = stream_reader_end(fill->reader)->skipped;
    json_int_t left_out = json_integer_value(json_object_get(skipped, "not_finite"));
    uint64_t rows = fill->rows + (left_out > 0 ? (uint64_t)left_out : 0);
    if (!begin->has_rows || fill->rows == begin->rows || rows == begin->rows)
        return 0;
    return log_fail(ERR_DATA, "'%s': BEGIN announced %" PRIu64 " rows, and %" PRIu64 " came",
                    stream_reader_file(fill->reader)->name, begin->rows, fill->rows);
}

static int fill_read(struct plane_fill *fill)
{
    struct stream_record record;
    int status;
    while ((status = stream_reader_next(fill->reader, &record)) == 1)
        if ((status = fill_record(fill, &record)) != 0)
            return status;
    if (status == 0)
        status = fill_check_count(fill);
    /* The pipe's wait is also ended where the generator is lost. */
    int lost = status == ERR_INTERRUPTED ? plane_go_on(fill->plane) : 0;
    return lost == ERR_PEER ? lost : status;
}

/* The generator waits for passes of which nothing was served, and for BYE. Whether it is lost now
 * matters to nobody. */
static void fill_finish(struct plane_fill *fill)
{
    int status;
    while ((status = fill_enter_pass(fill)) == 1 && !fill->has_pass)
        ;
    fill_part(fill, status != 0);
}

static void *fill_run(void *argument)
{
    struct plane_fill *fill = argument;
    /* Made here: a device is entered by thread. */
    fill->status = fill->kernels->queue_create(fill->device, &fill->queue);
    if (fill->status == 0)
        fill->status = fill->kernels->event_create(fill->device, &fill->done);
    if (fill->status == 0)
        fill->status = fill_read(fill);
    if (fill->status == 0) {
        ring_end(fill->ring);
        fill_finish(fill);
    } else {
        ring_cut(fill->ring);
    }
    return NULL;
}

int plane_fill_start(struct plane_fill *fill)
{
    int status = fill_take_chunk(fill);
    if (status == 0)
        status = fill_reach_window(fill);
    if (status == 0)
        status = sig_thread_create(&fill->thread, fill_run, fill);
    fill->running = status == 0;
    return status;
}

void plane_fill_free(struct plane_fill *fill)
{
    const struct kernels *kernels = fill->kernels;
    if (fill->running) {
        plane_interrupt(fill->plane);
        stream_reader_interrupt(fill->reader);
        pthread_join(fill->thread, NULL);
    }
    fill_part(fill, true);
    kernels->event_free(fill->done);
    kernels->queue_free(fill->queue);
    void *host[] = {fill->tags, fill->from, fill->to, fill->hashes};
    void *device[] = {fill->d_tags, fill->d_from, fill->d_to, fill->d_hashes};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        kernels->host_free(fill->device, host[i]);
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        kernels->free(fill->device, device[i]);
}
