/* test_ring.c - the order of the shuffle buffer against a plain array that follows the rule step by
 * step, with both sides running in threads; memory that is sealed, grown and refused.
 */
#define _GNU_SOURCE /* F_GET_SEALS, and the thread functions' sched_yield */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/perm.h"
#include "common/ring.h"
#include "common/stream.h"
#include "tests/unit/shuffle_rule.h"

#define ROW_BYTES 40

/* ---- the ring, filled by a thread */

struct filling {
    struct ring *ring;
    uint64_t first, count; /* rows [first, count) */
    unsigned publish_every, yield_every;
    int status;
};

static void make_row(uint64_t number, uint8_t tag[STREAM_TAG_BYTES], uint8_t bytes[ROW_BYTES])
{
    stream_tag_put(tag, (struct stream_tag){number, (uint32_t)(number * 3), (uint32_t)~number});
    for (unsigned i = 0; i < ROW_BYTES; i++)
        bytes[i] = (uint8_t)(number * 131 + i * 7 + (number >> 8));
}

static void *fill(void *argument)
{
    struct filling *filling = argument;
    uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
    for (uint64_t r = filling->first; r < filling->count && filling->status == 0; r++) {
        make_row(r, tag, bytes);
        filling->status = ring_put(filling->ring, tag, bytes);
        if (filling->publish_every != 0 && r % filling->publish_every == 0)
            ring_publish(filling->ring);
        if (filling->yield_every != 0 && r % filling->yield_every == 0)
            sched_yield();
    }
    ring_end(filling->ring);
    return NULL;
}

static uint64_t check_row(const struct ring_row *row)
{
    uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
    uint64_t number = stream_tag_get(row->tag).sequence;
    make_row(number, tag, bytes);
    assert_memory_equal(row->tag, tag, sizeof tag);
    assert_memory_equal(row->bytes, bytes, sizeof bytes);
    return number;
}

static struct ring_setup setup_of(uint64_t n, uint64_t seed)
{
    return (struct ring_setup){
        .rows = n, .seed = seed, .slots = n, .capacity = n, .row_bytes = ROW_BYTES, .trainers = 1};
}

/* Runs `count` rows through a ring and compares with the simulated order from `from` on. */
static void run_and_compare(const struct ring_setup *setup, uint64_t count, uint64_t from,
                            struct filling filling)
{
    struct ring_drawer *drawer;
    struct ring_row row;
    pthread_t thread;
    uint64_t *order = shuffle_rule(setup->rows, setup->seed, count), next = from;
    int status;
    assert_int_equal(ring_create(&filling.ring, setup), 0);
    assert_int_equal(ring_attach(&drawer, filling.ring, 0), 0);
    filling.first = setup->first_block * setup->rows;
    filling.count = count;
    assert_int_equal(pthread_create(&thread, NULL, fill, &filling), 0);
    while ((status = ring_draw(drawer, &row)) == 1) {
        assert_true(next < count);
        assert_true(check_row(&row) == order[next]);
        next++;
    }
    assert_int_equal(status, 0);
    assert_true(next == count);
    assert_int_equal(ring_draw(drawer, &row), 0);
    pthread_join(thread, NULL);
    assert_int_equal(filling.status, 0);
    ring_leave(drawer);
    ring_free(filling.ring);
    free(order);
}

static void order_is_that_of_the_rule(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 5, 16, 100, 257};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t n = sizes[i];
        const uint64_t counts[] = {0,     1,         n / 2,     n - 1,         n,
                                   n + 1, 2 * n - 1, 2 * n + 1, 3 * n + n / 3, 7 * n + 2};
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            struct ring_setup setup = setup_of(n, 49 + i);
            run_and_compare(&setup, counts[c], 0, (struct filling){.publish_every = 1});
        }
    }
}

static void order_does_not_depend_on_timing(void **state)
{
    (void)state;
    struct ring_setup setup = setup_of(64, 7);
    for (unsigned publish = 0; publish < 9; publish += 4)
        for (unsigned yield = 0; yield < 4; yield++)
            run_and_compare(&setup, 2000, 0,
                            (struct filling){.publish_every = publish, .yield_every = yield});
}

