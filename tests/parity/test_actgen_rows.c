/* test_actgen_rows.c - which rows come out, in which order, and that a row depends on its own
 * sequence alone: not on --batch, its place in a pass, its neighbours, or --threads.
 */
#include "tiny_model.h"

#include <sys/resource.h>

#define GOLDEN "tests/golden/actgen/"
#define BASE "base=demo/tiny-gemma2/base"

enum { VALIDATION = 256, PLACES = 6, TESTED = 150 };

/* ---- independence */

struct batch_case {
    const char *type, *batch, *threads;
};

/* A stream of PLACES sequences, the tested one (ids) at `place` and others before and behind it. */
static void write_places(const uint32_t *ids, const uint32_t *others, size_t place)
{
    static const uint32_t other_lengths[PLACES - 1] = {31, 256, 1, 97, 200};
    uint32_t lengths[PLACES], all[PLACES * VALIDATION];
    size_t at = 0, other = 0;
    for (size_t i = 0; i < PLACES; i++) {
        lengths[i] = i == place ? TESTED : other_lengths[other];
        memcpy(all + at, i == place ? ids : others + 7 * other, lengths[i] * sizeof *all);
        other += i == place ? 0 : 1;
        at += lengths[i];
    }
    actgen_write_tokens(actgen_path("tokens"), all, lengths, PLACES, 0, 0);
}

/* The rows of sequence `place`, (TESTED) of the stream last written. */
static uint8_t *rows_of(const struct batch_case *with, size_t place)
{
    struct actgen_rows rows;
    actgen_succeed("--model", BASE, "--hook", "blocks.5.hook_resid_post", "--hook",
                   "blocks.2.hook_mlp_out", "--dtype", with->type, "--row-dtype", "f32", "--norm",
                   "none", "--keep-bos", "--batch", with->batch, "--threads", with->threads, "-o",
                   actgen_path("rows"), actgen_path("tokens"));
    actgen_read_rows(&rows, actgen_path("rows"));
    uint8_t *found = malloc(TESTED * rows.row_bytes);
    size_t n = 0;
    assert_non_null(found);
    for (size_t i = 0; i < rows.count; i++)
        if (rows.tags[i].sequence == place)
            memcpy(found + n++ * rows.row_bytes, rows.bytes + i * rows.row_bytes, rows.row_bytes);
    assert_int_equal(n, TESTED);
    actgen_free_rows(&rows);
    return found;
}

static void a_row_is_the_same_at_every_place_of_every_batch(void **state)
{
    static const struct batch_case cases[] = {{"f32", "6", "2"},  {"f32", "4", "1"},
                                              {"f32", "1", "2"},  {"bf16", "6", "2"},
                                              {"bf16", "4", "1"}, {"bf16", "1", "2"}};
    uint32_t *ids = actgen_read_tokens(GOLDEN "tokens.ccps", 2, VALIDATION);
    const uint32_t length = TESTED;
    uint8_t *alone = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (i % 3 == 0) { /* a new type: alone, in a pass of its own */
            struct batch_case single = {cases[i].type, "1", "1"};
            actgen_write_tokens(actgen_path("tokens"), ids, &length, 1, 0, 0);
            free(alone);
            alone = rows_of(&single, 0);
        }
        for (size_t place = 0; place < PLACES; place++) {
            write_places(ids, ids + VALIDATION - 40, place);
            uint8_t *rows = rows_of(&cases[i], place);
            assert_memory_equal(rows, alone, TESTED * 2 * 128 * sizeof(float));
            free(rows);
        }
    }
    free(alone);
    free(ids);
}

/* ---- which rows */

static const uint32_t several[] = {5, 0, 1, 3, 8};
enum { SEVERAL = sizeof several / sizeof *several, SEVERAL_TOKENS = 17 };

/* A tiny model and SEVERAL sequences whose ids are 0, 1, 2, ... 16. */
static const char *write_several(const struct tiny *tiny)
{
    static char model[300];
    uint32_t ids[SEVERAL_TOKENS];
    for (uint32_t i = 0; i < SEVERAL_TOKENS; i++)
        ids[i] = i;
    actgen_write_tokens(actgen_path("tokens"), ids, several, SEVERAL, 0, 1000);
    snprintf(model, sizeof model, "a=%s", tiny_write(tiny, "model"));
    return model;
}

