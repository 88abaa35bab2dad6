/* generate.c - from options to a stream: what is checked when, factors, BEGIN, END.
 *
 * Everything that can be refused is refused before weights are read, and everything that does not
 * fit into memory before the output is touched: models against each other and against the hooks,
 * factors against the sources, tensors against the configurations, memory. BEGIN needs the factors,
 * so with --norm estimate it comes after the first sequences have been run once.
 */
#include "generate.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "emit.h"
#include "engine.h"
#include "factors.h"
#include "modeldir.h"
#include "tokens.h"

/* Sequences of a pass without --batch, at least. */
enum { LEAST_BATCH = 8 };

struct generate {
    const struct generate_setup *setup;
    struct modeldir *dirs; /* (models) */
    size_t opened;         /* of them */
    struct engine *engine;
    struct tokens *tokens;
    struct stream_writer *writer;
    struct progress *progress;
    struct emit emit;
    double *factors;    /* (sources) */
    char (*hashes)[33]; /* (models) of what was loaded */

    uint64_t batch;     /* sequences of a pass */
    size_t pass_tokens; /* of a pass */
    uint32_t length;    /* of a sequence: as BEGIN says, or GENERATE_LENGTH */
    bool knows_rows;
    uint64_t rows; /* that BEGIN announces */
};

/* ---- before weights are read */

static bool is_inline(const struct generate_setup *setup)
{
    return setup->plane == BEGIN_INLINE;
}

static int open_models(struct generate *generate)
{
    const struct sources *sources = generate->setup->sources;
    size_t count = sources->model_count, width = 0;
    generate->dirs = mem_alloc_zero(count, sizeof *generate->dirs);
    if (generate->dirs == NULL)
        return mem_fail("models", count, sizeof *generate->dirs);
    for (size_t i = 0; i < count; i++) {
        const struct sources_model *model = &sources->models[i];
        int status = modeldir_open(&generate->dirs[i], model->name, model->folder,
                                   sources_depth(sources, i));
        if (status != 0)
            return status;
        generate->opened++;
        status = sources_check_layers(sources, i, generate->dirs[i].config.layers);
        if (status != 0)
            return status;
        width += model->count * generate->dirs[i].config.width;
    }
    if (width > BEGIN_MAX_WIDTH)
        return log_fail(ERR_USAGE, "a row of %zu values is wider than the %u that a stream takes",
                        width, BEGIN_MAX_WIDTH);
    return modeldir_agree(generate->dirs, count);
}

static bool is_estimated(const struct generate_setup *setup)
{
    return strcmp(setup->norm, "estimate") == 0;
}

static int start_factors(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    size_t count = setup->sources->count;
    generate->factors = mem_alloc(count, sizeof *generate->factors);
    if (generate->factors == NULL)
        return mem_fail("factors", count, sizeof *generate->factors);
    for (size_t i = 0; i < count; i++)
        generate->factors[i] = 1;
    if (is_estimated(setup) || strcmp(setup->norm, "none") == 0)
        return 0;
    return factors_read(generate->factors, setup->sources, setup->norm);
}

static int open_engine(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    struct engine_setup engine = {.device = setup->device,
                                  .threads = setup->threads,
                                  .type = setup->type,
                                  .row_type = setup->row_type,
                                  .buffers = is_inline(setup) ? 0 : WINDOW_BUFFERS,
                                  .sources = setup->sources,
                                  .dirs = generate->dirs};
    int status = engine_open(&generate->engine, &engine);
    return status == 0 && !is_inline(setup) ? window_check_device(generate->engine, setup->plane)
                                            : status;
}

/* All sequences of a pass, each as long as BEGIN says; where it does not say, a guess. Without
 * --batch as many as fill a chunk of the device, and not too few for the host to keep up with. */
