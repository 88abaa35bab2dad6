/* window.h - rows that stay on the device: a window of pass buffers from which the trainer takes
 * them (--via cuda-ipc), or which are sent to it (--via nccl), while DATA says of each row its hash
 * and its place.
 *
 * The buffers are the engine's; this is who may read which of them when (common/plane.h), and the
 * rows of DATA.
 */
#ifndef CCPIPE_WINDOW_H
#define CCPIPE_WINDOW_H

#include "common/begin.h"
#include "common/err.h"
#include "common/stream.h"
#include "engine.h"

/* Buffers: one being filled, one whose rows are announced, one that is still read. */
enum { WINDOW_BUFFERS = 3 };

struct window;

/* 0, or ERR_USAGE where rows cannot stay on a device: `output` (NULL, "-": standard output) is a
 * regular file, or will be. */
int window_check_output(const char *output, enum begin_plane kind) MUST_CHECK;
/* The same where the device has no such window. */
int window_check_device(const struct engine *engine, enum begin_plane kind) MUST_CHECK;

/* Makes a window of the engine's, which must stay where it is until window_free(), and listens;
 * `begin` gets what a trainer needs to attach. Writes of `writer` end once the trainer is lost. */
int window_open(struct window **window, enum begin_plane kind, struct engine *engine,
                struct stream_writer *writer, struct begin *begin) MUST_CHECK;
void window_free(struct window *window);

/* Behind BEGIN: waits for the trainer. */
int window_accept(struct window *window) MUST_CHECK;
/* Waits for a buffer that may be filled. */
int window_take(struct window *window, uint32_t *buffer) MUST_CHECK;
/* A buffer is full: `rows` rows, of which DATA has `served`. */
int window_announce(struct window *window, uint32_t buffer, size_t rows, size_t served) MUST_CHECK;
/* Writes rows first .. end - 1 of the pass that engine_finish() waited for. */
int window_write(struct window *window, const uint8_t *tags, uint32_t buffer, size_t first,
                 size_t end) MUST_CHECK;
/* Behind END: waits until the trainer has taken everything. */
int window_finish(struct window *window) MUST_CHECK;

/* What a failure is where the trainer may be its cause: `status` itself, ERR_PEER, or ERR_CLOSED.
 */
int window_status(struct window *window, int status);

#endif
