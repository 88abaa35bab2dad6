/* frame.h - the units that a stream's bytes come in, and the codecs.
 *
 * A frame is a bare record, or an LZ4 or zstd frame whose content is exactly one record, or a
 * skippable frame with the advisory index. frame_read() finds the end of a frame without decoding
 * it, so that decoding can go on elsewhere; frame_decode() gives the record back with its checksums
 * verified. Both bound what they allocate by the format's limits before they believe a size.
 */
#ifndef CCPIPE_FRAME_H
#define CCPIPE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "io.h"
#include "record.h"
#include "stream.h"

enum frame_kind { FRAME_BARE, FRAME_LZ4, FRAME_ZSTD, FRAME_SKIPPABLE };

/* Bytes that grow as needed. */
struct frame_buffer {
    uint8_t *bytes;
    size_t size, capacity;
};

struct frame {
    enum frame_kind kind;
    int64_t offset; /* of its first byte in the file */
    struct frame_buffer stored;
};

/* A decoded record. payload points into `content`. */
struct frame_record {
    struct record_header header;
    const uint8_t *payload;
    struct frame_buffer content;
};

int frame_buffer_reserve(struct frame_buffer *buffer, size_t capacity) MUST_CHECK;
void frame_buffer_free(struct frame_buffer *buffer);

/* Reads the next frame from where `file` stands: 1; 0 at the end of input; ERR_TRUNCATED where
 * input ends inside a frame, ERR_DATA where no frame begins (logged with the offset). Skippable
 * frames are read whole up to FRAME_MAX_KEPT bytes, longer ones are passed over and leave `stored`
 * empty. */
int frame_read(struct frame *frame, struct io_file *file) MUST_CHECK;

/* The same from byte `at` of a regular file, whatever has been read before; the file's own position
 * is untouched. Not logged: who calls this is looking for something that may not be there. */
int frame_read_at(struct frame *frame, const struct io_file *file, int64_t at) MUST_CHECK;

/* Where the frame that begins at `at` ends, without reading its body: 1 with *end, 0 at the end
 * of the file, or as frame_read_at(), not logged. */
int frame_measure(const struct io_file *file, int64_t at, int64_t *end,
                  enum frame_kind *kind) MUST_CHECK;

/* Decodes a frame that is not skippable and checks the record's header and payload. ERR_DATA,
 * logged with `name` and the offset unless name is NULL; ERR_MEMORY, logged. */
int frame_decode(struct frame_record *record, const struct frame *frame,
                 const char *name) MUST_CHECK;

/* Encodes one record (header and payload in one piece of `size` bytes) as a frame of `codec`, which
 * is LZ4 or ZSTD, into `out`. ERR_MEMORY alone. */
int frame_encode(struct frame_buffer *out, enum stream_codec codec, const uint8_t *record,
                 size_t size) MUST_CHECK;

#define FRAME_MAX_KEPT (1u << 30)

#endif
