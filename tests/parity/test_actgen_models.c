/* test_actgen_models.c - models of odd sizes against the forward pass in f64, and what of a model
 * is read, needed and refused.
 *
 * Tolerance: cli.md's 2e-5 of a row's norm. Each of these models has few terms in a sum (at most
 * 48, so 48 u = 3e-6) and three layers.
 */
#include "tiny_model.h"

#include "common/err.h"

enum { TOKENS = 23 };

static const char *const all_kinds[] = {"resid_pre", "attn_out", "resid_mid", "mlp_out",
                                        "resid_post"};

/* Sequences of these lengths, ids from a fixed rule. */
static const uint32_t lengths[] = {TOKENS, 1, 0, 7};
enum { SEQUENCES = sizeof lengths / sizeof *lengths, ALL_TOKENS = TOKENS + 1 + 7 };

static uint32_t id_at(size_t i)
{
    return (uint32_t)(i * i * 7 + i * 3 + 2) % 50;
}

static const char *write_tokens(void)
{
    uint32_t ids[ALL_TOKENS];
    for (size_t i = 0; i < ALL_TOKENS; i++)
        ids[i] = id_at(i);
    char *path = actgen_path("tokens");
    actgen_write_tokens(path, ids, lengths, SEQUENCES, 0, 0);
    return path;
}

/* Every row of a source against the model; `place` is that of the source in a row. */
static void assert_source(const struct actgen_rows *rows, size_t place, const struct tiny *tiny,
                          const char *name, const char *hook)
{
    double want[TOKENS * 64];
    uint32_t ids[TOKENS];
    size_t row = 0, token = 0, d = tiny->config.width;
    const json_t *source = actgen_source(rows, NULL, place);
    size_t offset = (size_t)actgen_number(source, "offset");
    assert_string_equal(json_string_value(json_object_get(source, "name")), name);
    assert_int_equal(actgen_number(source, "width"), d);
    for (size_t s = 0; s < SEQUENCES; s++) {
        for (uint32_t i = 0; i < lengths[s]; i++)
            ids[i] = id_at(token + i);
        token += lengths[s];
        tiny_forward(want, tiny, hook, ids, lengths[s]);
        for (uint32_t i = 0; i < lengths[s]; i++, row++) {
            double off = 0, norm = 0;
            assert_int_equal(rows->tags[row].sequence, s);
            assert_int_equal(rows->tags[row].position, i);
            assert_int_equal(rows->tags[row].token, ids[i]);
            for (size_t j = 0; j < d; j++) {
                double value = (double)rows->values[row * rows->width + offset + j];
                off += (value - want[i * d + j]) * (value - want[i * d + j]);
                norm += want[i * d + j] * want[i * d + j];
            }
            if (!(sqrt(off / norm) <= 2e-5))
                fail_msg("%s: sequence %zu, position %u is off by %.3g", name, s, (unsigned)i,
                         sqrt(off / norm));
        }
    }
    assert_int_equal(row, rows->count);
}

#define PLAIN                                                                     \
    "--dtype", "f32", "--row-dtype", "f32", "--norm", "none", "--keep-bos", "-o", \
        actgen_path("rows"), write_tokens()

/* One model named a, one hook. */
static void assert_hook(const struct tiny *tiny, const char *folder, const char *hook)
{
    char model[300], name[64];
    struct actgen_rows rows;
    snprintf(model, sizeof model, "a=%s", folder);
    snprintf(name, sizeof name, "a.%s", hook);
    actgen_succeed("--model", model, "--hook", hook, PLAIN);
    actgen_read_rows(&rows, actgen_path("rows"));
    assert_source(&rows, 0, tiny, name, hook);
    actgen_free_rows(&rows);
}

static int refuse(const char *folder, const char *hook)
{
    char model[300];
    snprintf(model, sizeof model, "a=%s", folder);
    return actgen_run("--model", model, "--hook", hook, PLAIN);
}

/* ---- values */

static void every_hook_of_every_layer_is_exact(void **state)
{
    struct tiny tiny;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *folder = tiny_write(&tiny, "model");
    for (unsigned layer = 0; layer < tiny.config.layers; layer++)
        for (size_t i = 0; i < 5; i++) {
            char hook[64];
            snprintf(hook, sizeof hook, "blocks.%u.hook_%s", layer, all_kinds[i]);
            assert_hook(&tiny, folder, hook);
        }
    tiny_free(&tiny);
}

