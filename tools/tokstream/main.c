/* main.c - tokstream: options and wiring. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "common/stream.h"
#include "common/tool.h"
#include "run.h"

struct tokstream_options {
    struct opt_common common;
    struct opt_list mix;
    const char *column, *shard, *output;
    uint64_t seq_len, skip, limit, epochs, seed;
    bool shuffle, info;
    int item, format, codec;
};

/* Counts are JSON integers and table limits are doubles: both are exact up to 2^53. */
#define TOKSTREAM_MOST 9007199254740992.0

/* Bytes of the words of --dtype, in their order. */
static const unsigned tokstream_item_bytes[] = {2, 4};

#define S struct tokstream_options
static const struct opt tokstream_table[] = {
    OPT_STRING("column", 0, S, column, "NAME", "input_ids", OPT_RECIPE,
               "the Parquet column or JSON key that holds the ids"),
    OPT_CHOICE("dtype", 0, S, item, "u16|u32", NULL, OPT_RECIPE,
               "items of a flat file (little-endian, no header)"),
    OPT_COUNT("seq-len", 0, S, seq_len, "N", 1, SOURCE_MOST_TOKENS, NULL, OPT_RECIPE,
              "length to cut flat arrays at; longer lists are cut to N"),
    OPT_COUNT("skip", 0, S, skip, "N", 0, TOKSTREAM_MOST, "0", OPT_RECIPE,
              "sequences to pass over"),
    OPT_COUNT("limit", 0, S, limit, "N", 0, TOKSTREAM_MOST, NULL, OPT_RECIPE,
              "sequences to emit, of each epoch"),
    OPT_COUNT("epochs", 0, S, epochs, "N", 1, 2147483648.0, "1", OPT_RECIPE,
              "times round (files only)"),
    OPT_FLAG("shuffle", 0, S, shuffle, OPT_RECIPE,
             "emit all sequences in the order of a keyed permutation, another one each epoch"),
    OPT_COUNT("seed", 0, S, seed, "S", 0, TOKSTREAM_MOST, "49", OPT_RECIPE,
              "of --shuffle: the same seed and input give the same order"),
    OPT_STRING("shard", 0, S, shard, "I/N", NULL, OPT_RECIPE,
               "the I-th (from 0) of N interleaved parts of the order"),
    OPT_LIST("mix", 0, S, mix, "W=PATH", 0,
             "instead of INPUT: interleave several by weight; ends with the first that "
             "ends"),
    OPT_CHOICE("format", 0, S, format, EMIT_FORMAT_CHOICES, "stream", 0,
               "the output's form; jsonl is for reading and for other programs"),
    OPT_FLAG("info", 0, S, info, 0, "say what the input is, and write no stream"),
    STREAM_OUTPUT_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};

static const struct opt_tool tokstream_tool = {
    .name = "tokstream",
    .section = "tokstream",
    .summary = "write token sequences from files as a stream",
    .synopsis = "tokstream [INPUT...]",
    .details =
        "Reads lists of token ids from Parquet (snappy or no compression), .npy, flat arrays, JSON "
        "lines and text with a sequence per line, from the files and folders named, else from "
        "standard input. A file's content says what it is; of folders, read recursively in the "
        "order of the paths, files are taken that end in .parquet .npy .jsonl .json .txt .pt or "
        ".bin. Sequences are shuffled, then sharded, then skipped and limited, and all that once "
        "per epoch. A sequence's index is its place in the input before that.\n"
        "An id that is null, negative or above 2^32 - 1 ends the run with 65.",
    .examples =
        "  tokstream tokens/*.parquet | actgen --model a=DIR --hook H | shufbuf | cctrain ...\n"
        "  tokstream --shuffle --seed 1 --limit 20000 tokens/ > sample.ccps\n"
        "  tokstream --dtype u16 --seq-len 1024 train.bin --format jsonl | head -n 3\n"
        "  tokstream --mix 0.9=web/ --mix 0.1=chat/ --shuffle | actgen ...\n"
        "  tokstream --info tokens/",
    .options = tokstream_table,
};

