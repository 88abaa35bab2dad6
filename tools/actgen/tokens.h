/* tokens.h - the token stream, one checked sequence after the other, the first ones twice if asked.
 */
#ifndef CCPIPE_TOKENS_H
#define CCPIPE_TOKENS_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stream.h"

struct tokens;

/* Opens the files, or standard input. Ids >= vocab are ERR_DATA later, naming the sequence. */
int tokens_open(struct tokens **tokens, char *const *paths, size_t path_count, unsigned threads,
                uint32_t vocab) MUST_CHECK;
void tokens_free(struct tokens *tokens);

const struct stream_reader *tokens_reader(const struct tokens *tokens);

/* Reads up to `count` sequences and holds them in memory; *all says that the stream ended there.
 * Before the first tokens_next(). */
int tokens_hold(struct tokens *tokens, uint64_t count, bool *all) MUST_CHECK;

/* The next of the sequences that are held: 1, or 0 behind the last. They come again from
 * tokens_next(). */
int tokens_next_held(struct tokens *tokens, struct stream_sequence *sequence) MUST_CHECK;

/* The next sequence, those held first: 1, valid until the next call; 0 at END; or a negative code
 * (logged), as stream_reader_next() has. */
int tokens_next(struct tokens *tokens, struct stream_sequence *sequence) MUST_CHECK;

#endif
