/* ring_draw.c - the drawers' side of the shuffle buffer; ring.c says how the two sides meet. */
#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>

#include "mem.h"
#include "ring.h"
#include "ring_parts.h"
#include "sig.h"

#define RING_BATCH_BYTES (256u << 10)
#define RING_AHEAD 4   /* rows whose first lines are fetched before their draw */
#define RING_SPARSE 16 /* draws per row above which the last block's rows are looked up */

struct ring_drawer {
    struct ring *ring;
    struct ring_words *words;
    uint64_t draw, published, batch;
    bool held;        /* draw's row is with the caller */
    uint64_t block;   /* of `draw` */
    uint64_t served;  /* rows of that block */
    struct perm perm; /* of that block */
    uint64_t looked;  /* places of the block whose slot is in `ahead` */
    uint64_t ahead[RING_AHEAD];
    uint64_t *places; /* of a short last block: where its rows are, ascending; NULL before */
    size_t place_count, place_next;
};

/* Gives back all draws below `draws`. */
static void drawer_publish(struct ring_drawer *drawer, uint64_t draws)
{
    struct ring_words *words = drawer->words;
    drawer->published = draws;
    atomic_store(&words->cursor, draws);
    atomic_fetch_add(&words->event, 1);
    if (atomic_load(&drawer->ring->header->waiting) != 0)
        ring_wake(&words->event);
}

static void drawer_enter_block(struct ring_drawer *drawer, uint64_t block)
{
    const struct ring_facts *facts = &drawer->ring->facts;
    perm_init(&drawer->perm, facts->rows, facts->seed, block);
    drawer->block = block;
    drawer->served = 0;
    drawer->looked = 0;
}

int ring_attach(struct ring_drawer **result, struct ring *ring, unsigned trainer)
{
    assert(trainer < ring->facts.trainers);
    *result = NULL;
    struct ring_drawer *drawer = mem_alloc_zero(1, sizeof *drawer);
    if (drawer == NULL)
        return mem_fail("a drawer", 1, sizeof *drawer);
    drawer->ring = ring;
    drawer->words = ring_words(ring, trainer);
    drawer->draw = drawer->published = ring->facts.first_block * ring->facts.rows;
    uint64_t most = ring->facts.rows / 4, batch = RING_BATCH_BYTES / ring->facts.stride;
    drawer->batch = batch < most ? batch : most;
    drawer_enter_block(drawer, ring->facts.first_block);
    *result = drawer;
    return 0;
}

void ring_leave(struct ring_drawer *drawer)
{
    if (drawer == NULL)
        return;
    atomic_store(&drawer->words->left, 1);
    drawer_publish(drawer, drawer->draw);
    free(drawer->places);
    free(drawer);
}

/* The slot of a place of the block; slots of the places behind it are fetched. */
static uint64_t drawer_slot(struct ring_drawer *drawer, uint64_t place)
{
    const struct ring *ring = drawer->ring;
    if (drawer->places != NULL)
        return perm_at(&drawer->perm, place);
    uint64_t until = place + RING_AHEAD < ring->facts.rows ? place + RING_AHEAD : ring->facts.rows;
    for (; drawer->looked < until; drawer->looked++) {
        uint64_t slot = perm_at(&drawer->perm, drawer->looked);
        const uint8_t *at = ring_slot(ring, slot);
        drawer->ahead[drawer->looked % RING_AHEAD] = slot;
        for (size_t line = 0; line < 8 && line * RING_LINE < ring->facts.stride; line++)
            __builtin_prefetch(at + line * RING_LINE);
    }
    return drawer->ahead[place % RING_AHEAD];
}

static bool drawer_is_filled(const struct ring_drawer *drawer, uint64_t slot)
{
    const struct ring *ring = drawer->ring;
    return slot < atomic_load_explicit(&ring->header->slots, memory_order_acquire) &&
           atomic_load_explicit(ring_generation(ring, slot), memory_order_acquire) ==
               drawer->block + 1;
}

/* Waits for the block's row in `slot`: 1; 0 where no more come and it did not; ERR_INTERRUPTED; of
 * one who draws ahead and is not to `wait`, RING_LATER. */
