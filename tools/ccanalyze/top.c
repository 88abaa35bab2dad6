/* top.c - the sequence at hand is kept whole, sparsely; at its end it is offered to the heaps.
 *
 * Only at a sequence's end is it known what its maximum is and whether its tokens have come before,
 * so nothing is copied into a heap earlier. Of its activations the non-zero ones of the chosen
 * latents are kept, row by row in order of the latent, about L0 per row instead of all.
 *
 * A heap has its smallest value on top. A sequence that comes later must be larger to get in, so
 * that equal values stay with the sequence that came first.
 */
#include "top.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "common/log.h"
#include "common/mem.h"
#include "seen.h"

#define TOP_MAX_ROWS (1u << 20)     /* of one sequence */
#define TOP_MAX_ENTRIES (64u << 20) /* non-zero activations of one sequence */

/* An activation of the row at hand. */
struct top_entry {
    uint32_t k; /* which chosen latent */
    float activation;
};

/* The sequence at hand. */
struct top_sequence {
    uint64_t index, order; /* order: how many came before */
    size_t rows, capacity;
    uint32_t *positions, *ids; /* (rows) */
    size_t *first;             /* (rows + 1) entries of row i: first[i] .. first[i + 1] - 1 */
    struct top_entry *entries;
    size_t entry_count, entry_capacity;
};

/* The best row of the sequence at hand for a latent. */
struct top_best {
    float activation; /* 0: the latent has not fired */
    uint32_t row;
};

struct top {
    size_t latents, all_latents, n, context;
    uint64_t *chosen;             /* (latents) */
    struct top_example *examples; /* (latents, n) heaps, sorted at the end */
    size_t *counts;               /* (latents) */
    uint32_t *ids;                /* (latents, n, 2 context + 1), an example's own place for good */
    float *activations;           /* the same */
    struct top_best *best;        /* (latents) */
    uint32_t *touched;            /* (latents) latents with a best row */
    size_t touched_count;
    struct top_sequence sequence;
    struct seen sequences; /* index -> first position */
    struct seen tokens;    /* hash of the tokens, low half -> high half */
};

static size_t top_span(const struct top_setup *setup)
{
    return 2 * setup->context + 1;
}

uint64_t top_bytes(const struct top_setup *setup)
{
    uint64_t example = sizeof(struct top_example) + top_span(setup) * 8;
    return setup->latent_count * (setup->n * example + 32);
}

int top_open(struct top **result, const struct top_setup *setup)
{
    *result = NULL;
    size_t count = setup->latent_count, examples, tokens;
    if (!mem_mul(&examples, count, setup->n) || !mem_mul(&tokens, examples, top_span(setup)))
        return mem_fail("examples", count, setup->n);
    int status = mem_require(top_bytes(setup), "the examples of all latents asked for");
    if (status != 0)
        return status;
    struct top *top = mem_alloc_zero(1, sizeof *top);
    if (top == NULL)
        return mem_fail("examples", 1, sizeof *top);
    top->latents = count;
    top->all_latents = setup->all_latents;
    top->n = setup->n;
    top->context = setup->context;
    top->chosen = mem_alloc(count, sizeof *top->chosen);
    top->examples = mem_alloc_zero(examples, sizeof *top->examples);
    top->counts = mem_alloc_zero(count, sizeof *top->counts);
    top->ids = mem_alloc_zero(tokens, sizeof *top->ids);
    top->activations = mem_alloc_zero(tokens, sizeof *top->activations);
    top->best = mem_alloc_zero(count, sizeof *top->best);
    top->touched = mem_alloc_zero(count, sizeof *top->touched);
    if (top->chosen == NULL || top->examples == NULL || top->counts == NULL || top->ids == NULL ||
        top->activations == NULL || top->best == NULL || top->touched == NULL) {
        top_free(top);
        return mem_fail("examples", tokens, 8);
    }
    if (count > 0)
        memcpy(top->chosen, setup->latents, count * sizeof *top->chosen);
    for (size_t i = 0; i < examples; i++) {
        top->examples[i].ids = top->ids + i * top_span(setup);
        top->examples[i].activations = top->activations + i * top_span(setup);
    }
    *result = top;
    return 0;
}

void top_free(struct top *top)
{
    if (top == NULL)
        return;
    free(top->chosen);
    free(top->examples);
    free(top->counts);
    free(top->ids);
    free(top->activations);
    free(top->best);
    free(top->touched);
    free(top->sequence.positions);
    free(top->sequence.ids);
    free(top->sequence.first);
    free(top->sequence.entries);
    seen_free(&top->sequences);
    seen_free(&top->tokens);
    free(top);
}

/* ---- order */

static int top_shuffled(const char *why)
{
    return log_fail(ERR_USAGE,
                    "contexts need rows in sequence order, and %s; give the cache or pipe before "
                    "shufbuf",
                    why);
}

