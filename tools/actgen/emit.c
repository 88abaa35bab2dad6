/* emit.c - fills passes with sequences, runs them, and hands their rows on.
 *
 * Rows are left out for three reasons, which END counts: their position, their token, and values
 * that are not finite in any of the sources (they would poison every batch that they are in). The
 * last is found by the norms, after scaling, as a value that the factor lifts out of bf16's range
 * is not finite on the wire either.
 *
 * A pass is started and its rows are taken when it is the oldest of engine_depth() under way. So
 * where the device works beside the host, rows are written and tokens collected while it computes;
 * they come out in the order of the stream all the same, one pass later. Whatever ends the run
 * but their rows themselves or the output, the passes under way are finished and their rows written
 * first.
 *
 * Means are sums in f64 in the order of the stream, so they do not depend on how the sequences were
 * put into passes.
 */
#include "emit.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/sig.h"

/* The largest bf16, 0x7f7f. */
#define LARGEST_BF16 0x1.fep127

enum { BAD_IN = 1000, METRICS_PASSES = 64 };

/* One run over sequences: rows where there is a writer, else sums. */
struct run {
    struct emit *emit;
    int (*next)(struct tokens *tokens, struct stream_sequence *sequence);
    const double *factors; /* NULL: norms alone */
    struct stream_writer *writer;
    struct progress *progress;
    double *sums;
    uint64_t started, passes, rows; /* passes: whose rows are taken */
    bool failed;                    /* taking them */
};

/* The pass that is being collected, and the one whose rows are taken. */
static struct pass *next_pass(const struct run *run)
{
    return &run->emit->passes[run->started % engine_depth(run->emit->engine)];
}

static struct pass *oldest_pass(const struct run *run)
{
    return &run->emit->passes[run->passes % engine_depth(run->emit->engine)];
}

int emit_reserve(struct emit *emit, size_t tokens, uint32_t length)
{
    emit->length = length > 0 ? length : 1;
    int status = 0;
    for (size_t i = 0; i < engine_depth(emit->engine) && status == 0; i++)
        status = pass_reserve(&emit->passes[i], engine_chunk(emit->engine), tokens, emit->batch);
    return status != 0 ? status : engine_reserve(emit->engine, tokens, emit->length);
}

uint64_t emit_host_bytes(const struct engine *engine, size_t tokens, size_t batch)
{
    return engine_depth(engine) * pass_bytes(engine_chunk(engine), tokens, batch);
}

void emit_free(struct emit *emit)
{
    for (size_t i = 0; i < ENGINE_DEPTH; i++)
        pass_free(&emit->passes[i]);
}

/* ---- rows that are not finite */

/* Whether row i of the pass is finite on the wire in all sources. */
static bool is_finite_row(const struct run *run, size_t i)
{
    const struct emit *emit = run->emit;
    for (size_t source = 0; source < emit->sources->count; source++) {
        double factor = run->factors == NULL ? 1 : run->factors[source];
        double norm = (double)engine_norms(emit->engine, source)[oldest_pass(run)->row[i]];
        if (!(norm * factor <= LARGEST_BF16)) /* a NaN is not, either */
            return false;
    }
    return true;
}

static void note_first(const struct run *run, size_t i)
{
    struct stream_tag tag = stream_tag_get(oldest_pass(run)->tags + i * STREAM_TAG_BYTES);
    log_warning("sequence %" PRIu64 ", position %" PRIu32 ": the activations are not finite; such "
                "rows are left out and counted",
                tag.sequence, tag.position);
}

/* Of `rows` rows, those that are not finite are at most 1 in 1000. */
static int check_bad(const struct emit *emit, uint64_t rows)
{
    if (emit->skipped.not_finite * BAD_IN <= rows)
        return 0;
    return log_fail(ERR_DATA,
                    "%" PRIu64 " of %" PRIu64 " rows are not finite, more than 0.1 %%; are the "
                    "weights damaged?",
                    emit->skipped.not_finite, rows);
}

