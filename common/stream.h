/* stream.h - reading and writing of the record stream (doc/FORMAT.md), live or cached.
 *
 * A stream is BEGIN, any number of DATA, END. On a pipe records are bare; on a regular file each is
 * the whole content of an LZ4 (or zstd) frame of its own. The reader detects that per record,
 * checks every checksum, run id, sequence and row number, and at END the count and the sum of the
 * rows; input that stops before END is ERR_TRUNCATED, never the end. `cat a b` of two
 * compatible streams reads as one.
 *
 * The reader decompresses and verifies, and the writer compresses, in `threads` threads of their
 * own; order is kept, memory is bounded by a few records per thread.
 */
#ifndef CCPIPE_STREAM_H
#define CCPIPE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "begin.h"
#include "err.h"
#include "io.h"
#include "le.h"
#include "rowsum.h"

#define STREAM_HEADER_BYTES 80
#define STREAM_TAG_BYTES 16
#define STREAM_HASHED_BYTES 24 /* what DATA holds of a row that travels by a data plane */
#define STREAM_MAX_PAYLOAD (64u << 20)
#define STREAM_VERSION 1

enum stream_type {
    STREAM_BEGIN = 1,
    STREAM_DATA = 2,
    STREAM_END = 3,
    STREAM_ABORT = 4,
    STREAM_MARK = 5
};

/* Flag of a DATA record: row bytes are split by significance. */
#define STREAM_PLANES 1u

enum stream_codec { STREAM_CODEC_AUTO, STREAM_CODEC_NONE, STREAM_CODEC_LZ4, STREAM_CODEC_ZSTD };
#define STREAM_CODEC_CHOICES                                            \
    "auto|none|lz4|zstd" /* in the order of the enum, for option tables \
                          */

/* Of programs that write a stream, in option tables (common/opt.h): `S` has an `int codec` and a
 * `const char *output`. */
#define STREAM_CODEC_OPTION(S)                                        \
    OPT_CHOICE("codec", 0, S, codec, STREAM_CODEC_CHOICES, "auto", 0, \
               "compression; auto: lz4 on a regular file, none elsewhere")
#define STREAM_OUTPUT_OPTIONS(S)                                   \
    OPT_STRING("output", 'o', S, output, "FILE", NULL, OPT_WRITES, \
               "write to FILE, not standard output"),              \
        STREAM_CODEC_OPTION(S)

/* A row's tag: where it came from. */
struct stream_tag {
    uint64_t sequence;
    uint32_t position, token;
};

static inline void stream_tag_put(uint8_t to[STREAM_TAG_BYTES], struct stream_tag tag)
{
    le_put64(to, tag.sequence);
    le_put32(to + 8, tag.position);
    le_put32(to + 12, tag.token);
}

static inline struct stream_tag stream_tag_get(const uint8_t from[STREAM_TAG_BYTES])
{
    struct stream_tag tag = {le_get64(from), le_get32(from + 8), le_get32(from + 12)};
    return tag;
}

/* A row that travels by a data plane: XXH3-128 of tag and bytes, which END sums, and which row of
 * the window it is, buffer * capacity + index. */
struct stream_hashed {
    struct rowsum hash;
    uint64_t place;
};

static inline void stream_hashed_put(uint8_t to[STREAM_HASHED_BYTES], struct stream_hashed row)
{
    le_put64(to, row.hash.low);
    le_put64(to + 8, row.hash.high);
    le_put64(to + 16, row.place);
}

static inline struct stream_hashed stream_hashed_get(const uint8_t from[STREAM_HASHED_BYTES])
{
    struct stream_hashed row = {{le_get64(from), le_get64(from + 8)}, le_get64(from + 16)};
    return row;
}

/* A DATA record as the reader hands it out. */
struct stream_record {
    uint64_t first_row; /* number of the first row in the whole input (parts of a cat added up) */
    uint32_t rows;
    int64_t offset;        /* of its frame's first byte in its file */
    uint32_t stored_bytes; /* of the frame */
    const uint8_t *tags;   /* (rows, 16) activations; NULL for tokens */
    const uint8_t *data;   /* activations: (rows, begin_data_bytes()), planes undone; tokens: the
                              sequences */
    size_t data_bytes;
};

/* What END said, after the reader's own count agreed with it; parts of a cat added up. */
struct stream_end {
    uint64_t records, rows;
    struct rowsum sum;
    json_t *skipped; /* {"reason": count}, borrowed */
};

/* ---- reading */

struct stream_reader;

/* Opens the named files, read one after the other as by cat; with no paths, standard input. Reads
 * the first BEGIN. `kind` is demanded (ERR_USAGE where the stream is of the other kind), unless
 * it is BEGIN_ANY. Rows that travel by a data plane are ERR_USAGE, unless it is
 * BEGIN_ACTIVATIONS_VIA; their places lie in the window.
 * threads >= 1. On failure *reader is NULL. */
int stream_reader_open(struct stream_reader **reader, char *const *paths, size_t path_count,
                       enum begin_kind kind, unsigned threads) MUST_CHECK;
