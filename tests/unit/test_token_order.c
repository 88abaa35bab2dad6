/* test_token_order.c - shuffled orders: of single places against the permutation itself, of row
 * groups against a simulation of windows on the file's figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/log.h"
#include "common/perm.h"
#include "tools/tokstream/mix.h"
#include "tools/tokstream/order.h"

#define GOLDEN "tests/golden/tokens/"
#define MOST 256

static const struct source_setup setup = {.column = "input_ids", .most = SOURCE_MOST_TOKENS};

static void open_input(struct input *input, const char *one, const char *two)
{
    char *paths[] = {(char *)one, (char *)two};
    assert_int_equal(input_open(input, paths, two == NULL ? 1 : 2, &setup), 0);
    assert_int_equal(input_index(input, "a test"), 0);
}

/* All places in their order, reading `skip` between one and the next. */
static size_t read_places(uint64_t places[MOST], struct order *order, uint64_t epoch, uint64_t skip)
{
    struct order_item item;
    size_t count = 0;
    int status;
    assert_int_equal(order_start(order, epoch), 0);
    while ((status = order_next(order, skip, &item)) == 1) {
        assert_true(count < MOST);
        places[count++] = item.place;
    }
    assert_int_equal(status, 0);
    return count;
}

static void test_places_that_are_reached_singly(void **state)
{
    (void)state;
    uint64_t places[MOST];
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        struct input input;
        struct order *order;
        struct perm perm;
        open_input(&input, GOLDEN "mixed.jsonl", GOLDEN "good/u2.npy");
        assert_int_equal(order_open(&order, &input, true, 7, 1000), 0);
        assert_int_equal(read_places(places, order, epoch, 0), 100);
        perm_init(&perm, 100, 7, epoch << 32);
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(places[i], perm_at(&perm, i));
        order_free(order);
        input_free(&input);
    }
}

/* good/groups.parquet: the set "mixed", 60 rows, in groups of 7 and a last one of 4. */
struct simulated {
    uint64_t groups[MOST][3]; /* first, count, tokens */
    size_t group_count;
    uint64_t places[MOST];
    size_t count, windows;
};

/* As order.h describes it: groups in permuted order, so many that the next one would be too much.
 */
static void simulate(struct simulated *all, uint64_t seed, uint64_t epoch, uint64_t budget)
{
    struct perm groups, rows;
    uint64_t window[MOST];
    perm_init(&groups, all->group_count, seed, epoch << 32);
    all->count = all->windows = 0;
    for (size_t g = 0; g < all->group_count;) {
        size_t held = 0;
        uint64_t tokens = 0;
        do {
            const uint64_t *group = all->groups[perm_at(&groups, g)];
            if (held > 0 && tokens + group[2] > budget)
                break;
            tokens += group[2];
            for (uint64_t i = 0; i < group[1]; i++)
                window[held++] = group[0] + i;
        } while (++g < all->group_count);
        all->windows++;
        perm_init(&rows, held, seed, epoch << 32 | all->windows);
        for (size_t i = 0; i < held; i++)
            all->places[all->count++] = window[perm_at(&rows, i)];
    }
}

/* The figures of a file's groups, counted from its rows. */
static void add_group(struct simulated *all, struct input *input, uint64_t first, uint64_t count)
{
    struct source_sequence sequence;
    uint64_t place, tokens = 0;
    assert_int_equal(input_seek(input, first), 1);
    for (uint64_t i = 0; i < count; i++) {
        assert_int_equal(input_next(input, &place, &sequence), 1);
        tokens += sequence.length > 0 ? sequence.length : 1; /* an empty list has a level, too */
    }
    uint64_t *group = all->groups[all->group_count++];
    group[0] = first;
    group[1] = count;
    group[2] = tokens;
}