/* The domain of the permutation stays N where memory is taken for fewer slots. */
static void order_does_not_depend_on_the_slots_in_memory(void **state)
{
    (void)state;
    for (uint64_t slots = 1; slots <= 60; slots += 7) {
        struct ring_setup setup = setup_of(1000, 3);
        setup.slots = slots;
        run_and_compare(&setup, 60, 0, (struct filling){.publish_every = 1});
        run_and_compare(&setup, 1000, 0, (struct filling){.publish_every = 1});
        run_and_compare(&setup, 2345, 0, (struct filling){.publish_every = 1});
        setup.slots = setup.capacity = 60;
        run_and_compare(&setup, 60, 0, (struct filling){.publish_every = 1});
    }
}

/* As above, where N is so large that the few rows are looked up: the rule's first `count` places.
 */
static void few_rows_in_a_huge_block_come_in_the_order_of_the_rule(void **state)
{
    (void)state;
    struct ring_setup setup = setup_of(200000, 13);
    setup.slots = setup.capacity = 500;
    run_and_compare(&setup, 500, 0, (struct filling){.publish_every = 1});
    setup.slots = setup.capacity = 200000;
    run_and_compare(&setup, 200007, 0, (struct filling){.publish_every = 1});
    setup = setup_of(UINT64_C(1) << 50, 13);
    setup.slots = setup.capacity = 10;
    struct filling filling = {.count = 10};
    struct ring_drawer *drawer;
    struct ring_row row;
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    fill(&filling);
    assert_int_equal(ring_attach(&drawer, filling.ring, 0), 0);
    struct perm perm;
    perm_init(&perm, setup.rows, 13, 0);
    uint64_t last = 0;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(ring_draw(drawer, &row), 1);
        uint64_t place = perm_inverse(&perm, check_row(&row));
        assert_true(i == 0 || place > last);
        last = place;
    }
    assert_int_equal(ring_draw(drawer, &row), 0);
    ring_leave(drawer);
    ring_free(filling.ring);
}

static void a_later_block_continues_the_order(void **state)
{
    (void)state;
    for (uint64_t block = 1; block < 5; block++) {
        struct ring_setup setup = setup_of(50, 11);
        setup.first_block = block;
        run_and_compare(&setup, 50 * block, 50 * block, (struct filling){0});
        run_and_compare(&setup, 50 * block + 1, 50 * block, (struct filling){0});
        run_and_compare(&setup, 437, 50 * block, (struct filling){0});
    }
}

/* cmocka's assertions belong to the main thread: a drawer in another one counts what is wrong. */
struct drawing {
    struct ring_drawer *drawer;
    const uint64_t *order;
    uint64_t served, wrong;
    int status;
};

static void *draw_all(void *argument)
{
    struct drawing *drawing = argument;
    struct ring_row row;
    while ((drawing->status = ring_draw(drawing->drawer, &row)) == 1) {
        uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
        make_row(drawing->order[drawing->served++], tag, bytes);
        drawing->wrong +=
            memcmp(row.tag, tag, sizeof tag) != 0 || memcmp(row.bytes, bytes, sizeof bytes) != 0;
        if (drawing->served % 7 == 0)
            sched_yield();
    }
    return NULL;
}

static void two_drawers_get_the_same_rows(void **state)
{
    (void)state;
    enum { N = 37, COUNT = 30 * N + 11 };
    struct ring_setup setup = setup_of(N, 5);
    setup.trainers = 2;
    struct filling filling = {.count = COUNT};
    uint64_t *order = shuffle_rule(N, 5, COUNT);
    struct drawing drawing[2] = {{.order = order}, {.order = order}};
    pthread_t filler, threads[2];
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    for (unsigned t = 0; t < 2; t++) {
        assert_int_equal(ring_attach(&drawing[t].drawer, filling.ring, t), 0);
        assert_int_equal(pthread_create(&threads[t], NULL, draw_all, &drawing[t]), 0);
    }
    assert_int_equal(pthread_create(&filler, NULL, fill, &filling), 0);
    pthread_join(filler, NULL);
    assert_int_equal(filling.status, 0);
    for (unsigned t = 0; t < 2; t++) {
        pthread_join(threads[t], NULL);
        assert_int_equal(drawing[t].status, 0);
        assert_true(drawing[t].served == COUNT);
        assert_true(drawing[t].wrong == 0);
        ring_leave(drawing[t].drawer);
    }
    ring_free(filling.ring);
    free(order);
}