/* ---- a pass */

static void add_norms(const struct run *run, size_t i)
{
    for (size_t source = 0; source < run->emit->sources->count; source++)
        run->sums[source] +=
            (double)engine_norms(run->emit->engine, source)[oldest_pass(run)->row[i]];
}

static uint32_t oldest_buffer(const struct run *run)
{
    return run->emit->buffers[run->passes % engine_depth(run->emit->engine)];
}

/* Writes rows first .. end - 1 of the pass, of which none is left out. */
static int write_rows(const struct run *run, size_t first, size_t end)
{
    const struct engine *engine = run->emit->engine;
    if (first == end || run->writer == NULL)
        return 0;
    if (run->emit->window != NULL)
        return window_write(run->emit->window, oldest_pass(run)->tags, oldest_buffer(run), first,
                            end);
    return stream_writer_rows(run->writer, oldest_pass(run)->tags + first * STREAM_TAG_BYTES,
                              engine_rows(engine) + first * engine_row_bytes(engine), end - first);
}

static int take_rows(struct run *run)
{
    struct emit *emit = run->emit;
    size_t first = 0, kept = oldest_pass(run)->kept;
    for (size_t i = 0; i < kept; i++) {
        if (is_finite_row(run, i)) {
            if (run->sums != NULL)
                add_norms(run, i);
            run->rows++;
            continue;
        }
        if (emit->skipped.not_finite++ == 0 && run->writer != NULL)
            note_first(run, i);
        int status = write_rows(run, first, i);
        if (status != 0)
            return status;
        first = i + 1;
    }
    emit->candidates += kept;
    int status = write_rows(run, first, kept);
    if (status == 0 && emit->candidates <= emit->announced)
        status = check_bad(emit, emit->announced);
    return status;
}

/* Before and behind take_rows(), where the rows stay on the device. */
static int announce_rows(const struct run *run)
{
    size_t kept = oldest_pass(run)->kept, served = 0;
    if (run->writer == NULL || run->emit->window == NULL)
        return 0;
    for (size_t i = 0; i < kept; i++)
        served += is_finite_row(run, i);
    return window_announce(run->emit->window, oldest_buffer(run), kept, served);
}

static int flush_rows(const struct run *run)
{
    if (run->writer == NULL || run->emit->window == NULL)
        return 0;
    return stream_writer_flush(run->writer);
}

static json_t *metrics_line(const struct run *run)
{
    const struct emit *emit = run->emit;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "sequences",
                     (json_int_t)emit->sequences, "rows", (json_int_t)run->rows, "skipped_position",
                     (json_int_t)emit->skipped.position, "skipped_id", (json_int_t)emit->skipped.id,
                     "skipped_not_finite", (json_int_t)emit->skipped.not_finite, "rows_per_s",
                     progress_rate(run->progress), "wait_fraction",
                     progress_wait_fraction(run->progress));
}

static int report(const struct run *run)
{
    if (run->progress == NULL)
        return 0;
    progress_set(run->progress, run->rows);
    if (run->passes % METRICS_PASSES != 0)
        return 0;
    return progress_metric(run->progress, metrics_line(run));
}

/* Waits for the oldest pass and takes its rows. */
static int finish_pass(struct run *run)
{
    int status = engine_finish(run->emit->engine);
    if (status == 0)
        status = announce_rows(run);
    if (status == 0)
        status = take_rows(run);
    if (status == 0)
        status = flush_rows(run);
    pass_clear(oldest_pass(run));
    run->passes++;
    if (status == 0)
        status = report(run);
    run->failed = status != 0;
    return status;
}

static int finish_passes(struct run *run, uint64_t left)
{
    int status = 0;
    while (status == 0 && run->started - run->passes > left)
        status = finish_pass(run);
    return status;
}

