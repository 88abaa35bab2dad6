/* shuffle.c - two threads around the ring: the filler reads the input and puts rows, the main
 * thread draws rows and writes the output.
 *
 * Rows are numbered through all epochs, and a number alone decides where a row goes, so that pipes,
 * files and runs that begin at a later draw agree. To begin at draw D = kN + i, rows from kN on are
 * enough: block k is drawn from its first draw, and i rows are dropped.
 *
 * What ends the run, and how:
 *  - the input's END: the last block is drawn, counts and sums of both sides are compared, END;
 *  - a cut or damaged input: the filler keeps the code and cuts the ring; what the whole input
 *    would have served first is served, up to the first draw whose row is missing, then ABORT. Rows
 *    that came and are not reached are not served: their places in the order are unknown, and a
 *    trainer that saved what it learned from them could not go on with the whole input;
 *  - a signal: ABORT at once;
 *  - a reader that went away or a full disk: nothing more can be written.
 * In the last two the filler may be waiting for a free slot or for input; leaving the ring and
 * interrupting the reader end both waits.
 */
#include "shuffle.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/ring.h"
#include "common/sig.h"

struct shuffle {
    const struct shuffle_setup *setup;
    struct stream_reader *reader;
    struct stream_writer *writer;
    struct ring *ring;
    struct ring_drawer *drawer;
    struct progress *progress;

    bool known;                /* announced is exact (files) or what BEGIN says (pipes) */
    uint64_t announced, total; /* rows of one epoch and of all */
    uint64_t start;            /* first row that is put: skip_draws rounded down to a block */

    /* the filler's; read by the main thread after it has been joined */
    pthread_t filler;
    bool filling;
    int status;
    uint64_t arrived; /* rows of all epochs that were put or passed over */
    struct rowsum sum;
};

/* ---- before the first row */

static int shuffle_measure(struct shuffle *shuffle)
{
    const struct shuffle_setup *setup = shuffle->setup;
    const struct begin *begin = stream_reader_begin(shuffle->reader);
    bool regular = stream_reader_is_regular(shuffle->reader);
    if (setup->epochs > 1 && !regular)
        return log_fail(ERR_USAGE,
                        "--epochs %" PRIu64 " needs regular files: '%s' can be read once only",
                        setup->epochs, stream_reader_file(shuffle->reader)->name);
    shuffle->known = begin->has_rows;
    shuffle->announced = begin->has_rows ? begin->rows : 0;
    if (__builtin_mul_overflow(shuffle->announced, setup->epochs, &shuffle->total))
        return log_fail(ERR_USAGE, "--epochs %" PRIu64 " of %" PRIu64 " rows are beyond counting",
                        setup->epochs, shuffle->announced);
    if (shuffle->known && regular && setup->skip_draws > shuffle->total)
        return log_fail(ERR_USAGE, "--skip-draws %" PRIu64 ": the input has %" PRIu64 " rows%s",
                        setup->skip_draws, shuffle->total,
                        setup->epochs > 1 ? " in all epochs" : "");
    shuffle->start = setup->skip_draws / setup->rows * setup->rows;
    return 0;
}

/* Slots for what is announced; a pipe may bring more than its first BEGIN says (cat a b). */
static struct ring_setup shuffle_ring_setup(const struct shuffle *shuffle)
{
    const struct shuffle_setup *setup = shuffle->setup;
    struct ring_setup ring = {
        .rows = setup->rows,
        .seed = setup->seed,
        .slots = setup->rows,
        .capacity = setup->rows,
        .row_bytes = begin_row_bytes(stream_reader_begin(shuffle->reader)),
        .first_block = setup->skip_draws / setup->rows,
        .trainers = 1,
    };
    if (shuffle->known && shuffle->total < setup->rows) {
        ring.slots = shuffle->total > 0 ? shuffle->total : 1;
        if (stream_reader_is_regular(shuffle->reader))
            ring.capacity = ring.slots;
    }
    return ring;
}

static int shuffle_open_output(struct shuffle *shuffle)
{
    struct begin begin = {0};
    const struct shuffle_setup *setup = shuffle->setup;
    int status = begin_shuffled(&begin, stream_reader_begin(shuffle->reader),
                                stream_reader_begin_json(shuffle->reader), setup->recipe,
                                shuffle->known, shuffle->total, setup->skip_draws);
    if (status != 0)
        return status;
    status = stream_writer_open(&shuffle->writer, setup->output, setup->codec, setup->threads);
    if (status == 0)
        status = stream_writer_begin(shuffle->writer, &begin);
    begin_free(&begin);
    return status;
}

/* ---- the filler */

