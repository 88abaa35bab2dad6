/* test_actgen_factors.c - what rows hold: values times a source's factor, rounded once to the row's
 * type; and factors that are estimated, written, and given.
 */
#include "tiny_model.h"

#include "common/dtype.h"

#define TYPED(row_type, norm, out)                                                                 \
    "--model", "base=demo/tiny-gemma2/base", "--hook", "blocks.1.hook_resid_pre", "--hook",        \
        "blocks.0.hook_attn_out", "--dtype", "f32", "--row-dtype", row_type, "--norm", norm, "-o", \
        actgen_path(out), "tests/golden/actgen/tokens.ccps"

/* Rows are factor (as f32) times value, rounded once to the type; int8 to half a quantum, which is
 * 1/127 of the largest. */
static void rows_are_scaled_and_rounded_once(void **state)
{
    static const double factors[2] = {0.441234567, 3.25};
    struct actgen_rows plain, scaled, halves, bytes;
    (void)state;
    tiny_write_text(actgen_path("."), "norm.json",
                    "{\"base.blocks.1.hook_resid_pre\": 0.441234567, "
                    "\"base.blocks.0.hook_attn_out\": 3.25, \"another.blocks.0.hook_x\": -1}");
    actgen_succeed(TYPED("f32", "none", "plain"));
    actgen_succeed(TYPED("f32", actgen_path("norm.json"), "scaled"));
    actgen_succeed(TYPED("bf16", actgen_path("norm.json"), "halves"));
    actgen_succeed(TYPED("int8", actgen_path("norm.json"), "bytes"));
    actgen_read_rows(&plain, actgen_path("plain"));
    actgen_read_rows(&scaled, actgen_path("scaled"));
    actgen_read_rows(&halves, actgen_path("halves"));
    actgen_read_rows(&bytes, actgen_path("bytes"));
    assert_int_equal(plain.count, 510);
    assert_int_equal(bytes.count, 510);
    for (size_t s = 0; s < 2; s++) {
        assert_true(json_real_value(json_object_get(actgen_source(&scaled, NULL, s), "scale")) ==
                    factors[s]);
        assert_true(json_real_value(json_object_get(actgen_source(&plain, NULL, s), "scale")) == 1);
        for (size_t i = 0; i < plain.count; i++) {
            const size_t at = i * 256 + s * 128;
            double largest = 0;
            for (size_t j = 0; j < 128; j++) {
                float want = (float)factors[s] * plain.values[at + j];
                assert_true(scaled.values[at + j] == want);
                assert_true(halves.values[at + j] == dtype_bf16_to_f32(dtype_f32_to_bf16(want)));
                largest = fmax(largest, fabs((double)want));
            }
            /* quantum and byte x quantum are rounded in f32: 128 steps of 2^-24 each. */
            for (size_t j = 0; j < 128; j++)
                assert_true(fabs((double)bytes.values[at + j] - (double)scaled.values[at + j]) <=
                            largest / 254 * (1 + 256 * 0x1p-23));
        }
    }
    assert_memory_equal(plain.tags, bytes.tags, 510 * sizeof *plain.tags);
    actgen_free_rows(&plain);
    actgen_free_rows(&scaled);
    actgen_free_rows(&halves);
    actgen_free_rows(&bytes);
}

/* The mean over kept rows of the first N sequences of what `plain` has, for a source. */
static double mean_norm(const struct actgen_rows *plain, uint64_t sequences, size_t source)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < plain->count && plain->tags[i].sequence < sequences; i++, n++) {
        double square = 0;
        for (size_t j = 0; j < 128; j++)
            square += pow((double)plain->values[i * 256 + source * 128 + j], 2);
        sum += sqrt(square);
    }
    return sum / (double)n;
}

/* Over the first sequences, or all if fewer, and written so that the file gives the same bytes. */
static void factors_are_estimated_and_written(void **state)
{
    static const char *const sequences[] = {"1", "2", "400"};
    struct actgen_rows plain, scaled;
    size_t size, again_size;
    char *first, *again;
    (void)state;
    actgen_succeed(TYPED("f32", "none", "plain"));
    actgen_read_rows(&plain, actgen_path("plain"));
    for (size_t n = 0; n < 3; n++) {
        actgen_succeed("--norm-sequences", sequences[n], "--norm-out", actgen_path("norm.json"),
                       TYPED("f32", "estimate", "scaled"));
        actgen_read_rows(&scaled, actgen_path("scaled"));
        assert_int_equal(scaled.count, plain.count);
        json_t *written;
        assert_int_equal(json_read_file(&written, actgen_path("norm.json"), 1u << 20), 0);
        assert_int_equal(json_object_size(written), 2);
        for (size_t s = 0; s < 2; s++) {
            const json_t *source = actgen_source(&scaled, NULL, s);
            double scale = json_real_value(json_object_get(source, "scale"));
            double want = sqrt(128) / mean_norm(&plain, n == 0 ? 1 : 2, s);
            /* The norms are f32 (2^-24), the file has 9 digits (5e-9 of a leading 1). */
            assert_true(fabs(scale / want - 1) < 0x1p-24 + 5e-9);
            const char *name = json_string_value(json_object_get(source, "name"));
            assert_true(json_real_value(json_object_get(written, name)) == scale);
            char digits[40];
            snprintf(digits, sizeof digits, "%.9g", scale);
            assert_true(strtod(digits, NULL) == scale);
        }
        json_decref(written);
        actgen_free_rows(&scaled);
        actgen_succeed(TYPED("f32", actgen_path("norm.json"), "again"));
        assert_int_equal(io_read_file(&first, &size, actgen_path("scaled"), 1u << 24), 0);
        assert_int_equal(io_read_file(&again, &again_size, actgen_path("again"), 1u << 24), 0);
        assert_int_equal(size, again_size);
        assert_memory_equal(first, again, size);
        free(first);
        free(again);
    }
    actgen_free_rows(&plain);
}

static void factor_files_that_do_not_fit_are_refused(void **state)
{
    static const struct {
        const char *text;
        int status;
        const char *says;
    } cases[] = {
        {"{\"base.blocks.1.hook_resid_pre\": 1}", 64, "base.blocks.0.hook_attn_out"},
        {"{\"base.blocks.1.hook_resid_pre\": 1, \"base.blocks.0.hook_attn_out\": 0}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": -2, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": \"1\", \"base.blocks.0.hook_attn_out\": 1}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": null, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": 1e-60, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": 1e39, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "positive"},
        {"{\"base.blocks.1.hook_resid_pre\": NaN, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "norm.json"},
        {"{\"base.blocks.1.hook_resid_pre\": 1e999, \"base.blocks.0.hook_attn_out\": 1}", 65,
         "norm.json"},
        {"[1, 1]", 65, "norm.json"},
        {"", 65, "norm.json"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_write_text(actgen_path("."), "norm.json", cases[i].text);
        unlink(actgen_path("rows"));
        assert_int_equal(actgen_run(TYPED("f32", actgen_path("norm.json"), "rows")),
                         cases[i].status);
        actgen_assert_says(cases[i].says);
        assert_int_equal(access(actgen_path("rows"), F_OK), -1);
    }
    assert_int_equal(actgen_run(TYPED("f32", actgen_path("no-such.json"), "rows")), 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_scaled_and_rounded_once),
        cmocka_unit_test(factors_are_estimated_and_written),
        cmocka_unit_test(factor_files_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
