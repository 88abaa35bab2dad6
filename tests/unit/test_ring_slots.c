/* test_ring_slots.c - the shuffle buffer as the books of rows that lie elsewhere: slots reserved
 * before they are put, draws given back by hand. A plain array stands for the memory with a place
 * per slot, and is read as late as possible: when the draw is given back.
 */
#define _GNU_SOURCE /* sched_yield */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/ring.h"
#include "common/stream.h"
#include "tests/unit/shuffle_rule.h"

struct filling {
    struct ring *ring;
    _Atomic uint64_t *memory; /* a row's number, in the place of its slot */
    uint64_t count, chunk;
    int status;
};

/* Rows in chunks: as many slots as there are without waiting, then the "copies", then the books. */
static void *fill(void *argument)
{
    struct filling *filling = argument;
    uint64_t slots[64], row = 0;
    while (row < filling->count && filling->status >= 0) {
        uint64_t got = 0, most = filling->count - row;
        most = most < filling->chunk ? most : filling->chunk;
        while (got < most &&
               (filling->status = ring_reserve(filling->ring, &slots[got], got == 0)) == 1)
            got++;
        for (uint64_t i = 0; i < got; i++)
            filling->memory[slots[i]] = row + i;
        sched_yield();
        for (uint64_t i = 0; i < got; i++, row++) {
            uint8_t tag[STREAM_TAG_BYTES], hash[16];
            stream_tag_put(tag, (struct stream_tag){row, 1, 2});
            le_put64(hash, row * 3);
            le_put64(hash + 8, ~row);
            ring_put_reserved(filling->ring, slots[i], tag, hash);
        }
        ring_publish(filling->ring);
    }
    ring_end(filling->ring);
    return NULL;
}

struct drawn {
    uint64_t slot, number;
};

/* Draws without waiting as far as that goes, at most `batch`; then reads the memory of what it has,
 * and only then gives it back, the batch before the last or, before it waits, all. */
static void run_and_compare(uint64_t n, uint64_t seed, uint64_t count, uint64_t chunk,
                            uint64_t batch)
{
    struct ring_setup setup = {
        .rows = n, .seed = seed, .slots = n, .capacity = n, .row_bytes = 16, .trainers = 1};
    struct filling filling = {.count = count, .chunk = chunk, .status = 1};
    struct drawn *drawn = malloc((size_t)(count + 1) * sizeof *drawn);
    filling.memory = malloc((size_t)n * sizeof *filling.memory);
    uint64_t *order = shuffle_rule(n, seed, count), next = 0, read = 0;
    struct ring_drawer *drawer;
    struct ring_row row;
    pthread_t thread;
    assert_non_null(drawn);
    assert_non_null(filling.memory);
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    assert_int_equal(ring_attach(&drawer, filling.ring, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, fill, &filling), 0);
    int status = 1;
    while (status != 0) {
        uint64_t until = next + batch;
        while (next < until && (status = ring_draw_ahead(drawer, &row, false)) == 1) {
            assert_true(next < count);
            assert_true(stream_tag_get(row.tag).sequence == order[next]);
            assert_true(le_get64(row.bytes) == order[next] * 3);
            drawn[next] = (struct drawn){row.slot, order[next]};
            next++;
        }
        uint64_t position = ring_position(drawer);
        if (next % 3 == 0)
            sched_yield(); /* time to overwrite what is not given back */
        for (; read < next; read++)
            assert_true(filling.memory[drawn[read].slot] == drawn[read].number);
        ring_release(drawer, position);
        if (status == RING_LATER) {
            status = ring_draw_ahead(drawer, &row, true);
            if (status == 1) {
                assert_true(stream_tag_get(row.tag).sequence == order[next]);
                drawn[next] = (struct drawn){row.slot, order[next]};
                next++;
            }
        }
    }
    assert_true(next == count);
    assert_true(read == count);
    pthread_join(thread, NULL);
    assert_true(filling.status >= 0);
    ring_leave(drawer);
    ring_free(filling.ring);
    free(order);
    free(drawn);
    free(filling.memory);
}

static void the_order_is_that_of_the_rule(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 7, 64, 100};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint64_t chunk = 1; chunk <= 64; chunk = chunk * 3 + 2)
            for (uint64_t batch = 1; batch < 200; batch = batch * 5 + 1) {
                run_and_compare(sizes[i], 9 + i, 10 * sizes[i] + 3, chunk, batch);
                run_and_compare(sizes[i], 9 + i, (sizes[i] + 1) / 2, chunk, batch);
            }
}

