/* fuzz_history.c - any text as metrics.jsonl; what is taken must be consistent. */
#include <math.h>
#include <stdint.h>

#include "tests/fuzz/fuzz.h"
#include "tools/ccanalyze/history.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct history history;
    if (history_parse(&history, (const char *)bytes, size, "input") != 0) {
        require(history.rows == 0 && history.columns == NULL);
        return 0;
    }
    for (size_t row = 0; row < history.rows; row++) {
        require(isfinite(history.steps[row]));
        require(row == 0 || history.steps[row] > history.steps[row - 1]);
    }
    for (size_t i = 0; i < history.column_count; i++) {
        const struct history_column *column = &history.columns[i];
        int any = 0;
        require(history_find(&history, column->key) == column->values);
        for (size_t row = 0; row < history.rows; row++)
            any |= !isnan(column->values[row]);
        require(any);
    }
    history_free(&history);
    return 0;
}
