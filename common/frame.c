/* frame.c - finding the end of frames, and decoding and encoding them.
 *
 * The formats' frame headers and block headers are parsed here as far as it takes to find the end:
 * LZ4 frame format 1.6.1 and RFC 8878 for zstd. The content is decoded by the libraries, which
 * check the frame's own checksums. Our LZ4 frames have independent 4 MiB blocks with a checksum
 * each, the content's size and the content's checksum, so that no byte of a frame is without one.
 *
 * One walker serves reading from a pipe, reading at an offset, and measuring: it takes bytes from a
 * cursor that keeps them or passes over them.
 */
#include "frame.h"

#include <assert.h>
#include <inttypes.h>
#include <lz4frame.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "le.h"
#include "log.h"
#include "mem.h"

#define FRAME_LZ4_MAGIC 0x184D2204u
#define FRAME_ZSTD_MAGIC 0xFD2FB528u
#define FRAME_SKIP_MAGIC 0x184D2A50u /* to ...5F */
#define FRAME_HEADER_ROOM 32
/* What a frame of one record can take: the record, expansion by incompressible blocks, headers. */
#define FRAME_MAX_STORED (STREAM_MAX_PAYLOAD + (STREAM_MAX_PAYLOAD >> 6) + 65536u)
#define FRAME_ZSTD_LEVEL 1

int frame_buffer_reserve(struct frame_buffer *buffer, size_t capacity)
{
    if (capacity <= buffer->capacity)
        return 0;
    /* Rounded up, so that records of about one size do not reallocate each time. */
    size_t rounded = (capacity + 65535) & ~(size_t)65535;
    uint8_t *grown = mem_resize(buffer->bytes, rounded, 1);
    if (grown == NULL)
        return mem_fail("a record", rounded, 1);
    buffer->bytes = grown;
    buffer->capacity = rounded;
    return 0;
}

void frame_buffer_free(struct frame_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct frame_buffer){0};
}

/* ---- the walker */

struct frame_cursor {
    struct io_file *stream;           /* sequential, or NULL */
    const struct io_file *positioned; /* by pread from `at` */
    int64_t at;
    int64_t start, file_size;
    struct frame_buffer *keep; /* NULL: bodies are passed over */
    uint8_t scratch[FRAME_HEADER_ROOM];
};

static int frame_cut(const struct frame_cursor *cursor)
{
    if (cursor->stream == NULL)
        return ERR_TRUNCATED;
    return log_fail(ERR_TRUNCATED, "'%s': input ends inside the record at offset %" PRId64 "%s",
                    cursor->stream->name, cursor->start,
                    cursor->stream->regular ? "; 'ccanalyze salvage' keeps what is whole"
                                            : ": the stage before was killed, or its input cut");
}

static int frame_bad(const struct frame_cursor *cursor, const char *what)
{
    if (cursor->stream == NULL)
        return ERR_DATA;
    return log_fail(ERR_DATA, "'%s': record at offset %" PRId64 ": %s", cursor->stream->name,
                    cursor->start, what);
}

/* Takes `size` header bytes and points *bytes at them; 1, 0 at the end of input before the first.
 */
static int frame_take(struct frame_cursor *cursor, size_t size, const uint8_t **bytes)
{
    uint8_t *to = cursor->scratch;
    assert(cursor->keep != NULL || size <= sizeof cursor->scratch);
    if (cursor->keep != NULL) {
        int status = frame_buffer_reserve(cursor->keep, cursor->keep->size + size);
        if (status != 0)
            return status;
        to = cursor->keep->bytes + cursor->keep->size;
        cursor->keep->size += size;
    }
    *bytes = to;
    if (cursor->stream != NULL) {
        ssize_t got = io_read(cursor->stream, to, size);
        if (got < 0)
            return (int)got;
        cursor->at += got;
        if ((size_t)got == size)
            return 1;
        return got == 0 && cursor->at == cursor->start ? 0 : frame_cut(cursor);
    }
    if (cursor->at == cursor->file_size && cursor->at == cursor->start)
        return 0;
    if ((int64_t)size > cursor->file_size - cursor->at)
        return frame_cut(cursor);
    int status = io_pread(cursor->positioned, to, size, cursor->at);
    cursor->at += (int64_t)size;
    return status != 0 ? status : 1;
}

