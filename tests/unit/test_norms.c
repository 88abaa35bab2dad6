/* test_norms.c - names of sources and pairs, and the bounds of the classes. The figures themselves:
 * test_analysis.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/log.h"
#include "common/rng.h"
#include "tools/ccanalyze/norms.h"

enum { WIDTH = 2, LATENTS = 1 };

/* Norms of a crosscoder with sources of these names, all of one width. */
static int make_norms(struct norms *norms, const char *const *names, size_t count, const char *pair)
{
    struct crosscoder cc;
    struct crosscoder_source sources[4];
    for (size_t s = 0; s < count; s++)
        sources[s] = (struct crosscoder_source){(char *)names[s], WIDTH, 1};
    assert_int_equal(crosscoder_init(&cc, sources, count, LATENTS), 0);
    for (size_t i = 0; i < count * WIDTH; i++)
        cc.w_dec[i] = (float)(1 + i / WIDTH);
    int status = norms_compute(norms, &cc, pair);
    crosscoder_free(&cc);
    return status;
}

static void check_labels(const char *const *names, size_t count, const char *const *labels)
{
    struct norms norms;
    assert_int_equal(make_norms(&norms, names, count, NULL), 0);
    for (size_t s = 0; s < count; s++)
        assert_string_equal(norms.labels[s], labels[s]);
    norms_free(&norms);
}

static void labels_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    static const char *const models[] = {"base.blocks.14.hook_resid_pre",
                                         "chat.v2.blocks.14.hook_resid_pre", "other"};
    static const char *const model_labels[] = {"base", "chat.v2", "other"};
    check_labels(models, 3, model_labels);
    static const char *const layers[] = {"base.blocks.1.x", "base.blocks.2.x", "chat.blocks.1.x"};
    check_labels(layers, 3, layers);
    static const char *const twice[] = {"base.blocks.1.x", "base.blocks.1.x"};
    static const char *const numbers[] = {"source0", "source1"};
    check_labels(twice, 2, numbers);
}

static const char *const three[] = {"base.blocks.1.x", "chat.blocks.1.x", "0.blocks.1.x"};

static void check_pair(const char *pair, size_t a, size_t b)
{
    struct norms norms;
    assert_int_equal(make_norms(&norms, three, 3, pair), 0);
    assert_true(norms.paired && norms.a == a && norms.b == b);
    /* The norms are as 1 : 2 : 3. */
    double expected = (double)(b + 1) / (double)(a + 1 + b + 1);
    assert_true(fabs(norms.relative[0] - expected) < 1e-15);
    assert_true(fabs(norms.decoder_cosine[0] - 1) < 1e-15);
    assert_int_equal(norms_require_pair(&norms, "this"), 0);
    norms_free(&norms);
}

static void a_pair_is_given_by_labels_names_or_numbers(void **state)
{
    (void)state;
    check_pair("base,chat", 0, 1);
    check_pair("chat.blocks.1.x,base", 1, 0);
    check_pair("2,1", 2, 1);
    check_pair("0,1", 2, 1); /* a label comes before a number */
    check_pair("1,2", 1, 2);
    static const char *const refused[] = {
        "",     "base", "base,",      ",base",      "base,base",
        "0,3",  "0,-1", "0,1,2",      "base, chat", "bas,chat",
        "0,1x", "0,0",  "00000,base", "0,basechat", "0,18446744073709551617"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct norms norms;
        assert_int_equal(make_norms(&norms, three, 3, refused[i]), ERR_USAGE);
        assert_null(norms.labels);
    }
}

static void without_a_pair_there_is_none(void **state)
{
    (void)state;
    struct norms norms;
    assert_int_equal(make_norms(&norms, three, 3, NULL), 0);
    assert_false(norms.paired);
    assert_int_equal(norms_require_pair(&norms, "this"), ERR_USAGE);
    norms_free(&norms);
    assert_int_equal(make_norms(&norms, three, 1, NULL), 0);
    assert_int_equal(norms_require_pair(&norms, "this"), ERR_USAGE);
    norms_free(&norms);
    assert_int_equal(make_norms(&norms, three, 2, NULL), 0);
    assert_int_equal(norms_require_pair(&norms, "this"), 0);
    norms_free(&norms);
}

/* Of many equal vectors some have a quotient above 1. */
static void a_cosine_is_at_most_one(void **state)
{
    (void)state;
    enum { MANY = 2000 };
    struct crosscoder cc;
    struct norms norms;
    struct crosscoder_source sources[] = {{(char *)"a", WIDTH, 1}, {(char *)"b", WIDTH, 1}};
    assert_int_equal(crosscoder_init(&cc, sources, 2, MANY), 0);
    for (size_t j = 0; j < MANY; j++)
        for (size_t i = 0; i < WIDTH; i++) {
            float value = (float)rng_normal(7, i, j);
            cc.w_dec[j * 2 * WIDTH + i] = value;
            cc.w_dec[j * 2 * WIDTH + WIDTH + i] = j % 2 == 0 ? value : -value;
        }
    assert_int_equal(norms_compute(&norms, &cc, NULL), 0);
    for (size_t j = 0; j < MANY; j++) {
        double cosine = j % 2 == 0 ? norms.decoder_cosine[j] : -norms.decoder_cosine[j];
        assert_true(cosine <= 1 && cosine > 1 - 1e-15);
    }
    norms_free(&norms);
    crosscoder_free(&cc);
}

static void the_bounds_of_classes_are_strict(void **state)
{
    (void)state;
    static const struct {
        double value;
        enum norms_class relative, delta;
    } cases[] = {
        {0, NORMS_A_ONLY, NORMS_A_ONLY},         {0.0999, NORMS_A_ONLY, NORMS_A_ONLY},
        {0.1, NORMS_OTHER, NORMS_OTHER},         {0.2, NORMS_OTHER, NORMS_OTHER},
        {0.3, NORMS_OTHER, NORMS_OTHER},         {0.3001, NORMS_SHARED, NORMS_OTHER},
        {0.4, NORMS_SHARED, NORMS_OTHER},        {0.4001, NORMS_SHARED, NORMS_SHARED},
        {0.5, NORMS_SHARED, NORMS_SHARED},       {0.5999, NORMS_SHARED, NORMS_SHARED},
        {0.6, NORMS_SHARED, NORMS_OTHER},        {0.6999, NORMS_SHARED, NORMS_OTHER},
        {0.7, NORMS_OTHER, NORMS_OTHER},         {0.9, NORMS_OTHER, NORMS_OTHER},
        {0.9001, NORMS_B_ONLY, NORMS_B_ONLY},    {1, NORMS_B_ONLY, NORMS_B_ONLY},
        {(double)NAN, NORMS_OTHER, NORMS_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(norms_class_by_relative(cases[i].value), cases[i].relative);
        assert_int_equal(norms_class_by_delta(cases[i].value), cases[i].delta);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_as_short_as_they_can_be),
        cmocka_unit_test(a_pair_is_given_by_labels_names_or_numbers),
        cmocka_unit_test(without_a_pair_there_is_none),
        cmocka_unit_test(a_cosine_is_at_most_one),
        cmocka_unit_test(the_bounds_of_classes_are_strict),
    };
    log_init("test_norms", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
