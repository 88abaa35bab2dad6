/* mix.h - several inputs interleaved by weight, or one alone. */
#ifndef TOKSTREAM_MIX_H
#define TOKSTREAM_MIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "order.h"

struct mix_part {
    struct input input;
    struct order *order;
    double weight;
    const char *name; /* for messages */
    uint64_t first;   /* place of its first sequence in all inputs as given */
    uint64_t taken;   /* sequences in this epoch */
    uint64_t pending; /* of these, the ones that were passed over and not yet skipped in `order` */
};

struct mix {
    struct mix_part *parts;
    size_t count;
    double weights; /* their sum */
    uint64_t taken; /* of all parts in this epoch */
};

/* Next is the part with the largest weight/weights * (t+1) - taken, ties to the first, where t
 * sequences were taken before. Of several parts all are counted. */
void mix_start(struct mix *mix);

/* Passes over `skip` sequences and gives the next one: 1; 0 where the part that is next has no
 * more, and *ended is that part. */
int mix_next(struct mix *mix, uint64_t skip, struct order_item *item, size_t *ended) MUST_CHECK;

/* How many sequences there are until that end; of counted parts. Ends with a mix_start(). */
uint64_t mix_count(struct mix *mix);

#endif
