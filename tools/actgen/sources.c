/* sources.c - --model NAME=DIR and --hook [MODEL:]blocks.L.hook_KIND.
 *
 * Names of models go into BEGIN, into checkpoints and in front of ':' and '.', so they are letters,
 * digits, '-' and '_' alone ('.' would make "MODEL.HOOK" ambiguous).
 */
#include "sources.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/begin.h"
#include "common/log.h"
#include "common/mem.h"

#define SOURCES_NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
enum { SOURCES_NAME_MAX = 64, SOURCES_MAX_LAYER_DIGITS = 6 };

static const char *const kind_names[] = {
    [SOURCES_RESID_PRE] = "resid_pre",   [SOURCES_ATTN_OUT] = "attn_out",
    [SOURCES_RESID_MID] = "resid_mid",   [SOURCES_MLP_OUT] = "mlp_out",
    [SOURCES_RESID_POST] = "resid_post",
};

/* ---- one hook */

/* Decimal digits without a needless 0 in front (two spellings would be two names of one source). */
static bool parse_layer(const char **text, uint32_t *layer)
{
    const char *from = *text;
    size_t digits = strspn(from, "0123456789");
    if (digits == 0 || digits > SOURCES_MAX_LAYER_DIGITS || (digits > 1 && from[0] == '0'))
        return false;
    *layer = (uint32_t)strtoul(from, NULL, 10);
    *text = from + digits;
    return true;
}

static bool parse_hook(const char *hook, uint32_t *layer, enum sources_kind *kind)
{
    static const char before[] = "blocks.", between[] = ".hook_";
    if (strncmp(hook, before, sizeof before - 1) != 0)
        return false;
    hook += sizeof before - 1;
    if (!parse_layer(&hook, layer) || strncmp(hook, between, sizeof between - 1) != 0)
        return false;
    hook += sizeof between - 1;
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++) {
        if (strcmp(hook, kind_names[i]) == 0) {
            *kind = (enum sources_kind)i;
            return true;
        }
    }
    return false;
}

/* ---- models */

static int parse_model(struct sources *sources, const char *text)
{
    const char *equals = strchr(text, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - text);
    if (length == 0 || length > SOURCES_NAME_MAX || equals[1] == '\0' ||
        strspn(text, SOURCES_NAME_CHARACTERS) != length)
        return log_fail(ERR_USAGE,
                        "--model '%s' is not NAME=DIR with a NAME of letters, digits, - and _",
                        text);
    struct sources_model *model = &sources->models[sources->model_count];
    model->name = strndup(text, length);
    if (model->name == NULL)
        return mem_fail("a model's name", length, 1);
    model->folder = equals + 1;
    for (size_t i = 0; i < sources->model_count; i++) {
        if (strcmp(sources->models[i].name, model->name) == 0) {
            free(model->name);
            return log_fail(ERR_USAGE, "two models are called '%s'", sources->models[i].name);
        }
    }
    sources->model_count++;
    return 0;
}

/* ---- sources */

/* The part of MODEL:HOOK behind the colon, or all; *model is what is before it, or NULL. */
static const char *split_hook(const char *text, const char **model, size_t *length)
{
    const char *colon = strchr(text, ':');
    *model = colon == NULL ? NULL : text;
    *length = colon == NULL ? 0 : (size_t)(colon - text);
    return colon == NULL ? text : colon + 1;
}

static bool is_named(const struct sources_model *model, const char *name, size_t length)
{
    return strlen(model->name) == length && memcmp(model->name, name, length) == 0;
}

static int check_hooks(const struct sources *sources, const struct opt_list *hooks)
{
    for (size_t i = 0; i < hooks->count; i++) {
        const char *name;
        size_t length;
        uint32_t layer;
        enum sources_kind kind;
        const char *hook = split_hook(hooks->items[i], &name, &length);
        if (!parse_hook(hook, &layer, &kind))
            return log_fail(ERR_USAGE,
                            "--hook '%s' is not blocks.L.hook_KIND with KIND one of resid_pre, "
                            "resid_mid, resid_post, attn_out, mlp_out",
                            hooks->items[i]);
        bool found = name == NULL;
        for (size_t m = 0; m < sources->model_count && !found; m++)
            found = is_named(&sources->models[m], name, length);
        if (!found)
            return log_fail(ERR_USAGE, "--hook '%s': no --model is called '%.*s'", hooks->items[i],
                            (int)length, name);
    }
    return 0;
}

