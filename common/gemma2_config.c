/* gemma2_config.c - config.json, each key with its default, its range and what is refused.
 *
 * The defaults are those of transformers' Gemma2Config. Ranges are wide (ten times the 27b model
 * and more) and are there so that no later product of two of the numbers can overflow 32 bits where
 * it counts elements of one vector, or ask for memory that no such model needs.
 */
#include "gemma2_config.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io.h"
#include "json.h"
#include "log.h"
#include "mem.h"

#define GEMMA2_CONFIG_MAX_BYTES (1u << 20)
#define GEMMA2_CONFIG_ACTIVATION "gelu_pytorch_tanh"

struct gemma2_config_source {
    const json_t *root;
    const char *name; /* for messages */
};

/* ---- numbers */

/* An integer of 1 (bos_token_id: 0) to `most`; absent: `fallback`. */
static int gemma2_config_count(uint32_t *value, const struct gemma2_config_source *source,
                               const char *key, uint32_t fallback, uint32_t least, uint32_t most)
{
    const json_t *member = json_object_get(source->root, key);
    *value = fallback;
    if (member == NULL)
        return 0;
    json_int_t number = json_integer_value(member);
    if (!json_is_integer(member) || number < least || number > most)
        return log_fail(ERR_DATA, "'%s': key '%s' is not an integer from %" PRIu32 " to %" PRIu32,
                        source->name, key, least, most);
    *value = (uint32_t)number;
    return 0;
}

/* A positive number that float holds too; absent: `fallback`. `object` holds the key, `shown` names
 * it. */
static int gemma2_config_real(double *value, const json_t *object, const char *key,
                              const char *shown, const char *name, double fallback)
{
    const json_t *member = json_object_get(object, key);
    *value = fallback;
    if (member == NULL)
        return 0;
    double number = json_number_value(member);
    if (!json_is_number(member) || !(number >= 1e-30 && number <= 1e30))
        return log_fail(ERR_DATA, "'%s': key '%s' is not a number from 1e-30 to 1e30", name, shown);
    *value = number;
    return 0;
}

/* As gemma2_config_real(), and null is 0: not applied. */
static int gemma2_config_cap(double *value, const struct gemma2_config_source *source,
                             const char *key, double fallback)
{
    *value = 0;
    if (json_is_null(json_object_get(source->root, key)))
        return 0;
    return gemma2_config_real(value, source->root, key, key, source->name, fallback);
}

static int gemma2_config_sizes(struct gemma2_config *config,
                               const struct gemma2_config_source *source)
{
    const struct {
        uint32_t *value;
        const char *key;
        uint32_t fallback, least, most;
    } keys[] = {
        {&config->vocab, "vocab_size", 256000, 1, 1u << 22},
        {&config->width, "hidden_size", 2304, 1, 1u << 17},
        {&config->inner, "intermediate_size", 9216, 1, 1u << 20},
        {&config->layers, "num_hidden_layers", 26, 1, 1024},
        {&config->heads, "num_attention_heads", 8, 1, 1024},
        {&config->key_heads, "num_key_value_heads", 4, 1, 1024},
        {&config->head_dim, "head_dim", 256, 2, 1024},
        {&config->bos_id, "bos_token_id", 2, 0, (1u << 22) - 1},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int status = gemma2_config_count(keys[i].value, source, keys[i].key, keys[i].fallback,
                                         keys[i].least, keys[i].most);
        if (status != 0)
            return status;
    }
    config->window = 0;
    if (json_is_null(json_object_get(source->root, "sliding_window")))
        return 0;
    return gemma2_config_count(&config->window, source, "sliding_window", 4096, 1, INT32_MAX);
}

