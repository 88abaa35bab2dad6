/* test_top.c - the strongest sequences of each latent against a plain search over all rows, for
 * random streams full of ties and repeats, cut into blocks anywhere; and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/rng.h"
#include "tools/ccanalyze/top.h"

enum { LATENTS = 7, MAX_ROWS = 600 };

struct rows {
    size_t count;
    struct stream_tag tags[MAX_ROWS];
    float f[MAX_ROWS * LATENTS];
};

static uint64_t drawn;

/* A number below `bound`, another one each time. */
static uint32_t draw(uint32_t bound)
{
    return (uint32_t)(rng_u64(17, 0, drawn++) % bound);
}

static void add_row(struct rows *rows, uint64_t sequence, uint32_t position, uint32_t token)
{
    assert_true(rows->count < MAX_ROWS);
    for (size_t j = 0; j < LATENTS; j++)
        rows->f[rows->count * LATENTS + j] = draw(3) == 0 ? (float)draw(6) / 2 : 0;
    rows->tags[rows->count++] = (struct stream_tag){sequence, position, token};
}

/* Sequences of 1 to 8 rows over few tokens, so that many have the same; some come twice. */
static void make_rows(struct rows *rows)
{
    rows->count = 0;
    for (uint64_t sequence = 0; rows->count + 20 < MAX_ROWS; sequence++) {
        uint32_t length = 1 + draw(8), position = draw(3);
        size_t start = rows->count;
        for (uint32_t i = 0; i < length; i++, position += draw(4) == 0 ? 2 : 1)
            add_row(rows, sequence * 3, position, draw(2));
        if (draw(8) == 0) /* another epoch of it */
            for (size_t i = 0; i < length; i++) {
                struct stream_tag tag = rows->tags[start + i];
                add_row(rows, tag.sequence, tag.position, tag.token);
            }
    }
}

/* ---- the plain search */

struct found {
    size_t first, end, best; /* rows */
    float value;
    bool taken;
};

static bool same_tokens(const struct rows *rows, const struct found *a, const struct found *b)
{
    if (a->end - a->first != b->end - b->first)
        return false;
    for (size_t i = 0; i < a->end - a->first; i++)
        if (rows->tags[a->first + i].token != rows->tags[b->first + i].token)
            return false;
    return true;
}

/* The sequences of a stream; of those with equal tokens the first, single rows aside. */
static size_t find_sequences(const struct rows *rows, struct found *found)
{
    size_t count = 0, kept = 0;
    for (size_t i = 0; i < rows->count; i++) {
        const struct stream_tag *tag = &rows->tags[i];
        if (count == 0 || rows->tags[found[count - 1].first].sequence != tag->sequence ||
            rows->tags[found[count - 1].first].position == tag->position)
            found[count++] = (struct found){.first = i};
        found[count - 1].end = i + 1;
    }
    for (size_t i = 0; i < count; i++) {
        bool repeat = false;
        for (size_t k = 0; k < kept && found[i].end - found[i].first > 1; k++)
            repeat = repeat || same_tokens(rows, &found[k], &found[i]);
        if (!repeat)
            found[kept++] = found[i];
    }
    return kept;
}

/* The strongest sequence for a latent that has not been taken yet; of equals the first. */
static struct found *find_strongest(const struct rows *rows, struct found *found, size_t count,
                                    size_t latent)
{
    struct found *strongest = NULL;
    for (size_t k = 0; k < count; k++) {
        found[k].value = 0;
        for (size_t i = found[k].first; i < found[k].end; i++)
            if (rows->f[i * LATENTS + latent] > found[k].value) {
                found[k].value = rows->f[i * LATENTS + latent];
                found[k].best = i;
            }
        if (!found[k].taken && found[k].value > 0 &&
            (strongest == NULL || found[k].value > strongest->value))
            strongest = &found[k];
    }
    if (strongest != NULL)
        strongest->taken = true;
    return strongest;
}