/* Puts the rows of a record that are not below the start; `before` rows came in earlier epochs. */
static int filler_put(struct shuffle *shuffle, const struct stream_record *record, uint64_t before)
{
    const struct begin *begin = stream_reader_begin(shuffle->reader);
    size_t row_bytes = begin_row_bytes(begin);
    uint64_t first = before + (record->first_row - begin->first_row);
    uint64_t i = shuffle->start > first ? shuffle->start - first : 0;
    for (; i < record->rows; i++) {
        int status = ring_put(shuffle->ring, record->tags + i * STREAM_TAG_BYTES,
                              record->data + i * row_bytes);
        if (status != 0)
            return status;
    }
    ring_publish(shuffle->ring);
    shuffle->arrived = first + record->rows;
    return 0;
}

/* Rows that the stage before left out since they were not finite, which its BEGIN could not know.
 */
static uint64_t shuffle_left_out(const struct shuffle *shuffle)
{
    const json_t *skipped = stream_reader_end(shuffle->reader)->skipped;
    json_int_t count = json_integer_value(json_object_get(skipped, "not_finite"));
    return count > 0 ? (uint64_t)count : 0;
}

/* After an epoch: its count against what BEGIN said, which the output's BEGIN has passed on. */
static int filler_check_count(const struct shuffle *shuffle, uint64_t rows)
{
    const char *name = stream_reader_file(shuffle->reader)->name;
    if (!shuffle->known || rows == shuffle->announced ||
        rows + shuffle_left_out(shuffle) == shuffle->announced)
        return 0;
    if (rows < shuffle->announced || stream_reader_is_regular(shuffle->reader))
        return log_fail(ERR_DATA, "'%s': BEGIN announced %" PRIu64 " rows, and %" PRIu64 " came",
                        name, shuffle->announced, rows);
    log_warning("'%s' brought %" PRIu64 " rows, more than the %" PRIu64 " that its first BEGIN "
                "announced and that BEGIN downstream says; all were served. Name the files "
                "instead of piping them to have the right number from the start",
                name, rows, shuffle->announced);
    return 0;
}

static int filler_epoch(struct shuffle *shuffle, uint64_t before)
{
    struct stream_record record;
    int status;
    while ((status = stream_reader_next(shuffle->reader, &record)) == 1)
        if ((status = filler_put(shuffle, &record, before)) != 0)
            return status;
    if (status != 0)
        return status;
    rowsum_merge(&shuffle->sum, &stream_reader_end(shuffle->reader)->sum);
    return filler_check_count(shuffle, shuffle->arrived - before);
}

static int filler_read(struct shuffle *shuffle)
{
    const struct begin *begin = stream_reader_begin(shuffle->reader);
    bool can_seek = shuffle->known && stream_reader_is_regular(shuffle->reader);
    uint64_t epoch = 0, at = 0; /* where the first row to put is */
    int status = 0;
    if (can_seek && shuffle->announced > 0) {
        epoch = shuffle->start / shuffle->announced;
        at = shuffle->start % shuffle->announced;
        shuffle->arrived = epoch * shuffle->announced;
    }
    for (; status == 0 && epoch < shuffle->setup->epochs; epoch++, at = 0) {
        if (at > 0)
            status = stream_reader_seek(shuffle->reader, begin->first_row + at);
        else if (shuffle->arrived > 0)
            status = stream_reader_rewind(shuffle->reader);
        if (status == 0)
            status = filler_epoch(shuffle, shuffle->arrived);
    }
    return status;
}

static void *filler_run(void *argument)
{
    struct shuffle *shuffle = argument;
    shuffle->status = filler_read(shuffle);
    if (shuffle->status == 0)
        ring_end(shuffle->ring);
    else
        ring_cut(shuffle->ring);
    return NULL;
}

static void shuffle_join(struct shuffle *shuffle)
{
    if (shuffle->filling)
        pthread_join(shuffle->filler, NULL);
    shuffle->filling = false;
}

/* ---- the main thread */

/* Writes all rows that are drawn, from draw skip_draws on. */
static int shuffle_serve(struct shuffle *shuffle)
{
    uint64_t draw = shuffle->start, skip = shuffle->setup->skip_draws;
    struct ring_row row;
    int status;
    while ((status = ring_draw(shuffle->drawer, &row)) == 1) {
        if (draw++ < skip)
            continue;
        status = stream_writer_rows(shuffle->writer, row.tag, row.bytes, 1);
        if (status != 0)
            return status;
        progress_set(shuffle->progress, draw - skip);
    }
    return status;
}