/* "I/N" */
static int parse_shard(const char *text, struct select_setup *select)
{
    select->shard = 0;
    select->shards = 1;
    if (text == NULL)
        return 0;
    char first[32];
    size_t length = strcspn(text, "/");
    if (length < sizeof first && text[length] == '/') {
        memcpy(first, text, length);
        first[length] = '\0';
        if (opt_parse_count(text + length + 1, 1, UINT32_MAX, &select->shards) &&
            opt_parse_count(first, 0, select->shards - 1, &select->shard))
            return 0;
    }
    return log_fail(ERR_USAGE, "--shard '%s' is not I/N with I from 0 to N - 1", text);
}

static int check(const struct tokstream_options *options)
{
    if (options->mix.count > 0 && options->common.operand_count > 0)
        return log_fail(ERR_USAGE, "--mix takes the place of INPUT: '%s' is one too many",
                        options->common.operands[0]);
    if (options->mix.count > 0 && options->info)
        return log_fail(ERR_USAGE, "--info describes INPUT, not a --mix");
    if (options->info && options->output != NULL)
        return log_fail(ERR_USAGE,
                        "--info writes no stream to '%s'; what it prints goes to "
                        "standard output",
                        options->output);
    if (options->format == EMIT_JSONL && options->codec > STREAM_CODEC_NONE)
        return log_fail(ERR_USAGE, "--codec is for streams; JSON lines are not compressed");
    return 0;
}

/* The recipe holds no paths, so of --mix the weights alone. */
static int note_weights(const struct opt_list *mix, json_t *recipe)
{
    json_t *weights = mix->count > 0 ? json_array() : json_null();
    for (size_t i = 0; i < mix->count; i++) {
        json_t *weight = json_stringn(mix->items[i], strcspn(mix->items[i], "="));
        if (json_array_append_new(weights, weight) != 0)
            return log_fail(ERR_USAGE, "--mix '%s' is no text", mix->items[i]);
    }
    if (json_object_set_new(recipe, "mix", weights) != 0)
        return mem_fail("options", 1, 1);
    return 0;
}

static int run(const struct tokstream_options *options, const struct select_setup *select)
{
    struct run_setup setup = {
        .select = *select,
        .format = (enum emit_format)options->format,
        .output = options->output,
        .codec = (enum stream_codec)options->codec,
        .threads = opt_threads(&options->common),
        .metrics = options->common.metrics,
        .recipe = options->common.recipe,
    };
    if (options->info)
        return run_info(&setup);
    return options->common.plan ? run_plan(&setup) : run_stream(&setup);
}

int main(int argc, char **argv)
{
    struct tokstream_options options = {0};
    struct select_setup select = {0};
    int status = tool_start("tokstream");
    if (status == 0)
        status = opt_parse(&tokstream_tool, &options, argc, argv);
    if (status == 0)
        status = check(&options);
    if (status == 0)
        status = parse_shard(options.shard, &select);
    if (status == 0) {
        const struct opt_common *common = &options.common;
        bool flat = opt_given(common, "dtype"), cut = opt_given(common, "seq-len");
        select.paths = common->operands;
        select.path_count = common->operand_count;
        select.mix = options.mix.items;
        select.mix_count = options.mix.count;
        select.shuffle = options.shuffle;
        select.seed = options.seed;
        select.skip = options.skip;
        select.limit = opt_given(common, "limit") ? options.limit : UINT64_MAX;
        select.epochs = options.epochs;
        select.source = (struct source_setup){
            .column = options.column,
            .raw_bytes = flat ? tokstream_item_bytes[options.item] : 0,
            .seq_len = cut ? (size_t)options.seq_len : 0,
            .most = cut ? (size_t)options.seq_len : SOURCE_MOST_TOKENS,
        };
        status = note_weights(&options.mix, common->recipe);
        if (status == 0)
            status = run(&options, &select);
    }
    opt_free(&tokstream_tool, &options);
    return tool_finish(status);
}
