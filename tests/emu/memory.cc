/* memory.cc - device memory of the emulation.
 *
 * Each piece lies between two pages that cannot be touched, its end as near to the second as an
 * alignment of 16 bytes allows; the few bytes between are looked at whenever the host waits. New
 * memory is filled with bytes 0xff: NaN in every type.
 *
 * It is part of a file without a name, so that another process can have it too: a handle says whose
 * file, at which descriptor, and where in it. There the piece lies between such pages again. A
 * place in the file is used once, so an old handle never shows what is somebody else's.
 *
 * The device has EMU_MEMORY bytes, 16 GiB without it.
 */
#include "tests/emu/emu.h"

#include <fcntl.h>
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
    off_t at;      /* its place in the file, of its pages */
    bool borrowed; /* the memory is another process's */
};

/* What cudaIpcMemHandle_t holds. */
struct shared_piece {
    char mark[16];
    uint64_t bytes, at;
    int pid, file;
};
static const char shared_mark[16] = "emulated memory";

static std::map<const unsigned char *, struct piece> pieces; /* by their first byte */
static size_t used;

static struct {
    int file;
    pid_t owner; /* a child of fork() gets a file of its own */
    off_t end;
} store;

static size_t total(void)
{
    const char *named = getenv("EMU_MEMORY");
    return named != NULL ? strtoull(named, NULL, 10) : (size_t)16 << 30;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    *all = total();
    *free_bytes = used < *all ? *all - used : 0;
    return cudaSuccess;
}

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t padded_bytes(size_t bytes)
{
    return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static size_t page_bytes(size_t bytes)
{
    return (padded_bytes(bytes) + page_size() - 1) / page_size() * page_size();
}

/* That part of the file becomes a piece, between two pages that cannot be touched; NULL if not. */
static unsigned char *map_piece(int file, off_t at, size_t bytes, bool borrowed)
{
    size_t page = page_size(), pages = page_bytes(bytes), mapped = pages + 2 * page;
    void *mapping = mmap(NULL, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
        return NULL;
    unsigned char *first = static_cast<unsigned char *>(mapping) + page;
    if (mmap(first, pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, at) ==
        MAP_FAILED) {
        munmap(mapping, mapped);
        return NULL;
    }
    unsigned char *start = first + pages - padded_bytes(bytes);
    pieces[start] = {bytes, static_cast<unsigned char *>(mapping), mapped, at, borrowed};
    return start;
}

cudaError_t emu_allocate(void **memory, size_t bytes)
{
    size_t free_bytes, all;
    (void)cudaMemGetInfo(&free_bytes, &all);
    if (bytes == 0) {
        *memory = NULL;
        return cudaSuccess;
    }
    if (bytes > free_bytes)
        return cudaErrorMemoryAllocation;
    if (store.owner != getpid())
        store = {memfd_create("emulated device", MFD_CLOEXEC), getpid(), 0};
    off_t at = store.end, end = at + (off_t)page_bytes(bytes);
    if (store.file < 0 || ftruncate(store.file, end) != 0)
        return cudaErrorMemoryAllocation;
    unsigned char *start = map_piece(store.file, at, bytes, false);
    if (start == NULL)
        return cudaErrorMemoryAllocation;
    memset(start - (page_bytes(bytes) - padded_bytes(bytes)), POISON, page_bytes(bytes));
    store.end = end;
    used += bytes;
    *memory = start;
    return cudaSuccess;
}

cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *memory)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    auto entry = pieces.find(static_cast<unsigned char *>(memory));
    if (entry == pieces.end() || entry->second.borrowed || store.owner != getpid())
        return cudaErrorInvalidValue;
    struct shared_piece shared = {};
    memcpy(shared.mark, shared_mark, sizeof shared.mark);
    shared.bytes = entry->second.bytes;
    shared.at = (uint64_t)entry->second.at;
    shared.pid = store.owner;
    shared.file = store.file;
    memset(handle, 0, sizeof *handle);
    memcpy(handle, &shared, sizeof shared);
    return cudaSuccess;
}

/* As the driver, not for what is this process's own. */
cudaError_t cudaIpcOpenMemHandle(void **memory, cudaIpcMemHandle_t handle, unsigned flags)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    struct shared_piece shared;
    memcpy(&shared, &handle, sizeof shared);
    if (flags != cudaIpcMemLazyEnablePeerAccess)
        return cudaErrorInvalidValue;
    if (memcmp(shared.mark, shared_mark, sizeof shared.mark) != 0)
        return cudaErrorInvalidResourceHandle;
    if (shared.pid == getpid())
        return cudaErrorDeviceUninitialized;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", shared.pid, shared.file);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return cudaErrorMapBufferObjectFailed;
    unsigned char *start = map_piece(file, (off_t)shared.at, (size_t)shared.bytes, true);
    close(file);
    if (start == NULL)
        return cudaErrorMapBufferObjectFailed;
    *memory = start;
    return cudaSuccess;
}

static bool intact(const unsigned char *start, const struct piece &piece)
{
    size_t page = page_size();
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

/* What was freed last stays out of reach, so that nothing else comes to lie there (a fiber's stack,
 * say), and who still reaches for it is found. */
static void bury(const struct piece *piece)
{
    static struct {
        void *mapping;
        size_t mapped;
    } graves[64];
    static unsigned buried;
    auto *grave = &graves[buried++ % 64];
    if (grave->mapping != NULL)
        munmap(grave->mapping, grave->mapped);
    grave->mapping = mmap(piece->mapping, piece->mapped, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    grave->mapped = piece->mapped;
    if (grave->mapping == MAP_FAILED)
        grave->mapping = NULL;
}

/* mapped: by cudaIpcOpenMemHandle(). */
cudaError_t emu_release(void *memory, bool mapped)
{
    auto entry = pieces.find(static_cast<unsigned char *>(memory));
    if (entry == pieces.end() || entry->second.borrowed != mapped)
        return cudaErrorInvalidValue;
    if (!mapped) {
        used -= entry->second.bytes;
        if (store.owner == getpid())
            (void)fallocate(store.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            entry->second.at, (off_t)page_bytes(entry->second.bytes));
    }
    bury(&entry->second);
    pieces.erase(entry);
    return cudaSuccess;
}

/* Page-locked memory: where a piece begins, and its size. */
static std::map<const unsigned char *, size_t> locked;

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    if (posix_memalign(memory, 4096, bytes) != 0)
        return cudaErrorMemoryAllocation;
    locked[static_cast<unsigned char *>(*memory)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    if (locked.erase(static_cast<unsigned char *>(memory)) == 0)
        return cudaErrorInvalidValue;
    free(memory);
    return cudaSuccess;
}

bool emu_is_locked(const void *address, size_t bytes)
{
    const unsigned char *at = static_cast<const unsigned char *>(address);
    auto next = locked.upper_bound(at);
    if (next == locked.begin())
        return false;
    --next;
    return at + bytes <= next->first + next->second;
}
