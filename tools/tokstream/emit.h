/* emit.h - where sequences go: a token stream, or JSON lines. */
#ifndef TOKSTREAM_EMIT_H
#define TOKSTREAM_EMIT_H

#include "common/begin.h"
#include "common/stream.h"
#include "select.h"

enum emit_format { EMIT_STREAM, EMIT_JSONL };
#define EMIT_FORMAT_CHOICES "stream|jsonl" /* in the order of the enum */

struct emit;

/* path: NULL or "-" is standard output. The stream's BEGIN is written. */
int emit_open(struct emit **emit, enum emit_format format, const char *path,
              enum stream_codec codec, unsigned threads, const struct begin *begin) MUST_CHECK;
void emit_free(struct emit *emit);

int emit_sequence(struct emit *emit, const struct select_item *item) MUST_CHECK;

/* Ends the output; `skipped` is for END, borrowed. */
int emit_end(struct emit *emit, const json_t *skipped) MUST_CHECK;

/* Where the run failed with `code`: ABORT in a stream; JSON lines have nothing of the kind. */
void emit_abort(struct emit *emit, int code);

const struct io_file *emit_file(const struct emit *emit);

#endif
