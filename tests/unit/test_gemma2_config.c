/* test_gemma2_config.c - config.json: defaults, both spellings, and what is refused.
 *
 * Expected values are those of the published gemma-2-2b config.json and of transformers'
 * Gemma2Config, written out here, and of the bundled pair, which transformers saved.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/gemma2_config.h"
#include "common/log.h"

static int parse(struct gemma2_config *config, const char *text)
{
    return gemma2_config_parse(config, text, strlen(text), "text");
}

/* A config of defaults with `members` (",..." or "") behind model_type. */
static int parse_with(struct gemma2_config *config, const char *members)
{
    char text[2048];
    int length = snprintf(text, sizeof text, "{\"model_type\":\"gemma2\"%s}", members);
    assert_true(length > 0 && (size_t)length < sizeof text);
    return parse(config, text);
}

static void assert_2b(const struct gemma2_config *config)
{
    assert_int_equal(config->vocab, 256000);
    assert_int_equal(config->width, 2304);
    assert_int_equal(config->inner, 9216);
    assert_int_equal(config->layers, 26);
    assert_int_equal(config->heads, 8);
    assert_int_equal(config->key_heads, 4);
    assert_int_equal(config->head_dim, 256);
    assert_int_equal(config->window, 4096);
    assert_int_equal(config->bos_id, 2);
    assert_true(config->rms_eps == 1e-6);
    assert_true(config->rope_theta == 10000);
    assert_true(config->query_scalar == 256);
    assert_true(config->attention_cap == 50);
    assert_true(config->final_cap == 30);
    for (uint32_t i = 0; i < 26; i++)
        assert_int_equal(config->sliding[i], i % 2 == 0);
}

static void test_absent_keys_have_the_defaults(void **state)
{
    (void)state;
    struct gemma2_config config;
    assert_int_equal(parse_with(&config, ""), 0);
    assert_2b(&config);
    gemma2_config_free(&config);
    assert_null(config.sliding);
    gemma2_config_free(&config);
}

/* google/gemma-2-2b as published. */
static void test_the_2b_model(void **state)
{
    (void)state;
    static const char *const text =
        "{\"architectures\":[\"Gemma2ForCausalLM\"],\"attention_bias\":false,"
        "\"attention_dropout\":0.0,\"attn_logit_softcapping\":50.0,\"bos_token_id\":2,"
        "\"cache_implementation\":\"hybrid\",\"eos_token_id\":1,\"final_logit_softcapping\":30.0,"
        "\"head_dim\":256,\"hidden_act\":\"gelu_pytorch_tanh\",\"hidden_activation\":"
        "\"gelu_pytorch_tanh\",\"hidden_size\":2304,\"initializer_range\":0.02,"
        "\"intermediate_size\":9216,\"max_position_embeddings\":8192,\"model_type\":\"gemma2\","
        "\"num_attention_heads\":8,\"num_hidden_layers\":26,\"num_key_value_heads\":4,"
        "\"pad_token_id\":0,\"query_pre_attn_scalar\":256,\"rms_norm_eps\":1e-06,\"rope_theta\":"
        "10000.0,\"sliding_window\":4096,\"torch_dtype\":\"float32\",\"transformers_version\":"
        "\"4.42.4\",\"use_cache\":true,\"vocab_size\":256000}";
    struct gemma2_config config;
    assert_int_equal(parse(&config, text), 0);
    assert_2b(&config);
    gemma2_config_free(&config);
}

static void test_the_bundled_model(void **state)
{
    (void)state;
    struct gemma2_config config;
    assert_int_equal(gemma2_config_read(&config, "demo/tiny-gemma2/base"), 0);
    assert_int_equal(config.vocab, 1024);
    assert_int_equal(config.width, 128);
    assert_int_equal(config.inner, 384);
    assert_int_equal(config.layers, 6);
    assert_int_equal(config.heads, 4);
    assert_int_equal(config.key_heads, 2);
    assert_int_equal(config.head_dim, 32);
    assert_int_equal(config.window, 64);
    assert_true(config.query_scalar == 32);
    assert_true(config.rope_theta == 10000);
    assert_memory_equal(config.sliding, "\1\0\1\0\1\0", 6);
    gemma2_config_free(&config);
}

