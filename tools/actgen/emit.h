/* emit.h - sequences through the engine, pass by pass: to mean norms, or to rows of a stream. */
#ifndef CCPIPE_EMIT_H
#define CCPIPE_EMIT_H

#include <stdint.h>

#include "common/err.h"
#include "common/progress.h"
#include "common/stream.h"
#include "engine.h"
#include "tokens.h"
#include "window.h"

struct emit {
    struct engine *engine;
    struct tokens *tokens;
    const struct sources *sources;
    struct pass_rule rule;
    size_t batch;       /* sequences of a pass */
    uint32_t length;    /* of a sequence, that is reserved */
    uint64_t announced; /* rows that BEGIN says, 0: unknown */
    struct pass passes[ENGINE_DEPTH];
    struct window *window;          /* where rows stay on the device, else NULL */
    uint32_t buffers[ENGINE_DEPTH]; /* in which the rows of a pass lie there */

    /* of the run going on */
    struct pass_skipped skipped;
    uint64_t sequences;
    uint64_t candidates; /* rows that the rule let through */
};

/* Makes room for passes of `tokens` tokens. A longer sequence makes more room when it comes. */
int emit_reserve(struct emit *emit, size_t tokens, uint32_t length) MUST_CHECK;
void emit_free(struct emit *emit);

/* Bytes of host memory that emit_reserve() takes beside the engine's. */
uint64_t emit_host_bytes(const struct engine *engine, size_t tokens, size_t batch);

/* means[source]: the mean norm over the rows of the sequences that are held; *rows of them. Rows
 * that are not finite are left out; ERR_DATA where no other is there. */
int emit_measure(struct emit *emit, double *means, uint64_t *rows) MUST_CHECK;

/* Writes the rows of all sequences. Where input fails, those that came before are written first.
 * ERR_DATA where more than 1 in 1000 rows are not finite: at the end, or once there are more than
 * 1 in 1000 of what is announced. */
int emit_rows(struct emit *emit, struct stream_writer *writer, const double *factors,
              struct progress *progress) MUST_CHECK;

#endif