static int gemma2_config_relations(const struct gemma2_config *config, const char *name)
{
    if (config->heads % config->key_heads != 0)
        return log_fail(ERR_DATA,
                        "'%s': key 'num_attention_heads' (%" PRIu32
                        ") is no multiple of 'num_key_value_heads' (%" PRIu32 ")",
                        name, config->heads, config->key_heads);
    if (config->head_dim % 2 != 0)
        return log_fail(ERR_DATA, "'%s': key 'head_dim' (%" PRIu32 ") is odd", name,
                        config->head_dim);
    if (config->bos_id >= config->vocab)
        return log_fail(ERR_DATA,
                        "'%s': key 'bos_token_id' (%" PRIu32 ") is not below 'vocab_size' "
                        "(%" PRIu32 ")",
                        name, config->bos_id, config->vocab);
    return 0;
}

/* ---- what is refused */

static int gemma2_config_refuse(const struct gemma2_config_source *source, const char *key,
                                const char *why)
{
    return log_fail(ERR_USAGE, "'%s': key '%s' %s", source->name, key, why);
}

/* hidden_activation decides; hidden_act is an older key that transformers ignores beside it, and
 * whose "gelu" meant the tanh form in the first published files. */
static int gemma2_config_activation(const struct gemma2_config_source *source)
{
    static const char *const wrong = "is not \"" GEMMA2_CONFIG_ACTIVATION "\"";
    const json_t *now = json_object_get(source->root, "hidden_activation");
    const json_t *old = json_object_get(source->root, "hidden_act");
    const char *now_name = json_string_value(now), *old_name = json_string_value(old);
    if (now != NULL && !json_is_null(now) &&
        (now_name == NULL || strcmp(now_name, GEMMA2_CONFIG_ACTIVATION) != 0))
        return gemma2_config_refuse(source, "hidden_activation", wrong);
    if (old != NULL && !json_is_null(old) &&
        (old_name == NULL ||
         (strcmp(old_name, GEMMA2_CONFIG_ACTIVATION) != 0 && strcmp(old_name, "gelu") != 0)))
        return gemma2_config_refuse(source, "hidden_act", wrong);
    return 0;
}

static int gemma2_config_refusals(const struct gemma2_config_source *source)
{
    static const struct {
        const char *key, *why;
        bool may_be_false;
    } keys[] = {
        {"attention_bias", "asks for biases, which are not computed", true},
        {"use_bidirectional_attention", "asks for attention that is not causal", true},
        {"quantization_config", "says that the weights are quantized; take the original ones",
         false},
        {"rope_scaling", "asks for a scaling of RoPE, which is not computed", false},
    };
    const char *type = json_string_value(json_object_get(source->root, "model_type"));
    if (type == NULL || strcmp(type, "gemma2") != 0)
        return log_fail(ERR_USAGE, "'%s': key 'model_type' is '%s', not 'gemma2'", source->name,
                        type == NULL ? "" : type);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *member = json_object_get(source->root, keys[i].key);
        bool off = member == NULL || json_is_null(member) ||
                   (keys[i].may_be_false && json_is_false(member));
        if (!off)
            return gemma2_config_refuse(source, keys[i].key, keys[i].why);
    }
    return gemma2_config_activation(source);
}

/* ---- RoPE and layers */

/* rope_theta is at the top, or (newer files) inside rope_parameters, which then decides. */
static int gemma2_config_rope(struct gemma2_config *config,
                              const struct gemma2_config_source *source)
{
    const json_t *rope = json_object_get(source->root, "rope_parameters"), *value;
    int status = gemma2_config_real(&config->rope_theta, source->root, "rope_theta", "rope_theta",
                                    source->name, 10000);
    if (status != 0 || rope == NULL || json_is_null(rope))
        return status;
    if (!json_is_object(rope))
        return log_fail(ERR_DATA, "'%s': key 'rope_parameters' is not an object", source->name);
    const json_t *type = json_object_get(rope, "rope_type");
    if (type != NULL && (!json_is_string(type) || strcmp(json_string_value(type), "default") != 0))
        return gemma2_config_refuse(source, "rope_parameters.rope_type",
                                    "asks for a scaling of RoPE, which is not computed");
    const char *key;
    json_object_foreach(
        (json_t *)rope, key,
        value) if (json_is_object(value)) return gemma2_config_refuse(source, "rope_parameters",
                                                                      "differs between layers, "
                                                                      "which is not computed");
    return gemma2_config_real(&config->rope_theta, rope, "rope_theta", "rope_parameters.rope_theta",
                              source->name, config->rope_theta);
}