static void shapes_and_switches_of_the_configuration_are_followed(void **state)
{
    struct tiny_config configs[6];
    (void)state;
    for (size_t i = 0; i < 6; i++)
        configs[i] = tiny_default;
    configs[0].cap = 0;
    configs[1].window = 0;
    configs[2].full_first = true;
    configs[3] = (struct tiny_config){.vocab = 50,
                                      .width = 17,
                                      .inner = 33,
                                      .layers = 2,
                                      .heads = 3,
                                      .key_heads = 3,
                                      .head_dim = 10,
                                      .window = 1,
                                      .cap = 50,
                                      .eps = 1e-6,
                                      .theta = 10000,
                                      .query_scalar = 144};
    configs[4].key_heads = 1;
    configs[4].heads = 5;
    configs[5].window = TOKENS;
    for (size_t i = 0; i < 6; i++) {
        struct tiny tiny;
        tiny_make(&tiny, &configs[i], SAFETENSORS_F32, 10 + i);
        assert_hook(&tiny, tiny_write(&tiny, "model"), "blocks.1.hook_resid_post");
        tiny_free(&tiny);
    }
}

/* Keys that are absent have the defaults of transformers' Gemma2Config; theta may lie deeper. */
static void absent_keys_have_their_defaults(void **state)
{
    struct tiny_config config = tiny_default;
    struct tiny tiny;
    (void)state;
    config.cap = 50;
    config.window = 4096;
    config.eps = 1e-6;
    config.theta = 10000;
    config.query_scalar = 256;
    tiny_make(&tiny, &config, SAFETENSORS_F32, 2);
    const char *folder = tiny_write(&tiny, "model");
    json_t *json = tiny_config_json(&tiny);
    static const char *const keys[] = {"attn_logit_softcapping", "sliding_window", "rms_norm_eps",
                                       "rope_theta", "query_pre_attn_scalar"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        assert_int_equal(json_object_del(json, keys[i]), 0);
    tiny_write_config(folder, json);
    assert_hook(&tiny, folder, "blocks.2.hook_resid_post");
    tiny.config.theta = 77;
    json = tiny_config_json(&tiny);
    assert_int_equal(json_object_del(json, "rope_theta"), 0);
    assert_int_equal(
        json_object_set_new(json, "rope_parameters",
                            json_pack("{s:s, s:i}", "rope_type", "default", "rope_theta", 77)),
        0);
    tiny_write_config(folder, json);
    assert_hook(&tiny, folder, "blocks.2.hook_resid_post");
    tiny_free(&tiny);
}

static void every_stored_type_is_read(void **state)
{
    static const enum safetensors_type types[] = {SAFETENSORS_F32, SAFETENSORS_BF16,
                                                  SAFETENSORS_F16};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tiny tiny;
        tiny_make(&tiny, &tiny_default, types[i], 3);
        assert_hook(&tiny, tiny_write(&tiny, "model"), "blocks.1.hook_mlp_out");
        tiny_free(&tiny);
    }
}

/* Models of 24 and 17 values; a hook of one model alone stands at its place among the model's own.
 */
static void sources_of_unequal_widths_stand_in_order(void **state)
{
    struct tiny_config narrow = tiny_default;
    struct tiny a, b;
    struct actgen_rows rows;
    char model_a[300], model_b[300];
    (void)state;
    narrow.width = 17;
    narrow.inner = 31;
    tiny_make(&a, &tiny_default, SAFETENSORS_F32, 4);
    tiny_make(&b, &narrow, SAFETENSORS_F32, 5);
    snprintf(model_a, sizeof model_a, "one=%s", tiny_write(&a, "a"));
    snprintf(model_b, sizeof model_b, "two=%s", tiny_write(&b, "b"));
    actgen_succeed("--model", model_a, "--model", model_b, "--hook", "blocks.1.hook_resid_pre",
                   "--hook", "two:blocks.0.hook_attn_out", "--hook", "blocks.2.hook_resid_mid",
                   "--hook", "one:blocks.0.hook_resid_pre", PLAIN);
    actgen_read_rows(&rows, actgen_path("rows"));
    assert_int_equal(json_array_size(json_object_get(rows.begin, "sources")), 6);
    assert_source(&rows, 0, &a, "one.blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre");
    assert_source(&rows, 1, &a, "one.blocks.2.hook_resid_mid", "blocks.2.hook_resid_mid");
    assert_source(&rows, 2, &a, "one.blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre");
    assert_source(&rows, 3, &b, "two.blocks.1.hook_resid_pre", "blocks.1.hook_resid_pre");
    assert_source(&rows, 4, &b, "two.blocks.0.hook_attn_out", "blocks.0.hook_attn_out");
    assert_source(&rows, 5, &b, "two.blocks.2.hook_resid_mid", "blocks.2.hook_resid_mid");
    assert_int_equal(rows.width, 3 * 24 + 3 * 17);
    actgen_free_rows(&rows);
    tiny_free(&a);
    tiny_free(&b);
}