static void check_example(const struct rows *rows, const struct top_example *example,
                          const struct found *found, size_t latent, size_t context)
{
    const struct stream_tag *tag = &rows->tags[found->best];
    size_t from = found->best - found->first > context ? found->best - context : found->first;
    size_t to = found->end - found->best > context ? found->best + context + 1 : found->end;
    assert_true(example->activation == found->value);
    assert_true(example->sequence == tag->sequence);
    assert_int_equal(example->position, tag->position);
    assert_int_equal(example->token, tag->token);
    assert_int_equal(example->length, to - from);
    assert_int_equal(example->at, found->best - from);
    for (size_t i = from; i < to; i++) {
        assert_int_equal(example->ids[i - from], rows->tags[i].token);
        assert_true(example->activations[i - from] == rows->f[i * LATENTS + latent]);
    }
}

/* ---- running */

/* Rows in blocks of at most `cut`; the first code that is not 0. */
static int add_rows(struct top *top, const struct rows *rows, uint32_t cut)
{
    int status = 0;
    for (size_t at = 0; at < rows->count && status == 0;) {
        size_t n = 1 + draw(cut);
        n = n < rows->count - at ? n : rows->count - at;
        struct scan_block block = {
            .first_row = at, .rows = n, .tags = rows->tags + at, .f = rows->f + at * LATENTS};
        status = top_add(top, &block);
        at += n;
    }
    return status;
}

static void as_a_plain_search(void **state)
{
    (void)state;
    static struct rows rows;
    static struct found found[MAX_ROWS];
    static const uint64_t latents[] = {5, 0, 3, 6};
    static const size_t ns[] = {1, 2, 5, 1000}, contexts[] = {0, 1, 3, 100};
    for (size_t round = 0; round < 64; round++) {
        struct top *top;
        struct top_setup setup = {latents, 4, LATENTS, ns[round % 4], contexts[round / 4 % 4]};
        make_rows(&rows);
        assert_int_equal(top_open(&top, &setup), 0);
        assert_int_equal(add_rows(top, &rows, round % 2 == 0 ? 1 : 40), 0);
        assert_int_equal(top_finish(top), 0);
        for (size_t k = 0; k < 4; k++) {
            size_t count = find_sequences(&rows, found), rank = 0;
            const struct found *expected;
            while (rank < setup.n &&
                   (expected = find_strongest(&rows, found, count, (size_t)latents[k])) != NULL) {
                assert_true(rank < top_count(top, k));
                check_example(&rows, top_example(top, k, rank++), expected, (size_t)latents[k],
                              setup.context);
            }
            assert_int_equal(top_count(top, k), rank);
        }
        top_free(top);
    }
}

static const uint64_t first_latent[] = {0};
static const struct top_setup one_latent = {first_latent, 1, LATENTS, 2, 2};

/* Rows given as sequence and position. */
static int add_places(const uint32_t (*places)[2], size_t count)
{
    static struct rows rows;
    struct top *top;
    rows.count = 0;
    for (size_t i = 0; i < count; i++)
        add_row(&rows, places[i][0], places[i][1], 1);
    assert_int_equal(top_open(&top, &one_latent), 0);
    int status = add_rows(top, &rows, 3);
    top_free(top);
    return status;
}

static void shuffled_rows_are_refused(void **state)
{
    (void)state;
    static const uint32_t back[][2] = {{1, 1}, {1, 2}, {2, 1}, {1, 3}};
    static const uint32_t falling[][2] = {{1, 1}, {1, 3}, {1, 2}};
    static const uint32_t twice[][2] = {{1, 1}, {1, 2}, {1, 2}};
    static const uint32_t gone_on[][2] = {{1, 2}, {2, 1}, {1, 1}};
    static const uint32_t epochs[][2] = {{1, 1}, {1, 4}, {2, 1}, {1, 1}, {1, 4}, {2, 1}, {2, 1}};
    assert_int_equal(add_places(back, 4), ERR_USAGE);
    assert_int_equal(add_places(falling, 3), ERR_USAGE);
    assert_int_equal(add_places(twice, 3), ERR_USAGE);
    assert_int_equal(add_places(gone_on, 3), ERR_USAGE);
    assert_int_equal(add_places(epochs, 7), 0);
}

