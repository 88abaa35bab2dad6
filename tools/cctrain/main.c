/* main.c - cctrain: options and wiring. */
#include <stddef.h>
#include <string.h>

#include "common/crosscoder.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/tool.h"
#include "method.h"
#include "train.h"

struct cctrain_options {
    struct opt_common common;
    struct recipe recipe;
    const char *out, *attach, *init, *device;
    uint64_t k, save_every, keep, log_every, shuffle_rows, shuffle_seed;
    int activation, dtype;
    bool resume;
};

/* Counts are JSON integers and table limits are doubles: both are exact up to 2^53. */
#define CCTRAIN_MOST 9007199254740992.0
#define CCTRAIN_BATCH (1 << 24)

static const char *const activations[] = {"relu", "topk", "batchtopk", "jumprelu"};
static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F32}; /* in the order of the choices */

#define S struct cctrain_options
static const struct opt cctrain_table[] = {
    OPT_STRING("out", 0, S, out, "DIR", NULL, 0,
               "the run folder: checkpoints DIR/step-N and metrics.jsonl"),
    OPT_STRING("attach", 0, S, attach, "NAME", NULL, OPT_NOT_BUILT,
               "take rows from a shufbuf --serve NAME"),
    OPT_COUNT("shuffle-rows", 0, S, shuffle_rows, "N", 1, CCTRAIN_MOST, "524288", 0,
              "of rows that come by actgen --via: slots of the shuffle in the device's memory, as "
              "shufbuf --rows"),
    OPT_COUNT("shuffle-seed", 0, S, shuffle_seed, "S", 0, CCTRAIN_MOST, "49", 0,
              "of those rows: the seed of their order, as shufbuf --seed"),
    OPT_COUNT("latents", 0, S, recipe.latents, "F", 1, CROSSCODER_MAX_LATENTS, "16384", OPT_RECIPE,
              "latents of the dictionary; of --init's FILE where that is given alone"),
    OPT_CHOICE("activation", 0, S, activation, "relu|topk|batchtopk|jumprelu", "relu", OPT_RECIPE,
               "what makes latents sparse"),
    OPT_COUNT("k", 0, S, k, "K", 1, CROSSCODER_MAX_LATENTS, "100", OPT_NOT_BUILT,
              "latents that stay active, for topk and batchtopk"),
    OPT_COUNT("batch", 0, S, recipe.batch, "N", 1, CCTRAIN_BATCH, "4096", OPT_RECIPE,
              "rows of a step"),
    OPT_COUNT(
        "steps", 0, S, recipe.steps, "N", 0, CCTRAIN_MOST, NULL, OPT_RECIPE,
        "steps to train, and what the schedules refer to; default: as many as there are whole "
        "batches, where the stream says how many rows it has"),
    OPT_REAL("lr", 0, S, recipe.lr, "X", 0, 1e6, "5e-5", OPT_RECIPE, "Adam's learning rate"),
    OPT_REAL("beta1", 0, S, recipe.beta1, "X", 0, 0.9999999, "0.9", OPT_RECIPE,
             "Adam's decay of the first moment"),
    OPT_REAL("beta2", 0, S, recipe.beta2, "X", 0, 0.9999999, "0.999", OPT_RECIPE,
             "Adam's decay of the second moment"),
    OPT_REAL("eps", 0, S, recipe.eps, "X", 1e-30, 1, "1e-8", OPT_RECIPE,
             "Adam's addition to the denominator"),
    OPT_REAL("clip", 0, S, recipe.clip, "X", 0, 1e30, "1", OPT_RECIPE,
             "largest norm of the whole gradient; 0: any"),
    OPT_REAL("l1", 0, S, recipe.l1, "X", 0, 1e6, "2", OPT_RECIPE, "weight of the L1 term (lambda)"),
    OPT_REAL("l1-warmup", 0, S, recipe.l1_warmup, "FRAC", 0, 1, "0.05", OPT_RECIPE,
             "share of the steps over which lambda rises from 0"),
    OPT_REAL("lr-decay", 0, S, recipe.lr_decay, "FRAC", 0, 1, "0.2", OPT_RECIPE,
             "share of the steps, the last ones, over which the learning rate falls to 0"),
    OPT_COUNT("lr-warmup", 0, S, recipe.lr_warmup, "N", 0, CCTRAIN_MOST, "0", OPT_RECIPE,
              "steps over which the learning rate rises from 0"),
    OPT_COUNT("seed", 0, S, recipe.seed, "S", 0, CCTRAIN_MOST, "49", OPT_RECIPE,
              "of the initial weights"),
    OPT_STRING("init", 0, S, init, "FILE", NULL, OPT_RECIPE,
               "start with the weights of FILE (safetensors, or a run or step folder)"),
    OPT_CHOICE("dtype", 0, S, dtype, "bf16|f32", "bf16", OPT_RECIPE,
               "what products are computed in; weights, Adam and sums are f32 in both"),
    OPT_STRING("device", 0, S, device, "auto|cpu|cuda[:N]", "auto", 0, "where to compute"),
    OPT_COUNT("save-every", 0, S, save_every, "N", 1, CCTRAIN_MOST, "10000", 0,
              "steps from one checkpoint to the next; there is always one at the end"),
    OPT_COUNT("keep", 0, S, keep, "N", 1, CCTRAIN_MOST, "3", 0, "checkpoints that are kept"),
    OPT_FLAG("resume", 0, S, resume, 0,
             "go on from the newest checkpoint in DIR that verifies, or start where there is none"),
    OPT_COUNT("log-every", 0, S, log_every, "N", 1, CCTRAIN_MOST, "100", 0,
              "steps from one line of metrics to the next"),
    OPT_COMMON(S),
    OPT_END,
};

