/* ring.h - the shuffle buffer: slots in shared memory, one filler, one or more drawers, and the
 * rolling block shuffle as the rule that says which row goes where.
 *
 * The rule. Rows are numbered r = 0, 1, 2, ... and block k is rows kN to kN + N - 1. P_k is the
 * keyed permutation of 0 .. N-1 of (seed, stream k). Draw kN + i serves slot P_k(i). Row r < N goes
 * to slot r, row (k+1)N + i to the slot that draw kN + i has freed, P_k(i). So each row is served
 * exactly once, none waits longer than 2N draws, and the order is a function of (seed, draw) alone.
 * The last block may be short: draws of slots that hold no row of it are passed over.
 *
 * The domain of P_k is always N, however few slots memory is taken for, so that a stream whose
 * length is known beforehand comes out in the same order as one whose length is not.
 */
#ifndef CCPIPE_RING_H
#define CCPIPE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RING_MAX_TRAINERS 64

struct ring;
struct ring_drawer;

struct ring_setup {
    uint64_t rows; /* N, the rows of a block */
    uint64_t seed;
    uint64_t slots;       /* to take memory for at once, 1 .. capacity */
    uint64_t capacity;    /* slots that ring_put() may take memory for as rows come, <= rows */
    size_t row_bytes;     /* without the tag */
    uint64_t first_block; /* both sides begin with row and draw first_block * rows */
    unsigned trainers;    /* 1 .. RING_MAX_TRAINERS; each draws every row */
};

/* Bytes of shared memory for so many slots; UINT64_MAX where that overflows. */
uint64_t ring_bytes(const struct ring_setup *setup, uint64_t slots);

/* Takes the memory: ERR_MEMORY with what is asked and what is free, ERR_INTERRUPTED. */
int ring_create(struct ring **ring, const struct ring_setup *setup) MUST_CHECK;

/* After the filler and all drawers have ended. */
void ring_free(struct ring *ring);

/* ---- the filler, one thread */

/* Stores the next row: tag (16 bytes) and bytes. Waits until its slot is free. ERR_CLOSED where all
 * drawers have left, ERR_INTERRUPTED, ERR_MEMORY where more slots are needed than there is memory
 * for, ERR_DATA where more than `capacity` are. */
int ring_put(struct ring *ring, const uint8_t *tag, const uint8_t *bytes) MUST_CHECK;

/* The same in two steps, for rows whose bytes lie elsewhere, in memory with a place for each slot:
 * the slot of the next row, 1; 0 where it would have to wait for it and is not to `wait`; or a code
 * as above. Several may be reserved, and put in the order in which they were; but nothing may be
 * waited for between reserving and putting, as drawers that wait for those rows free no slots. */
int ring_reserve(struct ring *ring, uint64_t *slot, bool wait) MUST_CHECK;
void ring_put_reserved(struct ring *ring, uint64_t slot, const uint8_t *tag, const uint8_t *bytes);

/* Wakes drawers that wait for what has been put. ring_put() does it before it waits itself; the
 * filler does it before it waits for anything else. */
void ring_publish(struct ring *ring);

/* No more rows come, as there are no more. Drawers are served all that was put. */
void ring_end(struct ring *ring);

/* No more rows come, though there are more. Drawers are served what comes before the first draw
 * whose row is missing: the same draws as of the whole input, as far as they go. */
void ring_cut(struct ring *ring);

/* ---- drawers, one thread each */

struct ring_row {
    const uint8_t *tag, *bytes;
    uint64_t slot;
};

/* The drawer of trainer 0 .. trainers-1. */
int ring_attach(struct ring_drawer **drawer, struct ring *ring, unsigned trainer) MUST_CHECK;

/* The row of the next draw: 1, *row is valid until the next call; 0 after the last row;
 * ERR_INTERRUPTED, ERR_MEMORY. Waits for the row's slot alone, not for a full buffer. After
 * ring_cut() 0 comes before the last row. */
int ring_draw(struct ring_drawer *drawer, struct ring_row *row) MUST_CHECK;

/* The same for a drawer that goes on reading what it has drawn: no draw is given back before
 * ring_release(). 1, 0, codes as above; RING_LATER where the row is not there yet and `wait` is
 * false. Whoever waits gives back all draws first, as the filler may need their slots. A drawer is
 * asked by this or by ring_draw(), not by both. */
enum { RING_LATER = 2 };
int ring_draw_ahead(struct ring_drawer *drawer, struct ring_row *row, bool wait) MUST_CHECK;

/* Behind the last draw: what ring_release() takes to give back all draws up to it. */
uint64_t ring_position(const struct ring_drawer *drawer);
void ring_release(struct ring_drawer *drawer, uint64_t position);

/* Leaves, at any time: the filler waits no longer for this drawer. Frees it. NULL is legal. */
void ring_leave(struct ring_drawer *drawer);

#ifdef __cplusplus
}
#endif
#endif