static void test_every_number_is_read(void **state)
{
    (void)state;
    struct gemma2_config config;
    assert_int_equal(
        parse_with(&config,
                   ",\"vocab_size\":11,\"hidden_size\":12,\"intermediate_size\":13,"
                   "\"num_hidden_layers\":3,\"num_attention_heads\":6,\"num_key_value_heads\":3,"
                   "\"head_dim\":14,\"sliding_window\":15,\"bos_token_id\":10,\"rms_norm_eps\":"
                   "0.25,\"rope_theta\":500000,\"query_pre_attn_scalar\":144.5,"
                   "\"attn_logit_softcapping\":1.5,\"final_logit_softcapping\":2,\"layer_types\":["
                   "\"full_attention\",\"full_attention\",\"sliding_attention\"]"),
        0);
    assert_int_equal(config.vocab, 11);
    assert_int_equal(config.width, 12);
    assert_int_equal(config.inner, 13);
    assert_int_equal(config.layers, 3);
    assert_int_equal(config.heads, 6);
    assert_int_equal(config.key_heads, 3);
    assert_int_equal(config.head_dim, 14);
    assert_int_equal(config.window, 15);
    assert_int_equal(config.bos_id, 10);
    assert_true(config.rms_eps == 0.25);
    assert_true(config.rope_theta == 500000);
    assert_true(config.query_scalar == 144.5);
    assert_true(config.attention_cap == 1.5);
    assert_true(config.final_cap == 2);
    assert_memory_equal(config.sliding, "\0\0\1", 3);
    gemma2_config_free(&config);
}

static void test_null_is_not_applied(void **state)
{
    (void)state;
    struct gemma2_config config;
    assert_int_equal(parse_with(&config, ",\"sliding_window\":null,\"attn_logit_softcapping\":null,"
                                         "\"final_logit_softcapping\":null"),
                     0);
    assert_int_equal(config.window, 0);
    assert_true(config.attention_cap == 0);
    assert_true(config.final_cap == 0);
    gemma2_config_free(&config);
}

static void test_theta_in_both_places(void **state)
{
    (void)state;
    static const struct {
        const char *members;
        double theta;
    } cases[] = {
        {",\"rope_theta\":7", 7},
        {",\"rope_parameters\":{\"rope_theta\":8,\"rope_type\":\"default\"}", 8},
        {",\"rope_theta\":7,\"rope_parameters\":{\"rope_theta\":8}", 8},
        {",\"rope_theta\":7,\"rope_parameters\":{\"rope_type\":\"default\"}", 7},
        {",\"rope_theta\":7,\"rope_parameters\":null,\"rope_scaling\":null", 7},
        {",\"rope_parameters\":{}", 10000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gemma2_config config;
        assert_int_equal(parse_with(&config, cases[i].members), 0);
        assert_true(config.rope_theta == cases[i].theta);
        gemma2_config_free(&config);
    }
}

static void test_what_changes_nothing(void **state)
{
    (void)state;
    static const char *const cases[] = {
        ",\"hidden_activation\":null,\"hidden_act\":\"gelu\"",
        ",\"hidden_activation\":null",
        ",\"hidden_act\":\"gelu_pytorch_tanh\"",
        ",\"hidden_activation\":\"gelu_pytorch_tanh\",\"hidden_act\":null",
        ",\"attention_bias\":null",
        ",\"use_bidirectional_attention\":false",
        ",\"use_bidirectional_attention\":null",
        ",\"quantization_config\":null",
        ",\"layer_types\":null",
        ",\"tie_word_embeddings\":false",
        ",\"eos_token_id\":[1,107]",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gemma2_config config;
        assert_int_equal(parse_with(&config, cases[i]), 0);
        assert_2b(&config);
        gemma2_config_free(&config);
    }
}

struct failure {
    const char *members;
    int status;
};

static void assert_failures(const struct failure *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct gemma2_config config;
        int status = parse_with(&config, cases[i].members);
        if (status != cases[i].status)
            print_error("%s\n", cases[i].members);
        assert_int_equal(status, cases[i].status);
        assert_null(config.sliding);
    }
}

