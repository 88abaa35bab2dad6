/* seen.h - a table of 64-bit keys with a 64-bit value each: which sequences have come by. */
#ifndef CCANALYZE_SEEN_H
#define CCANALYZE_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct seen_entry {
    uint64_t key, value;
    bool used;
};

struct seen {
    struct seen_entry *entries; /* (capacity), a power of two */
    size_t capacity, count;
};

/* The value of a key, or NULL. Valid until the next seen_add(). */
uint64_t *seen_find(const struct seen *seen, uint64_t key);

/* Adds a key that is not there yet. ERR_MEMORY (logged) alone. A zeroed struct is empty. */
int seen_add(struct seen *seen, uint64_t key, uint64_t value) MUST_CHECK;
void seen_free(struct seen *seen);

#endif