/* The tags are those of all positions from `first` on whose id is neither `drop` nor `drop_too`,
 * once each, in order; END counts the others. */
static void assert_tags(const struct actgen_rows *rows, uint32_t first, uint32_t drop,
                        uint32_t drop_too)
{
    size_t row = 0, below = 0, dropped = 0;
    uint32_t id = 0;
    for (size_t s = 0; s < SEVERAL; s++) {
        for (uint32_t i = 0; i < several[s]; i++, id++) {
            if (i < first) {
                below++;
            } else if (id == drop || id == drop_too) {
                dropped++;
            } else {
                assert_true(row < rows->count);
                assert_int_equal(rows->tags[row].sequence, 1000 + s);
                assert_int_equal(rows->tags[row].position, i);
                assert_int_equal(rows->tags[row++].token, id);
            }
        }
    }
    assert_int_equal(row, rows->count);
    assert_int_equal(actgen_number(rows->skipped, "position"), below);
    assert_int_equal(actgen_number(rows->skipped, "id"), dropped);
    assert_int_equal(actgen_number(rows->skipped, "not_finite"), 0);
}

#define FROM_SEVERAL(model)                                                           \
    "--model", model, "--hook", "blocks.1.hook_resid_pre", "-o", actgen_path("rows"), \
        actgen_path("tokens")

