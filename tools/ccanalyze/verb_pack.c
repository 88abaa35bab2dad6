/* verb_pack.c - `ccanalyze pack`: arrays of other programs as a stream of rows. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/sig.h"
#include "pack.h"
#include "verb.h"

#define PACK_BLOCK_BYTES (1u << 20) /* about a record */

struct pack_options {
    struct opt_common common;
    struct opt_list sources;
    const char *output;
    int codec;
};

#define S struct pack_options
static const struct opt pack_table[] = {
    OPT_LIST("source", 0, S, sources, "NAME:WIDTH", 0,
             "name (MODEL.HOOK) and width of a source; repeated, in the order of the columns"),
    STREAM_OUTPUT_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool pack_tool = {
    .name = "ccanalyze pack",
    .section = "ccanalyze",
    .summary = "a stream of rows from arrays of other programs",
    .synopsis = "ccanalyze pack ROWS.npy|FOLDER... --source NAME:WIDTH...",
    .details =
        "ROWS.npy is (N, D), D the sum of the widths, or (N, S, d), in float32 or float16 (stored "
        "as "
        "float32). Or there is an input for each source, in order: a .npy (N, WIDTH), or a folder "
        "of "
        "dictionary_learning's activation cache (config.json, shard_0.memmap, shard_0.meta, ...); "
        "where all are bfloat16 the rows stay bfloat16. The tag of a row is its number, position 0 "
        "and token 0. Values are taken as they are (scale 1), and one that is not finite is "
        "refused.",
    .examples =
        "  ccanalyze pack rows.npy --source base.mid:2304 --source chat.mid:2304 -o rows.lz4\n"
        "  ccanalyze pack rows.npy --source a:64 --source b:64 | shufbuf | cctrain --out run\n"
        "  ccanalyze pack cache/base_out cache/chat_out --source base:2304 --source chat:2304 -o "
        "c.lz4",
    .options = pack_table,
};

/* "MODEL.HOOK:WIDTH" */
static int pack_add_source(struct begin *begin, const char *text)
{
    const char *colon = strrchr(text, ':'), *dot = strchr(text, '.');
    uint64_t width;
    if (colon == NULL || colon == text || !opt_parse_count(colon + 1, 1, BEGIN_MAX_WIDTH, &width))
        return log_fail(ERR_USAGE, "--source '%s': NAME:WIDTH is needed, the width 1 to %u", text,
                        BEGIN_MAX_WIDTH);
    if (begin->source_count == BEGIN_MAX_SOURCES || begin_width(begin) + width > BEGIN_MAX_WIDTH)
        return log_fail(ERR_USAGE, "--source '%s': at most %d sources with %u elements together",
                        text, BEGIN_MAX_SOURCES, BEGIN_MAX_WIDTH);
    char *name = strndup(text, (size_t)(colon - text));
    size_t model_length =
        dot != NULL && dot < colon ? (size_t)(dot - text) : (size_t)(colon - text);
    char *model = strndup(text, model_length);
    int status = 0;
    if (name == NULL || model == NULL)
        status = mem_fail("a source", strlen(text), 1);
    for (size_t s = 0; s < begin->source_count && status == 0; s++)
        if (strcmp(begin->sources[s].name, name) == 0)
            status = log_fail(ERR_USAGE, "--source '%s': that name is given twice", text);
    if (status == 0) {
        const char *hook = name[model_length] == '.' ? name + model_length + 1 : "";
        status = begin_add_source(begin, name, model, hook, "", (uint32_t)width, 1);
    }
    free(name);
    free(model);
    return status;
}

static int pack_make_begin(struct begin *begin, const struct opt_list *sources)
{
    if (sources->count == 0)
        return log_fail(ERR_USAGE, "--source NAME:WIDTH is needed for each source");
    int status = begin_init(begin, BEGIN_ACTIVATIONS, "ccanalyze");
    for (size_t i = 0; i < sources->count && status == 0; i++)
        status = pack_add_source(begin, sources->items[i]);
    return status;
}

static int pack_rows(struct pack *pack, struct stream_writer *writer, const struct begin *begin,
                     struct progress *progress)
{
    size_t row_bytes = begin_row_bytes(begin);
    size_t block = PACK_BLOCK_BYTES / row_bytes > 0 ? PACK_BLOCK_BYTES / row_bytes : 1;
    uint8_t *rows = mem_alloc(block, row_bytes), *tags = mem_alloc(block, STREAM_TAG_BYTES);
    int64_t n = rows == NULL || tags == NULL ? mem_fail("rows", block, row_bytes) : 1;
    uint64_t row = 0;
    while (n > 0 && (n = sig_pending() != 0 ? ERR_INTERRUPTED : pack_next(pack, rows, block)) > 0) {
        for (int64_t i = 0; i < n; i++)
            stream_tag_put(tags + i * STREAM_TAG_BYTES, (struct stream_tag){.sequence = row++});
        int status = stream_writer_rows(writer, tags, rows, (size_t)n);
        n = status != 0 ? status : n;
        progress_set(progress, row);
    }
    free(rows);
    free(tags);
    return (int)n;
}

static int pack_write(struct pack *pack, const struct begin *begin,
                      const struct pack_options *options)
{
    struct stream_writer *writer;
    struct progress *progress = NULL;
    int status = stream_writer_open(&writer, options->output, (enum stream_codec)options->codec,
                                    opt_threads(&options->common));
    if (status != 0)
        return status;
    struct progress_setup setup = {.unit = "rows",
                                   .total = begin->rows,
                                   .out = stream_writer_file(writer),
                                   .metrics = options->common.metrics};
    status = progress_start(&progress, &setup);
    if (status == 0)
        status = stream_writer_begin(writer, begin);
    if (status == 0)
        status = pack_rows(pack, writer, begin, progress);
    int told = progress_stop(progress);
    if (status == 0)
        status = stream_writer_end(writer, NULL);
    else
        stream_writer_abort(writer, status, NULL);
    stream_writer_free(writer);
    return status != 0 ? status : told;
}

static int pack_run(const void *values)
{
    const struct pack_options *options = values;
    const struct opt_common *common = &options->common;
    struct begin begin = {0};
    struct pack *pack = NULL;
    if (common->operand_count == 0)
        return log_fail(ERR_USAGE, "which array? name a .npy file, or a folder for each source");
    int status = pack_make_begin(&begin, &options->sources);
    if (status == 0)
        status = pack_open(&pack, &begin, common->operands, common->operand_count);
    if (status == 0 && common->plan)
        printf("disk\t%" PRIu64 "\nrows\t%" PRIu64 "\n",
               begin.rows * (begin_row_bytes(&begin) + STREAM_TAG_BYTES), begin.rows);
    else if (status == 0)
        status = pack_write(pack, &begin, options);
    pack_free(pack);
    begin_free(&begin);
    return status;
}

const struct verb verb_pack = {&pack_tool, sizeof(struct pack_options), pack_run};
