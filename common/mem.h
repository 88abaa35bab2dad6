/* mem.h - sizes that cannot overflow, and a look at the memory before it is asked for. */
#ifndef CCPIPE_MEM_H
#define CCPIPE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* *product = a * b; false, and *product untouched, where that overflows. */
bool mem_mul(size_t *product, size_t a, size_t b) MUST_CHECK;

/* count * size bytes (zeroed, or not), free() frees them; NULL where the product overflows or the
 * memory is not there. A count of 0 gives a pointer that may be freed. Not logged: the caller
 * knows what the memory was for, and says so with mem_fail(). */
void *mem_alloc(size_t count, size_t size) MUST_CHECK;
void *mem_alloc_zero(size_t count, size_t size) MUST_CHECK;

/* realloc() of an array; on failure the old one is untouched and NULL comes back. */
void *mem_resize(void *old, size_t count, size_t size) MUST_CHECK;

/* Logs "not enough memory for WHAT (N bytes)" and returns ERR_MEMORY. */
int mem_fail(const char *what, size_t count, size_t size);

/* Bytes that this process may still take: the smallest of MemAvailable and what the cgroups (v1 or
 * v2, all levels up) leave; UINT64_MAX where neither can be read. */
uint64_t mem_available(void);

/* A number of bytes for messages, "4.12 GB", "512 bytes": .text of what comes back, which lasts to
 * the end of the statement. */
struct mem_text {
    char text[32];
};
struct mem_text mem_text(uint64_t bytes);

/* 0, or ERR_MEMORY with a message that says what `what` needs and what is free. */
int mem_require(uint64_t bytes, const char *what) MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