static void positions_and_ids_that_are_dropped_give_no_row(void **state)
{
    struct tiny tiny;
    struct actgen_rows rows;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *model = write_several(&tiny);
    for (int batch = 1; batch < 8; batch += 2) {
        char n[8];
        snprintf(n, sizeof n, "%d", batch);
        actgen_succeed("--batch", n, FROM_SEVERAL(model));
        actgen_read_rows(&rows, actgen_path("rows"));
        assert_tags(&rows, 1, UINT32_MAX, UINT32_MAX);
        actgen_free_rows(&rows);
    }
    static const struct {
        const char *options[6];
        uint32_t first, drop, drop_too;
    } cases[] = {
        {{"--drop-bos", "-q", "-q", "-q", "-q", "-q"}, 1, UINT32_MAX, UINT32_MAX},
        {{"--keep-bos", "-q", "-q", "-q", "-q", "-q"}, 0, UINT32_MAX, UINT32_MAX},
        {{"--keep-bos", "--skip-first", "3", "-q", "-q", "-q"}, 3, UINT32_MAX, UINT32_MAX},
        {{"--skip-first", "0", "-q", "-q", "-q", "-q"}, 1, UINT32_MAX, UINT32_MAX},
        {{"--skip-first", "2", "--drop-id", "10", "--drop-id", "16"}, 2, 10, 16},
        {{"--drop-id", "5", "--drop-id", "999", "-q", "-q"}, 1, 5, UINT32_MAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const *o = cases[i].options;
        actgen_succeed(o[0], o[1], o[2], o[3], o[4], o[5], FROM_SEVERAL(model));
        actgen_read_rows(&rows, actgen_path("rows"));
        assert_tags(&rows, cases[i].first, cases[i].drop, cases[i].drop_too);
        actgen_free_rows(&rows);
    }
    tiny_free(&tiny);
}

/* BEGIN's rows: known from seq_len and the number of sequences, if positions alone decide. */
static void rows_are_announced_where_they_are_known(void **state)
{
    struct tiny tiny;
    struct actgen_rows rows;
    uint32_t ids[24] = {0}, lengths[] = {8, 8, 8};
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *model = write_several(&tiny);
    actgen_succeed(FROM_SEVERAL(model));
    actgen_read_rows(&rows, actgen_path("rows"));
    assert_true(json_is_null(json_object_get(rows.begin, "rows")));
    actgen_free_rows(&rows);

    actgen_write_tokens(actgen_path("tokens"), ids, lengths, 3, 8, 0);
    static const struct {
        const char *option, *value;
        int64_t rows; /* -1: null */
    } cases[] = {{"--batch", "2", 21},
                 {"--skip-first", "5", 9},
                 {"--skip-first", "8", 0},
                 {"--skip-first", "100", 0},
                 {"--drop-id", "7", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        actgen_succeed(cases[i].option, cases[i].value, FROM_SEVERAL(model));
        actgen_read_rows(&rows, actgen_path("rows"));
        const json_t *said = json_object_get(rows.begin, "rows");
        if (cases[i].rows < 0) {
            assert_true(json_is_null(said));
        } else {
            assert_int_equal(json_integer_value(said), cases[i].rows);
            assert_int_equal(rows.count, cases[i].rows);
        }
        actgen_free_rows(&rows);
    }
    /* What BEGIN says of the lengths is not believed blindly, as it became a number of rows. */
    lengths[1] = 7;
    actgen_write_tokens(actgen_path("tokens"), ids, lengths, 3, 8, 0);
    assert_int_equal(actgen_run(FROM_SEVERAL(model)), 65);
    actgen_assert_says("sequence 1 has 7 tokens");
    tiny_free(&tiny);
}

/* Longer than what is taken where BEGIN says nothing, and than a whole pass; among short ones. */
static void long_sequences_make_room_for_themselves(void **state)
{
    enum { LONG = 2500 };
    static const uint32_t lengths[] = {3, LONG, 4, LONG - 1, 1100};
    struct tiny tiny;
    struct actgen_rows rows;
    uint32_t ids[2 * LONG + 1200];
    double *want = malloc(LONG * 24 * sizeof *want);
    char model[300];
    (void)state;
    assert_non_null(want);
    for (uint32_t i = 0; i < 2 * LONG + 1200; i++)
        ids[i] = i * 31 % 50;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 2);
    snprintf(model, sizeof model, "a=%s", tiny_write(&tiny, "model"));
    actgen_write_tokens(actgen_path("tokens"), ids, lengths, 5, 0, 0);
    actgen_succeed("--model", model, "--hook", "blocks.1.hook_resid_post", "--batch", "2",
                   "--dtype", "f32", "--row-dtype", "f32", "--norm", "none", "--keep-bos", "-o",
                   actgen_path("rows"), actgen_path("tokens"));
    actgen_read_rows(&rows, actgen_path("rows"));
    size_t row = 0;
    for (size_t s = 0; s < 5; row += lengths[s++]) {
        tiny_forward(want, &tiny, "blocks.1.hook_resid_post", ids + row, lengths[s]);
        for (uint32_t i = 0; i < lengths[s]; i++) {
            double off = 0, norm = 0;
            for (size_t j = 0; j < 24; j++) {
                double w = want[i * 24 + j];
                off += pow((double)rows.values[(row + i) * 24 + j] - w, 2);
                norm += w * w;
            }
            assert_int_equal(rows.tags[row + i].sequence, s);
            assert_int_equal(rows.tags[row + i].position, i);
            assert_true(sqrt(off / norm) <= 2e-5);
        }
    }
    assert_int_equal(row, rows.count);
    actgen_free_rows(&rows);
    tiny_free(&tiny);
    free(want);
}

/* ---- rows that are not finite */

enum { BAD_LENGTH = 20, BAD_ID = 49 };

/* `sequences` of BAD_LENGTH with ids 0 .. 9, but for `bad` of them, evenly spread, whose last id is
 * BAD_ID. */
static void write_bad(const struct tiny *tiny, size_t sequences, size_t bad, char model[300])
{
    uint32_t *ids = malloc(sequences * BAD_LENGTH * sizeof *ids);
    uint32_t *lengths = malloc(sequences * sizeof *lengths);
    assert_true(ids != NULL && lengths != NULL);
    for (size_t i = 0; i < sequences; i++) {
        lengths[i] = BAD_LENGTH;
        for (size_t j = 0; j < BAD_LENGTH; j++)
            ids[BAD_LENGTH * i + j] = (uint32_t)((i + j) % 10);
    }
    for (size_t i = 0; i < bad; i++)
        ids[BAD_LENGTH * (i * sequences / bad + 1) - 1] = BAD_ID;
    actgen_write_tokens(actgen_path("tokens"), ids, lengths, sequences, BAD_LENGTH, 0);
    snprintf(model, 300, "a=%s", tiny_write(tiny, "model"));
    free(ids);
    free(lengths);
}

static int run_bad(const char *model, const char *hook, const char *norm_sequences)
{
    return actgen_run("--model", model, "--hook", hook, "--norm-sequences", norm_sequences, "-o",
                      actgen_path("rows"), actgen_path("tokens"));
}

/* A thousandth may be left out: they are counted, and all others are there once. */
static void rows_that_are_not_finite_are_left_out(void **state)
{
    static const float wrong[] = {NAN, INFINITY, -INFINITY, 3e38f};
    (void)state;
    for (size_t w = 0; w < 4; w++) {
        struct tiny tiny;
        struct actgen_rows rows;
        char model[300];
        tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 3);
        /* 3e38 is finite, and too large once it is multiplied by sqrt(d). */
        tiny_find(&tiny, "model.embed_tokens.weight")->values[BAD_ID * 24 + 5] = wrong[w];
        write_bad(&tiny, 200, 3, model);
        assert_int_equal(run_bad(model, "blocks.0.hook_resid_pre", "400"), 0);
        actgen_assert_says("3 of 3800 rows are not finite");
        actgen_read_rows(&rows, actgen_path("rows"));
        assert_int_equal(rows.count, 3800 - 3);
        assert_int_equal(actgen_number(rows.skipped, "not_finite"), 3);
        assert_int_equal(actgen_number(rows.begin, "rows"), 3800);
        size_t row = 0;
        for (size_t s = 0; s < 200; s++)
            for (uint32_t i = 1; i < BAD_LENGTH; i++) {
                if (i == BAD_LENGTH - 1 && (s == 0 || s == 66 || s == 133))
                    continue;
                assert_int_equal(rows.tags[row].sequence, s);
                assert_int_equal(rows.tags[row++].position, i);
            }
        assert_int_equal(row, rows.count);
        actgen_free_rows(&rows);
        tiny_free(&tiny);
    }
}

