/* fuzz_freq_table.c - any bytes as a table of `ccanalyze freq`, for crosscoders of a few sizes. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tools/ccanalyze/freq_table.h"

enum { MOST_LATENTS = 3 };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    for (size_t latents = 1; latents <= MOST_LATENTS; latents++) {
        uint8_t dead[MOST_LATENTS];
        size_t count = 0, dead_count;
        char *text = malloc(size + 1);
        require(text != NULL);
        memcpy(text, bytes, size);
        text[size] = '\0';
        int status = freq_table_parse(text, size, "input", dead, latents, &dead_count);
        require(status == 0 || status == ERR_USAGE || status == ERR_DATA);
        for (size_t j = 0; status == 0 && j < latents; j++) {
            require(dead[j] <= 1);
            count += dead[j];
        }
        require(count == dead_count);
        free(text);
    }
    return 0;
}