static void test_what_is_not_computed_is_refused(void **state)
{
    (void)state;
    static const struct failure cases[] = {
        {",\"attention_bias\":true", ERR_USAGE},
        {",\"attention_bias\":1", ERR_USAGE},
        {",\"use_bidirectional_attention\":true", ERR_USAGE},
        {",\"use_bidirectional_attention\":\"vision\"", ERR_USAGE},
        {",\"quantization_config\":{\"bits\":4}", ERR_USAGE},
        {",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}", ERR_USAGE},
        {",\"rope_parameters\":{\"rope_type\":\"yarn\",\"rope_theta\":10000}", ERR_USAGE},
        {",\"rope_parameters\":{\"rope_type\":3}", ERR_USAGE},
        {",\"rope_parameters\":{\"full_attention\":{\"rope_theta\":10000}}", ERR_USAGE},
        {",\"hidden_activation\":\"silu\"", ERR_USAGE},
        {",\"hidden_activation\":\"gelu\"", ERR_USAGE},
        {",\"hidden_activation\":3", ERR_USAGE},
        {",\"hidden_activation\":null,\"hidden_act\":\"relu\"", ERR_USAGE},
        {",\"num_hidden_layers\":1,\"layer_types\":[\"chunked_attention\"]", ERR_USAGE},
        {",\"num_hidden_layers\":1,\"layer_types\":[3]", ERR_USAGE},
    };
    assert_failures(cases, sizeof cases / sizeof *cases);
    struct gemma2_config config;
    assert_int_equal(parse(&config, "{}"), ERR_USAGE);
    assert_int_equal(parse(&config, "{\"model_type\":\"gemma\"}"), ERR_USAGE);
    assert_int_equal(parse(&config, "{\"model_type\":\"gemma3_text\"}"), ERR_USAGE);
    assert_int_equal(parse(&config, "{\"model_type\":2}"), ERR_USAGE);
}

static void test_values_out_of_range(void **state)
{
    (void)state;
    static const struct failure cases[] = {
        {",\"vocab_size\":0", ERR_DATA},
        {",\"vocab_size\":4194305", ERR_DATA},
        {",\"vocab_size\":256000.0", ERR_DATA},
        {",\"vocab_size\":\"256000\"", ERR_DATA},
        {",\"vocab_size\":2", ERR_DATA}, /* the beginning of text has id 2 */
        {",\"hidden_size\":-1", ERR_DATA},
        {",\"hidden_size\":4294967297", ERR_DATA},
        {",\"hidden_size\":null", ERR_DATA},
        {",\"intermediate_size\":0", ERR_DATA},
        {",\"num_hidden_layers\":0", ERR_DATA},
        {",\"num_hidden_layers\":1025", ERR_DATA},
        {",\"num_attention_heads\":0", ERR_DATA},
        {",\"num_key_value_heads\":0", ERR_DATA},
        {",\"num_key_value_heads\":3", ERR_DATA},
        {",\"num_key_value_heads\":16", ERR_DATA},
        {",\"head_dim\":255", ERR_DATA},
        {",\"head_dim\":1026", ERR_DATA},
        {",\"head_dim\":0", ERR_DATA},
        {",\"sliding_window\":0", ERR_DATA},
        {",\"sliding_window\":-1", ERR_DATA},
        {",\"bos_token_id\":-1", ERR_DATA},
        {",\"bos_token_id\":null", ERR_DATA},
        {",\"rms_norm_eps\":0", ERR_DATA},
        {",\"rms_norm_eps\":-1e-6", ERR_DATA},
        {",\"rms_norm_eps\":1e300", ERR_DATA},
        {",\"rms_norm_eps\":\"1e-6\"", ERR_DATA},
        {",\"rope_theta\":0", ERR_DATA},
        {",\"rope_parameters\":{\"rope_theta\":-1}", ERR_DATA},
        {",\"rope_parameters\":10000", ERR_DATA},
        {",\"query_pre_attn_scalar\":null", ERR_DATA},
        {",\"attn_logit_softcapping\":0", ERR_DATA},
        {",\"final_logit_softcapping\":false", ERR_DATA},
        {",\"layer_types\":[\"full_attention\"]", ERR_DATA},
        {",\"layer_types\":\"full_attention\"", ERR_DATA},
        {",\"head_dim\":256,\"head_dim\":128", ERR_DATA},
    };
    assert_failures(cases, sizeof cases / sizeof *cases);
}

static void test_files_that_are_no_config(void **state)
{
    (void)state;
    struct gemma2_config config;
    assert_int_equal(parse(&config, ""), ERR_DATA);
    assert_int_equal(parse(&config, "[]"), ERR_DATA);
    assert_int_equal(parse(&config, "{\"model_type\":\"gemma2\""), ERR_DATA);
    assert_int_equal(gemma2_config_read(&config, "tests/golden/files/sharded"), ERR_USAGE);
    assert_null(config.sliding);
}

int main(void)
{
    log_init("test_gemma2_config", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent_keys_have_the_defaults),
        cmocka_unit_test(test_the_2b_model),
        cmocka_unit_test(test_the_bundled_model),
        cmocka_unit_test(test_every_number_is_read),
        cmocka_unit_test(test_null_is_not_applied),
        cmocka_unit_test(test_theta_in_both_places),
        cmocka_unit_test(test_what_changes_nothing),
        cmocka_unit_test(test_what_is_not_computed_is_refused),
        cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_files_that_are_no_config),
    };
    return cmocka_run_group_tests_name("gemma2_config", tests, NULL, NULL);
}