/* ---- what is needed */

/* Whether a hook of layer 1 needs the tensor, by what the forward pass says. */
static bool is_needed(const char *tensor, size_t kind)
{
    static const char *const attention[] = {"self_attn", "input_layernorm",
                                            "post_attention_layernorm"};
    if (strcmp(tensor, "model.embed_tokens.weight") == 0 ||
        strncmp(tensor, "model.layers.0.", 15) == 0)
        return true;
    if (strncmp(tensor, "model.layers.1.", 15) != 0 || kind == 0)
        return false;
    for (size_t i = 0; i < 3; i++)
        if (strncmp(tensor + 15, attention[i], strlen(attention[i])) == 0)
            return true;
    return kind >= 3;
}

static void assert_missing(struct tiny *tiny, const char *folder, size_t tensor, const char *hook,
                           bool needed)
{
    struct tiny_tensor last = tiny->tensors[tiny->count - 1], hidden = tiny->tensors[tensor];
    char path[300];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    tiny->tensors[tensor] = last;
    tiny_write_tensors(tiny, path, 0, tiny->count - 1);
    tiny->tensors[tensor] = hidden;
    tiny->tensors[tiny->count - 1] = last;
    if (needed) {
        assert_int_equal(refuse(folder, hook), 65);
        actgen_assert_says(hidden.name);
        actgen_assert_says("missing");
    } else {
        assert_hook(tiny, folder, hook);
    }
}

static void a_tensor_is_needed_up_to_the_hook_and_not_above(void **state)
{
    struct tiny tiny;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 6);
    const char *folder = tiny_write(&tiny, "model");
    for (size_t kind = 0; kind < 5; kind++) {
        char hook[64];
        snprintf(hook, sizeof hook, "blocks.1.hook_%s", all_kinds[kind]);
        for (size_t i = 0; i < tiny.count; i++)
            assert_missing(&tiny, folder, i, hook, is_needed(tiny.tensors[i].name, kind));
    }
    tiny_free(&tiny);
}

/* NaN in every value that is not needed: one that were read would be refused, one that were
 * computed with would show. */
static void what_lies_above_the_hook_may_be_damaged(void **state)
{
    (void)state;
    for (size_t kind = 0; kind < 5; kind++) {
        struct tiny tiny;
        char hook[64];
        tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 7);
        snprintf(hook, sizeof hook, "blocks.1.hook_%s", all_kinds[kind]);
        for (size_t i = 0; i < tiny.count; i++) {
            struct tiny_tensor *tensor = &tiny.tensors[i];
            size_t n = tiny_elements(tensor);
            for (size_t j = 0; j < n && !is_needed(tensor->name, kind); j++)
                tensor->values[j] = NAN;
        }
        assert_hook(&tiny, tiny_write(&tiny, "model"), hook);
        tiny_free(&tiny);
    }
}

/* Three shards; index.json places every tensor. */
static void write_shards(const struct tiny *tiny, const char *folder)
{
    char path[300], file[32];
    size_t layer = (tiny->count - 2) / tiny->config.layers,
           ends[] = {1 + layer, 1 + 2 * layer, tiny->count};
    json_t *map = json_object();
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    unlink(path);
    for (size_t shard = 0, first = 0; shard < 3; first = ends[shard++]) {
        snprintf(file, sizeof file, "shard-%zu.safetensors", shard);
        snprintf(path, sizeof path, "%s/%s", folder, file);
        tiny_write_tensors(tiny, path, first, ends[shard]);
        for (size_t i = first; i < ends[shard]; i++)
            json_object_set_new(map, tiny->tensors[i].name, json_string(file));
    }
    json_t *index = json_pack("{s:o}", "weight_map", map);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    assert_int_equal(json_write_file(index, path), 0);
    json_decref(index);
}

