/* tokenizer.h - tokenizer.json for display and comparison: id -> piece, nothing is tokenized.
 *
 * model.vocab (BPE: piece -> id; Unigram: list of [piece, score]) and added_tokens are read.
 */
#ifndef CCPIPE_TOKENIZER_H
#define CCPIPE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct tokenizer;

/* Reads folder/tokenizer.json. 0 with *tokenizer NULL where the folder has none. */
int tokenizer_open_folder(struct tokenizer **tokenizer, const char *folder) MUST_CHECK;

/* The same from text in memory; `name` for messages. */
int tokenizer_parse(struct tokenizer **tokenizer, const char *text, size_t size,
                    const char *name) MUST_CHECK;
void tokenizer_free(struct tokenizer *tokenizer);

/* One more than the largest id. */
uint32_t tokenizer_size(const struct tokenizer *tokenizer);

/* The piece of an id as the file has it ("▁the", "<0x0A>", "<bos>"), or NULL. Borrowed. */
const char *tokenizer_piece(const struct tokenizer *tokenizer, uint32_t id);

/* The text of n ids as a person reads it: ▁ is a space, byte pieces are joined to UTF-8 (what is
 * not UTF-8 becomes U+FFFD), an id without a piece is "<id N>". free() it; NULL: no memory. */
char *tokenizer_text(const struct tokenizer *tokenizer, const uint32_t *ids, size_t n) MUST_CHECK;

/* XXH3-128 (32 hexadecimal digits) over id -> piece and added tokens in order of id: files that
 * differ in form alone have the same hash. */
void tokenizer_hash(const struct tokenizer *tokenizer, char hex[33]);

#endif