static void one_of_two_drawers_leaves_and_the_other_gets_all(void **state)
{
    (void)state;
    enum { N = 20, COUNT = 500 };
    struct ring_setup setup = setup_of(N, 5);
    setup.trainers = 2;
    struct filling filling = {.count = COUNT};
    struct ring_drawer *stays, *goes;
    struct ring_row row;
    pthread_t thread;
    uint64_t served = 0;
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    assert_int_equal(ring_attach(&stays, filling.ring, 0), 0);
    assert_int_equal(ring_attach(&goes, filling.ring, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, fill, &filling), 0);
    for (; served < N / 2; served++)
        assert_int_equal(ring_draw(stays, &row), 1);
    assert_int_equal(ring_draw(goes, &row), 1); /* far behind, with its row still held */
    ring_leave(goes);
    while (ring_draw(stays, &row) == 1)
        served++;
    assert_int_equal(served, COUNT);
    pthread_join(thread, NULL);
    assert_int_equal(filling.status, 0);
    ring_leave(stays);
    ring_free(filling.ring);
}

static void the_filler_learns_that_all_drawers_have_left(void **state)
{
    (void)state;
    struct ring_setup setup = setup_of(8, 5);
    struct filling filling = {.count = 1000};
    struct ring_drawer *drawer;
    struct ring_row row;
    pthread_t thread;
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    assert_int_equal(ring_attach(&drawer, filling.ring, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, fill, &filling), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(ring_draw(drawer, &row), 1);
    ring_leave(drawer);
    pthread_join(thread, NULL);
    assert_int_equal(filling.status, ERR_CLOSED);
    ring_free(filling.ring);
}

static void a_row_is_served_before_the_buffer_is_full(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct ring_setup setup = setup_of(N, 9);
    struct ring *ring;
    struct ring_drawer *drawer;
    struct ring_row row;
    struct perm perm;
    uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
    perm_init(&perm, N, 9, 0);
    assert_int_equal(ring_create(&ring, &setup), 0);
    assert_int_equal(ring_attach(&drawer, ring, 0), 0);
    for (uint64_t r = 0; r <= perm_at(&perm, 0); r++) {
        make_row(r, tag, bytes);
        assert_int_equal(ring_put(ring, tag, bytes), 0);
    }
    assert_int_equal(ring_draw(drawer, &row),
                     1); /* in one thread: it would never come if it waited */
    assert_true(check_row(&row) == perm_at(&perm, 0));
    ring_leave(drawer);
    ring_free(ring);
}

/* Row (k+1)N + i is put when draw kN + i frees its slot and served at draw (k+1)N + j, with i and j
 * independent and uniform: it waits N + j - i draws, mean N, variance N^2/6, below 2N. The mean
 * over a block is exact; the variance over B blocks of N has a standard deviation below
 * (N^2/6) * sqrt(1.4 / (BN)) if rows were independent (kurtosis 2.4): 5 of them allowed. */
static void rows_wait_as_long_as_two_uniform_places_differ(void **state)
{
    (void)state;
    enum { N = 500, BLOCKS = 40 };
    struct ring_setup setup = setup_of(N, 21);
    struct filling filling = {.count = (uint64_t)N * BLOCKS};
    struct ring_drawer *drawer;
    struct ring_row row;
    pthread_t thread;
    double sum = 0, squares = 0;
    assert_int_equal(ring_create(&filling.ring, &setup), 0);
    assert_int_equal(ring_attach(&drawer, filling.ring, 0), 0);
    assert_int_equal(pthread_create(&thread, NULL, fill, &filling), 0);
    for (uint64_t draw = 0; ring_draw(drawer, &row) == 1; draw++) {
        uint64_t number = check_row(&row);
        if (number < N)
            continue;
        double waited = (double)draw - (double)(number - N);
        assert_true(waited > 0 && waited < 2 * N);
        sum += waited;
        squares += (waited - N) * (waited - N);
    }
    pthread_join(thread, NULL);
    ring_leave(drawer);
    ring_free(filling.ring);
    double rows = (double)N * (BLOCKS - 1), variance = N * N / 6.0;
    assert_true(fabs(sum / rows - N) < 1e-6 * N);
    assert_true(fabs(squares / rows / variance - 1) < 5 * sqrt(1.4 / rows));
}

/* ---- memory */

/* The descriptor of the ring's memory, found by its name. */
static int find_memory(void)
{
    int found = -1;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[300], target[300] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length > 0 && strncmp(target, "/memfd:ccpipe-ring", 18) == 0)
            found = (int)strtol(entry->d_name, NULL, 10);
    }
    closedir(folder);
    return found;
}

