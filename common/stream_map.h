/* stream_map.h - where the parts and records of regular files lie, without decoding the rows.
 *
 * A part is one BEGIN ... END; a file holds one or, after cat, several. Parts are found from the
 * end of a file by their indexes, else by walking over the frames. Internal to the stream modules
 * and to the programs that describe, verify and salvage files.
 */
#ifndef CCPIPE_STREAM_MAP_H
#define CCPIPE_STREAM_MAP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "index.h"
#include "io.h"

struct stream_part {
    size_t file;        /* which of the files */
    int64_t start, end; /* BEGIN's first byte; behind END's last byte (before the index) */
    bool has_end;       /* the last record is a whole END */
    bool joined;        /* several parts, not told apart: END counts less, or more lies behind it */
    uint64_t rows, first_row; /* of END and BEGIN; 0 without END */
    json_t *skipped;          /* {"reason": count} of what END says was left out, or NULL; owned */
    struct index index;       /* with entries only where the file had a good one */
};

struct stream_map {
    struct stream_part *parts;
    size_t count;
};

/* Maps `count` open regular files. Files that are cut or damaged give parts without has_end and no
 * error: whoever reads them will meet it. Negative codes are for I/O and memory alone. */
int stream_map_build(struct stream_map *map, const struct io_file *files, size_t count) MUST_CHECK;
void stream_map_free(struct stream_map *map);

/* What a part's END says was left out for `reason`; 0 without END. */
uint64_t stream_part_skipped(const struct stream_part *part, const char *reason);

/* Rows of all parts, where each has its END. */
bool stream_map_rows(const struct stream_map *map, uint64_t *rows);

/* More than one part: the first BEGIN does not speak for all. */
bool stream_map_is_joined(const struct stream_map *map);

/* 1: every part's BEGIN has the same "seq_len" as the first one's; 0: not, or not known; or a
 * negative code. `files` are those of stream_map_build(). */
int stream_map_same_length(const struct stream_map *map, const struct io_file *files) MUST_CHECK;

#endif
