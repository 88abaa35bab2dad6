/* input.c - several sources as one.
 *
 * Where a source begins is known once those before it are counted: Parquet and arrays are from the
 * start, lines when they have been read once.
 */
#include "input.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/log.h"
#include "common/mem.h"
#include "folder.h"

#define INPUT_GROUP 1024 /* sequences */

/* Each file stays open: raises the number that may be as far as is allowed. */
static void input_allow_files(size_t count)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < count + 64) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* open() will tell */
    }
}

/* Notes where sources begin, as far as is known now. */
static void input_note(struct input *input)
{
    while (input->known < input->source_count && input->sources[input->known]->counted) {
        input->first[input->known + 1] =
            input->first[input->known] + input->sources[input->known]->count;
        input->known++;
    }
}

static int input_open_files(struct input *input, const struct folder *folder,
                            const struct source_setup *setup)
{
    input_allow_files(folder->count);
    input->sources = mem_alloc_zero(folder->count, sizeof *input->sources);
    input->first = mem_alloc_zero(folder->count + 1, sizeof *input->first);
    if (input->sources == NULL || input->first == NULL)
        return mem_fail("files", folder->count, sizeof *input->sources);
    for (; input->source_count < folder->count; input->source_count++) {
        const struct folder_file *file = &folder->files[input->source_count];
        struct source **source = &input->sources[input->source_count];
        int status = source_open(source, file->path, file->listed, setup);
        if (status != 0)
            return status;
    }
    input_note(input);
    input->at_rest = true;
    return 0;
}

int input_open(struct input *input, char *const *paths, size_t path_count,
               const struct source_setup *setup)
{
    *input = (struct input){0};
    struct folder folder = {0};
    int status = path_count == 0 ? folder_add(&folder, "-") : 0;
    for (size_t i = 0; i < path_count && status == 0; i++)
        status = folder_add(&folder, paths[i]);
    if (status == 0)
        status = input_open_files(input, &folder, setup);
    folder_free(&folder);
    return status;
}

void input_free(struct input *input)
{
    for (size_t i = 0; i < input->source_count; i++)
        source_free(input->sources[i]);
    free(input->sources);
    free(input->first);
    *input = (struct input){0};
}

/* ---- what is known */

int input_need_files(const struct input *input, const char *what)
{
    for (size_t i = 0; i < input->source_count; i++)
        if (!source_is_regular(input->sources[i]))
            return log_fail(ERR_USAGE, "%s needs regular files: '%s' can be read once only", what,
                            source_name(input->sources[i]));
    return 0;
}

int input_index(struct input *input, const char *what)
{
    int status = input_need_files(input, what);
    for (size_t i = 0; i < input->source_count && status == 0; i++) {
        struct source *source = input->sources[i];
        if (source->kind->index != NULL) {
            status = source->kind->index(source);
            bytes_rest(&source->bytes);
        }
    }
    input_note(input);
    input->at_rest = true;
    return status;
}

bool input_is_counted(const struct input *input)
{
    return input->known == input->source_count;
}

uint64_t input_count(const struct input *input)
{
    return input->first[input->source_count];
}

bool input_length(const struct input *input, uint64_t *length)
{
    *length = input->sources[0]->length;
    for (size_t i = 0; i < input->source_count; i++)
        if (!input->sources[i]->has_length || input->sources[i]->length != *length)
            return false;
    return true;
}

bool input_is_single(const struct input *input)
{
    for (size_t i = 0; i < input->source_count; i++)
        if (input->sources[i]->kind->group != NULL)
            return false;
    return true;
}

uint64_t input_memory(const struct input *input)
{
    uint64_t most = 0, held = 0;
    for (size_t i = 0; i < input->source_count; i++) {
        const struct source *source = input->sources[i];
        most = source->memory > most ? source->memory : most;
        held += source->held;
    }
    return most + held;
}

/* ---- reading */

static void input_go_to(struct input *input, size_t current)
{
    if (input->current < input->source_count && input->current != current) {
        struct source *left = input->sources[input->current];
        if (left->kind->rest != NULL)
            left->kind->rest(left);
        bytes_rest(&left->bytes);
    }
    input->current = current;
}

/* The last source that is known to begin at or before `place`. */
static size_t input_find(const struct input *input, uint64_t place)
{
    size_t low = 0, high = input->known + 1;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (input->first[middle] <= place)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int input_seek(struct input *input, uint64_t place)
{
    input->at_rest = false;
    input->next = place;
    for (size_t i = input_find(input, place); i < input->source_count; i++) {
        struct source *source = input->sources[i];
        input_go_to(input, i);
        int status = source->kind->seek(source, place - input->first[i]);
        if (status != 0)
            return status;
        input_note(input);
    }
    input_go_to(input, input->source_count);
    return 0;
}

int input_next(struct input *input, uint64_t *place, struct source_sequence *sequence)
{
    int status = input->at_rest ? input_seek(input, 0) : 1;
    while (status == 1 && input->current < input->source_count) {
        struct source *source = input->sources[input->current];
        status = source->kind->next(source, sequence);
        if (status == 1)
            *place = input->next++;
        if (status != 0)
            return status;
        input_note(input);
        status = input_seek(input, input->first[input->current + 1]);
    }
    return status < 0 ? status : 0;
}

/* ---- groups */

/* The source's share of the groups. */
static size_t input_groups_of(const struct source *source)
{
    if (source->kind->group != NULL)
        return source->group_count;
    return (size_t)(source->count / INPUT_GROUP + (source->count % INPUT_GROUP != 0));
}

static struct source_group input_group_of(const struct source *source, size_t group)
{
    if (source->kind->group != NULL)
        return source->kind->group(source, group);
    uint64_t first = (uint64_t)group * INPUT_GROUP, left = source->count - first;
    uint64_t count = left < INPUT_GROUP ? left : INPUT_GROUP;
    return (struct source_group){first, count, count * source->length};
}

int input_list_groups(const struct input *input, struct source_group **groups, size_t *count)
{
    size_t all = 0;
    for (size_t i = 0; i < input->source_count; i++)
        all += input_groups_of(input->sources[i]);
    *groups = mem_alloc(all, sizeof **groups);
    if (*groups == NULL)
        return mem_fail("row groups", all, sizeof **groups);
    *count = 0;
    for (size_t i = 0; i < input->source_count; i++)
        for (size_t k = 0; k < input_groups_of(input->sources[i]); k++) {
            struct source_group group = input_group_of(input->sources[i], k);
            group.first += input->first[i];
            if (group.count > 0)
                (*groups)[(*count)++] = group;
        }
    return 0;
}
