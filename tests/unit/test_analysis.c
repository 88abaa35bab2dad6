/* test_analysis.c - the verbs from checkpoint and rows to what they print, both forms, against
 * tests/golden/analysis, which another program computed in f64.
 *
 * Tolerance. What the weights alone say is f64 and printed with nine digits: 5e-9 of the value. In
 * "exact" every latent is exact in f32, so the same holds for all. Elsewhere a latent is a sum of
 * at most 14 products in f32: off by at most 14 * 2^-24 * sum |x w|, the sum below 10 there: below
 * 1e-5. Reconstructions add up as few, and all figures are means or ratios of them of size about 1.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/stream.h"
#include "common/tokenizer.h"
#include "tools/ccanalyze/verb.h"

#define GOLDEN "tests/golden/analysis"
#define MAX_ARGS 16

static char folder[] = "/tmp/test_analysis_XXXXXX";
static char output[64], dead[64], weights[64], rows_path[64];

static const struct verb *const verbs[] = {&verb_norms, &verb_clusters, &verb_cosine,
                                           &verb_freq,  &verb_eval,     &verb_top};

/* Runs a verb as main() would, argv[0] its word. */
static int run(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(strchr(verbs[i]->tool->name, ' ') + 1, argv[0]) != 0)
            continue;
        void *options = calloc(1, verbs[i]->options_size);
        assert_non_null(options);
        int status = opt_parse(verbs[i]->tool, options, argc, argv);
        if (status == 0)
            status = verbs[i]->run(options);
        opt_free(verbs[i]->tool, options);
        free(options);
        return status;
    }
    fail_msg("no verb '%s'", argv[0]);
    return 0;
}

/* ---- comparing */

struct tolerance {
    double relative, absolute;
};

static const struct tolerance digits = {1e-8, 1e-14}, single_precision = {1e-5, 1e-5};

static bool near(double value, double expected, struct tolerance tolerance)
{
    return fabs(value - expected) <= tolerance.relative * fabs(expected) + tolerance.absolute;
}

static void compare_json(const json_t *value, const json_t *expected, struct tolerance tolerance)
{
    const char *key;
    json_t *member;
    assert_non_null(value);
    switch (json_typeof(expected)) {
    case JSON_OBJECT:
        assert_true(json_is_object(value));
        assert_int_equal(json_object_size(value), json_object_size(expected));
        json_object_foreach((json_t *)expected, key, member)
            compare_json(json_object_get(value, key), member, tolerance);
        break;
    case JSON_ARRAY:
        assert_true(json_is_array(value));
        assert_int_equal(json_array_size(value), json_array_size(expected));
        for (size_t i = 0; i < json_array_size(expected); i++)
            compare_json(json_array_get(value, i), json_array_get(expected, i), tolerance);
        break;
    case JSON_REAL:
        assert_true(json_is_number(value));
        if (!near(json_number_value(value), json_real_value(expected), tolerance))
            fail_msg("%.12g is not %.12g", json_number_value(value), json_real_value(expected));
        break;
    default:
        assert_true(json_equal(value, expected));
    }
}

/* The next field of a line, up to `end`, which is cut off. */
static char *cut(char **text, const char *end)
{
    char *field = *text;
    size_t length = strcspn(field, end);
    *text = field + length + (field[length] != '\0');
    field[length] = '\0';
    return field;
}

static void compare_field(const char *field, const json_t *expected, struct tolerance tolerance)
{
    char *end;
    char count[32];
    if (json_is_null(expected)) {
        assert_string_equal(field, "");
    } else if (json_is_string(expected)) {
        assert_string_equal(field, json_string_value(expected));
    } else if (json_is_integer(expected)) {
        snprintf(count, sizeof count, "%lld", (long long)json_integer_value(expected));
        assert_string_equal(field, count);
    } else {
        double value = strtod(field, &end);
        assert_true(end != field && *end == '\0');
        if (!near(value, json_real_value(expected), tolerance))
            fail_msg("%s is not %.12g", field, json_real_value(expected));
    }
}

