/* train.c - the loop, and the ways out of it.
 *
 * The host is one step ahead of the device: it fills batch t + 1 and enqueues it while step t
 * computes, and looks at the report of t afterwards ("settles" it). A checkpoint settles all
 * steps first, so that figures, metrics on the disk and weights belong together, and so that
 * nothing is saved of a loss that is not finite.
 *
 * Ends, and what is left behind:
 *  - all steps done: a checkpoint; 0. Then the rows that are left are read and counted, and END is
 *    checked, where they are no more than a batch; else the stage before finds its reader gone;
 *  - the stream ends, is cut or aborted before: a checkpoint; ERR_PEER, as it can be resumed;
 *  - it is corrupt or cannot be read: a checkpoint of what was good; that code;
 *  - a signal: the step is finished; a checkpoint; ERR_INTERRUPTED;
 *  - a loss that is not finite, or the device failed: no checkpoint; ERR_DATA, ERR_DEVICE;
 *  - a checkpoint fails: the one before is intact, training goes on; ERR_IO after the third in a
 *    row, or where it is the last.
 */
#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/sig.h"
#include "feed.h"
#include "ledger.h"
#include "metrics.h"
#include "resolve.h"
#include "run.h"
#include "schedule.h"
#include "snapshot.h"
#include "step.h"

enum { TRAIN_FAILURES = 3, TRAIN_READERS = 4, TRAIN_METRICS = 2 };

struct train {
    const struct train_setup *setup;
    struct recipe recipe;
    struct run run;
    struct feed feed;
    const struct kernels *kernels;
    struct kernels_device *device;
    struct step step;
    struct ledger ledger;
    struct ledger_figures figures; /* of the last step looked at; loss NaN: none */
    struct crosscoder cc;          /* host memory for weights on their way */
    struct snapshot snapshot;
    struct metrics_file metrics[TRAIN_METRICS]; /* in the folder, and where --metrics says */
    struct progress *progress;

    void *rows[STEP_DEPTH]; /* (B, row_bytes), page-locked; NULL where they come by a data plane */
    struct schedule_rates rates[STEP_DEPTH];
    uint64_t done, settled; /* steps enqueued, and looked at */
    bool saved;             /* a checkpoint holds all that was done */
    unsigned failures;      /* of checkpoints, in a row */

    /* at the last line of metrics */
    int64_t line_time, line_waited;
    uint64_t line_steps;
};

/* ---- set-up */

static uint64_t train_host_bytes(const struct recipe *recipe, const struct begin *begin)
{
    uint64_t width = begin_width(begin), latents = recipe->latents;
    return (2 * latents * width + latents + width) * sizeof(float) + latents * sizeof(uint64_t) +
           STEP_DEPTH * (recipe->batch * begin_row_bytes(begin) + latents * sizeof(uint32_t));
}

static struct step_setup train_step_setup(const struct train *train, const struct begin *begin)
{
    return (struct step_setup){
        .kernels = train->kernels,
        .device = train->device,
        .type = train->recipe.dtype,
        .method = method_find(train->setup->activation),
        .begin = begin,
        .latents = train->recipe.latents,
        .batch = train->recipe.batch,
    };
}

/* Before gigabytes are taken and cleared: are they there? Where they are a GPU's, what they are for
 * is told without being asked: its memory is what decides how many latents there can be. */
static int train_check_memory(const struct train *train, const struct step_setup *step)
{
    struct step_memory memory;
    step_memory(&memory, step);
    memory.buffer += feed_bytes(&train->feed, train->recipe.batch);
    uint64_t bytes = step_memory_all(&memory);
    uint64_t available = train->kernels->memory_free(train->device);
    if (bytes > available)
        return log_fail(ERR_MEMORY,
                        "training %" PRIu64 " latents on rows of %zu values (--latents, --batch%s) "
                        "needs %s of the device's memory, and %s are free",
                        step->latents, begin_width(step->begin),
                        train->feed.plane != NULL ? ", --shuffle-rows" : "", mem_text(bytes).text,
                        mem_text(available).text);
    bool on_cpu = strcmp(train->kernels->name, "cpu") == 0;
    (on_cpu ? log_verbose : log_note)(
        "device memory: weights %s, Adam %s, workspace %s, buffer %s of %s free",
        mem_text(memory.weights).text, mem_text(memory.adam).text, mem_text(memory.workspace).text,
        mem_text(memory.buffer).text, mem_text(available).text);
    return 0;
}

