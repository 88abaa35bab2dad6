/* fuzz_tokenizer.c - any text as tokenizer.json; all pieces, their text and the hash of what is
 * taken. */
#include <stdlib.h>
#include <string.h>

#include "common/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#define MOST_IDS 512

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct tokenizer *tokenizer;
    if (tokenizer_parse(&tokenizer, (const char *)bytes, size, "input") != 0) {
        require(tokenizer == NULL);
        return 0;
    }
    uint32_t ids[MOST_IDS], count = tokenizer_size(tokenizer);
    require(count >= 1 && tokenizer_piece(tokenizer, count) == NULL);
    require(tokenizer_piece(tokenizer, count - 1) != NULL);
    size_t n = count < MOST_IDS ? count : MOST_IDS;
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)i;
    char hash[33], *text = tokenizer_text(tokenizer, ids, n);
    require(text != NULL);
    tokenizer_hash(tokenizer, hash);
    require(strlen(hash) == 32);
    free(text);
    tokenizer_free(tokenizer);
    return 0;
}