static void compare_line(char *line, const json_t *expected, struct tolerance tolerance)
{
    size_t tabs = 0;
    for (const char *at = line; *at != '\0'; at++)
        tabs += *at == '\t';
    assert_int_equal(tabs + 1, json_array_size(expected));
    for (size_t i = 0; i < json_array_size(expected); i++)
        compare_field(cut(&line, "\t"), json_array_get(expected, i), tolerance);
}

static void compare_table(char *text, const json_t *expected, struct tolerance tolerance)
{
    const json_t *rows = json_object_get(expected, "rows");
    compare_line(cut(&text, "\n"), json_object_get(expected, "header"), tolerance);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        assert_true(*text != '\0');
        compare_line(cut(&text, "\n"), json_array_get(rows, i), tolerance);
    }
    assert_string_equal(text, "");
}

/* ---- running */

/* CC, ROWS, MODEL and DEAD of an expected command line are files. */
static const char *path_of(const char *word, const char *name, char path[128])
{
    static const char *const words[] = {"CC", "ROWS", "MODEL"};
    static const char *const files[] = {"cc.safetensors", "rows", "model"};
    if (strcmp(word, "DEAD") == 0)
        return dead;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(word, words[i]) == 0) {
            snprintf(path, 128, GOLDEN "/%s/%s", name, files[i]);
            return path;
        }
    return word;
}

/* Runs one command, with `more` (or NULL) behind it; its output, which the caller frees. */
static char *run_case(const json_t *args, const char *name, const char *more)
{
    char paths[MAX_ARGS][128];
    char *argv[MAX_ARGS + 4];
    int argc = 0;
    size_t size;
    char *text;
    assert_true(json_array_size(args) <= MAX_ARGS);
    for (size_t i = 0; i < json_array_size(args); i++, argc++)
        argv[argc] = (char *)path_of(json_string_value(json_array_get(args, i)), name, paths[argc]);
    argv[argc++] = (char *)"-o";
    argv[argc++] = output;
    if (more != NULL)
        argv[argc++] = (char *)more;
    argv[argc] = NULL;
    assert_int_equal(run(argc, argv), 0);
    assert_int_equal(io_read_file(&text, &size, output, 1u << 24), 0);
    return text;
}

static void run_golden(const char *name, struct tolerance of_rows)
{
    char path[128];
    json_t *cases, *value;
    snprintf(path, sizeof path, GOLDEN "/%s/expected.json", name);
    assert_int_equal(json_read_file(&cases, path, 1u << 24), 0);
    assert_true(json_array_size(cases) >= 4);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *expected = json_array_get(cases, i),
                     *args = json_object_get(expected, "args");
        char *words = json_dumps(args, JSON_COMPACT);
        print_message("# %s %s\n", name, words);
        free(words);
        bool rows = json_array_size(args) > 2 &&
                    strcmp(json_string_value(json_array_get(args, 2)), "ROWS") == 0;
        char *text = run_case(args, name, NULL);
        compare_table(text, expected, rows ? of_rows : digits);
        free(text);
        text = run_case(args, name, "--json");
        value = json_parse(text, strlen(text), output);
        compare_json(value, json_object_get(expected, "json"), rows ? of_rows : digits);
        json_decref(value);
        free(text);
    }
    json_decref(cases);
}

static void two_sources_and_exact_latents(void **state)
{
    (void)state;
    char cc[] = GOLDEN "/exact/cc.safetensors", rows[] = GOLDEN "/exact/rows";
    char *freq[] = {(char *)"freq", cc, rows, (char *)"-o", dead, NULL};
    assert_int_equal(run(5, freq), 0);
    run_golden("exact", digits);
}

static void three_sources_of_unequal_widths(void **state)
{
    (void)state;
    run_golden("uneven", single_precision);
}