static const struct opt_tool cctrain_tool = {
    .name = "cctrain",
    .section = "cctrain",
    .summary = "train a crosscoder on a stream of activation rows",
    .synopsis = "cctrain --out DIR [ROWS...]",
    .details =
        "Trains a sparse dictionary with one decoder per source of the rows. The defaults are the "
        "reference recipe: ReLU latents, an L1 term that is weighed by the decoder norms and "
        "warmed up, Adam, the gradient clipped to norm 1.\n"
        "Reads the FILEs named, one after the other, else standard input. Stops after --steps; a "
        "stream that ends before is no success: what was trained is saved, and the exit status is "
        "75.\n"
        "Checkpoints are written to DIR/step-N.tmp and renamed once they are on the disk. A run "
        "that was stopped, by whatever, ends with --resume in the bytes that it would have had, on "
        "the same kind of processor and with the same --threads. The stream has to be the same; "
        "it may begin at its start, or (shufbuf --skip-draws) at the row where the run stands.",
    .examples =
        "  tokstream T | actgen --model a=A --model b=B --hook H | shufbuf | cctrain --out run\n"
        "  shufbuf --epochs 4 acts.lz4 | cctrain --out run --latents 16k   # from a cache\n"
        "  shufbuf --epochs 4 acts.lz4 | cctrain --out run --latents 16k --resume\n"
        "  tokstream T | actgen --via cuda-ipc --model a=A --hook H | cctrain --out run",
    .options = cctrain_table,
};

static int check_options(const struct cctrain_options *options)
{
    if (options->out == NULL || options->out[0] == '\0')
        return log_fail(ERR_USAGE, "--out DIR is needed, a folder for checkpoints and metrics");
    if (method_find(activations[options->activation]) == NULL)
        return log_fail(ERR_USAGE, "--activation %s is not built",
                        activations[options->activation]);
    return 0;
}

static int run(const struct cctrain_options *options)
{
    struct train_setup setup = {
        .out = options->out,
        .paths = options->common.operands,
        .path_count = options->common.operand_count,
        .recipe = options->recipe,
        .has_steps = opt_given(&options->common, "steps"),
        .has_latents = opt_given(&options->common, "latents"),
        .options = options->common.recipe,
        .activation = activations[options->activation],
        .init = options->init,
        .device = options->device,
        .threads = opt_threads(&options->common),
        .save_every = options->save_every,
        .keep = options->keep,
        .log_every = options->log_every,
        .resume = options->resume,
        .metrics = options->common.metrics,
        .has_shuffle = opt_given(&options->common, "shuffle-rows") ||
                       opt_given(&options->common, "shuffle-seed"),
        .shuffle_rows = options->shuffle_rows,
        .shuffle_seed = options->shuffle_seed,
    };
    setup.recipe.dtype = dtypes[options->dtype];
    return options->common.plan ? train_plan(&setup) : train_run(&setup);
}

int main(int argc, char **argv)
{
    struct cctrain_options options = {0};
    int status = tool_start("cctrain");
    if (status == 0)
        status = opt_parse(&cctrain_tool, &options, argc, argv);
    if (status == 0)
        status = check_options(&options);
    if (status == 0)
        status = run(&options);
    opt_free(&cctrain_tool, &options);
    return tool_finish(status);
}
