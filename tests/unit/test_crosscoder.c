/* test_crosscoder.c - crosscoders in files put together here from the format, and ours read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/checkpoint.h"
#include "common/crosscoder.h"
#include "common/io.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "scratch.h"

#define GOLDEN "tests/golden/crosscoder/"

/* Weights whose every value says where it belongs. */
static void fill(struct crosscoder *cc)
{
    for (uint64_t i = 0; i < cc->width * cc->latents; i++) {
        cc->w_enc[i] = (float)i;
        cc->w_dec[i] = -(float)i;
    }
    for (uint64_t i = 0; i < cc->latents; i++)
        cc->b_enc[i] = 1000 + (float)i;
    for (uint64_t i = 0; i < cc->width; i++)
        cc->b_dec[i] = 2000 + (float)i;
}

static void check_round_trip(const uint32_t widths[2])
{
    char a[] = "base.blocks.1.hook_resid_pre", b[] = "chat.blocks.1.hook_resid_pre";
    struct crosscoder_source sources[] = {{a, widths[0], 0.1}, {b, widths[1], 0.3}};
    struct crosscoder cc, back;
    const char *path = scratch_path("round.safetensors");
    assert_int_equal(crosscoder_init(&cc, sources, 2, 3), 0);
    fill(&cc);
    assert_int_equal(crosscoder_set(&cc, "recipe", "{\"l1\": 0.7, \"steps\": 12}"), 0);
    assert_int_equal(crosscoder_write(&cc, path), 0);
    assert_int_equal(crosscoder_read(&back, path), 0);
    assert_int_equal(back.source_count, 2);
    assert_int_equal(back.latents, 3);
    assert_int_equal(back.width, widths[0] + widths[1]);
    assert_true(back.named);
    for (size_t s = 0; s < 2; s++) {
        assert_string_equal(back.sources[s].name, sources[s].name);
        assert_int_equal(back.sources[s].width, sources[s].width);
        assert_true(back.sources[s].scale == sources[s].scale);
    }
    size_t bytes = (size_t)(cc.width * cc.latents) * sizeof(float);
    assert_memory_equal(back.w_enc, cc.w_enc, bytes);
    assert_memory_equal(back.w_dec, cc.w_dec, bytes);
    assert_memory_equal(back.b_enc, cc.b_enc, 3 * sizeof(float));
    assert_memory_equal(back.b_dec, cc.b_dec, cc.width * sizeof(float));
    double value = 0;
    assert_true(crosscoder_recipe_real(&back, "l1", &value));
    assert_true(value == 0.7);
    assert_false(crosscoder_recipe_real(&back, "l2", &value));
    assert_int_equal(unlink(path), 0);
    crosscoder_free(&cc);
    crosscoder_free(&back);
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    check_round_trip((const uint32_t[]){4, 4});
    check_round_trip((const uint32_t[]){2, 5});
}

/* Equal widths are written as the bytes of the seed's tensors: what the package reads (its own
 * file). */
static void test_equal_widths_are_the_seeds_tensors(void **state)
{
    (void)state;
    char a[] = "a", b[] = "b";
    struct crosscoder_source sources[] = {{a, 3, 1}, {b, 3, 1}};
    struct crosscoder cc;
    struct safetensors *file;
    static const char *const names[] = {"W_enc", "W_dec", "b_enc", "b_dec"};
    static const uint64_t shapes[][3] = {{2, 3, 4}, {4, 2, 3}, {4}, {2, 3}};
    static const unsigned ranks[] = {3, 3, 1, 2};
    const char *path = scratch_path("seed.safetensors");
    assert_int_equal(crosscoder_init(&cc, sources, 2, 4), 0);
    fill(&cc);
    assert_int_equal(crosscoder_write(&cc, path), 0);
    assert_int_equal(crosscoder_write(&cc, path), ERR_IO); /* never over what is there */
    assert_int_equal(safetensors_open(&file, path), 0);
    assert_int_equal(safetensors_count(file), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct safetensors_tensor *tensor = safetensors_find(file, names[i]);
        assert_non_null(tensor);
        assert_int_equal(tensor->type, SAFETENSORS_F32);
        assert_int_equal(tensor->rank, ranks[i]);
        assert_memory_equal(tensor->shape, shapes[i], ranks[i] * sizeof(uint64_t));
    }
    safetensors_free(file);
    crosscoder_free(&cc);
}

/* ---- files of the package */

/* Element i of an array is first + i. */
static void check_numbers(const float *values, size_t count, float first)
{
    for (size_t i = 0; i < count; i++)
        assert_true(values[i] == first + (float)i);
}

