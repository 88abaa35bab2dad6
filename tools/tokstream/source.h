/* source.h - one file of token sequences, of whatever format.
 *
 * A format is a struct source_kind and a struct that begins with struct source. What reads it only
 * asks for the i-th sequence and for those behind it, so that a further format is a further file.
 * Sequences of a source are numbered from 0. What is longer than the setup's `most` is cut to it,
 * so that memory is bounded; how much was cut is told.
 */
#ifndef TOKSTREAM_SOURCE_H
#define TOKSTREAM_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "common/stream.h"

/* The tokens of a sequence that fit into one record. */
#define SOURCE_MOST_TOKENS ((STREAM_MAX_PAYLOAD - 12) / 4)

struct source_setup {
    const char *column; /* of Parquet, key of JSON */
    unsigned raw_bytes; /* of an item of a flat file: 2, 4; 0: none is expected */
    size_t seq_len;     /* where flat arrays are cut; 0: not given */
    size_t most;        /* tokens of a sequence; seq_len, or SOURCE_MOST_TOKENS */
};

struct source_sequence {
    const uint32_t *ids; /* valid until the next call for the same source */
    size_t length;
    uint64_t cut; /* tokens behind them that were left out */
};

/* What is decoded together, where a sequence cannot be reached alone. */
struct source_group {
    uint64_t first, count; /* sequences */
    uint64_t tokens;       /* as the file says; for planning memory */
};

struct source;

struct source_kind {
    const char *name; /* "Parquet" */

    /* The i-th sequence is the next one: 1; 0 where there are fewer, and `counted` is then true.
     * Backwards in regular files alone. */
    int (*seek)(struct source *source, uint64_t i) MUST_CHECK;

    /* 1, or 0 behind the last, and `counted` is then true. */
    int (*next)(struct source *source, struct source_sequence *sequence) MUST_CHECK;

    /* Counts the sequences and makes each reachable at once; regular files only. NULL where that is
     * so from the start. */
    int (*index)(struct source *source) MUST_CHECK;

    /* NULL: each sequence is reachable at the same cost. */
    struct source_group (*group)(const struct source *source, size_t group);

    /* Gives memory back that is not needed before the next seek; NULL: there is none. */
    void (*rest)(struct source *source);

    void (*free)(struct source *source);
};

struct source {
    const struct source_kind *kind;
    struct bytes bytes;
    const struct source_setup *setup;
    bool counted;
    uint64_t count;     /* sequences, if counted */
    bool has_length;    /* all have the same length, and it is known */
    uint64_t length;    /* that length, after cutting */
    size_t group_count; /* where the kind has groups */
    uint64_t memory;    /* bytes that reading may take */
    uint64_t held;      /* bytes of the table that index() made */
};

/* Opens a file by its content; `path` "-" is standard input. setup stays the caller's and must
 * outlive the source. ERR_USAGE for what is no token file or not built, ERR_DATA, ERR_TRUNCATED
 * (all logged). `listed`: found in a folder, where the name says what a file without marks is. */
int source_open(struct source **source, const char *path, bool listed,
                const struct source_setup *setup) MUST_CHECK;

/* NULL is legal. */
void source_free(struct source *source);

/* Whether its sequences can be read again. */
static inline bool source_is_regular(const struct source *source)
{
    return source->bytes.size >= 0;
}

static inline const char *source_name(const struct source *source)
{
    return source->bytes.file.name;
}

/* ---- for the formats */

/* Allocates a format's struct of `size` bytes and moves `bytes` into it (which is left closed). On
 * failure NULL, logged, and `bytes` untouched. */
struct source *source_create(size_t size, const struct source_kind *kind, struct bytes *bytes,
                             const struct source_setup *setup) MUST_CHECK;

/* What a token must be: true for 0 <= id < 2^32. */
static inline bool source_is_id(int64_t id)
{
    return id >= 0 && id <= UINT32_MAX;
}

/* Says which token of which row (from 0, in this file) is none; ERR_DATA. */
int source_bad_id(const struct source *source, uint64_t row, int64_t id);

#endif
