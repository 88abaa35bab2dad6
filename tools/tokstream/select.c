/* select.c - see select.h.
 *
 * Of the sequences of an epoch in their mixed and shuffled order, number p is emitted if p mod
 * shards is the shard, but for the first `skip` of these and those behind `limit`. So the k-th one
 * emitted is number shard + shards * (skip + k), and what lies between is passed over without being
 * decoded where the input allows it.
 */
#include "select.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/mem.h"
#include "mix.h"

struct select {
    const struct select_setup *setup;
    struct mix mix;
    bool counted;
    uint64_t total;     /* sequences in all inputs, if counted or after the first epoch */
    uint64_t per_epoch; /* emitted in one epoch, if counted */
    uint64_t epoch;
    uint64_t emitted;  /* in this epoch */
    uint64_t position; /* in the mixed order, behind the last one that was taken or passed over */
    bool told;         /* which part ended */
};

/* ---- opening */

/* "W=PATH" */
static int select_parse_part(struct mix_part *part, const char *text, const char **path)
{
    char *end;
    errno = 0;
    part->weight = strtod(text, &end);
    if (end == text || *end != '=' || end[1] == '\0')
        return log_fail(ERR_USAGE, "--mix '%s' is not of the form W=PATH", text);
    if (errno != 0 || !isfinite(part->weight) || !(part->weight > 0))
        return log_fail(ERR_USAGE, "--mix '%s': the weight is no positive number", text);
    *path = end + 1;
    return 0;
}

static int select_open_part(struct select *select, struct mix_part *part, size_t i)
{
    const struct select_setup *setup = select->setup;
    const char *path = NULL;
    int status;
    if (setup->mix_count == 0) {
        part->weight = 1;
        part->name = "the input";
        status = input_open(&part->input, setup->paths, setup->path_count, &setup->source);
    } else {
        status = select_parse_part(part, setup->mix[i], &path);
        part->name = path;
        if (status == 0)
            status = input_open(&part->input, (char *const *)&path, 1, &setup->source);
    }
    select->mix.weights += part->weight;
    if (status == 0 && setup->mix_count > 0)
        status = input_index(&part->input, "--mix");
    if (status == 0 && setup->shuffle)
        status = input_index(&part->input, "--shuffle");
    if (status == 0 && setup->epochs > 1)
        status = input_index(&part->input, "--epochs");
    if (status == 0)
        status = order_open(&part->order, &part->input, setup->shuffle, setup->seed,
                            ORDER_WINDOW_TOKENS);
    return status;
}

/* How many of the sequences of an epoch are emitted. */
static uint64_t select_share(const struct select_setup *setup, uint64_t total)
{
    uint64_t share = total > setup->shard ? (total - setup->shard - 1) / setup->shards + 1 : 0;
    share = share > setup->skip ? share - setup->skip : 0;
    return share < setup->limit ? share : setup->limit;
}

static int select_measure(struct select *select)
{
    const struct select_setup *setup = select->setup;
    struct mix *mix = &select->mix;
    select->counted = true;
    for (size_t i = 0; i < mix->count; i++) {
        select->counted &= input_is_counted(&mix->parts[i].input);
        mix->parts[i].first = select->total;
        if (select->counted)
            select->total += input_count(&mix->parts[i].input);
    }
    if (!select->counted)
        return 0;
    uint64_t all;
    select->per_epoch = select_share(setup, mix_count(mix));
    if (__builtin_mul_overflow(select->total, setup->epochs, &all))
        return log_fail(ERR_USAGE,
                        "--epochs %" PRIu64 " of %" PRIu64 " sequences are beyond counting",
                        setup->epochs, select->total);
    if (select->per_epoch == 0 && select->total > 0 && setup->limit > 0)
        log_warning("no sequence is left of the %" PRIu64 " in the input behind --shard and --skip",
                    select->total);
    return 0;
}

static int select_start_epoch(struct select *select)
{
    struct mix *mix = &select->mix;
    select->emitted = select->position = 0;
    mix_start(mix);
    int status = 0;
    for (size_t i = 0; i < mix->count && status == 0; i++)
        status = order_start(mix->parts[i].order, select->epoch);
    return status;
}

