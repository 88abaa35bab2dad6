/* bytes.h - a window that moves over a file, pipe or terminal.
 *
 * What parsers see of their input: so many bytes in one piece from here on, however they come. A
 * regular file is read with pread(), so the window may be set anywhere; of anything else it only
 * moves on. Behind the bytes of the window BYTES_SLACK more may be read (their values mean
 * nothing), so that bits can be taken out in words.
 */
#ifndef TOKSTREAM_BYTES_H
#define TOKSTREAM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/io.h"

#define BYTES_SLACK 8
#define BYTES_AHEAD ((size_t)256 << 10) /* to read at once where reading goes on behind it */

struct bytes {
    struct io_file file;
    int64_t size; /* of a regular file, as it was opened; -1: not known before the end */
    uint8_t *buffer;
    size_t room, start, end; /* the window is buffer[start .. end) */
    int64_t offset;          /* in the file, of buffer[end] */
    size_t step;             /* the most to read ahead: little behind a jump, then more and more */
    bool ended;              /* a pipe has no more than the window */
};

/* path "-" is standard input. */
int bytes_open(struct bytes *bytes, const char *path) MUST_CHECK;

/* Legal on a struct that is zeroed, was closed, or failed to open. */
void bytes_close(struct bytes *bytes);

/* Gives memory back; of a regular file the window is empty afterwards, of a pipe nothing is lost.
 */
void bytes_rest(struct bytes *bytes);

/* Makes the window `size` bytes long at least, unless input ends before; where something has to be
 * read, up to `ahead` bytes long, if reading has gone on from byte to byte so far. A signal ends it
 * with ERR_INTERRUPTED. */
int bytes_want(struct bytes *bytes, size_t size, size_t ahead) MUST_CHECK;

/* The window. Pointers into it are valid until the next bytes_want(). */
static inline const uint8_t *bytes_at(const struct bytes *bytes)
{
    return bytes->buffer + bytes->start;
}

static inline size_t bytes_have(const struct bytes *bytes)
{
    return bytes->end - bytes->start;
}

/* Moves on over `size` <= bytes_have() bytes. */
static inline void bytes_use(struct bytes *bytes, size_t size)
{
    bytes->start += size;
}

/* Where the window begins in the file. */
static inline int64_t bytes_offset(const struct bytes *bytes)
{
    return bytes->offset - (int64_t)bytes_have(bytes);
}

/* Sets the beginning of the window; regular files only. */
void bytes_seek(struct bytes *bytes, int64_t offset);

/* Moves on over `size` bytes, which need not be in the window: 1, or 0 where input ends before. */
int bytes_skip(struct bytes *bytes, uint64_t size) MUST_CHECK;

#endif