static void shards_above_the_hook_need_not_be_there(void **state)
{
    struct tiny tiny;
    char path[300];
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 8);
    const char *folder = tiny_write(&tiny, "sharded");
    write_shards(&tiny, folder);
    for (size_t i = 0; i < 5; i++) {
        char hook[64];
        snprintf(hook, sizeof hook, "blocks.2.hook_%s", all_kinds[i]);
        assert_hook(&tiny, folder, hook);
    }
    snprintf(path, sizeof path, "%s/shard-2.safetensors", folder);
    assert_int_equal(truncate(path, 5), 0); /* not even a header */
    assert_hook(&tiny, folder, "blocks.1.hook_resid_post");
    assert_hook(&tiny, folder, "blocks.2.hook_resid_pre");
    assert_int_equal(refuse(folder, "blocks.2.hook_attn_out"), 66);
    actgen_assert_says("shard-2.safetensors");
    assert_int_equal(unlink(path), 0);
    assert_hook(&tiny, folder, "blocks.1.hook_resid_post");
    assert_int_equal(refuse(folder, "blocks.2.hook_attn_out"), 64);
    actgen_assert_says("shard-2.safetensors");
    tiny_free(&tiny);
}

/* ---- what is refused */

static void wrong_shapes_and_types_are_refused(void **state)
{
    struct tiny tiny;
    char path[300];
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 9);
    const char *folder = tiny_write(&tiny, "model");
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    for (size_t i = 0; i < tiny.count; i++) {
        struct tiny_tensor *tensor = &tiny.tensors[i], whole = *tensor;
        if (!is_needed(tensor->name, 4))
            continue;
        tensor->shape[0]--;
        tiny_write_tensors(&tiny, path, 0, tiny.count);
        *tensor = whole;
        assert_int_equal(refuse(folder, "blocks.1.hook_resid_post"), 65);
        actgen_assert_says(tensor->name);
    }
    tiny_write_tensors(&tiny, path, 0, tiny.count);
    assert_hook(&tiny, folder, "blocks.1.hook_resid_post");
    tiny.type = SAFETENSORS_I32;
    tiny_write_tensors(&tiny, path, 0, tiny.count);
    assert_int_equal(refuse(folder, "blocks.1.hook_resid_post"), 64);
    actgen_assert_says("I32");
    tiny_free(&tiny);
}

static void weights_that_are_not_finite_are_refused(void **state)
{
    static const char *const names[] = {"model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.1.post_attention_layernorm.weight",
                                        "model.layers.1.mlp.down_proj.weight"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tiny tiny;
        tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 9);
        tiny_find(&tiny, names[i])->values[3] = i == 1 ? INFINITY : NAN;
        assert_int_equal(refuse(tiny_write(&tiny, "model"), "blocks.1.hook_resid_post"), 65);
        actgen_assert_says(names[i]);
        actgen_assert_says("element 3");
        tiny_free(&tiny);
    }
}

static void models_that_do_not_match_are_refused(void **state)
{
    struct tiny_config other = tiny_default;
    struct tiny a, b;
    char model_a[300], model_b[300];
    (void)state;
    other.vocab = 51;
    tiny_make(&a, &tiny_default, SAFETENSORS_F32, 1);
    tiny_make(&b, &other, SAFETENSORS_F32, 1);
    snprintf(model_a, sizeof model_a, "a=%s", tiny_write(&a, "a"));
    snprintf(model_b, sizeof model_b, "b=%s", tiny_write(&b, "b"));
    assert_int_equal(actgen_run("--model", model_a, "--model", model_b, "--hook",
                                "blocks.0.hook_resid_pre", PLAIN),
                     64);
    actgen_assert_says("vocab_size: 50");
    actgen_assert_says("51 in");
    tiny_free(&a);
    tiny_free(&b);
}

