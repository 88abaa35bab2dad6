/* pass.h - the tokens of one forward pass on the host, and which of them give rows.
 *
 * A pass is whole sequences, one behind the other, filled up to whole chunks of the device's
 * chunk_tokens (kernels/kernels.h) with token 0. Products run over one chunk at a time, so their
 * shape is the same for every token of every pass, whatever --batch and the sequences' lengths are:
 * rows cannot depend on them.
 */
#ifndef CCPIPE_PASS_H
#define CCPIPE_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "kernels/kernels.h"

/* Which tokens give rows: positions from `first` on, but for these ids. */
struct pass_rule {
    uint32_t first;
    const uint32_t *ids;
    size_t id_count;
};

/* Rows that were left out, by reason. */
struct pass_skipped {
    uint64_t position, id, not_finite;
};

struct pass {
    size_t chunk;    /* tokens of a chunk */
    size_t capacity; /* tokens, whole chunks */
    size_t span_capacity;
    size_t tokens;
    uint32_t *ids, *positions;  /* (capacity) */
    struct kernels_span *spans; /* (span_capacity), of the sequences that are not empty */
    size_t span_count;

    size_t kept;         /* rows that the rule lets through */
    uint32_t *row;       /* (kept) token of the pass that gives it */
    uint32_t *in_chunk;  /* (kept) the same, counted in its chunk */
    size_t *chunk_first; /* (chunks + 1) the first kept row of each chunk; by pass_close() */
    uint8_t *tags;       /* (kept, STREAM_TAG_BYTES) */
};

/* Room for `tokens` tokens (rounded up to chunks of `chunk`) of at most `sequences` sequences; an
 * existing pass, which is empty, is made larger. Zeroed before the first call; pass_free() frees
 * the members. */
int pass_reserve(struct pass *pass, size_t chunk, size_t tokens, size_t sequences) MUST_CHECK;
void pass_free(struct pass *pass);

/* Bytes that pass_reserve() takes. */
uint64_t pass_bytes(size_t chunk, size_t tokens, size_t sequences);

/* tokens rounded up to whole chunks. */
size_t pass_round_up(size_t chunk, size_t tokens);

bool pass_fits(const struct pass *pass, uint32_t length);

/* Appends a sequence that fits; ids are u32 little-endian, unaligned. What the rule leaves out is
 * counted. */
void pass_add(struct pass *pass, const struct pass_rule *rule, struct pass_skipped *skipped,
              uint64_t index, const uint8_t *ids, uint32_t length);

/* After the last sequence: fills up the last chunk. The number of chunks. */
size_t pass_close(struct pass *pass);
void pass_clear(struct pass *pass);

#endif