static void begin_of_shufbuf_is_refused_at_any_place(void **state)
{
    (void)state;
    struct begin begin;
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "actgen"), 0);
    assert_int_equal(top_check_begin(&begin), 0);
    begin.upstream = json_pack("{s:s, s:{s:s}}", "tool", "x 1", "upstream", "tool", "shufbuf 0.1");
    assert_int_equal(top_check_begin(&begin), ERR_USAGE);
    json_object_set_new(begin.upstream, "upstream", json_pack("{s:s}", "tool", "tokstream 1"));
    assert_int_equal(top_check_begin(&begin), 0);
    begin_free(&begin);
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "shufbuf"), 0);
    assert_int_equal(top_check_begin(&begin), ERR_USAGE);
    begin_free(&begin);
}

static void numbers_that_json_cannot_hold_are_refused(void **state)
{
    (void)state;
    struct top *top;
    struct stream_tag tag = {(uint64_t)INT64_MAX + 1, 0, 0};
    float f[LATENTS] = {0};
    struct scan_block block = {.rows = 1, .tags = &tag, .f = f};
    assert_int_equal(top_open(&top, &one_latent), 0);
    assert_int_equal(top_add(top, &block), ERR_DATA);
    tag.sequence--;
    assert_int_equal(top_add(top, &block), 0);
    top_free(top);
}

static void a_sequence_without_end_is_refused(void **state)
{
    (void)state;
    struct top *top;
    float f[LATENTS] = {0};
    int status = 0;
    uint32_t position = 0;
    assert_int_equal(top_open(&top, &one_latent), 0);
    while (status == 0 && position < (1u << 20) + 2) {
        struct stream_tag tag = {1, position++, 0};
        struct scan_block block = {.rows = 1, .tags = &tag, .f = f};
        status = top_add(top, &block);
    }
    assert_int_equal(status, ERR_USAGE);
    assert_int_equal(position, (1u << 20) + 1);
    top_free(top);
}

static void more_examples_than_memory_are_refused(void **state)
{
    (void)state;
    struct top *top;
    struct top_setup setup = {first_latent, SIZE_MAX / 4, LATENTS, 1000, 1000};
    assert_int_equal(top_open(&top, &setup), ERR_MEMORY);
    assert_null(top);
    setup.latent_count = (size_t)1 << 40;
    setup.n = 1;
    assert_int_equal(top_open(&top, &setup), ERR_MEMORY);
}

static void nothing_comes_of_nothing(void **state)
{
    (void)state;
    struct top *top;
    assert_int_equal(top_open(&top, &one_latent), 0);
    assert_int_equal(top_finish(top), 0);
    assert_int_equal(top_count(top, 0), 0);
    top_free(top);
    struct top_setup none = {first_latent, 0, LATENTS, 5, 5};
    static struct rows rows;
    make_rows(&rows);
    assert_int_equal(top_open(&top, &none), 0);
    assert_int_equal(add_rows(top, &rows, 9), 0);
    assert_int_equal(top_finish(top), 0);
    top_free(top);
    top_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_a_plain_search),
        cmocka_unit_test(shuffled_rows_are_refused),
        cmocka_unit_test(begin_of_shufbuf_is_refused_at_any_place),
        cmocka_unit_test(numbers_that_json_cannot_hold_are_refused),
        cmocka_unit_test(a_sequence_without_end_is_refused),
        cmocka_unit_test(more_examples_than_memory_are_refused),
        cmocka_unit_test(nothing_comes_of_nothing),
    };
    log_init("test_top", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