static void test_types_of_the_seeds_file(void **state)
{
    (void)state;
    static const char *const files[] = {"f32", "bf16", "f16"};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        struct crosscoder cc;
        snprintf(path, sizeof path, GOLDEN "%s.safetensors", files[i]);
        assert_int_equal(crosscoder_read(&cc, path), 0);
        assert_int_equal(cc.source_count, 2);
        assert_int_equal(cc.width, 6);
        assert_int_equal(cc.latents, 4);
        check_numbers(cc.w_enc, 24, 100);
        check_numbers(cc.w_dec, 24, 150);
        check_numbers(cc.b_enc, 4, 200);
        check_numbers(cc.b_dec, 6, 220);
        assert_false(cc.named); /* its "sources" is another program's */
        assert_string_equal(cc.sources[1].name, "source1");
        assert_true(cc.sources[1].scale == 1);
        assert_null(crosscoder_get(&cc, "sources"));
        assert_string_equal(cc.path, path);
        assert_int_equal(crosscoder_column(&cc, 1), 3);
        crosscoder_free(&cc);
    }
}

static void test_tensors_per_source(void **state)
{
    (void)state;
    struct crosscoder cc;
    assert_int_equal(crosscoder_read(&cc, GOLDEN "unequal.safetensors"), 0);
    assert_int_equal(cc.source_count, 2);
    assert_int_equal(cc.sources[0].width, 2);
    assert_int_equal(cc.sources[1].width, 3);
    assert_false(crosscoder_is_uniform(&cc));
    check_numbers(cc.w_enc, 8, 100);
    check_numbers(cc.w_enc + 8, 12, 120);
    check_numbers(cc.b_enc, 4, 200);
    check_numbers(cc.b_dec, 2, 220);
    check_numbers(cc.b_dec + 2, 3, 224);
    for (size_t f = 0; f < 4; f++) {
        check_numbers(cc.w_dec + 5 * f, 2, 150 + 2 * (float)f);
        check_numbers(cc.w_dec + 5 * f + 2, 3, 170 + 3 * (float)f);
    }
    crosscoder_free(&cc);
    assert_int_equal(crosscoder_read(&cc, GOLDEN "one.safetensors"), 0);
    assert_int_equal(cc.source_count, 1);
    assert_true(crosscoder_is_uniform(&cc));
    crosscoder_free(&cc);
}

static void test_what_is_no_crosscoder(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int status;
        bool shape_is_good; /* what is wrong shows in the values alone */
    } files[] = {
        {"dec", ERR_DATA, false},     {"bias", ERR_DATA, false},       {"flat", ERR_DATA, false},
        {"missing", ERR_DATA, false}, {"empty", ERR_DATA, false},      {"type", ERR_USAGE, true},
        {"other", ERR_USAGE, false},  {"threshold", ERR_USAGE, false}, {"value", ERR_DATA, true},
        {"source", ERR_DATA, false},  {"latents", ERR_DATA, false},    {"sources", ERR_DATA, false},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        struct crosscoder cc;
        snprintf(path, sizeof path, GOLDEN "wrong-%s.safetensors", files[i].name);
        assert_int_equal(crosscoder_read(&cc, path), files[i].status);
        assert_null(cc.sources);
        assert_null(cc.path);
        int shape = crosscoder_read_shape(&cc, path);
        assert_int_equal(shape, files[i].shape_is_good ? 0 : files[i].status);
        crosscoder_free(&cc);
    }
    struct crosscoder cc;
    assert_int_equal(crosscoder_read(&cc, GOLDEN "no-such"), ERR_USAGE);
    assert_int_equal(crosscoder_read(&cc, scratch), ERR_USAGE); /* an empty folder */
    assert_int_equal(crosscoder_read(&cc, "tests/golden/files/types.safetensors"), ERR_USAGE);
    assert_int_equal(crosscoder_read(&cc, "tests/golden/stream/tokens.ccps"), ERR_DATA);
}

/* A step folder with a manifest of another program's hash. */
static void test_step_and_run_folders(void **state)
{
    (void)state;
    static const char *const paths[] = {GOLDEN "step-7", GOLDEN};
    for (size_t i = 0; i < 2; i++) {
        struct crosscoder cc;
        double value = 0;
        assert_int_equal(crosscoder_read(&cc, paths[i]), 0);
        assert_true(cc.named);
        assert_string_equal(cc.sources[1].name, "b.x");
        assert_true(cc.sources[0].scale == 0.5 && cc.sources[1].scale == 2);
        assert_string_equal(crosscoder_get(&cc, "rows_trained"), "7168");
        assert_true(crosscoder_recipe_real(&cc, "l1", &value) && value == 0.7);
        assert_string_equal(strrchr(cc.path, '/'), "/cc.safetensors");
        check_numbers(cc.w_dec, 24, 150);
        crosscoder_free(&cc);
    }
}