/* Passes `size` body bytes, keeping them where the cursor keeps. 1 or negative. */
static int frame_pass(struct frame_cursor *cursor, size_t size)
{
    if (cursor->keep == NULL) {
        if ((int64_t)size > cursor->file_size - cursor->at)
            return frame_cut(cursor);
        cursor->at += (int64_t)size;
        return 1;
    }
    if (size > FRAME_MAX_STORED || cursor->keep->size > FRAME_MAX_STORED - size)
        return frame_bad(cursor, "the frame is larger than a record can be");
    if (size == 0)
        return 1;
    const uint8_t *bytes;
    return frame_take(cursor, size, &bytes);
}

static int frame_walk_bare(struct frame_cursor *cursor)
{
    const uint8_t *bytes;
    uint8_t head[STREAM_HEADER_BYTES];
    memcpy(head, RECORD_MAGIC, 4);
    /* In pieces that fit the cursor's scratch room. */
    for (size_t at = 4; at < sizeof head;) {
        size_t piece = sizeof head - at < FRAME_HEADER_ROOM ? sizeof head - at : FRAME_HEADER_ROOM;
        int status = frame_take(cursor, piece, &bytes);
        if (status != 1)
            return status;
        memcpy(head + at, bytes, piece);
        at += piece;
    }
    struct record_header header;
    const char *wrong = record_header_get(&header, head);
    if (wrong != NULL)
        return frame_bad(cursor, wrong);
    return frame_pass(cursor, header.payload_bytes);
}

static int frame_walk_lz4(struct frame_cursor *cursor)
{
    const uint8_t *bytes;
    int status = frame_take(cursor, 2, &bytes);
    if (status != 1)
        return status;
    uint8_t flags = bytes[0];
    bool block_checksum = flags & 0x10, content_size = flags & 0x08;
    bool content_checksum = flags & 0x04, dictionary = flags & 0x01;
    if (flags >> 6 != 1)
        return frame_bad(cursor, "unknown version of the LZ4 frame format");
    size_t rest = 1u + (content_size ? 8u : 0u) + (dictionary ? 4u : 0u);
    if ((status = frame_take(cursor, rest, &bytes)) != 1)
        return status;
    for (;;) {
        if ((status = frame_take(cursor, 4, &bytes)) != 1)
            return status;
        uint32_t size = le_get32(bytes) & 0x7fffffffu;
        if (le_get32(bytes) == 0)
            break;
        if (size > (4u << 20))
            return frame_bad(cursor, "an LZ4 block is larger than 4 MiB");
        if ((status = frame_pass(cursor, size + (block_checksum ? 4u : 0u))) != 1)
            return status;
    }
    return frame_pass(cursor, content_checksum ? 4 : 0);
}

static int frame_walk_zstd(struct frame_cursor *cursor)
{
    const uint8_t *bytes;
    int status = frame_take(cursor, 1, &bytes);
    if (status != 1)
        return status;
    static const size_t dictionary_bytes[] = {0, 1, 2, 4}, size_bytes[] = {0, 2, 4, 8};
    uint8_t flags = bytes[0];
    bool single = flags & 0x20, checksum = flags & 0x04;
    size_t rest = (single ? 0u : 1u) + dictionary_bytes[flags & 3] + size_bytes[flags >> 6] +
                  (single && flags >> 6 == 0 ? 1u : 0u);
    if (rest > 0 && (status = frame_take(cursor, rest, &bytes)) != 1)
        return status;
    for (bool last = false; !last;) {
        if ((status = frame_take(cursor, 3, &bytes)) != 1)
            return status;
        uint32_t head = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16;
        last = head & 1;
        uint32_t type = head >> 1 & 3, size = head >> 3;
        if (type == 3)
            return frame_bad(cursor, "reserved zstd block type");
        if ((status = frame_pass(cursor, type == 1 ? 1 : size)) != 1)
            return status;
    }
    return frame_pass(cursor, checksum ? 4 : 0);
}

static int frame_walk_skippable(struct frame_cursor *cursor)
{
    const uint8_t *bytes;
    int status = frame_take(cursor, 4, &bytes);
    if (status != 1)
        return status;
    size_t left = le_get32(bytes);
    if (left <= FRAME_MAX_KEPT && cursor->keep != NULL)
        return left == 0 ? 1 : frame_take(cursor, left, &bytes);
    while (left > 0) {
        size_t piece = left < 65536 ? left : 65536;
        if (cursor->keep != NULL)
            cursor->keep->size = 0;
        if ((status = frame_pass(cursor, piece)) != 1)
            return status;
        left -= piece;
    }
    if (cursor->keep != NULL)
        cursor->keep->size = 0;
    return 1;
}