static int train_take_host(struct train *train, const struct begin *begin)
{
    struct crosscoder_source *sources = mem_alloc(begin->source_count, sizeof *sources);
    int status = mem_require(train_host_bytes(&train->recipe, begin), "checkpoints and batches");
    if (status == 0 && sources == NULL)
        status = mem_fail("sources", begin->source_count, sizeof *sources);
    for (size_t s = 0; s < begin->source_count && status == 0; s++)
        sources[s] = (struct crosscoder_source){.name = begin->sources[s].name,
                                                .width = begin->sources[s].width,
                                                .scale = begin->sources[s].scale};
    if (status == 0)
        status = crosscoder_init(&train->cc, sources, begin->source_count, train->recipe.latents);
    for (size_t i = 0; i < STEP_DEPTH && status == 0 && train->feed.plane == NULL; i++) {
        size_t bytes;
        status = mem_mul(&bytes, (size_t)train->recipe.batch, begin_row_bytes(begin))
                     ? train->kernels->host_alloc(train->device, &train->rows[i], bytes)
                     : mem_fail("batches", (size_t)train->recipe.batch, begin_row_bytes(begin));
    }
    free(sources);
    return status;
}

/* All memory, and the weights to start with. */
static int train_take(struct train *train, const struct begin *begin)
{
    struct step_setup setup = train_step_setup(train, begin);
    int status = train_check_memory(train, &setup);
    if (status == 0)
        status = step_create(&train->step, &setup);
    if (status == 0)
        status = train_take_host(train, begin);
    if (status == 0)
        status = ledger_create(&train->ledger, &train->step);
    if (status != 0)
        return status;
    train->snapshot.step = &train->step;
    train->snapshot.ledger = &train->ledger;
    train->snapshot.cc = &train->cc;
    train->snapshot.begin = begin;
    train->snapshot.recipe = &train->recipe;
    train->snapshot.activation = train->setup->activation;
    if (train->run.newest != NULL)
        return snapshot_read(&train->snapshot, train->run.newest);
    if (train->setup->init != NULL)
        status = snapshot_read_weights(&train->snapshot, train->setup->init);
    else
        dictionary_init(&train->cc, train->recipe.seed);
    return status != 0 ? status : step_upload(&train->step, &train->cc);
}

/* Goes to the row where the run stands. What is passed over must be what was trained on. */
static int train_go_to_position(struct train *train)
{
    const struct state *state = &train->snapshot.state;
    struct feed *feed = &train->feed;
    bool all = feed->next <= state->first_row;
    int status = feed_skip_to(feed, state->first_row);
    memset(&feed->sum, 0, sizeof feed->sum);
    if (status == 0)
        status = feed_skip_to(feed, state->next_row);
    if (status != 0)
        return status == ERR_TRUNCATED ? ERR_PEER : status;
    if (all && !rowsum_equal(&feed->sum, &state->sum))
        return log_fail(ERR_USAGE,
                        "the rows up to %" PRIu64 " are not those that were trained on (their "
                        "sums differ): make them again on the same kind of processor, or train "
                        "from a cache",
                        state->next_row);
    feed->sum = state->sum;
    return 0;
}

static int train_start_output(struct train *train)
{
    const struct train_setup *setup = train->setup;
    uint64_t batch = train->recipe.batch;
    bool resumed = train->run.newest != NULL;
    char *path = io_join(train->run.folder, METRICS_FILE);
    int status = path == NULL ? mem_fail(METRICS_FILE, 1, 1)
                              : metrics_open(&train->metrics[0], path, resumed, train->done);
    free(path);
    if (status == 0 && setup->metrics != NULL)
        status = metrics_open(&train->metrics[1], setup->metrics, resumed, train->done);
    struct progress_setup progress = {.unit = "rows",
                                      .total = train->recipe.steps * batch,
                                      .first = train->done * batch,
                                      .in = stream_reader_file(train->feed.reader)};
    if (status == 0)
        status = progress_start(&train->progress, &progress);
    train->line_time = io_clock_ns();
    train->line_waited = train->feed.waited_ns;
    train->line_steps = train->done;
    return status;
}

