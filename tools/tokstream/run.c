/* run.c - see run.h.
 *
 * What ends a run early: bad input and signals, after which the output gets an ABORT, and an output
 * that takes no more.
 */
#include "run.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/sig.h"
#include "input.h"

struct run {
    const struct run_setup *setup;
    struct select *select;
    struct emit *emit;
    struct progress *progress;
    uint64_t sequences;
    uint64_t cut_sequences, cut_tokens; /* by --seq-len */
};

/* ---- the stream */

static int run_make_begin(const struct run *run, struct begin *begin)
{
    int status = begin_init(begin, BEGIN_TOKENS, "tokstream");
    if (status != 0)
        return status;
    begin->has_rows = select_count(run->select, &begin->rows);
    begin->has_seq_len = select_length(run->select, &begin->seq_len);
    json_decref(begin->options);
    begin->options = json_deep_copy(run->setup->recipe);
    if (begin->options != NULL)
        return 0;
    begin_free(begin);
    return mem_fail("BEGIN", 1, sizeof *begin);
}

static int run_open(struct run *run)
{
    const struct run_setup *setup = run->setup;
    struct begin begin = {0};
    int status = select_open(&run->select, &setup->select);
    if (status == 0)
        status = select_check_output(run->select, setup->output);
    if (status == 0)
        status = select_check_output(run->select, setup->metrics);
    if (status == 0)
        status = run_make_begin(run, &begin);
    if (status != 0)
        return status;
    status =
        emit_open(&run->emit, setup->format, setup->output, setup->codec, setup->threads, &begin);
    struct progress_setup progress = {.unit = "sequences",
                                      .total = begin.has_rows ? begin.rows : 0,
                                      .in = select_pipe(run->select),
                                      .metrics = setup->metrics};
    begin_free(&begin);
    if (status != 0)
        return status;
    progress.out = emit_file(run->emit);
    return progress_start(&run->progress, &progress);
}

/* Cutting is what --seq-len asks for; without it a list that does not fit is an error. */
static int run_check_length(struct run *run, const struct select_item *item)
{
    const struct source_sequence *sequence = &item->sequence;
    if (sequence->cut == 0)
        return 0;
    if (run->setup->select.source.seq_len == 0)
        return log_fail(ERR_USAGE,
                        "sequence %" PRIu64 " has %" PRIu64 " tokens, more than the %u that a "
                        "record takes; cut it with --seq-len",
                        item->index, sequence->length + sequence->cut,
                        (unsigned)SOURCE_MOST_TOKENS);
    run->cut_sequences++;
    run->cut_tokens += sequence->cut;
    return 0;
}

static int run_copy(struct run *run)
{
    struct select_item item;
    int status;
    while ((status = select_next(run->select, &item)) == 1) {
        status = run_check_length(run, &item);
        if (status == 0)
            status = emit_sequence(run->emit, &item);
        if (status != 0)
            return status;
        progress_set(run->progress, ++run->sequences);
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
    }
    return status;
}

static int run_end(struct run *run)
{
    uint64_t announced;
    if (select_count(run->select, &announced) && announced != run->sequences)
        return log_fail(ERR_DATA,
                        "%" PRIu64 " sequences came, and the input's headers announced %" PRIu64,
                        run->sequences, announced);
    json_t *skipped = json_object();
    if (skipped != NULL && run->cut_sequences > 0 &&
        (json_object_set_new(skipped, "cut", json_integer((json_int_t)run->cut_sequences)) != 0 ||
         json_object_set_new(skipped, "cut_tokens", json_integer((json_int_t)run->cut_tokens)) !=
             0)) {
        json_decref(skipped);
        skipped = NULL;
    }
    if (skipped == NULL)
        return mem_fail("END", 1, 1);
    if (run->cut_sequences > 0)
        log_note("%" PRIu64 " sequences were cut to --seq-len, %" PRIu64 " tokens left out",
                 run->cut_sequences, run->cut_tokens);
    int status = emit_end(run->emit, skipped);
    json_decref(skipped);
    return status;
}

int run_stream(const struct run_setup *setup)
{
    struct run run = {.setup = setup};
    int status = run_open(&run);
    if (status == 0)
        status = run_copy(&run);
    if (status == 0)
        status = run_end(&run);
    if (status != 0 && status != ERR_CLOSED && status != ERR_IO && run.emit != NULL)
        emit_abort(run.emit, status);
    int stopped = progress_stop(run.progress);
    emit_free(run.emit);
    select_free(run.select);
    return status != 0 ? status : stopped;
}

/* ---- --info and --plan */

struct run_figures {
    uint64_t sequences, tokens, shortest, longest;
    uint32_t smallest, largest;
};

static void run_add_figures(struct run_figures *figures, const struct source_sequence *sequence)
{
    uint64_t length = sequence->length + sequence->cut;
    for (size_t i = 0; i < sequence->length; i++) {
        uint32_t id = sequence->ids[i];
        figures->smallest = id < figures->smallest ? id : figures->smallest;
        figures->largest = id > figures->largest ? id : figures->largest;
    }
    figures->shortest = length < figures->shortest ? length : figures->shortest;
    figures->longest = length > figures->longest ? length : figures->longest;
    figures->tokens += length;
    figures->sequences++;
}

static int run_print_end(int status)
{
    if (status == 0 && fflush(stdout) != 0)
        return log_fail_errno("cannot write 'standard output'");
    return status;
}

static int run_describe(struct input *input)
{
    struct run_figures figures = {.shortest = UINT64_MAX, .smallest = UINT32_MAX};
    struct source_sequence sequence;
    uint64_t place;
    int status;
    while ((status = input_next(input, &place, &sequence)) == 1) {
        run_add_figures(&figures, &sequence);
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
    }
    if (status != 0)
        return status;
    for (size_t i = 0; i < input->source_count; i++)
        printf("file\t%s\t%s\t%" PRIu64 "\n", source_name(input->sources[i]),
               input->sources[i]->kind->name, input->sources[i]->count);
    printf("files\t%zu\nsequences\t%" PRIu64 "\ntokens\t%" PRIu64 "\n", input->source_count,
           figures.sequences, figures.tokens);
    if (figures.sequences > 0)
        printf("shortest\t%" PRIu64 "\nlongest\t%" PRIu64 "\n", figures.shortest, figures.longest);
    if (figures.tokens > 0)
        printf("smallest_id\t%" PRIu32 "\nlargest_id\t%" PRIu32 "\n", figures.smallest,
               figures.largest);
    return run_print_end(0);
}

int run_info(const struct run_setup *setup)
{
    struct input input;
    const struct select_setup *select = &setup->select;
    int status = input_open(&input, select->paths, select->path_count, &select->source);
    if (status == 0)
        status = run_describe(&input);
    input_free(&input);
    return status;
}

int run_plan(const struct run_setup *setup)
{
    struct select *select;
    uint64_t rows, length;
    int status = select_open(&select, &setup->select);
    if (status != 0)
        return status;
    printf("memory\t%" PRIu64 "\n", select_memory(select));
    if (select_count(select, &rows)) {
        printf("rows\t%" PRIu64 "\n", rows);
        if (select_length(select, &length))
            printf("disk\t%" PRIu64 "\n", rows * (12 + 4 * length));
    }
    select_free(select);
    return run_print_end(0);
}
