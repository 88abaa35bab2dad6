/* order.h - the order in which an input's sequences come: as they are, or shuffled.
 *
 * A keyed permutation (common/perm.h) of all places, another one each epoch, where each sequence
 * can be reached at the same cost. Otherwise one of the groups (Parquet's row groups) and then one
 * of the sequences within a window of groups that is held in memory, so that no page is decoded
 * twice.
 */
#ifndef TOKSTREAM_ORDER_H
#define TOKSTREAM_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "input.h"

/* Groups are put into a window until it has so many tokens. */
#define ORDER_WINDOW_TOKENS ((uint64_t)64 << 20)

struct order;

struct order_item {
    uint64_t place; /* in the input, before shuffling */
    struct source_sequence sequence;
};

/* `input` stays the caller's. With `shuffle`, it has been indexed. */
int order_open(struct order **order, struct input *input, bool shuffle, uint64_t seed,
               uint64_t window_tokens) MUST_CHECK;
void order_free(struct order *order);

/* Begins with an epoch's first sequence. */
int order_start(struct order *order, uint64_t epoch) MUST_CHECK;

/* Passes over `skip` sequences and gives the next one: 1, or 0 where there are no more. The item is
 * valid until the next call. */
int order_next(struct order *order, uint64_t skip, struct order_item *item) MUST_CHECK;

/* Bytes of a window of groups; 0 where there is none. */
uint64_t order_memory(const struct order *order);

#endif