int top_check_begin(const struct begin *begin)
{
    static const char shufbuf[] = "shufbuf";
    bool shuffled = strncmp(begin->tool, shufbuf, sizeof shufbuf - 1) == 0;
    for (const json_t *up = begin->upstream; up != NULL; up = json_object_get(up, "upstream")) {
        const char *tool = json_string_value(json_object_get(up, "tool"));
        shuffled = shuffled || (tool != NULL && strncmp(tool, shufbuf, sizeof shufbuf - 1) == 0);
    }
    return shuffled ? top_shuffled("this stream went through shufbuf") : 0;
}

/* A sequence may come again as a whole (another epoch, another part of a cat); a piece of one that
 * has been left shows that rows were shuffled. */
static int top_check_return(struct top *top, const struct stream_tag *tag)
{
    if (tag->sequence > INT64_MAX)
        return log_fail(ERR_DATA, "sequence %" PRIu64 ": numbers above 2^63 - 1 are not supported",
                        tag->sequence);
    const uint64_t *first = seen_find(&top->sequences, tag->sequence);
    if (first == NULL)
        return seen_add(&top->sequences, tag->sequence, tag->position);
    if (*first == tag->position)
        return 0;
    char why[96];
    snprintf(why, sizeof why, "sequence %" PRIu64 " goes on at position %" PRIu32 " after another",
             tag->sequence, tag->position);
    return top_shuffled(why);
}

static int top_check_position(const struct top_sequence *sequence, const struct stream_tag *tag)
{
    char why[96];
    if (tag->position > sequence->positions[sequence->rows - 1])
        return 0;
    snprintf(why, sizeof why, "in sequence %" PRIu64 " position %" PRIu32 " follows %" PRIu32,
             tag->sequence, tag->position, sequence->positions[sequence->rows - 1]);
    return top_shuffled(why);
}

/* ---- the sequence at hand */

static int top_grow_rows(struct top_sequence *sequence)
{
    size_t capacity = sequence->capacity == 0 ? 1024 : sequence->capacity * 2;
    if (sequence->rows >= TOP_MAX_ROWS)
        return log_fail(ERR_USAGE, "sequence %" PRIu64 " has more than %u rows", sequence->index,
                        TOP_MAX_ROWS);
    uint32_t *positions = mem_resize(sequence->positions, capacity, sizeof *positions);
    if (positions != NULL)
        sequence->positions = positions;
    uint32_t *ids = mem_resize(sequence->ids, capacity, sizeof *ids);
    if (ids != NULL)
        sequence->ids = ids;
    size_t *first = mem_resize(sequence->first, capacity + 1, sizeof *first);
    if (first != NULL)
        sequence->first = first;
    if (positions == NULL || ids == NULL || first == NULL)
        return mem_fail("a sequence", capacity, sizeof *first);
    sequence->capacity = capacity;
    return 0;
}

/* Room for the entries of one more row, `latents` at most. */
static int top_grow_entries(struct top_sequence *sequence, size_t latents)
{
    size_t needed = sequence->entry_count + latents;
    if (needed <= sequence->entry_capacity)
        return 0;
    if (needed > TOP_MAX_ENTRIES)
        return log_fail(ERR_USAGE,
                        "sequence %" PRIu64 " has more than %u activations; choose fewer latents "
                        "with --latents",
                        sequence->index, TOP_MAX_ENTRIES);
    struct top_entry *grown = mem_resize(sequence->entries, 2 * needed, sizeof *grown);
    if (grown == NULL)
        return mem_fail("a sequence", 2 * needed, sizeof *grown);
    sequence->entries = grown;
    sequence->entry_capacity = 2 * needed;
    return 0;
}

static void top_note_best(struct top *top, uint32_t k, float activation, uint32_t row)
{
    struct top_best *best = &top->best[k];
    if (best->activation == 0)
        top->touched[top->touched_count++] = k;
    if (activation > best->activation)
        *best = (struct top_best){activation, row};
}

static int top_add_row(struct top *top, const struct stream_tag *tag, const float *f)
{
    struct top_sequence *sequence = &top->sequence;
    int status = sequence->rows < sequence->capacity ? 0 : top_grow_rows(sequence);
    if (status == 0)
        status = top_grow_entries(sequence, top->latents);
    if (status != 0)
        return status;
    size_t row = sequence->rows++;
    sequence->positions[row] = tag->position;
    sequence->ids[row] = tag->token;
    sequence->first[row] = sequence->entry_count;
    for (size_t k = 0; k < top->latents; k++) {
        float activation = f[top->chosen[k]];
        if (!(activation > 0))
            continue;
        sequence->entries[sequence->entry_count++] = (struct top_entry){(uint32_t)k, activation};
        top_note_best(top, (uint32_t)k, activation, (uint32_t)row);
    }
    sequence->first[row + 1] = sequence->entry_count;
    return 0;
}

/* 1 where these tokens have come before, 0 where not (they are noted), or negative. */
static int top_is_repeat(struct top *top)
{
    const struct top_sequence *sequence = &top->sequence;
    if (sequence->rows < 2)
        return 0;
    XXH128_hash_t hash = XXH3_128bits(sequence->ids, sequence->rows * sizeof *sequence->ids);
    uint64_t *high = seen_find(&top->tokens, hash.low64);
    if (high == NULL)
        return seen_add(&top->tokens, hash.low64, hash.high64);
    return *high == hash.high64;
}

