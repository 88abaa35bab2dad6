/* mem.c - checked sizes, and what memory the system and the cgroups leave. */
#include "mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

bool mem_mul(size_t *product, size_t a, size_t b)
{
    size_t result;
    if (__builtin_mul_overflow(a, b, &result))
        return false;
    *product = result;
    return true;
}

void *mem_alloc(size_t count, size_t size)
{
    size_t bytes;
    return mem_mul(&bytes, count, size) ? malloc(bytes == 0 ? 1 : bytes) : NULL;
}

void *mem_alloc_zero(size_t count, size_t size)
{
    return calloc(count == 0 ? 1 : count, size == 0 ? 1 : size);
}

void *mem_resize(void *old, size_t count, size_t size)
{
    size_t bytes;
    return mem_mul(&bytes, count, size) ? realloc(old, bytes == 0 ? 1 : bytes) : NULL;
}

int mem_fail(const char *what, size_t count, size_t size)
{
    size_t bytes;
    if (!mem_mul(&bytes, count, size))
        return log_fail(ERR_MEMORY, "the size of %s overflows (%zu x %zu bytes)", what, count, size);
    return log_fail(ERR_MEMORY, "not enough memory for %s (%zu bytes)", what, bytes);
}

/* The first number in a file of one number; UINT64_MAX where there is none ("max"). */
static uint64_t mem_read_number(const char *path)
{
    unsigned long long value;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    int got = fscanf(file, "%llu", &value);
    fclose(file);
    return got == 1 ? value : UINT64_MAX;
}

static uint64_t mem_system_available(void)
{
    char line[256];
    unsigned long long kib;
    uint64_t result = UINT64_MAX;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            result = kib * 1024;
    if (file != NULL)
        fclose(file);
    return result;
}

/* What a cgroup and those above it leave: limit minus use at each level. */
static uint64_t mem_cgroup_left(const char *root, char *group, const char *limit, const char *used)
{
    char path[4096];
    uint64_t left = UINT64_MAX;
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", root, group, limit);
        uint64_t most = mem_read_number(path);
        snprintf(path, sizeof path, "%s%s/%s", root, group, used);
        uint64_t now = mem_read_number(path);
        if (most != UINT64_MAX && now != UINT64_MAX) {
            uint64_t here = most > now ? most - now : 0;
            left = here < left ? here : left;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return left;
        *slash = '\0';
    }
}

uint64_t mem_available(void)
{
    uint64_t result = mem_system_available();
    char line[2048];
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (group == NULL)
            continue;
        *group++ = '\0';
        uint64_t left = UINT64_MAX;
        if (strcmp(controllers + 1, "") == 0)
            left = mem_cgroup_left("/sys/fs/cgroup", group, "memory.max", "memory.current");
        else if (strcmp(controllers + 1, "memory") == 0)
            left = mem_cgroup_left("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                                   "memory.usage_in_bytes");
        result = left < result ? left : result;
    }
    if (file != NULL)
        fclose(file);
    return result;
}

int mem_require(uint64_t bytes, const char *what)
{
    uint64_t available = mem_available();
    if (bytes <= available)
        return 0;
    return log_fail(ERR_MEMORY, "%s needs %.2f GB of memory, and %.2f GB are free", what,
                    (double)bytes / 1e9, (double)available / 1e9);
}
