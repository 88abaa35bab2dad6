/* fuzz_parquet.c - any bytes as a Parquet file: read in order and, where that works, again from the
 * middle, which must give the same rows. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/sources.h"
#include "tests/unit/memory_file.h"

#define MOST_ROWS 4096 /* a run of empty lists may stand for billions */

static struct memory_file memory;
static const struct source_setup setup = {
    .column = "input_ids", .raw_bytes = 0, .seq_len = 500, .most = 500};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    if (!memory_file_open(&memory))
        abort();
    return 0;
}

static void read_again(struct source *source, const uint64_t *digests, uint64_t rows)
{
    struct source_sequence sequence;
    uint64_t middle = rows / 2;
    require(source->kind->seek(source, middle) == 1);
    for (uint64_t i = middle; i < rows; i++) {
        require(source->kind->next(source, &sequence) == 1);
        require(digest(&sequence) == digests[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static uint64_t digests[MOST_ROWS];
    struct source *source;
    struct source_sequence sequence;
    if (size < 4 || memcmp(bytes, "PAR1", 4) != 0 || !memory_file_set(&memory, bytes, size) ||
        source_open(&source, memory.path, false, &setup) != 0)
        return 0;
    uint64_t rows = 0;
    int status = 1;
    while (rows < MOST_ROWS && (status = source->kind->next(source, &sequence)) == 1) {
        require(sequence.length <= setup.most);
        digests[rows++] = digest(&sequence);
    }
    if (status == 0) {
        require(rows == source->count);
        if (rows > 0)
            read_again(source, digests, rows);
    }
    source_free(source);
    return 0;
}