static int frame_walk(struct frame_cursor *cursor, enum frame_kind *kind)
{
    const uint8_t *bytes;
    int status = frame_take(cursor, 4, &bytes);
    if (status != 1)
        return status;
    uint32_t magic = le_get32(bytes);
    if (memcmp(bytes, RECORD_MAGIC, 4) == 0) {
        *kind = FRAME_BARE;
        status = frame_walk_bare(cursor);
    } else if (magic == FRAME_LZ4_MAGIC) {
        *kind = FRAME_LZ4;
        status = frame_walk_lz4(cursor);
    } else if (magic == FRAME_ZSTD_MAGIC) {
        *kind = FRAME_ZSTD;
        status = frame_walk_zstd(cursor);
    } else if ((magic & 0xfffffff0u) == FRAME_SKIP_MAGIC) {
        *kind = FRAME_SKIPPABLE;
        status = frame_walk_skippable(cursor);
    } else {
        return frame_bad(cursor, "no record begins here (bad magic)");
    }
    return status == 0 ? frame_cut(cursor) : status;
}

int frame_read(struct frame *frame, struct io_file *file)
{
    int64_t here = file->offset;
    struct frame_cursor cursor = {
        .stream = file, .at = here, .start = here, .keep = &frame->stored};
    frame->stored.size = 0;
    frame->offset = here;
    return frame_walk(&cursor, &frame->kind);
}

int frame_read_at(struct frame *frame, const struct io_file *file, int64_t at)
{
    int64_t size = io_size(file);
    if (size < 0)
        return (int)size;
    struct frame_cursor cursor = {
        .positioned = file, .at = at, .start = at, .file_size = size, .keep = &frame->stored};
    frame->stored.size = 0;
    frame->offset = at;
    return frame_walk(&cursor, &frame->kind);
}

int frame_measure(const struct io_file *file, int64_t at, int64_t *end, enum frame_kind *kind)
{
    int64_t size = io_size(file);
    if (size < 0)
        return (int)size;
    struct frame_cursor cursor = {.positioned = file, .at = at, .start = at, .file_size = size};
    int status = frame_walk(&cursor, kind);
    *end = cursor.at;
    return status;
}

/* ---- decoding and encoding */

static int frame_wrong(const struct frame *frame, const char *name, const char *what)
{
    if (name == NULL)
        return ERR_DATA;
    return log_fail(ERR_DATA, "'%s': record at offset %" PRId64 ": %s", name, frame->offset, what);
}

/* The codecs take memory of their own, and want of it must not pass for damage: salvage would leave
 * a good record out. LZ4's numbers of errors are no part of its stable interface, their names are.
 */
static int frame_wrong_lz4(const struct frame *frame, const char *name, const char *error)
{
    if (strcmp(error, "ERROR_allocation_failed") == 0)
        return mem_fail("a block of LZ4", frame->stored.size, 1);
    char what[96];
    snprintf(what, sizeof what, "the LZ4 frame is damaged (%s)", error);
    return frame_wrong(frame, name, what);
}

/* The record's size is in its own header, which must come out of the frame first; so the content is
 * decoded in two steps and never trusted with more room than a record can take. */
static int frame_decode_lz4(struct frame_buffer *content, const struct frame *frame,
                            const char *name)
{
    LZ4F_dctx *context = NULL;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)))
        return mem_fail("LZ4", 1, 1);
    const uint8_t *from = frame->stored.bytes;
    size_t left = frame->stored.size, hint = 1;
    int status = 0;
    content->size = 0;
    size_t want = STREAM_HEADER_BYTES + (64u << 10);
    while (hint != 0 && status == 0) {
        if ((status = frame_buffer_reserve(content, want)) != 0)
            break;
        size_t room = content->capacity - content->size, taken = left;
        hint = LZ4F_decompress(context, content->bytes + content->size, &room, from, &taken, NULL);
        if (LZ4F_isError(hint)) {
            status = frame_wrong_lz4(frame, name, LZ4F_getErrorName(hint));
            break;
        }
        content->size += room;
        from += taken;
        left -= taken;
        if (hint != 0 && room == 0 && taken == 0 && content->size < content->capacity)
            status = frame_wrong(frame, name, "the LZ4 frame is not complete");
        else if (content->size > STREAM_HEADER_BYTES + (size_t)STREAM_MAX_PAYLOAD)
            status = frame_wrong(frame, name, "the content is larger than a record can be");
        else if (content->size == content->capacity)
            want = content->capacity * 2;
    }
    if (status == 0 && left != 0)
        status = frame_wrong(frame, name, "bytes are left over in the LZ4 frame");
    LZ4F_freeDecompressionContext(context);
    return status;
}