/* ---- looking at steps */

static int train_write_line(struct train *train, uint64_t t, const struct step_report *report)
{
    json_t *line =
        ledger_line(&train->ledger, t, &train->figures, report, &train->rates[t % STEP_DEPTH]);
    int64_t now = io_clock_ns(), elapsed = now - train->line_time;
    double seconds = elapsed > 0 ? (double)elapsed / 1e9 : 1e-9;
    double rows = (double)((t + 1 - train->line_steps) * train->recipe.batch);
    double waited = (double)(train->feed.waited_ns - train->line_waited) / 1e9;
    int failed = line == NULL;
    if (!failed)
        failed = json_object_set_new(line, "rows_per_s", json_real(rows / seconds)) |
                 json_object_set_new(line, "wait_fraction",
                                     json_real(waited < seconds ? waited / seconds : 1));
    train->line_time = now;
    train->line_waited = train->feed.waited_ns;
    train->line_steps = t + 1;
    int status = failed ? mem_fail("a line of metrics", 1, 1) : 0;
    for (size_t i = 0; i < TRAIN_METRICS && status == 0; i++)
        if (train->metrics[i].file.name != NULL)
            status = metrics_write(&train->metrics[i], line);
    json_decref(line);
    return status;
}

/* Looks at the reports of all steps before `end`. */
static int train_settle(struct train *train, uint64_t end)
{
    for (; train->settled < end; train->settled++) {
        uint64_t t = train->settled;
        const struct step_report *report;
        int status = step_report(&train->step, t, &report);
        if (status == 0)
            status = ledger_enter(&train->ledger, &train->figures, t, report,
                                  &train->rates[t % STEP_DEPTH]);
        if (status == 0 && (t % train->setup->log_every == 0 || t + 1 == train->recipe.steps))
            status = train_write_line(train, t, report);
        if (status != 0)
            return status;
        progress_set(train->progress, (t + 1) * train->recipe.batch);
    }
    return 0;
}

/* ---- checkpoints */

/* Saves after all steps done. `last`: no later one will make up for a failure. */
static int train_save(struct train *train, bool last)
{
    int status = train_settle(train, train->done);
    if (status != 0 || train->saved)
        return status;
    struct state *state = &train->snapshot.state;
    state->step = train->done;
    state->rows_trained = train->done * train->recipe.batch;
    state->next_row = state->first_row + state->rows_trained;
    state->sum = train->feed.sum;
    for (size_t i = 0; i < TRAIN_METRICS; i++)
        metrics_sync(&train->metrics[i]);
    status = run_save(&train->run, train->done, train->setup->keep, snapshot_write,
                      &train->snapshot, snapshot_files, snapshot_file_count);
    train->saved = status == 0;
    if (status == 0) {
        train->failures = 0;
        log_verbose("'%s/step-%" PRIu64 "' is written", train->run.folder, train->done);
        return 0;
    }
    train->failures++;
    if (last || status == ERR_DEVICE || train->failures >= TRAIN_FAILURES)
        return status == ERR_DEVICE
                   ? status
                   : log_fail(ERR_IO,
                              "the checkpoint of step %" PRIu64 " failed; those before are intact",
                              train->done);
    log_warning("the checkpoint of step %" PRIu64 " failed (%u of %d in a row); those before are "
                "intact, training goes on",
                train->done, train->failures, TRAIN_FAILURES);
    return 0;
}

/* ---- the loop */

