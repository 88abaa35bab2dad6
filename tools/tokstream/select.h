/* select.h - which sequences are emitted, in which order: mix, shuffle, shard, skip and limit, and
 * all of that once per epoch. */
#ifndef TOKSTREAM_SELECT_H
#define TOKSTREAM_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct select_setup {
    char *const *paths; /* of the one input; none: standard input */
    size_t path_count;
    const char *const *mix; /* "W=PATH": an input each, instead of `paths` */
    size_t mix_count;
    bool shuffle;
    uint64_t seed;
    uint64_t shard, shards; /* the shard-th of so many parts; shards >= 1 */
    uint64_t skip, limit;   /* limit UINT64_MAX: none */
    uint64_t epochs;
    struct source_setup source;
};

struct select;

struct select_item {
    uint64_t index; /* place in the input, plus epoch times its sequences */
    struct source_sequence sequence;
};

/* `setup` stays the caller's and must outlive it. */
int select_open(struct select **select, const struct select_setup *setup) MUST_CHECK;
void select_free(struct select *select);

/* The next sequence: 1, or 0 behind the last. Valid until the next call. */
int select_next(struct select *select, struct select_item *item) MUST_CHECK;

/* Whether it is known how many sequences there will be, and how many. */
bool select_count(const struct select *select, uint64_t *count);

/* Whether all of them are known to have one length. */
bool select_length(const struct select *select, uint64_t *length);

/* Bytes of memory that it may take. */
uint64_t select_memory(const struct select *select);

/* 0, or ERR_USAGE where `path` (which may be NULL) is one of the files that are read, and opening
 * it for writing would empty it. */
int select_check_output(const struct select *select, const char *path) MUST_CHECK;

/* The file that is waited for, where it is a pipe; else NULL. */
const struct io_file *select_pipe(const struct select *select);

#endif
