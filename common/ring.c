/* ring.c - the shuffle buffer's memory and its two sides.
 *
 * Layout, all in one memfd: a page of facts and of the filler's words; a page of words per trainer
 * (so that a process can later map the others' pages read-only); then the slots,
 *
 *     slot = u64 generation | 8 bytes | 16-byte tag | row | padding to 64 bytes
 *
 * A slot's generation is the block number of its row plus one; 0 is an empty slot.
 *
 * Who writes what, and in which order it is seen. There are no locks; each word has one writer.
 *  - generation, by the filler: release after the row is in place; a drawer that reads (acquire)
 * the generation it looks for sees the whole row.
 *  - cursor, by its drawer: draws done; release after the row was used; the filler overwrites the
 *    slot of draw d once it has read (acquire) a cursor above d from every drawer. So a slot is
 * never written while it is read, and the generation needs no second look.
 *  - slots, state, by the filler: release; `state` is set after the last generation.
 *  - event and waiting, on both sides, are all sequentially consistent. A side that waits stores
 *    waiting = 1, reads the other's event, looks at the condition once more and sleeps on the
 *    event (futex). The other makes the condition true, adds to its event, then reads `waiting`. In
 * the one order of these operations either the second sees waiting = 1 and wakes, or the first has
 *    read the new event, and with it sees the condition.
 *
 * Progress is published in batches (the filler's at the end of a record, the drawer's each
 * RING_BATCH_BYTES) and always before a side sleeps, so that neither can wait for what the
 * other keeps to itself. Sleeps have a time-out, after which signals are looked at.
 *
 * Memory is taken by posix_fallocate and the file sealed against changes of size, so that no access
 * can end in SIGBUS. Where few rows were announced, memory is taken for as many slots; should more
 * come after all, it grows. A slot beyond `slots` is not touched by either side.
 */
#define _GNU_SOURCE /* memfd_create, F_ADD_SEALS, syscall */
#include "ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "ring_parts.h"
#include "sig.h"

#define RING_MAGIC UINT64_C(0x31474e4952504343) /* "CCPRING1" */
#define RING_VERSION 1
#define RING_WAIT_NS 200000000           /* between looks at signals while asleep */
#define RING_ALLOCATE_BYTES (256u << 20) /* between looks at signals while memory is taken */

_Static_assert(sizeof(struct ring_header) <= RING_PAGE, "the header is one page");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
               "words shared between processes must be lock-free");

/* ---- memory */

/* 0 where it overflows. */
static size_t ring_stride(size_t row_bytes)
{
    size_t most = SIZE_MAX - RING_ROW_AT - RING_LINE;
    return row_bytes > most
               ? 0
               : (RING_ROW_AT + row_bytes + RING_LINE - 1) / RING_LINE * (size_t)RING_LINE;
}

uint64_t ring_bytes(const struct ring_setup *setup, uint64_t slots)
{
    size_t stride = ring_stride(setup->row_bytes);
    uint64_t bytes;
    if (stride == 0 || __builtin_mul_overflow(slots, stride, &bytes) ||
        __builtin_add_overflow(bytes, ring_front_bytes(setup->trainers), &bytes))
        return UINT64_MAX;
    return bytes;
}

/* Takes the memory of bytes [from, to) of the file. */
static int ring_allocate(int fd, uint64_t from, uint64_t to)
{
    int status = mem_require(to - from, "the shuffle buffer (--rows)");
    while (status == 0 && from < to) {
        uint64_t size = to - from < RING_ALLOCATE_BYTES ? to - from : RING_ALLOCATE_BYTES;
        int failed = posix_fallocate(fd, (off_t)from, (off_t)size);
        if (failed == 0)
            from += size;
        else if (failed != EINTR)
            return log_fail(ERR_MEMORY,
                            "cannot take %llu bytes of memory for the shuffle buffer: %s",
                            (unsigned long long)size, strerror(failed));
        if (sig_pending() != 0)
            status = ERR_INTERRUPTED;
    }
    return status;
}

