/* order.c - see order.h.
 *
 * The permutations of an epoch are streams of their own of the seed: number 0 for all places or for
 * the groups, n + 1 for the sequences of window n. Windows are filled group by group, by the counts
 * of the files' footers alone, so what is in a window does not depend on what is decoded. A window
 * of which nothing is asked for is not decoded at all.
 */
#include "order.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/perm.h"

struct order_window {
    uint64_t number;     /* of this window in the epoch */
    size_t first, count; /* its groups, in permuted order */
    uint64_t start;      /* sequences of the epoch before it */
    uint64_t sequences;
    struct perm perm;

    bool decoded;
    uint32_t *ids; /* (ids_room) of all its sequences, in the order of its groups */
    size_t ids_used, ids_room;
    struct order_held {
        uint64_t place, cut;
        size_t at, length; /* in ids */
    } * held;              /* (held_room) */
    size_t held_count, held_room;
};

struct order {
    struct input *input;
    bool shuffle, single;
    uint64_t seed, window_tokens, epoch;
    uint64_t position; /* of the next sequence in the epoch */
    struct perm perm;  /* of all places, or of the groups */
    struct source_group *groups;
    size_t group_count;
    struct order_window window;
};

int order_open(struct order **opened, struct input *input, bool shuffle, uint64_t seed,
               uint64_t window_tokens)
{
    *opened = NULL;
    struct order *order = mem_alloc_zero(1, sizeof *order);
    if (order == NULL)
        return mem_fail("an order", 1, sizeof *order);
    order->input = input;
    order->shuffle = shuffle;
    order->seed = seed;
    order->window_tokens = window_tokens;
    order->single = input_is_single(input);
    int status = shuffle && !order->single
                     ? input_list_groups(input, &order->groups, &order->group_count)
                     : 0;
    if (status == 0)
        status = mem_require(order_memory(order), "a window of row groups to shuffle");
    if (status != 0) {
        order_free(order);
        return status;
    }
    *opened = order;
    return 0;
}

void order_free(struct order *order)
{
    if (order == NULL)
        return;
    free(order->window.ids);
    free(order->window.held);
    free(order->groups);
    free(order);
}

/* ---- windows */

static uint64_t order_stream(const struct order *order, uint64_t number)
{
    return order->epoch << 32 | number;
}

static const struct source_group *order_group(const struct order *order, size_t i)
{
    return &order->groups[perm_at(&order->perm, i)];
}

/* Sets the window to the groups from `first` on that come before the budget is spent. */
static void order_set_window(struct order *order, uint64_t number, size_t first, uint64_t start)
{
    struct order_window *window = &order->window;
    uint64_t tokens = 0;
    window->number = number;
    window->first = first;
    window->start = start;
    window->count = 0;
    window->sequences = 0;
    window->decoded = false;
    while (first + window->count < order->group_count) {
        const struct source_group *group = order_group(order, first + window->count);
        if (window->count > 0 && group->tokens > order->window_tokens - tokens)
            break;
        tokens += group->tokens < order->window_tokens - tokens ? group->tokens
                                                                : order->window_tokens - tokens;
        window->sequences += group->count;
        window->count++;
    }
    if (window->sequences > 0)
        perm_init(&window->perm, window->sequences, order->seed, order_stream(order, number + 1));
}

static int order_reserve(struct order_window *window, size_t tokens)
{
    if (tokens > window->ids_room - window->ids_used) {
        size_t room = window->ids_room + window->ids_room / 2 + tokens;
        uint32_t *grown = mem_resize(window->ids, room, sizeof *grown);
        if (grown == NULL)
            return mem_fail("a window of row groups", room, sizeof *grown);
        window->ids = grown;
        window->ids_room = room;
    }
    if (window->held_count == window->held_room) {
        size_t room = 2 * window->held_room + 1024;
        struct order_held *grown = mem_resize(window->held, room, sizeof *grown);
        if (grown == NULL)
            return mem_fail("a window of row groups", room, sizeof *grown);
        window->held = grown;
        window->held_room = room;
    }
    return 0;
}

