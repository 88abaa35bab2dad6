/* main.c - shufbuf: options and wiring. */
#include <stddef.h>

#include "common/opt.h"
#include "common/stream.h"
#include "common/tool.h"
#include "shuffle.h"

struct shufbuf_options {
    struct opt_common common;
    uint64_t rows, seed, epochs, skip_draws, trainers;
    const char *serve, *output;
    int codec;
};

/* Counts are JSON integers and table limits are doubles: both are exact up to 2^53. */
#define SHUFBUF_MOST 9007199254740992.0

#define S struct shufbuf_options
static const struct opt shufbuf_table[] = {
    OPT_COUNT("rows", 0, S, rows, "N", 1, SHUFBUF_MOST, "524288", OPT_RECIPE,
              "slots of the buffer; a row waits for at most 2N draws"),
    OPT_COUNT("seed", 0, S, seed, "S", 0, SHUFBUF_MOST, "49", OPT_RECIPE,
              "of the order: the same seed, N and input give the same order"),
    OPT_COUNT("epochs", 0, S, epochs, "N", 1, SHUFBUF_MOST, "1", OPT_RECIPE,
              "read the input N times (files only); no pause and no reshuffle in between"),
    OPT_COUNT("skip-draws", 0, S, skip_draws, "N", 0, SHUFBUF_MOST, "0", 0,
              "begin the output at draw N; of a file with an index only what is needed is read"),
    OPT_STRING("serve", 0, S, serve, "NAME", NULL, OPT_NOT_BUILT,
               "serve the rows to several trainers instead of standard output"),
    OPT_COUNT("trainers", 0, S, trainers, "N", 1, 64, NULL, OPT_NOT_BUILT,
              "with --serve: how many trainers to wait for"),
    STREAM_OUTPUT_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};

static const struct opt_tool shufbuf_tool = {
    .name = "shufbuf",
    .section = "shufbuf",
    .summary = "shuffle a stream of activation rows in bounded memory",
    .synopsis = "shufbuf [ROWS...]",
    .details =
        "Keeps N rows in memory and serves them in an order that depends on the seed, N and the "
        "rows' places alone: rows kN to kN+N-1 are served as block k, in the order of a keyed "
        "permutation, and each row served makes room for the next one that comes in. Every row is "
        "served exactly once. Nothing waits for a full buffer, and nothing of it has to be saved: "
        "--skip-draws begins anywhere in the same order.\n"
        "Reads the FILEs named, one after the other, else standard input.",
    .examples = "  tokstream T | actgen --model a=DIR --hook H | shufbuf | cctrain --out run\n"
                "  shufbuf --epochs 4 acts.lz4 | cctrain --out run   # train from a cache\n"
                "  shufbuf --skip-draws 1024000 acts.lz4 | cctrain --out run --resume",
    .options = shufbuf_table,
};

int main(int argc, char **argv)
{
    struct shufbuf_options options = {0};
    int status = tool_start("shufbuf");
    if (status == 0)
        status = opt_parse(&shufbuf_tool, &options, argc, argv);
    if (status == 0) {
        struct shuffle_setup setup = {
            .paths = options.common.operands,
            .path_count = options.common.operand_count,
            .rows = options.rows,
            .seed = options.seed,
            .epochs = options.epochs,
            .skip_draws = options.skip_draws,
            .output = options.output,
            .codec = (enum stream_codec)options.codec,
            .threads = opt_threads(&options.common),
            .metrics = options.common.metrics,
            .recipe = options.common.recipe,
        };
        status = options.common.plan ? shuffle_plan(&setup) : shuffle_run(&setup);
    }
    opt_free(&shufbuf_tool, &options);
    return tool_finish(status);
}