static int gemma2_config_layers(struct gemma2_config *config,
                                const struct gemma2_config_source *source)
{
    const json_t *types = json_object_get(source->root, "layer_types");
    bool given = types != NULL && !json_is_null(types);
    if (given && (!json_is_array(types) || json_array_size(types) != config->layers))
        return log_fail(ERR_DATA,
                        "'%s': key 'layer_types' is not a list of %" PRIu32 " (num_hidden_layers)",
                        source->name, config->layers);
    config->sliding = mem_alloc(config->layers, 1);
    if (config->sliding == NULL)
        return mem_fail("layers", config->layers, 1);
    for (uint32_t i = 0; i < config->layers; i++) {
        const char *type = given ? json_string_value(json_array_get(types, i)) : NULL;
        config->sliding[i] = i % 2 == 0;
        if (!given)
            continue;
        config->sliding[i] = type != NULL && strcmp(type, "sliding_attention") == 0;
        if (config->sliding[i] == 0 && (type == NULL || strcmp(type, "full_attention") != 0))
            return log_fail(ERR_USAGE,
                            "'%s': key 'layer_types' has '%s' for layer %" PRIu32
                            ", neither sliding_attention nor full_attention",
                            source->name, type == NULL ? "" : type, i);
    }
    return 0;
}

/* ---- all of it */

static int gemma2_config_fill(struct gemma2_config *config,
                              const struct gemma2_config_source *source)
{
    int status;
    if (!json_is_object(source->root))
        return log_fail(ERR_DATA, "'%s' is not a JSON object", source->name);
    if ((status = gemma2_config_refusals(source)) != 0 ||
        (status = gemma2_config_sizes(config, source)) != 0 ||
        (status = gemma2_config_relations(config, source->name)) != 0 ||
        (status = gemma2_config_real(&config->rms_eps, source->root, "rms_norm_eps", "rms_norm_eps",
                                     source->name, 1e-6)) != 0 ||
        (status = gemma2_config_real(&config->query_scalar, source->root, "query_pre_attn_scalar",
                                     "query_pre_attn_scalar", source->name, 256)) != 0 ||
        (status = gemma2_config_cap(&config->attention_cap, source, "attn_logit_softcapping",
                                    50)) != 0 ||
        (status = gemma2_config_cap(&config->final_cap, source, "final_logit_softcapping", 30)) !=
            0 ||
        (status = gemma2_config_rope(config, source)) != 0)
        return status;
    return gemma2_config_layers(config, source);
}

int gemma2_config_parse(struct gemma2_config *config, const char *text, size_t size,
                        const char *name)
{
    *config = (struct gemma2_config){.sliding = NULL};
    json_t *root = json_parse(text, size, name);
    if (root == NULL)
        return ERR_DATA;
    struct gemma2_config_source source = {.root = root, .name = name};
    int status = gemma2_config_fill(config, &source);
    json_decref(root);
    if (status != 0)
        gemma2_config_free(config);
    return status;
}

int gemma2_config_read(struct gemma2_config *config, const char *folder)
{
    *config = (struct gemma2_config){.sliding = NULL};
    char *text = NULL, *path = io_join(folder, "config.json");
    size_t size = 0;
    struct stat found;
    if (path == NULL)
        return mem_fail("a path", strlen(folder), 1);
    int status;
    if (stat(path, &found) == 0 && !S_ISREG(found.st_mode)) /* open() of a pipe would wait */
        status = log_fail(ERR_USAGE, "'%s' is not a regular file", path);
    else
        status = io_read_file(&text, &size, path, GEMMA2_CONFIG_MAX_BYTES);
    if (status == 0)
        status = gemma2_config_parse(config, text, size, path);
    free(text);
    free(path);
    return status;
}

void gemma2_config_free(struct gemma2_config *config)
{
    free(config->sliding);
    *config = (struct gemma2_config){.sliding = NULL};
}
