/* sources.h - what the fuzzers of token files share. */
#ifndef FUZZ_SOURCES_H
#define FUZZ_SOURCES_H

#include "tests/fuzz/fuzz.h"
#include "tools/tokstream/source.h"

/* Something that depends on all of a sequence. */
static inline uint64_t digest(const struct source_sequence *sequence)
{
    uint64_t sum = sequence->length * 31 + sequence->cut;
    for (size_t i = 0; i < sequence->length; i++)
        sum = sum * 1000003 + sequence->ids[i];
    return sum;
}

#endif
