/* ring_parts.h - what the two sides of a ring share: its words in memory, and sleeping on them.
 * Internal to ring.c and ring_draw.c.
 */
#ifndef CCPIPE_RING_PARTS_H
#define CCPIPE_RING_PARTS_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "perm.h"
#include "ring.h"

#define RING_PAGE 4096
#define RING_LINE 64
#define RING_TAG_AT 16
#define RING_ROW_AT 32

enum ring_state { RING_FILLING, RING_ENDED, RING_CUT };

struct ring_facts {
    uint64_t magic;
    uint32_t version, trainers;
    uint64_t rows, seed, first_block, capacity, row_bytes, stride;
};

struct ring_header {
    struct ring_facts facts; /* written before anyone attaches */
    alignas(RING_LINE) _Atomic uint64_t slots;
    _Atomic uint64_t end_row; /* behind the last row, once the state is ENDED */
    _Atomic uint32_t state;
    _Atomic uint32_t event;   /* drawers sleep on it */
    _Atomic uint32_t waiting; /* the filler sleeps */
};

struct ring_words {
    _Atomic uint64_t cursor; /* draws done */
    _Atomic uint32_t event;  /* the filler sleeps on it */
    _Atomic uint32_t waiting;
    _Atomic uint32_t left;
};

struct ring {
    int fd;
    uint8_t *map;
    size_t map_bytes;
    struct ring_header *header;
    struct ring_facts facts; /* a copy of one's own */
    /* the filler's */
    uint64_t slots; /* as in the header */
    uint64_t row;   /* next to be put */
    uint64_t next;  /* next to be given a slot */
    uint64_t room;  /* rows below this have one without a look at the cursors */
    struct perm perm;
};

static inline uint64_t ring_front_bytes(unsigned trainers)
{
    return (uint64_t)RING_PAGE * (1 + trainers);
}

static inline uint8_t *ring_slot(const struct ring *ring, uint64_t slot)
{
    return ring->map + ring_front_bytes(ring->facts.trainers) + slot * ring->facts.stride;
}

static inline _Atomic uint64_t *ring_generation(const struct ring *ring, uint64_t slot)
{
    return (_Atomic uint64_t *)(void *)ring_slot(ring, slot);
}

static inline struct ring_words *ring_words(const struct ring *ring, unsigned trainer)
{
    return (struct ring_words *)(void *)(ring->map + ring_front_bytes(trainer));
}

/* Sleeps until `event` is no longer `seen`, a signal, or the time-out. Callers look again whatever
 * the reason was. */
void ring_sleep(const _Atomic uint32_t *event, uint32_t seen);
void ring_wake(_Atomic uint32_t *event);

#endif
