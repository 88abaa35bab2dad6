/* top.h - the rows that a latent answers to most, with the tokens around them.
 *
 * A sequence's value for a latent is its largest activation in it; each latent keeps the n
 * sequences with the largest values (exactly: a heap, no sample), ties to the sequence that came
 * first. Sequences with the same tokens are taken once; sequences of one row, which packed arrays
 * are made of, are never taken for repeats. Context is what rows carry: positions that gave no row
 * (BOS) are not in it.
 *
 * Rows must come in sequence order, the rows of a sequence together and with rising positions. A
 * stream that was shuffled is refused.
 *
 * Memory: the kept contexts, the sequence at hand with its non-zero activations, and at most 200
 * bytes for each sequence seen.
 */
#ifndef CCANALYZE_TOP_H
#define CCANALYZE_TOP_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "scan.h"

struct top;

struct top_setup {
    const uint64_t *latents; /* the chosen ones, each below F and each once */
    size_t latent_count;
    size_t all_latents; /* F */
    size_t n;           /* examples for each */
    size_t context;     /* tokens before, and after */
};

/* One kept row. ids and activations (length) are the context; its own place in it is `at`. */
struct top_example {
    float activation;
    uint64_t sequence;
    uint32_t position, token;
    uint64_t order; /* of its sequence among those of the stream */
    size_t length, at;
    const uint32_t *ids;
    const float *activations; /* of the latent at each token of the context */
};

int top_open(struct top **top, const struct top_setup *setup) MUST_CHECK;
void top_free(struct top *top);

/* ERR_USAGE (logged) where BEGIN or one before it says that the stream was shuffled. */
int top_check_begin(const struct begin *begin) MUST_CHECK;

/* ERR_USAGE (logged) where the rows are not in sequence order or a sequence is too long, ERR_DATA
 * where its number does not fit into JSON. */
int top_add(struct top *top, const struct scan_block *block) MUST_CHECK;

/* After the last block: takes the last sequence, and sorts. */
int top_finish(struct top *top) MUST_CHECK;

/* The examples of the k-th chosen latent, the strongest first; valid until top_free(). */
size_t top_count(const struct top *top, size_t k);
const struct top_example *top_example(const struct top *top, size_t k, size_t rank);

/* Bytes that top_open() takes. */
uint64_t top_bytes(const struct top_setup *setup);

#endif