static int order_hold(struct order_window *window, uint64_t place,
                      const struct source_sequence *sequence)
{
    int status = order_reserve(window, sequence->length);
    if (status != 0)
        return status;
    if (sequence->length > 0)
        memcpy(window->ids + window->ids_used, sequence->ids,
               sequence->length * sizeof *sequence->ids);
    window->held[window->held_count++] = (struct order_held){
        .place = place, .cut = sequence->cut, .at = window->ids_used, .length = sequence->length};
    window->ids_used += sequence->length;
    return 0;
}

static int order_decode_window(struct order *order)
{
    struct order_window *window = &order->window;
    int status = 0;
    window->ids_used = window->held_count = 0;
    for (size_t g = 0; g < window->count && status == 0; g++) {
        const struct source_group *group = order_group(order, window->first + g);
        status = input_seek(order->input, group->first);
        status = status == 1 ? 0 : status;
        for (uint64_t k = 0; k < group->count && status == 0; k++) {
            struct source_sequence sequence;
            uint64_t place;
            status = input_next(order->input, &place, &sequence);
            if (status == 0)
                return log_fail(ERR_DATA, "sequence %" PRIu64 " of the input is missing",
                                group->first + k);
            if (status == 1)
                status = order_hold(window, place, &sequence);
        }
    }
    window->decoded = status == 0;
    return status;
}

static int order_next_in_window(struct order *order, struct order_item *item)
{
    struct order_window *window = &order->window;
    while (order->position >= window->start + window->sequences) {
        if (window->first + window->count >= order->group_count)
            return 0;
        order_set_window(order, window->number + 1, window->first + window->count,
                         window->start + window->sequences);
    }
    int status = window->decoded ? 0 : order_decode_window(order);
    if (status != 0)
        return status;
    uint64_t i = perm_at(&window->perm, order->position - window->start);
    const struct order_held *held = &window->held[i];
    item->place = held->place;
    item->sequence = (struct source_sequence){window->ids + held->at, held->length, held->cut};
    return 1;
}

/* ---- all orders */

int order_start(struct order *order, uint64_t epoch)
{
    order->epoch = epoch;
    order->position = 0;
    order->input->at_rest = true;
    if (!order->shuffle)
        return 0;
    uint64_t count = order->single ? input_count(order->input) : order->group_count;
    if (count > 0)
        perm_init(&order->perm, count, order->seed, order_stream(order, 0));
    if (!order->single)
        order_set_window(order, 0, 0, 0);
    return 0;
}

/* Any sequence can be next: that at `position`. */
static int order_next_single(struct order *order, struct order_item *item)
{
    if (order->position >= input_count(order->input))
        return 0;
    int status = input_seek(order->input, perm_at(&order->perm, order->position));
    return status != 1 ? status : input_next(order->input, &item->place, &item->sequence);
}

static int order_next_plain(struct order *order, uint64_t skip, struct order_item *item)
{
    if (skip > 0) {
        int status = input_seek(order->input, order->position);
        if (status != 1)
            return status;
    }
    return input_next(order->input, &item->place, &item->sequence);
}

int order_next(struct order *order, uint64_t skip, struct order_item *item)
{
    if (__builtin_add_overflow(order->position, skip, &order->position))
        return 0;
    int status = !order->shuffle ? order_next_plain(order, skip, item)
                 : order->single ? order_next_single(order, item)
                                 : order_next_in_window(order, item);
    order->position += status == 1;
    return status;
}

uint64_t order_memory(const struct order *order)
{
    uint64_t largest = 0, all = 0;
    for (size_t i = 0; i < order->group_count; i++) {
        uint64_t tokens = order->groups[i].tokens;
        largest = tokens > largest ? tokens : largest;
        all = tokens < UINT64_MAX / 8 - all ? all + tokens : UINT64_MAX / 8;
    }
    uint64_t most = all < order->window_tokens ? all : order->window_tokens;
    return (largest > most ? largest : most) * sizeof *order->window.ids;
}