static int frame_decode_zstd(struct frame_buffer *content, const struct frame *frame,
                             const char *name)
{
    unsigned long long size = ZSTD_getFrameContentSize(frame->stored.bytes, frame->stored.size);
    if (size > STREAM_HEADER_BYTES + (unsigned long long)STREAM_MAX_PAYLOAD)
        return frame_wrong(frame, name,
                           "a zstd frame without a content size that a record can have");
    int status = frame_buffer_reserve(content, (size_t)size);
    if (status != 0)
        return status;
    size_t got =
        ZSTD_decompress(content->bytes, (size_t)size, frame->stored.bytes, frame->stored.size);
    if (ZSTD_isError(got) && ZSTD_getErrorCode(got) == ZSTD_error_memory_allocation)
        return mem_fail("a frame of zstd", frame->stored.size, 1);
    if (ZSTD_isError(got))
        return frame_wrong(frame, name, ZSTD_getErrorName(got));
    content->size = got;
    return 0;
}

int frame_decode(struct frame_record *record, const struct frame *frame, const char *name)
{
    const struct frame_buffer *content = &record->content;
    int status = 0;
    if (frame->kind == FRAME_LZ4)
        status = frame_decode_lz4(&record->content, frame, name);
    else if (frame->kind == FRAME_ZSTD)
        status = frame_decode_zstd(&record->content, frame, name);
    else
        content = &frame->stored;
    if (status != 0)
        return status;
    if (content->size < STREAM_HEADER_BYTES)
        return frame_wrong(frame, name, "the content is shorter than a record header");
    const char *wrong = record_header_get(&record->header, content->bytes);
    if (wrong != NULL)
        return frame_wrong(frame, name, wrong);
    if (content->size != STREAM_HEADER_BYTES + (size_t)record->header.payload_bytes)
        return frame_wrong(frame, name,
                           "the frame does not hold exactly one record; a file that "
                           "another program compressed anew has to be piped in by 'lz4 -d'");
    record->payload = content->bytes + STREAM_HEADER_BYTES;
    if (record_hash(record->payload, record->header.payload_bytes) != record->header.payload_hash)
        return frame_wrong(frame, name, "the payload's checksum does not match");
    return 0;
}

static int frame_encode_lz4(struct frame_buffer *out, const uint8_t *record, size_t size)
{
    LZ4F_preferences_t how = {
        .frameInfo = {.blockSizeID = LZ4F_max4MB,
                      .blockMode = LZ4F_blockIndependent,
                      .contentChecksumFlag = LZ4F_contentChecksumEnabled,
                      .contentSize = size,
                      .blockChecksumFlag = LZ4F_blockChecksumEnabled},
    };
    int status = frame_buffer_reserve(out, LZ4F_compressFrameBound(size, &how));
    if (status != 0)
        return status;
    out->size = LZ4F_compressFrame(out->bytes, out->capacity, record, size, &how);
    return LZ4F_isError(out->size) ? mem_fail("LZ4", size, 1) : 0;
}

static int frame_encode_zstd(struct frame_buffer *out, const uint8_t *record, size_t size)
{
    int status = frame_buffer_reserve(out, ZSTD_compressBound(size) + FRAME_HEADER_ROOM);
    if (status != 0)
        return status;
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context == NULL)
        return mem_fail("zstd", 1, 1);
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, FRAME_ZSTD_LEVEL);
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    out->size = ZSTD_compress2(context, out->bytes, out->capacity, record, size);
    ZSTD_freeCCtx(context);
    return ZSTD_isError(out->size) ? mem_fail("zstd", size, 1) : 0;
}

int frame_encode(struct frame_buffer *out, enum stream_codec codec, const uint8_t *record,
                 size_t size)
{
    assert(codec == STREAM_CODEC_LZ4 || codec == STREAM_CODEC_ZSTD);
    return codec == STREAM_CODEC_LZ4 ? frame_encode_lz4(out, record, size)
                                     : frame_encode_zstd(out, record, size);
}