/* One step of the loop. *input: what became of the stream, as feed_fill() says. */
static int train_advance(struct train *train, int *input)
{
    uint64_t t = train->done;
    size_t slot = t % STEP_DEPTH;
    int status = step_rows_taken(&train->step, t);
    if (status != 0)
        return status;
    *input = train->feed.plane != NULL
                 ? feed_gather(&train->feed, &train->step, t)
                 : feed_fill(&train->feed, train->rows[slot], (size_t)train->recipe.batch);
    if (*input != 1)
        return 0;
    schedule_rates(&train->rates[slot], &train->recipe, t);
    step_run(&train->step, train->rows[slot], t, &train->rates[slot], train->recipe.clip);
    train->done++;
    train->saved = false;
    status = train_settle(train, t);
    if (status == 0 && train->done % train->setup->save_every == 0 &&
        train->done < train->recipe.steps)
        status = train_save(train, false);
    return status;
}

static int train_short(const struct train *train)
{
    return log_fail(ERR_PEER,
                    "the stream ended after %" PRIu64 " of %" PRIu64 " steps, with %" PRIu64
                    " rows short of a batch",
                    train->done, train->recipe.steps, train->feed.left_over);
}

/* Behind the last checkpoint: END is read where it is near. */
static int train_drain(struct train *train)
{
    int status = feed_drain(&train->feed, train->recipe.batch);
    uint64_t left = train->feed.left_over;
    if (status == 0 && train->feed.ended && left > 0)
        log_note("%" PRIu64 " rows at the end are not trained on%s", left,
                 left < train->recipe.batch ? ": they are short of a batch" : "");
    return status;
}

/* Trains as long as there are steps and rows. *input: a failure of the stream, 0 for none; what is
 * returned is a failure of training, after which nothing is saved. */
static int train_loop(struct train *train, int *input)
{
    *input = 0;
    while (train->done < train->recipe.steps) {
        int got = 0;
        int status = sig_pending() != 0 ? ERR_INTERRUPTED : train_advance(train, &got);
        if (status == ERR_INTERRUPTED || got < 0) {
            *input = status == ERR_INTERRUPTED ? status : got;
            return 0;
        }
        if (status != 0)
            return status;
        if (got == 0) {
            *input = train_short(train);
            return 0;
        }
    }
    return 0;
}

/* What came of it, and what a user is to do whose run did not come to its end. */
static void train_tell(const struct train *train, int input)
{
    uint64_t done = train->done, steps = train->recipe.steps;
    const struct ledger_figures *figures = &train->figures;
    char reached[128] = "";
    if (!isnan(figures->loss))
        snprintf(reached, sizeof reached, ": loss %.4g, L0 %.4g, explained variance %.4g",
                 figures->loss, figures->l0, figures->explained);
    log_note("step %" PRIu64 " of %" PRIu64 " is in '%s/step-%" PRIu64 "'%s", done, steps,
             train->run.folder, done, reached);
    if (done < steps)
        log_note("the same command with --resume goes on from there%s",
                 input == ERR_DATA ? ", once its input is sound" : "");
    else if (input != 0 && input != ERR_INTERRUPTED)
        log_note("what is wrong with the stream lies behind the rows that were trained on");
}

static int train_finish(struct train *train, int input)
{
    int status = train_save(train, true);
    if (status != 0)
        return status;
    if (train->done == train->recipe.steps)
        input = train_drain(train);
    train_tell(train, input);
    return input == ERR_TRUNCATED ? ERR_PEER : input;
}

/* ---- all together */

static struct feed_setup train_feed_setup(const struct train_setup *setup, unsigned threads)
{
    return (struct feed_setup){.paths = setup->paths,
                               .path_count = setup->path_count,
                               .threads = threads,
                               .has_shuffle = setup->has_shuffle,
                               .shuffle_rows = setup->shuffle_rows,
                               .shuffle_seed = setup->shuffle_seed};
}