static int size_passes(struct generate *generate, const struct begin *begin)
{
    bool known = begin != NULL && begin->has_seq_len;
    uint64_t length = known ? begin->seq_len : GENERATE_LENGTH, tokens;
    if (length == 0)
        length = 1;
    size_t chunk = engine_chunk(generate->engine);
    uint64_t filling = chunk / length;
    generate->batch = generate->setup->batch;
    if (generate->batch == 0)
        generate->batch = filling > LEAST_BATCH ? filling : LEAST_BATCH;
    if (length > UINT32_MAX || __builtin_mul_overflow(length, generate->batch, &tokens) ||
        tokens > UINT32_MAX - chunk)
        return log_fail(ERR_USAGE,
                        "%" PRIu64 " sequences of %" PRIu64 " tokens are too many for one pass; "
                        "lower --batch",
                        generate->batch, length);
    /* Buffers that are shared cannot grow: then a sequence may take a whole pass. */
    generate->length =
        (uint32_t)(is_inline(generate->setup) ? length : pass_round_up(chunk, tokens));
    generate->pass_tokens = (size_t)tokens;
    return 0;
}

struct need {
    struct engine_memory engine;
    uint64_t pass;
};

static int measure_need(const struct generate *generate, struct need *need)
{
    int status =
        engine_measure(generate->engine, generate->pass_tokens, generate->length, &need->engine);
    need->pass = emit_host_bytes(generate->engine, generate->pass_tokens, (size_t)generate->batch);
    return status;
}

/* ---- rows: how many */

/* Known where nothing but positions decides. Rows that turn out not to be finite are left out all
 * the same; END says how many. */
static void count_rows(struct generate *generate)
{
    const struct begin *begin = stream_reader_begin(tokens_reader(generate->tokens));
    const struct pass_rule *rule = &generate->setup->rule;
    uint64_t each = begin->seq_len > rule->first ? begin->seq_len - rule->first : 0;
    generate->knows_rows = begin->has_rows && begin->has_seq_len && rule->id_count == 0 &&
                           !__builtin_mul_overflow(begin->rows, each, &generate->rows) &&
                           generate->rows <= INT64_MAX;
    if (!generate->knows_rows)
        generate->rows = 0;
}

/* A pipe may bring more than its first BEGIN said (cat a b); then ours is wrong, too. */
static void compare_rows(const struct generate *generate)
{
    if (generate->knows_rows && generate->emit.candidates > generate->rows)
        log_warning("%" PRIu64 " rows came, and BEGIN announced %" PRIu64 ", those of the first "
                    "stream in the pipe; name the files instead of piping them to have the right "
                    "number from the start",
                    generate->emit.candidates, generate->rows);
}

static int open_tokens(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    int status = tokens_open(&generate->tokens, setup->paths, setup->path_count, setup->threads,
                             generate->dirs[0].config.vocab);
    if (status == 0)
        count_rows(generate);
    return status;
}

/* ---- factors */

/* The mean norms of the first sequences. A stream without any row has nothing to be scaled. */
static int estimate_factors(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    const struct sources *sources = setup->sources;
    uint64_t rows = 0;
    bool all = false;
    int status = tokens_hold(generate->tokens, setup->norm_sequences, &all);
    if (status != 0)
        return status;
    double *means = mem_alloc(sources->count, sizeof *means);
    if (means == NULL)
        return mem_fail("norms", sources->count, sizeof *means);
    status = emit_measure(&generate->emit, means, &rows);
    if (status == 0 && rows == 0 && !all)
        status = log_fail(ERR_USAGE,
                          "the first %" PRIu64 " sequences give no row to estimate factors from; "
                          "raise --norm-sequences, or give --norm FILE",
                          setup->norm_sequences);
    if (status == 0 && rows == 0)
        log_warning("no sequence gives a row, so no factors can be estimated; they are 1");
    for (size_t i = 0; i < sources->count && status == 0 && rows > 0; i++) {
        const struct source *source = &sources->items[i];
        status = factors_from_mean(&generate->factors[i], source,
                                   generate->dirs[source->model].config.width, means[i]);
        log_verbose("%s: mean norm %.6g over %" PRIu64 " rows, factor %.9g", source->name, means[i],
                    rows, generate->factors[i]);
    }
    free(means);
    return status;
}

/* ---- BEGIN and END */

