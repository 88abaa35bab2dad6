/* fuzz_npy.c - any bytes as a .npy header; what is taken can be written and reads back the same. */
#include <string.h>

#include "common/npy.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct npy_header header, again;
    int status = npy_parse(&header, bytes, size, "input");
    if (status == 1)
        require(header.data_offset > size);
    if (status != 0)
        return 0;
    require(header.data_offset <= size && header.rank <= NPY_MAX_RANK);
    uint64_t elements = 1;
    for (unsigned i = 0; i < header.rank; i++)
        elements *= header.shape[i];
    require(elements == header.elements);
    uint8_t ours[256];
    size_t length = npy_format(ours, header.type, header.shape, header.rank);
    require(length <= sizeof ours && length % 64 == 0);
    require(npy_parse(&again, ours, length, "ours") == 0);
    require(strcmp(again.type, header.type) == 0 && again.item_bytes == header.item_bytes);
    require(again.rank == header.rank && again.elements == header.elements);
    require(memcmp(again.shape, header.shape, sizeof again.shape) == 0);
    return 0;
}
