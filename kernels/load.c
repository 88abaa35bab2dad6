/* load.c - finds a backend's shared object, loads it and opens the device.
 *
 * Tools that do not compute never come here, so they start in milliseconds and run where no BLAS
 * and no driver is installed. The CPU backend exists once per level of the x86-64 instruction set;
 * the highest that this processor has is taken, so that a folder copied to another machine works
 * there.
 *
 * libgomp reads its environment when it is loaded, and its waiting threads spin by default: with
 * five tools on two cores that costs more than it gains. So the wait policy is set here, before
 * dlopen(), and not by the user's shell.
 *
 * `auto` asks the CUDA backend first. What that then gives as the reason of a failure is no error
 * but half a sentence of the note that says what was chosen; so reasons go through load_fail().
 *
 * A backend is never unloaded: libgomp's worker threads outlive the last device, and code must not
 * vanish under them.
 */
#define _GNU_SOURCE /* RTLD_NODELETE is POSIX 2008, but glibc asks for this */
#include "kernels/kernels.h"

#include "common/log.h"
#include "common/mem.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char cuda_file[] = "ccpipe-cuda.so";
enum { LEVEL_LOWEST = 2, LEVEL_HIGHEST = 4 };

/* Where `auto` wants to have the reason why there is no CUDA; NULL: reasons are errors. It is set
 * while kernels_open() runs, which is before the program has threads. */
static char *load_reason;
enum { REASON_BYTES = 512 };