static int drawer_wait(struct ring_drawer *drawer, uint64_t slot, bool ahead, bool wait)
{
    const struct ring_header *header = drawer->ring->header;
    if (drawer_is_filled(drawer, slot))
        return 1;
    if (!ahead && drawer->published != drawer->draw)
        drawer_publish(drawer, drawer->draw);
    for (;;) {
        atomic_store(&drawer->words->waiting, 1);
        uint32_t event = atomic_load(&header->event);
        /* The state first: what was put before the end is then seen. */
        bool over = atomic_load_explicit(&header->state, memory_order_acquire) != RING_FILLING;
        bool filled = drawer_is_filled(drawer, slot);
        if (!filled && !over && wait && sig_pending() == 0)
            ring_sleep(&header->event, event);
        atomic_store(&drawer->words->waiting, 0);
        if (filled || over)
            return filled;
        if (!wait)
            return RING_LATER;
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
    }
}

/* Whether input has ended and all rows of it have been served. */
static bool drawer_is_done(const struct ring_drawer *drawer)
{
    const struct ring_header *header = drawer->ring->header;
    return atomic_load_explicit(&header->state, memory_order_acquire) == RING_ENDED &&
           drawer->block * drawer->ring->facts.rows + drawer->served >=
               atomic_load(&header->end_row);
}

static bool drawer_is_cut(const struct ring_drawer *drawer)
{
    return atomic_load_explicit(&drawer->ring->header->state, memory_order_acquire) == RING_CUT;
}

static int drawer_compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* In the last block, from `place` on: lists the places of the rows that are left, where trying each
 * place would take far longer (N is 10^9 and the input has 1000 rows). */
static int drawer_list_places(struct ring_drawer *drawer, uint64_t place)
{
    const struct ring_facts *facts = &drawer->ring->facts;
    uint64_t start = drawer->block * facts->rows, served = drawer->served;
    uint64_t count = atomic_load(&drawer->ring->header->end_row) - start;
    if (drawer->places != NULL || (facts->rows - place) / RING_SPARSE < count)
        return 0;
    drawer->places = mem_alloc((size_t)(count - served), sizeof *drawer->places);
    if (drawer->places == NULL)
        return mem_fail("the last rows' places", (size_t)(count - served), sizeof *drawer->places);
    struct perm before;
    if (drawer->block > 0)
        perm_init(&before, facts->rows, facts->seed, drawer->block - 1);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at = perm_inverse(&drawer->perm, drawer->block == 0 ? i : perm_at(&before, i));
        if (at > place)
            drawer->places[drawer->place_count++] = at;
    }
    assert(drawer->place_count == count - served);
    qsort(drawer->places, drawer->place_count, sizeof *drawer->places, drawer_compare);
    return 0;
}

/* To the next draw that may have a row. */
static void drawer_advance(struct ring_drawer *drawer)
{
    if (drawer->place_next < drawer->place_count)
        drawer->draw =
            drawer->block * drawer->ring->facts.rows + drawer->places[drawer->place_next++];
    else
        drawer->draw++;
}

/* Past the row that the caller has. */
static void drawer_pass(struct ring_drawer *drawer)
{
    if (!drawer->held)
        return;
    drawer->held = false;
    drawer->served++;
    drawer_advance(drawer);
}

static int drawer_next(struct ring_drawer *drawer, struct ring_row *row, bool ahead, bool wait)
{
    uint64_t rows = drawer->ring->facts.rows;
    for (;;) {
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
        uint64_t place = drawer->draw - drawer->block * rows;
        if (place == rows) {
            drawer_enter_block(drawer, drawer->block + 1);
            place = 0;
        }
        if (drawer_is_done(drawer))
            return 0;
        uint64_t slot = drawer_slot(drawer, place);
        int status = drawer_wait(drawer, slot, ahead, wait);
        if (status == 1) {
            const uint8_t *at = ring_slot(drawer->ring, slot);
            *row = (struct ring_row){at + RING_TAG_AT, at + RING_ROW_AT, slot};
            drawer->held = true;
        }
        if (status == 0 && drawer_is_cut(drawer))
            return 0;
        if (status == 0)
            status = drawer_list_places(drawer, place);
        if (status != 0)
            return status;
        drawer_advance(drawer);
    }
}

int ring_draw(struct ring_drawer *drawer, struct ring_row *row)
{
    drawer_pass(drawer);
    if (drawer->draw - drawer->published >= drawer->batch)
        drawer_publish(drawer, drawer->draw);
    return drawer_next(drawer, row, false, true);
}

int ring_draw_ahead(struct ring_drawer *drawer, struct ring_row *row, bool wait)
{
    drawer_pass(drawer);
    return drawer_next(drawer, row, true, wait);
}

uint64_t ring_position(const struct ring_drawer *drawer)
{
    return drawer->held ? drawer->draw + 1 : drawer->draw;
}

void ring_release(struct ring_drawer *drawer, uint64_t position)
{
    assert(position <= ring_position(drawer));
    if (position > drawer->published)
        drawer_publish(drawer, position);
}
