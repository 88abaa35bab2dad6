/* main.c - actgen: options and wiring. */
#include <stddef.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "common/stream.h"
#include "common/tool.h"
#include "generate.h"
#include "sources.h"

struct actgen_options {
    struct opt_common common;
    struct opt_list models, hooks, drop_ids;
    const char *device, *norm, *norm_out, *output;
    uint64_t batch, skip_first, norm_sequences;
    bool drop_bos, keep_bos;
    int type, row_type, via, format, codec;
};

/* The words of the choices below, in their order. */
static const enum dtype actgen_types[] = {DTYPE_BF16, DTYPE_F32, DTYPE_I8};
enum { VIA_SHM = 1, FORMAT_STREAM = 0 };
static const enum begin_plane actgen_planes[] = {BEGIN_INLINE, BEGIN_INLINE, BEGIN_NCCL,
                                                 BEGIN_CUDA_IPC};

#define S struct actgen_options
static const struct opt actgen_table[] = {
    OPT_LIST("model", 0, S, models, "NAME=DIR", 0,
             "a model in Hugging Face's form; repeated, in order"),
    OPT_LIST("hook", 0, S, hooks, "HOOK", OPT_RECIPE,
             "blocks.L.hook_resid_pre, resid_mid, resid_post, attn_out or mlp_out; repeated; "
             "MODEL:HOOK for one model alone"),
    OPT_STRING("device", 0, S, device, "auto|cpu|cuda[:N]", "auto", 0, "where to compute"),
    OPT_CHOICE("dtype", 0, S, type, "bf16|f32", "bf16", OPT_RECIPE, "what to compute in"),
    OPT_CHOICE("row-dtype", 0, S, row_type, "bf16|f32|int8", "bf16", OPT_RECIPE,
               "what rows are stored in"),
    OPT_COUNT(
        "batch", 0, S, batch, "N", 1, 65536, NULL, 0,
        "sequences per forward pass, by default 8, or more where more fit into one product of "
        "the device; never changes a result"),
    OPT_FLAG("drop-bos", 0, S, drop_bos, 0, "position 0 of each sequence gives no row (default)"),
    OPT_FLAG("keep-bos", 0, S, keep_bos, OPT_RECIPE, "position 0 gives a row, too"),
    OPT_COUNT("skip-first", 0, S, skip_first, "N", 0, 4294967295.0, "0", OPT_RECIPE,
              "positions below N give no row"),
    OPT_LIST("drop-id", 0, S, drop_ids, "ID", OPT_RECIPE,
             "rows whose token is ID (padding) are left out; repeated"),
    OPT_STRING("norm", 0, S, norm, "estimate|none|FILE", "estimate", 0,
               "factors of the sources: estimated, so that the mean norm is the square root of "
               "the width; 1; or from a file"),
    OPT_COUNT("norm-sequences", 0, S, norm_sequences, "N", 1, 4294967295.0, "400", 0,
              "sequences to estimate from; they are held in memory"),
    OPT_STRING("norm-out", 0, S, norm_out, "FILE", NULL, OPT_WRITES, "write the factors to FILE"),
    OPT_CHOICE(
        "via", 0, S, via, "inline|shm|nccl|cuda-ipc", "inline", 0,
        "how rows travel: by the pipe; cuda-ipc: from device memory to cctrain on the same GPU; "
        "nccl: to cctrain on another; shm is not built"),
    OPT_CHOICE("format", 0, S, format, "stream|memmap", "stream", 0,
               "the output's form; stream alone is built"),
    STREAM_OUTPUT_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};