void stream_reader_free(struct stream_reader *reader);

/* The first BEGIN; where all inputs are regular files, a null `rows` has been filled in from END,
 * rows that END says were not finite are taken off, and rows and seq_len speak of all parts (they
 * are not there where that is not known). */
const struct begin *stream_reader_begin(const struct stream_reader *reader);

/* Its JSON as it was read, for a downstream BEGIN's "upstream"; borrowed. */
const json_t *stream_reader_begin_json(const struct stream_reader *reader);

/* The next record that holds rows: 1; 0 after the last END and the end of input (where rows travel
 * by a data plane, after END); or a negative code (logged). ABORT upstream is ERR_TRUNCATED.
 * *record is valid until the next call. Rows that are not finite are ERR_DATA (f32, bf16 and the
 * scales of int8). */
int stream_reader_next(struct stream_reader *reader, struct stream_record *record) MUST_CHECK;

/* After 0 from stream_reader_next(). */
const struct stream_end *stream_reader_end(const struct stream_reader *reader);

/* Goes back to the beginning (regular files only, ERR_USAGE otherwise), or to the record that holds
 * `row`, by the index where there is one, else by reading up to it. The sum of END is not
 * checked after a seek that skipped rows; each record's own checksums are. */
int stream_reader_rewind(struct stream_reader *reader) MUST_CHECK;
int stream_reader_seek(struct stream_reader *reader, uint64_t row) MUST_CHECK;

/* From another thread: a stream_reader_next() that waits for input, now or later, ends with
 * ERR_INTERRUPTED. The reader can then only be freed. */
void stream_reader_interrupt(struct stream_reader *reader);

/* True where all inputs are regular files. */
bool stream_reader_is_regular(const struct stream_reader *reader);

/* The file being read now, for progress and messages ("run id, row, offset"). */
const struct io_file *stream_reader_file(const struct stream_reader *reader);

/* ---- one token sequence after the other out of a token stream */

struct stream_sequence {
    uint64_t index;
    uint32_t length;
    const uint8_t *ids; /* (length) u32 little-endian, unaligned */
};

/* The first sequence of a record starts at *offset = 0: 1 and *offset moved on, or 0 behind the
 * last. The reader has already checked that the lengths fill the record. */
int stream_sequence_next(const struct stream_record *record, size_t *offset,
                         struct stream_sequence *sequence);

/* ---- writing */

struct stream_writer;

/* path: NULL or "-" is standard output. AUTO: lz4 on a regular file, none elsewhere. Index and byte
 * planes go with a codec. threads >= 1. Nothing is written before stream_writer_begin(). */
int stream_writer_open(struct stream_writer **writer, const char *path, enum stream_codec codec,
                       unsigned threads) MUST_CHECK;

/* Writes BEGIN; the writer keeps a copy of what it needs. */
int stream_writer_begin(struct stream_writer *writer, const struct begin *begin) MUST_CHECK;

/* Appends rows: tags (rows, 16) and data (rows, begin_data_bytes()). Records are cut by count
 * alone. */
int stream_writer_rows(struct stream_writer *writer, const uint8_t *tags, const uint8_t *data,
                       size_t rows) MUST_CHECK;

/* Appends one sequence of ids. */
int stream_writer_sequence(struct stream_writer *writer, uint64_t index, const uint32_t *ids,
                           uint32_t length) MUST_CHECK;

/* Writes that wait end with ERR_INTERRUPTED once `fd` is readable, which stays the caller's. */
void stream_writer_watch(struct stream_writer *writer, int fd);

/* Sends what is buffered now (a live reader waits for it); records then depend on when it is
 * called, so it is called at places that the input alone determines. */
int stream_writer_flush(struct stream_writer *writer) MUST_CHECK;

/* END (skipped: {"reason": count} or NULL, borrowed), index, flush, close. A disk that fills up is
 * ERR_IO; what was written stays and can be salvaged. */
int stream_writer_end(struct stream_writer *writer, const json_t *skipped) MUST_CHECK;

/* The same without the close: another stream_writer_begin() may follow, for a part of a stream that
 * reads as `cat` of its parts. stream_writer_close() ends the output then. */
int stream_writer_end_part(struct stream_writer *writer, const json_t *skipped) MUST_CHECK;
int stream_writer_close(struct stream_writer *writer) MUST_CHECK;

/* ABORT with the reason, as far as it can be written; errors are passed over, as the caller is
 * already failing. NULL: what the code means, or the signal that stopped the program. Nothing if
 * BEGIN was not written or END was. */
void stream_writer_abort(struct stream_writer *writer, int code, const char *reason);

/* What has been written of this part so far. */
uint64_t stream_writer_row_count(const struct stream_writer *writer);
const struct rowsum *stream_writer_sum(const struct stream_writer *writer);
const struct io_file *stream_writer_file(const struct stream_writer *writer);

/* Stops the threads and closes. Without END before it the stream stays truncated, as it is. */
void stream_writer_free(struct stream_writer *writer);

#endif
