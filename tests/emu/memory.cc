/* memory.cc - device memory of the emulation.
 *
 * Each piece lies between two pages that cannot be touched, its end as near to the second as an
 * alignment of 16 bytes allows; the few bytes between are looked at whenever the host waits. New
 * memory is filled with bytes 0xff: NaN in every type.
 *
 * The device has EMU_MEMORY bytes, 16 GiB without it.
 */
#include "tests/emu/emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <map>

enum { MEMORY_ALIGNMENT = 16, POISON = 0xff };

struct piece {
    size_t bytes;
    unsigned char *mapping;
    size_t mapped;
};

static std::map<const unsigned char *, struct piece> pieces; /* by their first byte */
static size_t used;

static size_t total(void)
{
    const char *named = getenv("EMU_MEMORY");
    return named != NULL ? strtoull(named, NULL, 10) : (size_t)16 << 30;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all)
{
    std::lock_guard<std::recursive_mutex> guard(emu_lock);
    *all = total();
    *free_bytes = used < *all ? *all - used : 0;
    return cudaSuccess;
}

cudaError_t emu_allocate(void **memory, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), free_bytes, all;
    (void)cudaMemGetInfo(&free_bytes, &all);
    if (bytes == 0) {
        *memory = NULL;
        return cudaSuccess;
    }
    if (bytes > free_bytes)
        return cudaErrorMemoryAllocation;
    size_t padded = (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    size_t pages = (padded + page - 1) / page * page;
    void *mapping = mmap(NULL, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return cudaErrorMemoryAllocation;
    unsigned char *first = static_cast<unsigned char *>(mapping) + page;
    if (mprotect(first, pages, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, pages + 2 * page);
        return cudaErrorMemoryAllocation;
    }
    memset(first, POISON, pages);
    unsigned char *start = first + pages - padded;
    pieces[start] = {bytes, static_cast<unsigned char *>(mapping), pages + 2 * page};
    used += bytes;
    *memory = start;
    return cudaSuccess;
}

static bool intact(const unsigned char *start, const struct piece &piece)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *first = piece.mapping + page, *end = piece.mapping + piece.mapped - page;
    for (const unsigned char *at = first; at < end; at++) {
        if (at == start)
            at += piece.bytes;
        if (at < end && *at != POISON) {
            fprintf(stderr, "emu: somebody wrote %td bytes behind the start of a piece of %zu\n",
                    at - start, piece.bytes);
            return false;
        }
    }
    return true;
}

bool emu_memory_intact(void)
{
    bool good = true;
    for (const auto &entry : pieces)
        good = intact(entry.first, entry.second) && good;
    return good;
}

bool emu_is_device(const void *address, size_t bytes)
{
    const unsigned char *at = static_cast<const unsigned char *>(address);
    auto next = pieces.upper_bound(at);
    if (next == pieces.begin())
        return false;
    const auto &entry = *--next;
    size_t offset = (size_t)(at - entry.first);
    return offset <= entry.second.bytes && bytes <= entry.second.bytes - offset;
}

cudaError_t emu_release(void *memory)
{
    auto entry = pieces.find(static_cast<unsigned char *>(memory));
    if (entry == pieces.end())
        return cudaErrorInvalidValue;
    used -= entry->second.bytes;
    munmap(entry->second.mapping, entry->second.mapped);
    pieces.erase(entry);
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    return posix_memalign(memory, 4096, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *memory)
{
    free(memory);
    return cudaSuccess;
}