static int train_prepare(struct train *train)
{
    const struct train_setup *setup = train->setup;
    struct feed_setup feed =
        train_feed_setup(setup, setup->threads < TRAIN_READERS ? setup->threads : TRAIN_READERS);
    struct state *state = &train->snapshot.state;
    int status = kernels_open(&train->kernels, &train->device, setup->device, setup->threads,
                              train->recipe.dtype);
    if (status == 0)
        status = feed_open(&train->feed, &feed);
    if (status != 0)
        return status;
    const struct begin *begin = train->feed.begin;
    status = resolve_stream(&train->recipe, state, &train->run, setup, begin,
                            stream_reader_file(train->feed.reader)->name);
    if (status == 0)
        status = feed_attach(&train->feed, train->kernels, train->device, train->recipe.batch);
    if (status == 0)
        status = train_take(train, begin);
    if (status == 0)
        status = feed_start(&train->feed);
    if (status == 0)
        status = train_go_to_position(train);
    if (status != 0)
        return status;
    train->done = train->settled = state->step;
    train->saved = train->run.newest != NULL;
    status = run_go_on(&train->run);
    if (status != 0)
        return status;
    if (train->saved)
        log_note("going on from step %" PRIu64 " of %" PRIu64 ", row %" PRIu64, state->step,
                 train->recipe.steps, state->next_row);
    return train_start_output(train);
}

static int train_close(struct train *train, int status)
{
    int stopped = progress_stop(train->progress);
    for (size_t i = 0; i < TRAIN_METRICS; i++) {
        int closed = metrics_close(&train->metrics[i]);
        stopped = stopped != 0 ? stopped : closed;
    }
    feed_close(&train->feed);
    ledger_free(&train->ledger);
    crosscoder_free(&train->cc);
    step_free(&train->step);
    for (size_t i = 0; i < STEP_DEPTH && train->kernels != NULL; i++)
        train->kernels->host_free(train->device, train->rows[i]);
    kernels_close(train->kernels, train->device);
    state_free(&train->snapshot.state);
    run_close(&train->run);
    return status != 0 ? status : stopped;
}

int train_run(const struct train_setup *setup)
{
    struct train train = {.setup = setup, .figures = {.loss = NAN}};
    int input = 0, status = run_open(&train.run, setup->out, setup->resume);
    if (status == 0)
        status = resolve_options(&train.recipe, &train.snapshot.state, &train.run, setup);
    if (status == 1) {
        log_note("the run in '%s' is finished: %" PRIu64 " steps", train.run.folder,
                 train.snapshot.state.steps);
        return train_close(&train, 0);
    }
    if (status == 0)
        status = train_prepare(&train);
    if (status == 0)
        status = train_loop(&train, &input);
    if (status == 0)
        status = train_finish(&train, input);
    return train_close(&train, status);
}

int train_plan(const struct train_setup *setup)
{
    struct train train = {.setup = setup, .recipe = setup->recipe, .run = {.lock = -1}};
    struct state *state = &train.snapshot.state;
    int status = resolve_options(&train.recipe, state, &train.run, setup);
    struct feed_setup feed = train_feed_setup(setup, 1);
    if (status == 0)
        status = feed_open(&train.feed, &feed);
    const struct begin *begin = NULL;
    if (status == 0) {
        begin = train.feed.begin;
        status = resolve_stream(&train.recipe, state, &train.run, setup, begin,
                                stream_reader_file(train.feed.reader)->name);
    }
    if (status == 0) {
        struct step_setup step = train_step_setup(&train, begin);
        struct step_memory memory;
        step_memory(&memory, &step);
        uint64_t parameters =
            dictionary_bytes(train.recipe.latents, begin_width(begin), DTYPE_F32) /
            (4 * sizeof(float));
        uint64_t checkpoint = parameters * 3 * sizeof(float) + train.recipe.latents * 8;
        printf("parameters\t%" PRIu64 "\nmemory\t%" PRIu64 "\ndisk\t%" PRIu64 "\nsteps\t%" PRIu64
               "\nrows\t%" PRIu64 "\n",
               parameters,
               step_memory_all(&memory) + feed_bytes(&train.feed, train.recipe.batch) +
                   train_host_bytes(&train.recipe, begin),
               checkpoint * (setup->keep + 1), train.recipe.steps,
               train.recipe.steps * train.recipe.batch);
        if (fflush(stdout) != 0)
            status = log_fail_errno("cannot write the plan");
    }
    return train_close(&train, status);
}