static const struct opt_tool actgen_tool = {
    .name = "actgen",
    .section = "actgen",
    .summary = "run Gemma-2 models over a token stream and write their activations",
    .synopsis = "actgen --model NAME=DIR... --hook HOOK... [TOKENS...]",
    .details =
        "Writes one row per token: the values of all hooks of all models side by side, models in "
        "the order given, within each its hooks in the order given. Weights are read up to the "
        "last hook, from safetensors of F32, BF16 or F16. Each source is multiplied by one factor "
        "(--norm). Rows that are not finite are left out and counted; above 0.1 % the run fails. "
        "A row does not depend on what else is in its batch.\n"
        "Reads the token FILEs named, one after the other, else standard input.",
    .examples =
        "  tokstream T | actgen --model base=DIR --model chat=DIR2 --hook blocks.14.hook_resid_pre "
        "\\\n"
        "      --norm-out norm.json | shufbuf | cctrain --out run\n"
        "  tokstream T | actgen --model a=DIR --hook blocks.3.hook_mlp_out -o acts.lz4\n"
        "  tokstream T | actgen --model a=DIR --hook blocks.3.hook_resid_mid --norm none \\\n"
        "      --dtype f32 --row-dtype f32 | ccanalyze dump --npy rows.npy",
    .options = actgen_table,
};

static int check_built(const struct actgen_options *options)
{
    if (options->via == VIA_SHM)
        return log_fail(ERR_USAGE, "--via shm is not built");
    if (options->format != FORMAT_STREAM)
        return log_fail(ERR_USAGE, "--format memmap is not built");
    if (options->drop_bos && options->keep_bos)
        return log_fail(ERR_USAGE, "--drop-bos and --keep-bos exclude each other");
    return 0;
}

static int parse_ids(const struct opt_list *list, uint32_t **ids)
{
    *ids = mem_alloc(list->count, sizeof **ids);
    if (*ids == NULL)
        return mem_fail("--drop-id", list->count, sizeof **ids);
    for (size_t i = 0; i < list->count; i++) {
        uint64_t id;
        if (!opt_parse_count(list->items[i], 0, UINT32_MAX, &id))
            return log_fail(ERR_USAGE, "--drop-id '%s' is not a token id", list->items[i]);
        (*ids)[i] = (uint32_t)id;
    }
    return 0;
}

/* What BEGIN says of the options: no folders. */
static json_t *describe(const struct actgen_options *options, const struct sources *sources)
{
    json_t *recipe = json_deep_copy(options->common.recipe), *names = json_array();
    for (size_t i = 0; i < sources->model_count; i++)
        (void)json_array_append_new(names, json_string(sources->models[i].name));
    if (recipe == NULL || json_object_set_new(recipe, "model", names) != 0) {
        json_decref(recipe);
        return NULL;
    }
    return recipe;
}

static int run(const struct actgen_options *options, const struct sources *sources,
               const struct pass_rule *rule, const json_t *recipe)
{
    struct generate_setup setup = {
        .sources = sources,
        .device = options->device,
        .threads = opt_threads(&options->common),
        .type = actgen_types[options->type],
        .row_type = actgen_types[options->row_type],
        .batch = options->batch,
        .rule = *rule,
        .norm = options->norm,
        .norm_sequences = options->norm_sequences,
        .norm_out = options->norm_out,
        .paths = options->common.operands,
        .path_count = options->common.operand_count,
        .output = options->output,
        .codec = (enum stream_codec)options->codec,
        .plane = actgen_planes[options->via],
        .metrics = options->common.metrics,
        .recipe = recipe,
    };
    return options->common.plan ? generate_plan(&setup) : generate_run(&setup);
}

int main(int argc, char **argv)
{
    struct actgen_options options = {0};
    struct sources sources = {0};
    uint32_t *ids = NULL;
    json_t *recipe = NULL;
    int status = tool_start("actgen");
    if (status == 0)
        status = opt_parse(&actgen_tool, &options, argc, argv);
    if (status == 0)
        status = check_built(&options);
    if (status == 0)
        status = parse_ids(&options.drop_ids, &ids);
    if (status == 0)
        status = sources_parse(&sources, &options.models, &options.hooks);
    if (status == 0) {
        uint32_t bos = options.keep_bos ? 0 : 1, skip = (uint32_t)options.skip_first;
        struct pass_rule rule = {skip > bos ? skip : bos, ids, options.drop_ids.count};
        recipe = describe(&options, &sources);
        status =
            recipe == NULL ? mem_fail("options", 1, 1) : run(&options, &sources, &rule, recipe);
    }
    json_decref(recipe);
    sources_free(&sources);
    free(ids);
    opt_free(&actgen_tool, &options);
    return tool_finish(status);
}