/* One thread plays both sides: N rows are in, all are drawn, none given back. */
static void a_slot_is_free_when_its_draw_is_given_back(void **state)
{
    (void)state;
    enum { N = 5 };
    struct ring_setup setup = {
        .rows = N, .seed = 3, .slots = N, .capacity = N, .row_bytes = 16, .trainers = 1};
    struct ring *ring;
    struct ring_drawer *drawer;
    struct ring_row row;
    uint8_t tag[STREAM_TAG_BYTES] = {0}, hash[16] = {0};
    uint64_t slot, slots[N], positions[N];
    assert_int_equal(ring_create(&ring, &setup), 0);
    assert_int_equal(ring_attach(&drawer, ring, 0), 0);
    assert_int_equal(ring_draw_ahead(drawer, &row, false), RING_LATER);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(ring_reserve(ring, &slot, false), 1);
        assert_int_equal(slot, i);
        assert_int_equal(ring_draw_ahead(drawer, &row, false), RING_LATER); /* not put yet */
    }
    assert_int_equal(ring_reserve(ring, &slot, false), 0);
    for (uint64_t i = 0; i < N; i++)
        ring_put_reserved(ring, i, tag, hash);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(ring_draw_ahead(drawer, &row, false), 1);
        slots[i] = row.slot;
        positions[i] = ring_position(drawer);
        assert_int_equal(ring_reserve(ring, &slot, false), 0);
    }
    assert_int_equal(ring_draw_ahead(drawer, &row, false), RING_LATER);
    assert_int_equal(ring_reserve(ring, &slot, false), 0);
    ring_release(drawer, positions[1]);
    for (uint64_t i = 0; i < 2; i++) {
        assert_int_equal(ring_reserve(ring, &slot, false), 1);
        assert_int_equal(slot, slots[i]);
    }
    assert_int_equal(ring_reserve(ring, &slot, false), 0);
    ring_release(drawer, positions[0]); /* takes nothing back */
    assert_int_equal(ring_reserve(ring, &slot, false), 0);
    ring_release(drawer, positions[N - 1]);
    for (uint64_t i = 2; i < N; i++) {
        assert_int_equal(ring_reserve(ring, &slot, true), 1);
        assert_int_equal(slot, slots[i]);
    }
    ring_leave(drawer);
    assert_int_equal(ring_reserve(ring, &slot, true), ERR_CLOSED);
    ring_free(ring);
}

/* What was reserved and not put is not there, where input is cut. */
static void a_cut_counts_what_was_put(void **state)
{
    (void)state;
    enum { N = 4 };
    struct ring_setup setup = {
        .rows = N, .seed = 1, .slots = N, .capacity = N, .row_bytes = 16, .trainers = 1};
    struct ring *ring;
    struct ring_drawer *drawer;
    struct ring_row row;
    uint8_t tag[STREAM_TAG_BYTES] = {0}, hash[16] = {0};
    uint64_t slot;
    for (int cut = 0; cut < 2; cut++) {
        assert_int_equal(ring_create(&ring, &setup), 0);
        assert_int_equal(ring_attach(&drawer, ring, 0), 0);
        for (uint64_t i = 0; i < 3; i++)
            assert_int_equal(ring_reserve(ring, &slot, false), 1);
        for (uint64_t i = 0; i < 2; i++) {
            stream_tag_put(tag, (struct stream_tag){i, 0, 0});
            ring_put_reserved(ring, i, tag, hash);
        }
        uint64_t want = cut ? shuffle_rule_cut(N, 1, 2) : 2, served = 0;
        if (cut)
            ring_cut(ring);
        else
            ring_end(ring);
        int status;
        while ((status = ring_draw_ahead(drawer, &row, true)) == 1)
            served++;
        assert_int_equal(status, 0);
        assert_int_equal(served, want);
        ring_leave(drawer);
        ring_free(ring);
    }
}

int main(void)
{
    log_init("test_ring_slots", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_is_that_of_the_rule),
        cmocka_unit_test(a_slot_is_free_when_its_draw_is_given_back),
        cmocka_unit_test(a_cut_counts_what_was_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
