/* fuzz_lines.c - any bytes as a file given by name: what is read in order is what is read singly.
 * The first byte chooses whether it is a flat array. */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/sources.h"
#include "tests/unit/memory_file.h"

static struct memory_file memory;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    if (!memory_file_open(&memory))
        abort();
    return 0;
}

static void read_singly(struct source *source, uint64_t rows, uint64_t all)
{
    struct source_sequence sequence;
    uint64_t sum = 0;
    if (source->kind->index != NULL)
        require(source->kind->index(source) == 0);
    require(source->counted && source->count == rows);
    for (uint64_t i = rows; i-- > 0;) {
        require(source->kind->seek(source, i) == 1);
        require(source->kind->next(source, &sequence) == 1);
        sum += digest(&sequence) * (i + 1);
    }
    require(source->kind->seek(source, rows) == 0);
    require(sum == all);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct source *source;
    struct source_sequence sequence;
    if (size < 1)
        return 0;
    struct source_setup setup = {.column = "input_ids",
                                 .raw_bytes = bytes[0] == 'r'   ? 2
                                              : bytes[0] == 'R' ? 4
                                                                : 0,
                                 .seq_len = 5,
                                 .most = 5};
    if (!memory_file_set(&memory, bytes + 1, size - 1) ||
        source_open(&source, memory.path, false, &setup) != 0)
        return 0;
    uint64_t rows = 0, sum = 0;
    int status = 1;
    while (rows < 100000 && (status = source->kind->next(source, &sequence)) == 1) {
        require(sequence.length <= setup.most);
        sum += digest(&sequence) * ++rows;
    }
    if (status == 0 && source->kind->group == NULL)
        read_singly(source, rows, sum);
    source_free(source);
    return 0;
}
