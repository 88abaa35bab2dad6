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
        return log_fail(ERR_MEMORY, "the size of %s overflows (%zu x %zu bytes)", what, count,
                        size);
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

/* The sum of the values of two keys in a file of lines "key value". */
static uint64_t mem_read_keys(const char *path, const char *a, const char *b)
{
    char line[256], key[128];
    unsigned long long value;
    uint64_t sum = 0;
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "%127s %llu", key, &value) == 2 &&
            (strcmp(key, a) == 0 || strcmp(key, b) == 0))
            sum += value;
    if (file != NULL)
        fclose(file);
    return sum;
}

/* How the two versions of cgroups call things. */
struct mem_cgroup {
    const char *root, *limit, *used, *cached[2];
};

/* What a cgroup and those above it leave: at each level the limit minus the use, without pages of
 * files, which the kernel gives back when memory is asked for. */
static uint64_t mem_cgroup_left(const struct mem_cgroup *kind, char *group)
{
    char path[4096];
    uint64_t left = UINT64_MAX;
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", kind->root, group, kind->limit);
        uint64_t most = mem_read_number(path);
        snprintf(path, sizeof path, "%s%s/%s", kind->root, group, kind->used);
        uint64_t now = mem_read_number(path);
        if (most != UINT64_MAX && now != UINT64_MAX) {
            snprintf(path, sizeof path, "%s%s/memory.stat", kind->root, group);
            uint64_t cached = mem_read_keys(path, kind->cached[0], kind->cached[1]);
            now -= cached < now ? cached : now;
            uint64_t here = most > now ? most - now : 0;
            left = here < left ? here : left;
        }
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return left;
        *slash = '\0';
    }
}

static const struct mem_cgroup mem_cgroup_v1 = {"/sys/fs/cgroup/memory",
                                                "memory.limit_in_bytes",
                                                "memory.usage_in_bytes",
                                                {"total_inactive_file", "total_active_file"}};
static const struct mem_cgroup mem_cgroup_v2 = {
    "/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};

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
            left = mem_cgroup_left(&mem_cgroup_v2, group);
        else if (strcmp(controllers + 1, "memory") == 0)
            left = mem_cgroup_left(&mem_cgroup_v1, group);
        result = left < result ? left : result;
    }
    if (file != NULL)
        fclose(file);
    return result;
}

struct mem_text mem_text(uint64_t bytes)
{
    static const struct {
        uint64_t bytes;
        const char *name;
    } units[] = {{1000000000, "GB"}, {1000000, "MB"}, {1000, "kB"}};
    struct mem_text result;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (bytes < units[i].bytes)
            continue;
        snprintf(result.text, sizeof result.text, "%.2f %s", (double)bytes / (double)units[i].bytes,
                 units[i].name);
        return result;
    }
    snprintf(result.text, sizeof result.text, "%u bytes", (unsigned)bytes);
    return result;
}

int mem_require(uint64_t bytes, const char *what)
{
    uint64_t available = mem_available();
    if (bytes <= available)
        return 0;
    return log_fail(ERR_MEMORY, "%s needs %s of memory, and %s are free", what,
                    mem_text(bytes).text, mem_text(available).text);
}