static int ring_open_memory(struct ring *ring, uint64_t first_bytes)
{
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    ring->fd = memfd_create("ccpipe-ring", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ring->fd < 0)
        return log_fail(ERR_MEMORY, "cannot create shared memory: %s", strerror(errno));
    int status = ring_allocate(ring->fd, 0, first_bytes);
    if (status != 0)
        return status;
    if (ftruncate(ring->fd, (off_t)ring->map_bytes) != 0 ||
        fcntl(ring->fd, F_ADD_SEALS, seals) != 0)
        return log_fail(ERR_MEMORY, "cannot set up shared memory: %s", strerror(errno));
    void *map = mmap(NULL, ring->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    if (map == MAP_FAILED)
        return log_fail(ERR_MEMORY, "cannot map %zu bytes of shared memory: %s", ring->map_bytes,
                        strerror(errno));
    ring->map = map;
    ring->header = map;
    return 0;
}

static void ring_set_up(struct ring *ring, const struct ring_setup *setup)
{
    struct ring_header *header = ring->header;
    ring->facts = (struct ring_facts){.magic = RING_MAGIC,
                                      .version = RING_VERSION,
                                      .trainers = setup->trainers,
                                      .rows = setup->rows,
                                      .seed = setup->seed,
                                      .first_block = setup->first_block,
                                      .capacity = setup->capacity,
                                      .row_bytes = setup->row_bytes,
                                      .stride = ring_stride(setup->row_bytes)};
    header->facts = ring->facts;
    ring->slots = setup->slots;
    atomic_store(&header->slots, setup->slots);
    ring->row = ring->next = setup->first_block * setup->rows;
    ring->room = ring->row + setup->rows;
    if (setup->first_block > 0)
        perm_init(&ring->perm, setup->rows, setup->seed, setup->first_block - 1);
    for (unsigned t = 0; t < setup->trainers; t++)
        atomic_store(&ring_words(ring, t)->cursor, ring->row);
}

int ring_create(struct ring **result, const struct ring_setup *setup)
{
    assert(setup->slots >= 1 && setup->slots <= setup->capacity && setup->capacity <= setup->rows);
    assert(setup->trainers >= 1 && setup->trainers <= RING_MAX_TRAINERS);
    *result = NULL;
    uint64_t first = ring_bytes(setup, setup->slots), all = ring_bytes(setup, setup->capacity), end;
    if (all > INT64_MAX || __builtin_mul_overflow(setup->first_block + 2, setup->rows, &end))
        return log_fail(ERR_MEMORY,
                        "a shuffle buffer of %llu rows of %zu bytes is beyond any memory",
                        (unsigned long long)setup->capacity, setup->row_bytes);
    struct ring *ring = mem_alloc_zero(1, sizeof *ring);
    if (ring == NULL)
        return mem_fail("a shuffle buffer", 1, sizeof *ring);
    ring->fd = -1;
    ring->map_bytes = (size_t)all;
    int status = ring_open_memory(ring, first);
    if (status != 0) {
        ring_free(ring);
        return status;
    }
    ring_set_up(ring, setup);
    *result = ring;
    return 0;
}

void ring_free(struct ring *ring)
{
    if (ring == NULL)
        return;
    if (ring->map != NULL)
        munmap(ring->map, ring->map_bytes);
    if (ring->fd >= 0)
        close(ring->fd);
    free(ring);
}

/* ---- sleeping and waking */

void ring_sleep(const _Atomic uint32_t *event, uint32_t seen)
{
    struct timespec limit = {.tv_nsec = RING_WAIT_NS};
    syscall(SYS_futex, event, FUTEX_WAIT, seen, &limit, NULL, 0);
}

void ring_wake(_Atomic uint32_t *event)
{
    syscall(SYS_futex, event, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- the filler */

void ring_publish(struct ring *ring)
{
    struct ring_header *header = ring->header;
    atomic_fetch_add(&header->event, 1);
    for (unsigned t = 0; t < ring->facts.trainers; t++)
        if (atomic_load(&ring_words(ring, t)->waiting) != 0) {
            ring_wake(&header->event);
            return;
        }
}

static void ring_stop(struct ring *ring, enum ring_state state)
{
    atomic_store(&ring->header->end_row, ring->row);
    atomic_store_explicit(&ring->header->state, state, memory_order_release);
    ring_publish(ring);
}

void ring_end(struct ring *ring)
{
    ring_stop(ring, RING_ENDED);
}

void ring_cut(struct ring *ring)
{
    ring_stop(ring, RING_CUT);
}

/* The drawer that has done the fewest draws, and that number; NULL where all have left. */
static struct ring_words *ring_slowest(const struct ring *ring, uint64_t *draws)
{
    struct ring_words *slowest = NULL;
    for (unsigned t = 0; t < ring->facts.trainers; t++) {
        struct ring_words *words = ring_words(ring, t);
        uint64_t cursor = atomic_load_explicit(&words->cursor, memory_order_acquire);
        if (atomic_load(&words->left) == 0 && (slowest == NULL || cursor < *draws)) {
            slowest = words;
            *draws = cursor;
        }
    }
    return slowest;
}

/* Whether the slot of row ring->next is free, draw next - N being done: 1; 0 where not and not to
 * `wait`; or a code. */
static int ring_find_room(struct ring *ring, bool wait)
{
    uint64_t draws = 0;
    bool told = false;
    for (;;) {
        struct ring_words *slowest = ring_slowest(ring, &draws);
        if (slowest == NULL)
            return ERR_CLOSED;
        ring->room = draws + ring->facts.rows;
        if (ring->next < ring->room)
            return 1;
        if (!wait)
            return 0;
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
        if (!told)
            ring_publish(ring);
        told = true;
        atomic_store(&ring->header->waiting, 1);
        uint32_t event = atomic_load(&slowest->event);
        if (atomic_load(&slowest->left) == 0 &&
            ring->next >= atomic_load(&slowest->cursor) + ring->facts.rows)
            ring_sleep(&slowest->event, event);
        atomic_store(&ring->header->waiting, 0);
    }
}

/* Takes memory for `slot` and as many again as there are, where the input holds more rows than it
 * had announced. */
static int ring_grow(struct ring *ring, uint64_t slot)
{
    struct ring_setup size = {.row_bytes = ring->facts.row_bytes, .trainers = ring->facts.trainers};
    uint64_t capacity = ring->facts.capacity, slots = ring->slots;
    if (slot >= capacity)
        return log_fail(ERR_DATA, "more rows came than the %llu that were announced",
                        (unsigned long long)capacity);
    while (slots <= slot)
        slots = slots > capacity / 2 ? capacity : 2 * slots;
    int status = ring_allocate(ring->fd, ring_bytes(&size, ring->slots), ring_bytes(&size, slots));
    if (status != 0)
        return status;
    ring->slots = slots;
    atomic_store_explicit(&ring->header->slots, slots, memory_order_release);
    return 0;
}

int ring_reserve(struct ring *ring, uint64_t *slot, bool wait)
{
    int status;
    uint64_t block = ring->next / ring->facts.rows, place = ring->next % ring->facts.rows;
    if (ring->next >= ring->room && (status = ring_find_room(ring, wait)) != 1)
        return status;
    if (place == 0 && block > ring->facts.first_block)
        perm_init(&ring->perm, ring->facts.rows, ring->facts.seed, block - 1);
    *slot = block == 0 ? place : perm_at(&ring->perm, place);
    if (*slot >= ring->slots && (status = ring_grow(ring, *slot)) != 0)
        return status;
    ring->next++;
    return 1;
}

void ring_put_reserved(struct ring *ring, uint64_t slot, const uint8_t *tag, const uint8_t *bytes)
{
    assert(ring->row < ring->next);
    uint8_t *to = ring_slot(ring, slot);
    memcpy(to + RING_TAG_AT, tag, RING_ROW_AT - RING_TAG_AT);
    memcpy(to + RING_ROW_AT, bytes, ring->facts.row_bytes);
    atomic_store_explicit(ring_generation(ring, slot), ring->row / ring->facts.rows + 1,
                          memory_order_release);
    ring->row++;
}

int ring_put(struct ring *ring, const uint8_t *tag, const uint8_t *bytes)
{
    uint64_t slot;
    assert(ring->row == ring->next);
    int status = ring_reserve(ring, &slot, true);
    if (status != 1)
        return status;
    ring_put_reserved(ring, slot, tag, bytes);
    return 0;
}