int select_open(struct select **opened, const struct select_setup *setup)
{
    *opened = NULL;
    struct select *select = mem_alloc_zero(1, sizeof *select);
    size_t count = setup->mix_count > 0 ? setup->mix_count : 1;
    if (select == NULL)
        return mem_fail("a selection", 1, sizeof *select);
    select->setup = setup;
    select->mix.parts = mem_alloc_zero(count, sizeof *select->mix.parts);
    int status =
        select->mix.parts == NULL ? mem_fail("--mix", count, sizeof *select->mix.parts) : 0;
    for (; select->mix.count < count && status == 0; select->mix.count++)
        status = select_open_part(select, &select->mix.parts[select->mix.count], select->mix.count);
    if (status == 0)
        status = select_measure(select);
    if (status == 0)
        status = select_start_epoch(select);
    if (status != 0) {
        select_free(select);
        return status;
    }
    *opened = select;
    return 0;
}

void select_free(struct select *select)
{
    if (select == NULL)
        return;
    for (size_t i = 0; i < select->mix.count; i++) {
        order_free(select->mix.parts[i].order);
        input_free(&select->mix.parts[i].input);
    }
    free(select->mix.parts);
    free(select);
}

/* ---- sequences */

/* The next sequence of this epoch: 1, or 0 where it is over. */
static int select_next_in_epoch(struct select *select, struct select_item *item)
{
    const struct select_setup *setup = select->setup;
    uint64_t number;
    if (select->emitted >= setup->limit ||
        __builtin_add_overflow(setup->skip, select->emitted, &number) ||
        __builtin_mul_overflow(number, setup->shards, &number) ||
        __builtin_add_overflow(number, setup->shard, &number))
        return 0;
    struct order_item taken;
    size_t ended;
    int status = mix_next(&select->mix, number - select->position, &taken, &ended);
    if (status == 0 && setup->mix_count > 0 && !select->told) {
        log_note("'%s' has ended first, and the mix with it", select->mix.parts[ended].name);
        select->told = true;
    }
    if (status != 1)
        return status;
    select->position = number + 1;
    select->emitted++;
    item->index = taken.place + select->epoch * select->total;
    item->sequence = taken.sequence;
    return 1;
}

int select_next(struct select *select, struct select_item *item)
{
    for (;;) {
        int status = select_next_in_epoch(select, item);
        if (status != 0 || select->epoch + 1 >= select->setup->epochs)
            return status;
        select->epoch++;
        if ((status = select_start_epoch(select)) != 0)
            return status;
    }
}

/* ---- what is known */

bool select_count(const struct select *select, uint64_t *count)
{
    *count = select->per_epoch * select->setup->epochs;
    if (!select->counted && select->setup->limit == 0)
        *count = 0;
    return select->counted || select->setup->limit == 0;
}

bool select_length(const struct select *select, uint64_t *length)
{
    const struct mix *mix = &select->mix;
    uint64_t first;
    if (!input_length(&mix->parts[0].input, &first))
        return false;
    for (size_t i = 0; i < mix->count; i++)
        if (!input_length(&mix->parts[i].input, length) || *length != first)
            return false;
    return true;
}

uint64_t select_memory(const struct select *select)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < select->mix.count; i++)
        bytes +=
            order_memory(select->mix.parts[i].order) + input_memory(&select->mix.parts[i].input);
    return bytes;
}

int select_check_output(const struct select *select, const char *path)
{
    struct stat written, read;
    if (path == NULL || strcmp(path, "-") == 0 || stat(path, &written) != 0 ||
        !S_ISREG(written.st_mode))
        return 0;
    for (size_t i = 0; i < select->mix.count; i++) {
        const struct input *input = &select->mix.parts[i].input;
        for (size_t k = 0; k < input->source_count; k++)
            if (fstat(input->sources[k]->bytes.file.fd, &read) == 0 &&
                read.st_dev == written.st_dev && read.st_ino == written.st_ino)
                return log_fail(
                    ERR_USAGE, "'%s' is one of the files that are read: name another output", path);
    }
    return 0;
}

const struct io_file *select_pipe(const struct select *select)
{
    const struct input *input = &select->mix.parts[0].input;
    for (size_t i = 0; i < input->source_count; i++)
        if (!source_is_regular(input->sources[i]))
            return &input->sources[i]->bytes.file;
    return NULL;
}