/* All rows have come and gone: are they the same? */
static int shuffle_compare(const struct shuffle *shuffle)
{
    uint64_t skip = shuffle->setup->skip_draws;
    uint64_t served = stream_writer_row_count(shuffle->writer);
    if (skip > shuffle->arrived)
        return log_fail(ERR_USAGE, "--skip-draws %" PRIu64 ": the input has %" PRIu64 " rows", skip,
                        shuffle->arrived);
    if (served != shuffle->arrived - skip)
        return log_fail(ERR_DATA,
                        "%" PRIu64 " rows came and %" PRIu64 " were served: this is a "
                        "fault of shufbuf or of the memory",
                        shuffle->arrived - skip, served);
    if (skip == 0 && !rowsum_equal(&shuffle->sum, stream_writer_sum(shuffle->writer)))
        return log_fail(ERR_DATA, "the rows that were served are not those that came (their sums "
                                  "differ): is the memory faulty?");
    return 0;
}

/* Rows that our BEGIN has announced, too, and that did not come. */
static int shuffle_end(struct shuffle *shuffle)
{
    bool missing = shuffle->known && shuffle->arrived < shuffle->total;
    json_t *skipped =
        missing ? json_pack("{s:I}", "not_finite", (json_int_t)(shuffle->total - shuffle->arrived))
                : json_object();
    if (skipped == NULL)
        return mem_fail("END", 1, 1);
    int status = stream_writer_end(shuffle->writer, skipped);
    json_decref(skipped);
    return status;
}

static int shuffle_copy(struct shuffle *shuffle)
{
    int status = sig_thread_create(&shuffle->filler, filler_run, shuffle);
    if (status != 0)
        return status;
    shuffle->filling = true;
    status = shuffle_serve(shuffle);
    if (status == 0) {
        shuffle_join(shuffle);
        status = shuffle->status;
    }
    if (status == 0)
        status = shuffle_compare(shuffle);
    if (status == 0)
        return shuffle_end(shuffle);
    if (status != ERR_CLOSED && status != ERR_IO)
        stream_writer_abort(shuffle->writer, status, NULL);
    return status;
}

static int shuffle_close(struct shuffle *shuffle, int status)
{
    ring_leave(shuffle->drawer);
    if (shuffle->filling)
        stream_reader_interrupt(shuffle->reader);
    shuffle_join(shuffle);
    int stopped = progress_stop(shuffle->progress);
    stream_writer_free(shuffle->writer);
    stream_reader_free(shuffle->reader);
    ring_free(shuffle->ring);
    return status != 0 ? status : stopped;
}

static int shuffle_start_progress(struct shuffle *shuffle)
{
    struct progress_setup setup = {.unit = "rows",
                                   .in = stream_reader_file(shuffle->reader),
                                   .out = stream_writer_file(shuffle->writer),
                                   .metrics = shuffle->setup->metrics};
    if (shuffle->known && shuffle->total > shuffle->setup->skip_draws)
        setup.total = shuffle->total - shuffle->setup->skip_draws;
    return progress_start(&shuffle->progress, &setup);
}

int shuffle_run(const struct shuffle_setup *setup)
{
    struct shuffle shuffle = {.setup = setup};
    int status = stream_reader_open(&shuffle.reader, setup->paths, setup->path_count,
                                    BEGIN_ACTIVATIONS, setup->threads);
    if (status == 0)
        status = shuffle_measure(&shuffle);
    if (status == 0) {
        struct ring_setup ring = shuffle_ring_setup(&shuffle);
        status = ring_create(&shuffle.ring, &ring);
    }
    if (status == 0)
        status = ring_attach(&shuffle.drawer, shuffle.ring, 0);
    if (status == 0)
        status = shuffle_open_output(&shuffle);
    if (status == 0)
        status = shuffle_start_progress(&shuffle);
    if (status == 0)
        status = shuffle_copy(&shuffle);
    return shuffle_close(&shuffle, status);
}

int shuffle_plan(const struct shuffle_setup *setup)
{
    struct shuffle shuffle = {.setup = setup};
    int status = stream_reader_open(&shuffle.reader, setup->paths, setup->path_count,
                                    BEGIN_ACTIVATIONS, setup->threads);
    if (status == 0)
        status = shuffle_measure(&shuffle);
    if (status == 0) {
        struct ring_setup ring = shuffle_ring_setup(&shuffle);
        uint64_t bytes = ring_bytes(&ring, ring.slots);
        printf("slots\t%" PRIu64 "\nmemory\t%" PRIu64 "\n", ring.slots, bytes);
        uint64_t skip = setup->skip_draws;
        uint64_t rows = shuffle.total > skip ? shuffle.total - skip : 0;
        if (shuffle.known)
            printf("rows\t%" PRIu64 "\ndisk\t%.0f\n", rows,
                   (double)rows * (double)(ring.row_bytes + STREAM_TAG_BYTES));
        if (fflush(stdout) != 0)
            status = log_fail_errno("cannot write the plan");
    }
    stream_reader_free(shuffle.reader);
    return status;
}