/* Starts what is collected. Then there is a pass free to be collected into. */
static int start_pass(struct run *run)
{
    struct emit *emit = run->emit;
    struct pass *pass = next_pass(run);
    if (pass->tokens == 0)
        return 0;
    uint32_t *buffer = &emit->buffers[run->started % engine_depth(emit->engine)];
    int status = 0;
    if (run->writer != NULL && emit->window != NULL)
        status = window_take(emit->window, buffer);
    if (status == 0)
        status = engine_start(emit->engine, pass, pass_close(pass), run->factors, *buffer);
    if (status != 0)
        return status;
    run->started++;
    return finish_passes(run, engine_depth(emit->engine) - 1);
}

/* ---- all passes */

/* A sequence that is longer than the room for a whole pass. */
static int grow(struct emit *emit, uint32_t length)
{
    if (emit->window != NULL)
        return log_fail(ERR_USAGE,
                        "a sequence of %" PRIu32
                        " tokens does not fit into the buffers of %zu that "
                        "the trainer reads from; raise --batch",
                        length, emit->passes[0].capacity);
    log_verbose("a sequence of %" PRIu32 " tokens: more memory is taken", length);
    struct engine_memory memory;
    size_t capacity = emit->passes[0].capacity, tokens = length > capacity ? length : capacity;
    int status = engine_measure(emit->engine, tokens, length, &memory);
    memory.weights = memory.embedding = memory.staging = 0; /* are there, and gone */
    if (status == 0)
        status =
            engine_require(emit->engine, &memory,
                           emit_host_bytes(emit->engine, tokens, emit->batch), "a long sequence");
    return status != 0 ? status : emit_reserve(emit, tokens, length);
}

static int add_sequence(struct run *run, const struct stream_sequence *sequence)
{
    struct emit *emit = run->emit;
    bool grows = sequence->length > next_pass(run)->capacity || sequence->length > emit->length;
    int status = 0;
    if (grows || !pass_fits(next_pass(run), sequence->length))
        status = start_pass(run);
    if (status == 0 && grows)
        status = finish_passes(run, 0);
    if (status == 0 && grows)
        status = grow(emit, sequence->length);
    if (status != 0)
        return status;
    pass_add(next_pass(run), &emit->rule, &emit->skipped, sequence->index, sequence->ids,
             sequence->length);
    emit->sequences++;
    return 0;
}

static int start_all(struct run *run)
{
    struct stream_sequence sequence;
    int read, status;
    while ((read = run->next(run->emit->tokens, &sequence)) == 1)
        if ((status = add_sequence(run, &sequence)) != 0)
            return status;
    status = read == ERR_INTERRUPTED ? read : start_pass(run);
    return status != 0 ? status : read;
}

static int run_all(struct run *run)
{
    struct emit *emit = run->emit;
    emit->skipped = (struct pass_skipped){0};
    emit->sequences = emit->candidates = 0;
    int status = start_all(run), finished = 0;
    if (!run->failed)
        finished = finish_passes(run, 0);
    return status != 0 ? status : finished;
}

int emit_measure(struct emit *emit, double *means, uint64_t *rows)
{
    struct run run = {.emit = emit, .next = tokens_next_held, .sums = means};
    memset(means, 0, emit->sources->count * sizeof *means);
    int status = run_all(&run);
    *rows = run.rows;
    for (size_t i = 0; i < emit->sources->count && run.rows > 0; i++)
        means[i] /= (double)run.rows;
    return status == 0 && run.rows == 0 ? check_bad(emit, emit->candidates) : status;
}

int emit_rows(struct emit *emit, struct stream_writer *writer, const double *factors,
              struct progress *progress)
{
    struct run run = {.emit = emit,
                      .next = tokens_next,
                      .factors = factors,
                      .writer = writer,
                      .progress = progress};
    int status = run_all(&run);
    if (status == 0)
        status = check_bad(emit, emit->candidates);
    if (status == 0 && emit->skipped.not_finite > 0)
        log_warning("%" PRIu64 " of %" PRIu64 " rows are not finite and were left out",
                    emit->skipped.not_finite, emit->candidates);
    return status != 0 ? status : progress_metric(progress, metrics_line(&run));
}