/* {"positions_below": N, "ids": [...]} */
static json_t *dropped_json(const struct pass_rule *rule)
{
    json_t *ids = json_array();
    for (size_t i = 0; i < rule->id_count; i++)
        if (json_array_append_new(ids, json_integer(rule->ids[i])) != 0) {
            json_decref(ids);
            return NULL;
        }
    return json_pack("{s:{s:I, s:o}}", "dropped", "positions_below", (json_int_t)rule->first, "ids",
                     ids);
}

static int make_begin(const struct generate *generate, struct begin *begin)
{
    const struct generate_setup *setup = generate->setup;
    int status = begin_init(begin, BEGIN_ACTIVATIONS, "actgen");
    if (status != 0)
        return status;
    begin->dtype = setup->row_type;
    begin->has_rows = generate->knows_rows;
    begin->rows = generate->rows;
    for (size_t i = 0; i < setup->sources->count && status == 0; i++) {
        const struct source *source = &setup->sources->items[i];
        const struct modeldir *dir = &generate->dirs[source->model];
        status = begin_add_source(begin, source->name, dir->name, source->hook,
                                  generate->hashes[source->model], dir->config.width,
                                  generate->factors[i]);
    }
    for (size_t i = 0; i < generate->opened && status == 0; i++) {
        if (generate->dirs[i].tokenizer_hash[0] == '\0')
            continue;
        free(begin->tokenizer_hash);
        begin->tokenizer_hash = strdup(generate->dirs[i].tokenizer_hash);
        break;
    }
    json_decref(begin->options);
    json_decref(begin->extra);
    begin->options = json_deep_copy(setup->recipe);
    begin->extra = dropped_json(&setup->rule);
    begin->upstream = json_deep_copy(stream_reader_begin_json(tokens_reader(generate->tokens)));
    if (status == 0 && (begin->options == NULL || begin->extra == NULL || begin->upstream == NULL ||
                        begin->tokenizer_hash == NULL))
        status = mem_fail("BEGIN", 1, sizeof *begin);
    if (status != 0)
        begin_free(begin);
    return status;
}

static int write_begin(struct generate *generate)
{
    struct begin begin;
    int status = make_begin(generate, &begin);
    if (status != 0)
        return status;
    if (!is_inline(generate->setup))
        status = window_open(&generate->emit.window, generate->setup->plane, generate->engine,
                             generate->writer, &begin);
    if (status == 0)
        status = stream_writer_begin(generate->writer, &begin);
    begin_free(&begin);
    return status == 0 && !is_inline(generate->setup) ? window_accept(generate->emit.window)
                                                      : status;
}

static int write_end(struct generate *generate)
{
    const struct pass_skipped *skipped = &generate->emit.skipped;
    json_t *json =
        json_pack("{s:I, s:I, s:I}", "position", (json_int_t)skipped->position, "id",
                  (json_int_t)skipped->id, "not_finite", (json_int_t)skipped->not_finite);
    if (json == NULL)
        return mem_fail("END", 1, 1);
    int status = stream_writer_end(generate->writer, json);
    json_decref(json);
    return status;
}

/* ---- the run */

static int prepare(struct generate *generate)
{
    int status = open_models(generate);
    if (status == 0)
        status = start_factors(generate);
    if (status == 0)
        status = open_engine(generate);
    return status;
}

static int load_weights(struct generate *generate)
{
    size_t count = generate->setup->sources->model_count;
    generate->hashes = mem_alloc_zero(count, sizeof *generate->hashes);
    if (generate->hashes == NULL)
        return mem_fail("models", count, sizeof *generate->hashes);
    return engine_load(generate->engine, generate->hashes);
}

static int load(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    struct need need;
    int status = measure_need(generate, &need);
    if (status == 0)
        status = engine_require(generate->engine, &need.engine, need.pass,
                                "running the models (--batch)");
    if (status == 0)
        engine_tell_memory(generate->engine, &need.engine);
    if (status == 0)
        status = stream_writer_open(&generate->writer, setup->output, setup->codec, setup->threads);
    if (status == 0)
        status = load_weights(generate);
    generate->emit = (struct emit){.engine = generate->engine,
                                   .tokens = generate->tokens,
                                   .sources = setup->sources,
                                   .rule = setup->rule,
                                   .announced = generate->rows,
                                   .batch = (size_t)generate->batch};
    return status != 0 ? status
                       : emit_reserve(&generate->emit, generate->pass_tokens, generate->length);
}