static int add_source(struct sources *sources, size_t model, const char *hook)
{
    const char *model_name = sources->models[model].name;
    if (sources->count == BEGIN_MAX_SOURCES)
        return log_fail(ERR_USAGE, "a row has at most %d sources", BEGIN_MAX_SOURCES);
    struct source *source = &sources->items[sources->count];
    size_t prefix = strlen(model_name) + 1, size = prefix + strlen(hook) + 1;
    source->name = mem_alloc(size, 1);
    if (source->name == NULL)
        return mem_fail("a source's name", size, 1);
    snprintf(source->name, size, "%s.%s", model_name, hook);
    source->hook = source->name + prefix;
    source->model = model;
    if (!parse_hook(hook, &source->layer, &source->kind))
        return log_fail(ERR_USAGE, "--hook '%s' is not a hook", hook);
    sources->count++;
    for (size_t i = 0; i + 1 < sources->count; i++)
        if (strcmp(sources->items[i].name, source->name) == 0)
            return log_fail(ERR_USAGE, "source '%s' is asked for twice", source->name);
    return 0;
}

static int add_sources(struct sources *sources, size_t model, const struct opt_list *hooks)
{
    struct sources_model *of = &sources->models[model];
    of->first = sources->count;
    for (size_t i = 0; i < hooks->count; i++) {
        const char *name;
        size_t length;
        const char *hook = split_hook(hooks->items[i], &name, &length);
        if (name != NULL && !is_named(of, name, length))
            continue;
        int status = add_source(sources, model, hook);
        if (status != 0)
            return status;
    }
    of->count = sources->count - of->first;
    if (of->count == 0)
        return log_fail(ERR_USAGE, "no --hook is for model '%s'", of->name);
    return 0;
}

int sources_parse(struct sources *sources, const struct opt_list *models,
                  const struct opt_list *hooks)
{
    memset(sources, 0, sizeof *sources);
    if (models->count == 0)
        return log_fail(ERR_USAGE, "no --model NAME=DIR is given");
    if (hooks->count == 0)
        return log_fail(ERR_USAGE, "no --hook is given, e.g. --hook blocks.14.hook_resid_pre");
    sources->models = mem_alloc_zero(models->count, sizeof *sources->models);
    sources->items = mem_alloc_zero(BEGIN_MAX_SOURCES, sizeof *sources->items);
    int status = sources->models == NULL || sources->items == NULL
                     ? mem_fail("sources", models->count, sizeof *sources->models)
                     : 0;
    for (size_t i = 0; status == 0 && i < models->count; i++)
        status = parse_model(sources, models->items[i]);
    if (status == 0)
        status = check_hooks(sources, hooks);
    for (size_t i = 0; status == 0 && i < sources->model_count; i++)
        status = add_sources(sources, i, hooks);
    if (status != 0)
        sources_free(sources);
    return status;
}

void sources_free(struct sources *sources)
{
    for (size_t i = 0; i < sources->count; i++)
        free(sources->items[i].name);
    for (size_t i = 0; i < sources->model_count; i++)
        free(sources->models[i].name);
    free(sources->items);
    free(sources->models);
    memset(sources, 0, sizeof *sources);
}

int sources_check_layers(const struct sources *sources, size_t model, uint32_t layers)
{
    const struct sources_model *of = &sources->models[model];
    for (size_t i = of->first; i < of->first + of->count; i++)
        if (sources->items[i].layer >= layers)
            return log_fail(ERR_USAGE,
                            "source '%s': model '%s' in '%s' has %" PRIu32 " layers, 0 to %" PRIu32,
                            sources->items[i].name, of->name, of->folder, layers, layers - 1);
    return 0;
}

struct sources_depth sources_depth(const struct sources *sources, size_t model)
{
    const struct sources_model *of = &sources->models[model];
    struct sources_depth depth = {0, false};
    for (size_t i = of->first; i < of->first + of->count; i++) {
        const struct source *source = &sources->items[i];
        bool whole = source->kind == SOURCES_MLP_OUT || source->kind == SOURCES_RESID_POST;
        bool half = source->kind == SOURCES_ATTN_OUT || source->kind == SOURCES_RESID_MID;
        uint32_t layers = source->layer + (whole ? 1 : 0);
        if (layers > depth.layers)
            depth = (struct sources_depth){layers, half};
        else if (layers == depth.layers && half)
            depth.attention = true;
    }
    return depth;
}
