/* bytes.c - see bytes.h.
 *
 * The window's bytes move to the front of the buffer only when more have to be read behind them, so
 * each byte is copied a few times at most. Of a regular file nothing is read beyond the size that
 * it had when it was opened: one that grows is read as it was, one that shrinks is ERR_TRUNCATED.
 */
#include "bytes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/sig.h"

#define BYTES_FIRST_STEP ((size_t)4 << 10)
#define BYTES_MAX_STEP ((size_t)64 << 20)

int bytes_open(struct bytes *bytes, const char *path)
{
    *bytes = (struct bytes){.size = -1, .step = BYTES_AHEAD};
    int status = io_open_input(&bytes->file, path);
    if (status != 0 || !bytes->file.regular)
        return status;
    bytes->size = io_size(&bytes->file);
    return bytes->size < 0 ? (int)bytes->size : 0;
}

void bytes_close(struct bytes *bytes)
{
    if (bytes->file.name != NULL) {
        int ignored = io_close(&bytes->file); /* it was read only */
        (void)ignored;
    }
    free(bytes->buffer);
    bytes->buffer = NULL;
    bytes->room = bytes->start = bytes->end = 0;
}

void bytes_rest(struct bytes *bytes)
{
    if (bytes->size < 0)
        return;
    bytes->offset = bytes_offset(bytes);
    free(bytes->buffer);
    bytes->buffer = NULL;
    bytes->room = bytes->start = bytes->end = 0;
}

/* Room for `size` bytes from the window's beginning, which moves to the front. */
static int bytes_reserve(struct bytes *bytes, size_t size)
{
    size_t have = bytes_have(bytes);
    if (bytes->start > 0 && have > 0)
        memmove(bytes->buffer, bytes_at(bytes), have);
    bytes->start = 0;
    bytes->end = have;
    if (size <= bytes->room)
        return 0;
    uint8_t *grown =
        size > SIZE_MAX - BYTES_SLACK ? NULL : mem_resize(bytes->buffer, size + BYTES_SLACK, 1);
    if (grown == NULL)
        return mem_fail(bytes->file.name, size, 1);
    memset(grown + size, 0, BYTES_SLACK);
    bytes->buffer = grown;
    bytes->room = size;
    return 0;
}

int bytes_want(struct bytes *bytes, size_t size, size_t ahead)
{
    size_t have = bytes_have(bytes);
    if (have >= size || bytes->ended)
        return 0;
    size_t goal = ahead - have < bytes->step ? ahead : have + bytes->step;
    goal = size > ahead || size > goal ? size : goal;
    bytes->step = bytes->step < BYTES_MAX_STEP ? 2 * bytes->step : bytes->step;
    if (bytes->size >= 0) {
        uint64_t left = (uint64_t)(bytes->size - bytes_offset(bytes));
        goal = left < goal ? (size_t)left : goal;
    }
    if (goal <= have)
        return 0;
    int status = bytes_reserve(bytes, goal);
    if (status != 0)
        return status;
    size_t more = goal - have;
    if (bytes->size >= 0) {
        if (sig_pending() != 0) /* io_read() looks by itself */
            return ERR_INTERRUPTED;
        status = io_pread(&bytes->file, bytes->buffer + have, more, bytes->offset);
        if (status != 0)
            return status;
    } else {
        ssize_t got = io_read(&bytes->file, bytes->buffer + have, more);
        if (got < 0)
            return (int)got;
        bytes->ended = (size_t)got < more;
        more = (size_t)got;
    }
    bytes->end += more;
    bytes->offset += (int64_t)more;
    return 0;
}

void bytes_seek(struct bytes *bytes, int64_t offset)
{
    assert(bytes->size >= 0 && offset >= 0 && offset <= bytes->size);
    int64_t first = bytes->offset - (int64_t)bytes->end;
    if (offset >= first && offset <= bytes->offset) {
        bytes->start = (size_t)(offset - first);
        return;
    }
    bytes->start = bytes->end = 0;
    bytes->offset = offset;
    bytes->step = BYTES_FIRST_STEP;
}

int bytes_skip(struct bytes *bytes, uint64_t size)
{
    if (bytes->size >= 0) {
        int64_t here = bytes_offset(bytes);
        uint64_t left = (uint64_t)(bytes->size - here);
        bytes_seek(bytes, size < left ? here + (int64_t)size : bytes->size);
        return size <= left;
    }
    while (size > 0) {
        int status = bytes_want(bytes, 1, BYTES_AHEAD);
        size_t have = bytes_have(bytes);
        if (status != 0 || have == 0)
            return status;
        size_t n = size < have ? (size_t)size : have;
        bytes_use(bytes, n);
        size -= n;
    }
    return 1;
}