static void one_source(void **state)
{
    (void)state;
    run_golden("single", single_precision);
}

/* ---- what must be refused; a crosscoder of one source of two columns, and rows for it */

static void write_crosscoder(float weight, const char *activation)
{
    struct crosscoder cc;
    struct crosscoder_source source = {(char *)"a.x", 2, 1};
    unlink(weights);
    assert_int_equal(crosscoder_init(&cc, &source, 1, 3), 0);
    for (size_t i = 0; i < 6; i++)
        cc.w_enc[i] = cc.w_dec[i] = weight;
    assert_int_equal(crosscoder_set(&cc, "activation", activation), 0);
    assert_int_equal(crosscoder_write(&cc, weights), 0);
    crosscoder_free(&cc);
}

/* Row i is i, 2 i, in records of `cut` rows; sequences of 7. */
static void write_rows(uint32_t count, uint32_t cut, const char *tokenizer_hash)
{
    struct begin begin;
    struct stream_writer *writer;
    uint8_t tag[STREAM_TAG_BYTES];
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", 2, 1), 0);
    begin.dtype = DTYPE_F32;
    free(begin.tokenizer_hash);
    begin.tokenizer_hash = strdup(tokenizer_hash);
    assert_int_equal(stream_writer_open(&writer, rows_path, STREAM_CODEC_LZ4, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    for (uint32_t i = 0; i < count; i++) {
        float row[2] = {(float)i, (float)(2 * i)};
        stream_tag_put(tag, (struct stream_tag){i / 7, i % 7, 3 * i});
        assert_int_equal(stream_writer_rows(writer, tag, (const uint8_t *)row, 1), 0);
        if ((i + 1) % cut == 0)
            assert_int_equal(stream_writer_flush(writer), 0);
    }
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
}

static int run_words(const char *verb, const char *option, const char *value)
{
    char *argv[] = {(char *)verb, weights,        rows_path,     (char *)"-o", output,
                    (char *)"-q", (char *)option, (char *)value, NULL};
    return run(option == NULL ? 6 : 8, argv);
}

/* Latents x0, x1 and their sum, of which the first two are decoded as they are. */
static void make_transparent(struct crosscoder *cc)
{
    struct crosscoder_source source = {(char *)"a.x", 2, 1};
    assert_int_equal(crosscoder_init(cc, &source, 1, 3), 0);
    const float w_enc[] = {1, 0, 1, 0, 1, 1}, w_dec[] = {1, 0, 0, 1, 0, 0};
    memcpy(cc->w_enc, w_enc, sizeof w_enc);
    memcpy(cc->w_dec, w_dec, sizeof w_dec);
}

static void check_block(const struct scan_block *block, uint64_t first)
{
    assert_true(block->first_row == first);
    for (size_t i = 0; i < block->rows; i++) {
        uint32_t n = (uint32_t)(first + i);
        const struct stream_tag *tag = &block->tags[i];
        assert_true(tag->sequence == n / 7 && tag->position == n % 7 && tag->token == 3 * n);
        assert_true(block->x[2 * i] == (float)n && block->x[2 * i + 1] == (float)(2 * n));
        assert_true(block->f[3 * i] == (float)n && block->f[3 * i + 1] == (float)(2 * n) &&
                    block->f[3 * i + 2] == (float)(3 * n));
        assert_memory_equal(&block->xhat[2 * i], &block->x[2 * i], 2 * sizeof(float));
    }
}

/* Records longer and shorter than a block, and a last block that is short. */
static void rows_arrive_whole_whatever_the_records(void **state)
{
    (void)state;
    static const uint32_t cuts[] = {1, 100, 512, 700, 1500};
    struct crosscoder cc;
    char *paths[] = {rows_path};
    make_transparent(&cc);
    for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
        write_rows(1500, cuts[k], "");
        struct scan_setup setup = {.cc = &cc,
                                   .paths = paths,
                                   .path_count = 1,
                                   .device = "cpu",
                                   .threads = 2,
                                   .decode = true};
        struct scan *scan;
        struct scan_block block;
        uint64_t rows = 0;
        int status;
        assert_int_equal(scan_open(&scan, &setup), 0);
        while ((status = scan_next(scan, &block)) == 1) {
            check_block(&block, rows);
            rows += block.rows;
        }
        assert_int_equal(status, 0);
        assert_true(rows == 1500);
        assert_int_equal(scan_close(scan), 0);
    }
    crosscoder_free(&cc);
}

static void latents_that_are_not_finite_are_an_error(void **state)
{
    (void)state;
    write_rows(3, 3, "");
    write_crosscoder(3e38f, "relu");
    assert_int_equal(run_words("freq", NULL, NULL), ERR_DATA);
    assert_int_equal(run_words("top", NULL, NULL), ERR_DATA);
    write_crosscoder(1e20f, "relu"); /* f is finite, its reconstruction is not */
    assert_int_equal(run_words("freq", NULL, NULL), 0);
    assert_int_equal(run_words("eval", "--l1", "1"), ERR_DATA);
    write_crosscoder(1, "relu");
    assert_int_equal(run_words("eval", "--l1", "1"), 0);
}

static void latents_of_another_activation_are_refused(void **state)
{
    (void)state;
    write_rows(3, 3, "");
    write_crosscoder(1, "topk");
    assert_int_equal(run_words("freq", NULL, NULL), ERR_USAGE);
    assert_int_equal(run_words("eval", NULL, NULL), ERR_USAGE);
    assert_int_equal(run_words("top", NULL, NULL), ERR_USAGE);
    char *norms[] = {(char *)"norms", weights, (char *)"-o", output, NULL};
    assert_int_equal(run(4, norms), 0); /* the weights are what they are */
}

static void pieces_of_another_tokenizer_are_refused(void **state)
{
    (void)state;
    static const char model[] = GOLDEN "/exact/model";
    struct tokenizer *tokenizer;
    char hash[33];
    assert_int_equal(tokenizer_open_folder(&tokenizer, model), 0);
    tokenizer_hash(tokenizer, hash);
    tokenizer_free(tokenizer);
    write_crosscoder(1, "relu");
    write_rows(3, 3, hash);
    assert_int_equal(run_words("top", "--model", model), 0);
    write_rows(3, 3, "");
    assert_int_equal(run_words("top", "--model", model), 0);
    hash[0] = hash[0] == '0' ? '1' : '0';
    write_rows(3, 3, hash);
    assert_int_equal(run_words("top", "--model", model), ERR_USAGE);
    assert_int_equal(run_words("top", NULL, NULL), 0);
    assert_int_equal(run_words("top", "--model", GOLDEN), ERR_USAGE);
}

static int make_folder(void **state)
{
    (void)state;
    log_init("test_analysis", LOG_ERROR);
    /* The tool finds its backends beside itself; this program lies elsewhere. */
    const char *backends = getenv("BIN");
    if (setenv("CCPIPE_BACKENDS", backends != NULL ? backends : "bin", 0) != 0 ||
        mkdtemp(folder) == NULL)
        return -1;
    snprintf(output, sizeof output, "%s/out", folder);
    snprintf(dead, sizeof dead, "%s/dead.tsv", folder);
    snprintf(weights, sizeof weights, "%s/cc.safetensors", folder);
    snprintf(rows_path, sizeof rows_path, "%s/rows", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(output);
    unlink(dead);
    unlink(weights);
    unlink(rows_path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sources_and_exact_latents),
        cmocka_unit_test(three_sources_of_unequal_widths),
        cmocka_unit_test(one_source),
        cmocka_unit_test(rows_arrive_whole_whatever_the_records),
        cmocka_unit_test(latents_that_are_not_finite_are_an_error),
        cmocka_unit_test(latents_of_another_activation_are_refused),
        cmocka_unit_test(pieces_of_another_tokenizer_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