static const char tokenizer_of_two[] =
    "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"%s\": 1}, \"merges\": []}, "
    "\"added_tokens\": []%s}";

/* The same pieces in another text agree; other pieces do not; a folder without one passes. */
static void tokenizers_are_compared_by_what_they_say(void **state)
{
    struct tiny tiny;
    char model_a[300], model_b[300], text[256];
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    const char *a = tiny_write(&tiny, "a"), *b = tiny_write(&tiny, "b");
    snprintf(model_a, sizeof model_a, "a=%s", a);
    snprintf(model_b, sizeof model_b, "b=%s", b);
    static const struct {
        const char *piece, *rest;
        int status;
    } cases[] = {{"b", "", 0}, {"b", ", \"version\": \"1.0\"", 0}, {"c", "", 64}};
    snprintf(text, sizeof text, tokenizer_of_two, "b", "");
    tiny_write_text(a, "tokenizer.json", text);
    assert_int_equal(actgen_run("--model", model_a, "--model", model_b, "--hook",
                                "blocks.0.hook_resid_pre", PLAIN),
                     0);
    actgen_assert_says("has no tokenizer.json");
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, tokenizer_of_two, cases[i].piece, cases[i].rest);
        tiny_write_text(b, "tokenizer.json", text);
        assert_int_equal(actgen_run("--model", model_a, "--model", model_b, "--hook",
                                    "blocks.0.hook_resid_pre", PLAIN),
                         cases[i].status);
    }
    actgen_assert_says("tokenizers");
    tiny_free(&tiny);
}

/* ---- identity */

static char *hash_of(const struct tiny *tiny, const char *hook)
{
    struct actgen_rows rows;
    char model[300];
    snprintf(model, sizeof model, "a=%s", tiny_write(tiny, "model"));
    actgen_succeed("--model", model, "--hook", hook, PLAIN);
    actgen_read_rows(&rows, actgen_path("rows"));
    char *hash =
        strdup(json_string_value(json_object_get(actgen_source(&rows, NULL, 0), "model_hash")));
    actgen_free_rows(&rows);
    assert_int_equal(strlen(hash), 32);
    return hash;
}

/* The hash says what rows depend on: one weight of any tensor below the hook, and nothing above. */
static void the_models_hash_follows_what_rows_depend_on(void **state)
{
    struct tiny tiny;
    (void)state;
    tiny_make(&tiny, &tiny_default, SAFETENSORS_F32, 1);
    char *plain = hash_of(&tiny, "blocks.1.hook_attn_out");
    for (size_t i = 0; i < tiny.count; i++) {
        struct tiny_tensor *tensor = &tiny.tensors[i];
        size_t n = tiny_elements(tensor);
        float kept = tensor->values[n - 1];
        tensor->values[n - 1] = kept + 0.25f;
        char *changed = hash_of(&tiny, "blocks.1.hook_attn_out");
        if (is_needed(tensor->name, 1))
            assert_string_not_equal(changed, plain);
        else
            assert_string_equal(changed, plain);
        tensor->values[n - 1] = kept;
        free(changed);
    }
    tiny.config.cap = 4;
    char *other = hash_of(&tiny, "blocks.1.hook_attn_out");
    assert_string_not_equal(other, plain);
    free(other);
    free(plain);
    tiny_free(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hook_of_every_layer_is_exact),
        cmocka_unit_test(shapes_and_switches_of_the_configuration_are_followed),
        cmocka_unit_test(absent_keys_have_their_defaults),
        cmocka_unit_test(every_stored_type_is_read),
        cmocka_unit_test(sources_of_unequal_widths_stand_in_order),
        cmocka_unit_test(a_tensor_is_needed_up_to_the_hook_and_not_above),
        cmocka_unit_test(what_lies_above_the_hook_may_be_damaged),
        cmocka_unit_test(shards_above_the_hook_need_not_be_there),
        cmocka_unit_test(wrong_shapes_and_types_are_refused),
        cmocka_unit_test(weights_that_are_not_finite_are_refused),
        cmocka_unit_test(models_that_do_not_match_are_refused),
        cmocka_unit_test(tokenizers_are_compared_by_what_they_say),
        cmocka_unit_test(the_models_hash_follows_what_rows_depend_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