static int load_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int load_fail(int code, const char *format, ...)
{
    char message[REASON_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (load_reason == NULL)
        return log_fail(code, "%s", message);
    memcpy(load_reason, message, sizeof message);
    return code;
}

static int host_fail(int code, const char *message)
{
    return load_fail(code, "%s", message);
}

static void host_note(const char *message)
{
    log_note("%s", message);
}

static const struct kernels_host load_host = {host_fail, host_note, mem_available};

/* The highest level of the instruction set that the processor has, 0 where it is below v2. */
static int processor_level(void)
{
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v4"))
        return 4;
    if (__builtin_cpu_supports("x86-64-v3"))
        return 3;
    return __builtin_cpu_supports("x86-64-v2") ? 2 : 0;
}

static int choose_level(int *level)
{
    int highest = processor_level();
    const char *forced = getenv("CCPIPE_CPU_LEVEL");
    if (forced == NULL || forced[0] == '\0') {
        if (highest < LEVEL_LOWEST)
            return log_fail(ERR_DEVICE, "cannot compute on this processor: it is below x86-64-v2");
        *level = highest;
        return 0;
    }
    if (forced[0] != 'v' || forced[1] < '0' + LEVEL_LOWEST || forced[1] > '0' + LEVEL_HIGHEST ||
        forced[2] != '\0')
        return log_fail(ERR_USAGE, "CCPIPE_CPU_LEVEL is '%s', not v2, v3 or v4", forced);
    *level = forced[1] - '0';
    if (*level > highest)
        return log_fail(ERR_DEVICE,
                        "CCPIPE_CPU_LEVEL asks for x86-64-%s, this processor is x86-64-v%d", forced,
                        highest);
    return 0;
}

/* path = FOLDER/file of the first folder that has it. 1: found, 0: not there, or a code. */
static int find_backend(char path[PATH_MAX], const char *file)
{
    const char *named = getenv("CCPIPE_BACKENDS");
    if (named != NULL && named[0] != '\0') {
        int length = snprintf(path, PATH_MAX, "%s/%s", named, file);
        return length < PATH_MAX && access(path, R_OK) == 0;
    }
    char folder[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length < 0)
        return log_fail_errno("cannot read '/proc/self/exe'");
    folder[length] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    static const char *const places[] = {"", "/../lib/ccpipe"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        int written = snprintf(path, PATH_MAX, "%s%s/%s", folder, places[i], file);
        if (written < PATH_MAX && access(path, R_OK) == 0)
            return 1;
    }
    return 0;
}

static int load_backend(const struct kernels **kernels, const char *file, const char *device)
{
    char path[PATH_MAX];
    int found = find_backend(path, file);
    if (found < 0)
        return found;
    if (found == 0) {
        const char *named = getenv("CCPIPE_BACKENDS");
        bool in_named = named != NULL && named[0] != '\0';
        return load_fail(ERR_DEVICE, "there is no %s backend: '%s' not found in %s%s%s", device,
                         file, in_named ? "'" : "",
                         in_named ? named : "the tool's folder or ../lib/ccpipe",
                         in_named ? "' (CCPIPE_BACKENDS)" : "");
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL)
        return load_fail(ERR_DEVICE, "cannot load the %s backend: %s", device, dlerror());
    /* POSIX lets a data pointer hold a function's address; C does not, so no cast. */
    void *symbol = dlsym(library, KERNELS_ENTRY);
    kernels_entry_function *entry = NULL;
    _Static_assert(sizeof entry == sizeof symbol, "function pointers are data pointers");
    memcpy(&entry, &symbol, sizeof entry);
    if (entry == NULL)
        return load_fail(ERR_DEVICE, "'%s' is not a backend: no symbol " KERNELS_ENTRY, path);
    const struct kernels *table = entry();
    if (table->abi != KERNELS_ABI)
        return load_fail(ERR_DEVICE, "'%s' is of another version: interface %u, not %u", path,
                         (unsigned)table->abi, (unsigned)KERNELS_ABI);
    *kernels = table;
    return 0;
}

/* "cuda" or "cuda:N" -> index; -1 for anything else. */
static int parse_cuda(const char *name)
{
    if (strcmp(name, "cuda") == 0)
        return 0;
    if (strncmp(name, "cuda:", 5) != 0 || name[5] < '0' || name[5] > '9')
        return -1;
    char *end = NULL;
    errno = 0;
    unsigned long index = strtoul(name + 5, &end, 10);
    return errno != 0 || *end != '\0' || index > 1023 ? -1 : (int)index;
}

static int load_cpu(const struct kernels **kernels)
{
    int level = 0;
    int code = choose_level(&level);
    if (code < 0)
        return code;
    if (getenv("OMP_WAIT_POLICY") == NULL) {
        if (setenv("OMP_WAIT_POLICY", "passive", 0) != 0 || setenv("GOMP_SPINCOUNT", "0", 0) != 0)
            return log_fail_errno("cannot set OMP_WAIT_POLICY");
    }
    char file[sizeof "ccpipe-cpu-v0.so"];
    snprintf(file, sizeof file, "ccpipe-cpu-v%c.so", '0' + level);
    return load_backend(kernels, file, "CPU");
}

/* The first CUDA device, or in reason (REASON_BYTES) why there is none. */
static int open_cuda(const struct kernels **kernels, struct kernels_device **device,
                     unsigned threads, enum dtype type, char *reason)
{
    load_reason = reason;
    int code = load_backend(kernels, cuda_file, "CUDA");
    if (code == 0)
        code = (*kernels)->open(device, 0, threads, type, &load_host);
    load_reason = NULL;
    return code;
}

static int open_automatic(const struct kernels **kernels, struct kernels_device **device,
                          unsigned threads, enum dtype type)
{
    char path[PATH_MAX], reason[REASON_BYTES] = "its backend is not installed";
    int code = find_backend(path, cuda_file);
    if (code > 0 && open_cuda(kernels, device, threads, type, reason) == 0) {
        log_note("device: %s", (*kernels)->description(*device));
        return 0;
    }
    code = load_cpu(kernels);
    if (code == 0)
        code = (*kernels)->open(device, 0, threads, type, &load_host);
    if (code == 0)
        log_note("device: %s (not cuda: %s)", (*kernels)->description(*device), reason);
    return code;
}

int kernels_open(const struct kernels **kernels, struct kernels_device **device, const char *name,
                 unsigned threads, enum dtype type)
{
    int index = 0, code;
    if (strcmp(name, "auto") == 0)
        return open_automatic(kernels, device, threads, type);
    if (strcmp(name, "cpu") == 0) {
        code = load_cpu(kernels);
    } else {
        index = parse_cuda(name);
        if (index < 0)
            return log_fail(ERR_USAGE, "unknown device '%s': not auto, cpu, cuda or cuda:N", name);
        code = load_backend(kernels, cuda_file, "CUDA");
    }
    if (code < 0)
        return code;
    code = (*kernels)->open(device, (unsigned)index, threads, type, &load_host);
    if (code == 0)
        log_verbose("device: %s", (*kernels)->description(*device));
    return code;
}

void kernels_close(const struct kernels *kernels, struct kernels_device *device)
{
    if (kernels != NULL && device != NULL)
        kernels->close(device);
}

/* By one of the two members that allocate. */
static int take(int (*alloc)(struct kernels_device *, void **, size_t),
                struct kernels_device *device, void *memory, size_t count, size_t size,
                const char *what)
{
    size_t bytes;
    void *taken = NULL;
    int code =
        mem_mul(&bytes, count, size) ? alloc(device, &taken, bytes) : mem_fail(what, count, size);
    memcpy(memory, &taken, sizeof taken);
    return code;
}

int kernels_alloc(const struct kernels *kernels, struct kernels_device *device, void *memory,
                  size_t count, size_t size, const char *what)
{
    return take(kernels->alloc, device, memory, count, size, what);
}

int kernels_host_alloc(const struct kernels *kernels, struct kernels_device *device, void *memory,
                       size_t count, size_t size, const char *what)
{
    return take(kernels->host_alloc, device, memory, count, size, what);
}
