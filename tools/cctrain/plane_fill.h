/* plane_fill.h - the thread that takes rows off a data plane: out of the generator's window into
 * slots of one's own device memory, each compared with its hash, and put into the ring's books.
 */
#ifndef CCTRAIN_PLANE_FILL_H
#define CCTRAIN_PLANE_FILL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/plane.h"
#include "common/ring.h"
#include "common/rowsum.h"
#include "common/stream.h"
#include "kernels/kernels.h"

struct plane_fill {
    /* set by the owner; the ring's row is a row's hash, 16 bytes */
    const struct kernels *kernels;
    struct kernels_device *device;
    struct stream_reader *reader;
    struct plane *plane;
    struct ring *ring;
    uint8_t *d_slots; /* (slots, row_bytes) */
    size_t row_bytes;

    /* once the ring has no more rows: seen by whoever was told so by ring_draw_ahead() */
    int status; /* 0 behind END, or what ended it */
    uint64_t rows;
    struct rowsum sum; /* of the rows that were put */

    /* its own */
    pthread_t thread;
    bool running, parted; /* parted: BYE is said, the window let go of */
    struct kernels_queue *queue;
    struct kernels_event *done;
    struct kernels_link *link; /* NCCL */
    uint8_t *d_window;         /* the generator's, mapped; NCCL: a mirror of it */
    struct plane_pass pass;    /* rows come from now */
    bool has_pass;
    uint32_t taken; /* rows of it that are gone */
    /* (PLANE_FILL_CHUNK) each */
    uint8_t *tags, *d_tags;      /* 16 bytes */
    uint32_t *from, *to;         /* rows of the window, slots */
    uint32_t *d_from, *d_to;     /* */
    uint64_t *hashes, *d_hashes; /* 2 */
};

/* Device bytes that plane_fill_start() takes, for rows of BEGIN. */
uint64_t plane_fill_bytes(const struct begin *begin);

/* Takes memory, reaches the window, starts the thread. plane_fill_free() also after a failure. */
int plane_fill_start(struct plane_fill *fill) MUST_CHECK;

/* Ends the thread, whatever it waits for; the drawer has left the ring. Lets go of the window, and
 * then says BYE. */
void plane_fill_free(struct plane_fill *fill);

#endif
