/* seen.c - open addressing with linear probing, at most half full. */
#include "seen.h"

#include <stdlib.h>

#include "common/mem.h"

enum { SEEN_FIRST = 1024 };

/* Sequence numbers come in order, or in steps: spread by the golden ratio's fractional part, of
 * which the upper bits depend on all bits of the key. */
static size_t seen_slot(const struct seen *seen, uint64_t key)
{
    unsigned bits = (unsigned)__builtin_ctzll(seen->capacity);
    return (size_t)(key * 0x9e3779b97f4a7c15u >> (64 - bits));
}

static struct seen_entry *seen_probe(const struct seen *seen, uint64_t key)
{
    size_t slot = seen_slot(seen, key);
    while (seen->entries[slot].used && seen->entries[slot].key != key)
        slot = (slot + 1) & (seen->capacity - 1);
    return &seen->entries[slot];
}

uint64_t *seen_find(const struct seen *seen, uint64_t key)
{
    if (seen->capacity == 0)
        return NULL;
    struct seen_entry *entry = seen_probe(seen, key);
    return entry->used ? &entry->value : NULL;
}

static int seen_grow(struct seen *seen)
{
    struct seen grown = {.capacity = seen->capacity == 0 ? SEEN_FIRST : seen->capacity * 2,
                         .count = seen->count};
    grown.entries = mem_alloc_zero(grown.capacity, sizeof *grown.entries);
    if (grown.entries == NULL)
        return mem_fail("the sequences seen", grown.capacity, sizeof *grown.entries);
    for (size_t i = 0; i < seen->capacity; i++)
        if (seen->entries[i].used)
            *seen_probe(&grown, seen->entries[i].key) = seen->entries[i];
    free(seen->entries);
    *seen = grown;
    return 0;
}

int seen_add(struct seen *seen, uint64_t key, uint64_t value)
{
    if (2 * seen->count >= seen->capacity) {
        int status = seen_grow(seen);
        if (status != 0)
            return status;
    }
    *seen_probe(seen, key) = (struct seen_entry){key, value, true};
    seen->count++;
    return 0;
}

void seen_free(struct seen *seen)
{
    free(seen->entries);
    *seen = (struct seen){0};
}