static void memory_is_taken_sealed_and_given_back(void **state)
{
    (void)state;
    struct ring_setup setup = setup_of(5000, 1);
    setup.slots = 1000;
    struct ring *ring;
    assert_int_equal(ring_create(&ring, &setup), 0);
    int fd = find_memory();
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    struct stat status;
    assert_int_equal(fstat(fd, &status), 0);
    assert_true((uint64_t)status.st_size == ring_bytes(&setup, 5000));
    uint64_t taken = (uint64_t)status.st_blocks * 512, asked = ring_bytes(&setup, 1000);
    assert_true(taken >= asked && taken < asked + 4096);
    ring_free(ring);
    assert_int_equal(find_memory(), -1);
}

static void too_much_memory_is_refused(void **state)
{
    (void)state;
    struct ring *ring;
    struct ring_setup setup = setup_of(UINT64_C(1) << 40, 1);
    assert_int_equal(ring_create(&ring, &setup), ERR_MEMORY);
    assert_null(ring);
    setup.rows = setup.slots = setup.capacity = UINT64_MAX / 2;
    assert_int_equal(ring_create(&ring, &setup), ERR_MEMORY);
    setup = setup_of(10, 1);
    setup.row_bytes = SIZE_MAX - 5;
    assert_int_equal(ring_create(&ring, &setup), ERR_MEMORY);
    assert_int_equal(find_memory(), -1);
}

static void more_rows_than_announced_are_refused(void **state)
{
    (void)state;
    struct ring_setup setup = setup_of(100, 1);
    setup.slots = setup.capacity = 10;
    struct ring *ring;
    uint8_t tag[STREAM_TAG_BYTES] = {0}, bytes[ROW_BYTES] = {0};
    assert_int_equal(ring_create(&ring, &setup), 0);
    for (unsigned r = 0; r < 10; r++)
        assert_int_equal(ring_put(ring, tag, bytes), 0);
    assert_int_equal(ring_put(ring, tag, bytes), ERR_DATA);
    ring_free(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_the_rule),
        cmocka_unit_test(order_does_not_depend_on_timing),
        cmocka_unit_test(order_does_not_depend_on_the_slots_in_memory),
        cmocka_unit_test(few_rows_in_a_huge_block_come_in_the_order_of_the_rule),
        cmocka_unit_test(a_later_block_continues_the_order),
        cmocka_unit_test(two_drawers_get_the_same_rows),
        cmocka_unit_test(one_of_two_drawers_leaves_and_the_other_gets_all),
        cmocka_unit_test(the_filler_learns_that_all_drawers_have_left),
        cmocka_unit_test(a_row_is_served_before_the_buffer_is_full),
        cmocka_unit_test(rows_wait_as_long_as_two_uniform_places_differ),
        cmocka_unit_test(memory_is_taken_sealed_and_given_back),
        cmocka_unit_test(too_much_memory_is_refused),
        cmocka_unit_test(more_rows_than_announced_are_refused),
    };
    log_init("test_ring", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