/* Through attention it may reach other rows of its own sequence, and no other sequence. */
static void what_is_not_finite_stays_in_its_sequence(void **state)
{
    struct tiny tiny;
    struct actgen_rows rows;
    char model[300];
    size_t row = 0;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 3);
    tiny_find(&tiny, "model.embed_tokens.weight")->values[BAD_ID * 24] = NAN;
    write_bad(&tiny, 1000, 1, model);
    assert_int_equal(run_bad(model, "blocks.2.hook_resid_post", "400"), 0);
    actgen_read_rows(&rows, actgen_path("rows"));
    while (rows.tags[row].sequence == 0)
        row++;
    assert_true(row < BAD_LENGTH - 1);
    assert_int_equal(rows.count - row, 999 * (BAD_LENGTH - 1));
    actgen_free_rows(&rows);
    tiny_free(&tiny);
}

static void more_than_a_thousandth_is_corrupt(void **state)
{
    static const char hook[] = "blocks.0.hook_resid_pre";
    struct tiny tiny;
    struct actgen_rows rows;
    char model[300];
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 3);
    struct tiny_tensor *embedding = tiny_find(&tiny, "model.embed_tokens.weight");
    embedding->values[BAD_ID * 24] = NAN;
    write_bad(&tiny, 200, 4, model);
    assert_int_equal(run_bad(model, hook, "400"), 65);
    actgen_assert_says("4 of 3800 rows are not finite");
    /* 4 of 4180 may be, although of those that the factors are estimated from it is 1 in 57. */
    write_bad(&tiny, 220, 4, model);
    assert_int_equal(run_bad(model, hook, "3"), 0);
    actgen_read_rows(&rows, actgen_path("rows"));
    assert_int_equal(rows.count, 4180 - 4);
    actgen_free_rows(&rows);
    /* All of them: there is nothing to estimate from. */
    for (size_t i = 0; i < 50 * 24; i++)
        embedding->values[i] = NAN;
    write_bad(&tiny, 20, 0, model);
    assert_int_equal(run_bad(model, hook, "400"), 65);
    actgen_assert_says("of 380 rows are not finite");
    tiny_free(&tiny);
}

/* A factor that lifts a value out of bf16's range leaves the row out as well. */
static void a_factor_must_not_make_rows_infinite(void **state)
{
    struct tiny tiny;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *model = write_several(&tiny);
    tiny_write_text(actgen_path("."), "norm.json", "{\"a.blocks.1.hook_resid_pre\": 3e38}");
    assert_int_equal(actgen_run("--norm", actgen_path("norm.json"), FROM_SEVERAL(model)), 65);
    actgen_assert_says("not finite");
    tiny_free(&tiny);
}