static int start_progress(struct generate *generate)
{
    struct progress_setup progress = {.unit = "rows",
                                      .in = stream_reader_file(tokens_reader(generate->tokens)),
                                      .out = stream_writer_file(generate->writer),
                                      .total = generate->rows,
                                      .metrics = generate->setup->metrics};
    return progress_start(&generate->progress, &progress);
}

static int produce(struct generate *generate)
{
    const struct generate_setup *setup = generate->setup;
    int status = is_estimated(setup) ? estimate_factors(generate) : 0;
    if (status == 0 && setup->norm_out != NULL)
        status = factors_write(generate->factors, setup->sources, setup->norm_out);
    if (status == 0)
        status = start_progress(generate);
    if (status == 0)
        status = write_begin(generate);
    if (status == 0)
        status =
            emit_rows(&generate->emit, generate->writer, generate->factors, generate->progress);
    if (status == 0) {
        compare_rows(generate);
        status = write_end(generate);
        if (status == 0 && !is_inline(setup))
            status = window_finish(generate->emit.window);
        return is_inline(setup) ? status : window_status(generate->emit.window, status);
    }
    if (generate->emit.window != NULL)
        status = window_status(generate->emit.window, status);
    if (status != ERR_CLOSED && status != ERR_IO)
        stream_writer_abort(generate->writer, status, NULL);
    return status;
}

static int finish(struct generate *generate, int status)
{
    int stopped = progress_stop(generate->progress);
    stream_writer_free(generate->writer);
    window_free(generate->emit.window);
    tokens_free(generate->tokens);
    emit_free(&generate->emit);
    engine_free(generate->engine);
    for (size_t i = 0; i < generate->opened; i++)
        modeldir_close(&generate->dirs[i]);
    free(generate->dirs);
    free(generate->factors);
    free(generate->hashes);
    return status != 0 ? status : stopped;
}

int generate_run(const struct generate_setup *setup)
{
    struct generate generate = {.setup = setup};
    int status = is_inline(setup) ? 0 : window_check_output(setup->output, setup->plane);
    if (status == 0)
        status = prepare(&generate);
    if (status == 0)
        status = open_tokens(&generate);
    if (status == 0)
        status = size_passes(&generate, stream_reader_begin(tokens_reader(generate.tokens)));
    if (status == 0)
        status = load(&generate);
    if (status == 0)
        status = produce(&generate);
    return finish(&generate, status);
}

/* ---- the plan */

static int print_plan(const struct generate *generate, const struct need *need)
{
    uint64_t row_bytes = engine_row_bytes(generate->engine);
    const struct engine_memory *engine = &need->engine;
    uint64_t host = engine->host + need->pass;
    printf("weights\t%" PRIu64 "\nembedding\t%" PRIu64 "\nworkspace\t%" PRIu64 "\nmemory\t%" PRIu64
           "\nrow_bytes\t%" PRIu64 "\n",
           engine->weights, engine->embedding, engine->work + engine->rows + host,
           engine_device_bytes(engine) + host, row_bytes);
    if (generate->knows_rows)
        printf("rows\t%" PRIu64 "\ndisk\t%.0f\n", generate->rows,
               (double)generate->rows * (double)(row_bytes + STREAM_TAG_BYTES));
    return fflush(stdout) != 0 ? log_fail_errno("cannot write the plan") : 0;
}

int generate_plan(const struct generate_setup *setup)
{
    struct generate generate = {.setup = setup};
    struct need need;
    int status = prepare(&generate);
    if (status == 0 && setup->path_count > 0)
        status = open_tokens(&generate);
    if (status == 0)
        status = size_passes(&generate, generate.tokens == NULL
                                            ? NULL
                                            : stream_reader_begin(tokens_reader(generate.tokens)));
    if (status == 0)
        status = measure_need(&generate, &need);
    if (status == 0)
        status = print_plan(&generate, &need);
    return finish(&generate, status);
}
