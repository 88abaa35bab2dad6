/* fuzz.h - what every fuzzer has: libFuzzer's two functions, and a failure that it notices. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static inline void require(int condition)
{
    if (!condition)
        abort();
}

/* The beginning of LLVMFuzzerInitialize(): most inputs are wrong, and nobody reads why. */
static inline void fuzz_start(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz", LOG_SILENT);
}

#endif