/* ---- heaps */

/* Whether example a leaves before b: smaller, or equal and later. */
static bool top_weaker(const struct top_example *a, const struct top_example *b)
{
    return a->activation < b->activation || (a->activation == b->activation && a->order > b->order);
}

static void top_swap(struct top_example *a, struct top_example *b)
{
    struct top_example swap = *a;
    *a = *b;
    *b = swap;
}

static void top_sift_up(struct top_example *heap, size_t i)
{
    for (; i > 0 && top_weaker(&heap[i], &heap[(i - 1) / 2]); i = (i - 1) / 2)
        top_swap(&heap[i], &heap[(i - 1) / 2]);
}

static void top_sift_down(struct top_example *heap, size_t count)
{
    for (size_t i = 0;;) {
        size_t least = i, left = 2 * i + 1;
        for (size_t child = left; child < count && child < left + 2; child++)
            if (top_weaker(&heap[child], &heap[least]))
                least = child;
        if (least == i)
            return;
        top_swap(&heap[i], &heap[least]);
        i = least;
    }
}

/* The activation of chosen latent k in a row of the sequence at hand: its entries lie in order. */
static float top_activation(const struct top_sequence *sequence, size_t row, uint32_t k)
{
    size_t low = sequence->first[row], high = sequence->first[row + 1];
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sequence->entries[middle].k < k)
            low = middle + 1;
        else
            high = middle;
    }
    bool there = low < sequence->first[row + 1] && sequence->entries[low].k == k;
    return there ? sequence->entries[low].activation : 0;
}

/* Writes the row into a place of the heap, whose ids and activations it keeps. */
static void top_fill(struct top *top, struct top_example *example, uint32_t k)
{
    const struct top_sequence *sequence = &top->sequence;
    size_t row = top->best[k].row;
    size_t from = row > top->context ? row - top->context : 0;
    size_t to = sequence->rows - row > top->context ? row + top->context + 1 : sequence->rows;
    size_t place = (size_t)(example->ids - top->ids);
    uint32_t *ids = top->ids + place;
    float *activations = top->activations + place;
    for (size_t i = from; i < to; i++) {
        ids[i - from] = sequence->ids[i];
        activations[i - from] = top_activation(sequence, i, k);
    }
    example->activation = top->best[k].activation;
    example->sequence = sequence->index;
    example->position = sequence->positions[row];
    example->token = sequence->ids[row];
    example->order = sequence->order;
    example->length = to - from;
    example->at = row - from;
}

static void top_offer(struct top *top, uint32_t k)
{
    struct top_example *heap = top->examples + k * top->n;
    if (top->counts[k] < top->n) {
        size_t i = top->counts[k]++;
        top_fill(top, &heap[i], k);
        top_sift_up(heap, i);
    } else if (top->n > 0 && top->best[k].activation > heap[0].activation) {
        top_fill(top, &heap[0], k);
        top_sift_down(heap, top->n);
    }
}

static int top_end_sequence(struct top *top)
{
    struct top_sequence *sequence = &top->sequence;
    if (sequence->rows == 0)
        return 0;
    int repeat = top_is_repeat(top);
    if (repeat < 0)
        return repeat;
    for (size_t i = 0; i < top->touched_count; i++) {
        if (repeat == 0)
            top_offer(top, top->touched[i]);
        top->best[top->touched[i]] = (struct top_best){0};
    }
    top->touched_count = 0;
    sequence->rows = 0;
    sequence->entry_count = 0;
    sequence->order++;
    return 0;
}

/* ---- rows */

int top_add(struct top *top, const struct scan_block *block)
{
    struct top_sequence *sequence = &top->sequence;
    for (size_t i = 0; i < block->rows; i++) {
        const struct stream_tag *tag = &block->tags[i];
        int status;
        /* The same sequence from its start is another copy of it: a cat of two parts. */
        if (sequence->rows > 0 && tag->sequence == sequence->index &&
            tag->position != sequence->positions[0]) {
            status = top_check_position(sequence, tag);
        } else {
            status = top_end_sequence(top);
            if (status == 0)
                status = top_check_return(top, tag);
            sequence->index = tag->sequence;
        }
        if (status == 0)
            status = top_add_row(top, tag, block->f + i * top->all_latents);
        if (status != 0)
            return status;
    }
    return 0;
}

static int top_compare(const void *a, const void *b)
{
    return top_weaker(a, b) ? 1 : -1; /* no two are equal: their order differs */
}

int top_finish(struct top *top)
{
    int status = top_end_sequence(top);
    for (size_t k = 0; status == 0 && k < top->latents; k++)
        qsort(top->examples + k * top->n, top->counts[k], sizeof *top->examples, top_compare);
    return status;
}

size_t top_count(const struct top *top, size_t k)
{
    return top->counts[k];
}

const struct top_example *top_example(const struct top *top, size_t k, size_t rank)
{
    assert(k < top->latents && rank < top->counts[k]);
    return &top->examples[k * top->n + rank];
}