/* A step folder that does not verify is refused, whole though the weights may be; a run folder goes
 * on to the step before. */
static void test_a_damaged_step_is_not_read(void **state)
{
    (void)state;
    static const char *const files[] = {"cc.safetensors", "state.json"};
    static const char *const steps[] = {"step-3", "step-4"};
    struct crosscoder cc;
    char *weights, name[64];
    size_t size;
    assert_int_equal(io_read_file(&weights, &size, GOLDEN "step-7/cc.safetensors", 1u << 20), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(mkdir(scratch_path(steps[i]), 0700), 0);
        snprintf(name, sizeof name, "%s/cc.safetensors", steps[i]);
        scratch_write(name, weights, size);
        snprintf(name, sizeof name, "%s/state.json", steps[i]);
        scratch_write(name, "{}", 2);
        assert_int_equal(checkpoint_seal(scratch_path(steps[i]), files, 2), 0);
    }
    free(weights);
    scratch_write("step-4/state.json", "[]", 2);
    assert_int_equal(crosscoder_read(&cc, scratch_path("step-4")), ERR_DATA);
    assert_int_equal(crosscoder_read(&cc, scratch), 0);
    assert_string_equal(cc.path, scratch_path("step-3/cc.safetensors"));
    crosscoder_free(&cc);
    scratch_write("step-3/state.json", "[]", 2);
    assert_int_equal(crosscoder_read(&cc, scratch), ERR_DATA);
}

static void test_every_cut_of_a_file(void **state)
{
    (void)state;
    char *bytes;
    size_t size;
    assert_int_equal(io_read_file(&bytes, &size, GOLDEN "unequal.safetensors", 1u << 20), 0);
    const char *path = scratch_path("cut.safetensors");
    for (size_t cut = 0; cut < size; cut++) {
        struct crosscoder cc;
        unlink(path);
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, cut, file), cut);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(crosscoder_read(&cc, path), ERR_TRUNCATED);
    }
    free(bytes);
}

/* ---- against a stream */

static void test_rows_that_fit(void **state)
{
    (void)state;
    struct crosscoder cc, plain;
    struct begin begin;
    assert_int_equal(crosscoder_read_shape(&cc, GOLDEN "step-7"), 0);
    assert_null(cc.w_enc);
    assert_int_equal(crosscoder_read_shape(&plain, GOLDEN "f32.safetensors"), 0);
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", 3, 0.5), 0);
    assert_int_equal(crosscoder_check_begin(&cc, &begin), ERR_USAGE); /* one source alone */
    assert_int_equal(begin_add_source(&begin, "b.x", "b", "x", "", 3, 2), 0);
    assert_int_equal(crosscoder_check_begin(&cc, &begin), 0);
    begin.sources[1].scale = 2.5;
    assert_int_equal(crosscoder_check_begin(&cc, &begin), ERR_USAGE);
    assert_int_equal(crosscoder_check_begin(&plain, &begin), 0); /* it knows no scales */
    begin.sources[1].scale = 2;
    begin.sources[1].name[0] = 'c';
    assert_int_equal(crosscoder_check_begin(&cc, &begin), ERR_USAGE);
    assert_int_equal(crosscoder_check_begin(&plain, &begin), 0);
    begin.sources[1].name[0] = 'b';
    begin.sources[0].width = 4;
    assert_int_equal(crosscoder_check_begin(&cc, &begin), ERR_USAGE);
    assert_int_equal(crosscoder_check_begin(&plain, &begin), ERR_USAGE);
    begin_free(&begin);
    crosscoder_free(&cc);
    crosscoder_free(&plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_open, scratch_close)
        TEST(test_what_is_written_is_read),
        TEST(test_equal_widths_are_the_seeds_tensors),
        TEST(test_types_of_the_seeds_file),
        TEST(test_tensors_per_source),
        TEST(test_what_is_no_crosscoder),
        TEST(test_step_and_run_folders),
        TEST(test_a_damaged_step_is_not_read),
        TEST(test_every_cut_of_a_file),
        TEST(test_rows_that_fit),
    };
    log_init("test_crosscoder", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