static void test_row_groups_in_windows(void **state)
{
    (void)state;
    static struct simulated all;
    uint64_t places[MOST], skipped[MOST];
    struct input input;
    all.group_count = 0;
    open_input(&input, GOLDEN "good/groups.parquet", NULL);
    for (uint64_t first = 0; first < 60; first += 7)
        add_group(&all, &input, first, first + 7 <= 60 ? 7 : 60 - first);
    for (uint64_t budget = 1; budget < 4000; budget = budget * 3 + 50)
        for (uint64_t epoch = 0; epoch < 2; epoch++) {
            struct order *order;
            simulate(&all, 49, epoch, budget);
            assert_true(budget > 1 || all.windows == all.group_count);
            assert_int_equal(order_open(&order, &input, true, 49, budget), 0);
            assert_int_equal(read_places(places, order, epoch, 0), 60);
            assert_memory_equal(places, all.places, 60 * sizeof *places);
            for (uint64_t skip = 1; skip < 20; skip += 6) {
                size_t count = read_places(skipped, order, epoch, skip);
                assert_int_equal(count, 60 / (skip + 1));
                for (size_t i = 0; i < count; i++)
                    assert_int_equal(skipped[i], places[i * (skip + 1) + skip]);
            }
            order_free(order);
        }
    input_free(&input);
}

/* Lines and row groups together: all places once, with their own ids. */
static void test_formats_together(void **state)
{
    (void)state;
    struct input input, plain;
    struct order *order;
    struct order_item item;
    uint64_t seen[MOST] = {0};
    open_input(&input, GOLDEN "good/groups.parquet", GOLDEN "even.jsonl");
    open_input(&plain, GOLDEN "mixed.jsonl", GOLDEN "even.jsonl");
    assert_int_equal(order_open(&order, &input, true, 1, 500), 0);
    assert_int_equal(order_start(order, 0), 0);
    for (size_t i = 0; i < 100; i++) {
        struct source_sequence sequence;
        uint64_t place;
        assert_int_equal(order_next(order, 0, &item), 1);
        assert_int_equal(input_seek(&plain, item.place), 1);
        assert_int_equal(input_next(&plain, &place, &sequence), 1);
        assert_int_equal(sequence.length, item.sequence.length);
        if (sequence.length > 0)
            assert_memory_equal(sequence.ids, item.sequence.ids, 4 * sequence.length);
        seen[item.place]++;
    }
    assert_int_equal(order_next(order, 0, &item), 0);
    for (size_t i = 0; i < 100; i++)
        assert_int_equal(seen[i], 1);
    order_free(order);
    input_free(&input);
    input_free(&plain);
}

/* Of weights w the first t sequences hold round about w t of each: the rule never strays by more
 * than one from it with two parts. */
static void test_a_mix_keeps_its_weights(void **state)
{
    (void)state;
    struct mix_part parts[2] = {{.weight = 0.7}, {.weight = 0.3}};
    struct mix mix = {.parts = parts, .count = 2, .weights = 1.0};
    open_input(&parts[0].input, GOLDEN "mixed.jsonl", NULL);
    open_input(&parts[1].input, GOLDEN "even.jsonl", NULL);
    parts[1].first = 60;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(order_open(&parts[i].order, &parts[i].input, false, 0, 1000), 0);
        assert_int_equal(order_start(parts[i].order, 0), 0);
    }
    uint64_t expected = mix_count(&mix), count = 0, second = 0;
    struct order_item item;
    size_t ended;
    while (mix_next(&mix, 0, &item, &ended) == 1) {
        count++;
        second += item.place >= 60;
        double share = 0.3 * (double)count;
        assert_true((double)second > share - 1 && (double)second < share + 1);
    }
    assert_int_equal(ended, 0);
    assert_int_equal(count, expected);
    assert_int_equal(count - second, 60);
    for (int i = 0; i < 2; i++) {
        order_free(parts[i].order);
        input_free(&parts[i].input);
    }
}

int main(void)
{
    log_init("test_token_order", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_that_are_reached_singly),
        cmocka_unit_test(test_row_groups_in_windows),
        cmocka_unit_test(test_formats_together),
        cmocka_unit_test(test_a_mix_keeps_its_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
