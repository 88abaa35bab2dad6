/* mix.c - see mix.h.
 *
 * Which part is next depends on the counts taken so far alone. What is passed over is only counted,
 * and skipped in its order when the next sequence of that part is wanted, so that skipping costs no
 * decoding.
 */
#include "mix.h"

void mix_start(struct mix *mix)
{
    for (size_t i = 0; i < mix->count; i++)
        mix->parts[i].taken = mix->parts[i].pending = 0;
    mix->taken = 0;
}

/* The part that is next. */
static size_t mix_choose(const struct mix *mix)
{
    size_t best = 0;
    double best_lack = 0;
    for (size_t i = 0; i < mix->count; i++) {
        const struct mix_part *part = &mix->parts[i];
        double lack = part->weight / mix->weights * ((double)mix->taken + 1) - (double)part->taken;
        if (i == 0 || lack > best_lack) {
            best = i;
            best_lack = lack;
        }
    }
    return best;
}

/* Takes from `part`; false where it has no more. */
static bool mix_take(struct mix *mix, struct mix_part *part)
{
    if (part->taken == input_count(&part->input))
        return false;
    part->taken++;
    mix->taken++;
    return true;
}

int mix_next(struct mix *mix, uint64_t skip, struct order_item *item, size_t *ended)
{
    *ended = 0;
    if (mix->count == 1) /* which may not be counted */
        return order_next(mix->parts[0].order, skip, item);
    for (;; skip--) {
        *ended = mix_choose(mix);
        struct mix_part *part = &mix->parts[*ended];
        if (!mix_take(mix, part))
            return 0;
        if (skip == 0) {
            int status = order_next(part->order, part->pending, item);
            part->pending = 0;
            item->place += part->first;
            return status;
        }
        part->pending++;
    }
}

uint64_t mix_count(struct mix *mix)
{
    if (mix->count == 1)
        return input_count(&mix->parts[0].input);
    mix_start(mix);
    while (mix_take(mix, &mix->parts[mix_choose(mix)]))
        ;
    uint64_t count = mix->taken;
    mix_start(mix);
    return count;
}