/* ---- ids */

static void an_id_beyond_the_vocabulary_is_corrupt(void **state)
{
    static const uint32_t lengths[] = {4, 4};
    static const uint32_t ids[] = {1, 2, 3, 49, 5, 6, 50, 7};
    struct tiny tiny;
    char model[300];
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    snprintf(model, sizeof model, "a=%s", tiny_write(&tiny, "model"));
    actgen_write_tokens(actgen_path("tokens"), ids, lengths, 2, 4, 70);
    for (int norm = 0; norm < 2; norm++) {
        assert_int_equal(actgen_run("--norm", norm == 0 ? "none" : "estimate", FROM_SEVERAL(model)),
                         65);
        actgen_assert_says("sequence 71, position 2: token id 50");
    }
    tiny_free(&tiny);
}

/* ---- memory */

/* BEGIN's word is enough to know what a pass takes; it is asked for before weights are read or an
 * output is made. */
static void memory_that_is_not_there_is_refused_first(void **state)
{
    struct tiny tiny;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *model = write_several(&tiny);
    actgen_write_tokens(actgen_path("tokens"), NULL, NULL, 0, UINT64_C(1) << 31, 0);
    unlink(actgen_path("rows"));
    assert_int_equal(actgen_run("--batch", "1", FROM_SEVERAL(model)), 71);
    actgen_assert_says("GB of memory");
    assert_int_equal(access(actgen_path("rows"), F_OK), -1);
    assert_int_equal(actgen_run("--batch", "3", FROM_SEVERAL(model)), 64);
    actgen_assert_says("lower --batch");
    actgen_write_tokens(actgen_path("tokens"), NULL, NULL, 0, INT64_MAX, 0);
    assert_int_equal(actgen_run("--batch", "3", FROM_SEVERAL(model)), 64);
    tiny_free(&tiny);
}

/* The number of a line of --plan, which actgen_run() left in its standard output. */
static double planned(const char *name)
{
    char *text;
    size_t size;
    assert_int_equal(io_read_file(&text, &size, actgen_path("stdout"), 1u << 16), 0);
    const char *line = strstr(text, name);
    assert_non_null(line);
    double number = strtod(line + strlen(name), NULL);
    free(text);
    return number;
}

/* What --plan says is what a run takes, but for the program itself, its libraries and records. All
 * of it is taken at the start, so no sequence has to come. */
static void a_run_takes_the_memory_that_was_planned(void **state)
{
#ifdef __SANITIZE_ADDRESS__
    const double least = 0.5, most = 4;
#else
    const double least = 0.8, most = 1.2;
#endif
    struct rusage usage;
    (void)state;
    actgen_write_tokens(actgen_path("tokens"), NULL, NULL, 0, 1024, 0);
    static const char *const modes[] = {"-q", "--plan"};
    for (size_t i = 0; i < 2; i++)
        actgen_succeed(modes[i], "--model", BASE, "--model", "chat=demo/tiny-gemma2/chat", "--hook",
                       "blocks.5.hook_resid_post", "--norm", "none", "--batch", "128",
                       actgen_path("tokens"));
    /* Embeddings stay as they are stored: 1024 x 128 in F32 and in BF16. */
    assert_true(planned("embedding\t") == 1024 * 128 * (4 + 2));
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &usage), 0);
    double taken = (double)usage.ru_maxrss * 1024 / planned("memory\t");
    if (!(taken >= least && taken <= most))
        fail_msg("%.3g times the memory that was planned", taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_is_the_same_at_every_place_of_every_batch),
        cmocka_unit_test(positions_and_ids_that_are_dropped_give_no_row),
        cmocka_unit_test(rows_are_announced_where_they_are_known),
        cmocka_unit_test(long_sequences_make_room_for_themselves),
        cmocka_unit_test(rows_that_are_not_finite_are_left_out),
        cmocka_unit_test(what_is_not_finite_stays_in_its_sequence),
        cmocka_unit_test(more_than_a_thousandth_is_corrupt),
        cmocka_unit_test(a_factor_must_not_make_rows_infinite),
        cmocka_unit_test(an_id_beyond_the_vocabulary_is_corrupt),
        cmocka_unit_test(memory_that_is_not_there_is_refused_first),
        cmocka_unit_test(a_run_takes_the_memory_that_was_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
