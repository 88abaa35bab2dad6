/* emit.c - see emit.h. JSON lines are gathered into large writes. */
#include "emit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define EMIT_TEXT_BYTES ((size_t)1 << 20)
#define EMIT_MOST_DIGITS 20

struct emit {
    enum emit_format format;
    struct stream_writer *writer;
    struct io_file file;
    char *text; /* (EMIT_TEXT_BYTES) */
    size_t used;
};

static int emit_open_text(struct emit *emit, const char *path)
{
    emit->text = mem_alloc(EMIT_TEXT_BYTES, 1);
    if (emit->text == NULL)
        return mem_fail("a buffer", EMIT_TEXT_BYTES, 1);
    return io_open_output(&emit->file, path, false);
}

int emit_open(struct emit **opened, enum emit_format format, const char *path,
              enum stream_codec codec, unsigned threads, const struct begin *begin)
{
    *opened = NULL;
    struct emit *emit = mem_alloc_zero(1, sizeof *emit);
    if (emit == NULL)
        return mem_fail("an output", 1, sizeof *emit);
    emit->format = format;
    emit->file = (struct io_file)IO_FILE_CLOSED;
    int status;
    if (format == EMIT_JSONL) {
        status = emit_open_text(emit, path);
    } else {
        status = stream_writer_open(&emit->writer, path, codec, threads);
        if (status == 0)
            status = stream_writer_begin(emit->writer, begin);
    }
    if (status != 0) {
        emit_free(emit);
        return status;
    }
    *opened = emit;
    return 0;
}

void emit_free(struct emit *emit)
{
    if (emit == NULL)
        return;
    stream_writer_free(emit->writer);
    if (emit->file.name != NULL) {
        int ignored = io_close(&emit->file); /* emit_end() has checked its own close */
        (void)ignored;
    }
    free(emit->text);
    free(emit);
}

/* ---- JSON lines */

static int emit_flush(struct emit *emit)
{
    int status = io_write(&emit->file, emit->text, emit->used);
    emit->used = 0;
    return status;
}

/* Room for a number and what is around it. */
static int emit_reserve(struct emit *emit)
{
    return EMIT_TEXT_BYTES - emit->used < 64 ? emit_flush(emit) : 0;
}

static void emit_word(struct emit *emit, const char *word)
{
    size_t length = strlen(word);
    memcpy(emit->text + emit->used, word, length);
    emit->used += length;
}

static void emit_number(struct emit *emit, uint64_t number)
{
    char digits[EMIT_MOST_DIGITS];
    size_t first = sizeof digits;
    do
        digits[--first] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    memcpy(emit->text + emit->used, digits + first, sizeof digits - first);
    emit->used += sizeof digits - first;
}

static int emit_line(struct emit *emit, const struct select_item *item)
{
    const struct source_sequence *sequence = &item->sequence;
    int status = emit_reserve(emit);
    if (status != 0)
        return status;
    emit_word(emit, "{\"index\":");
    emit_number(emit, item->index);
    emit_word(emit, ",\"input_ids\":[");
    for (size_t i = 0; i < sequence->length; i++) {
        if ((status = emit_reserve(emit)) != 0)
            return status;
        if (i > 0)
            emit_word(emit, ",");
        emit_number(emit, sequence->ids[i]);
    }
    emit_word(emit, "]}\n");
    return 0;
}

/* ---- both */

int emit_sequence(struct emit *emit, const struct select_item *item)
{
    if (emit->format == EMIT_JSONL)
        return emit_line(emit, item);
    return stream_writer_sequence(emit->writer, item->index, item->sequence.ids,
                                  (uint32_t)item->sequence.length);
}

int emit_end(struct emit *emit, const json_t *skipped)
{
    if (emit->format == EMIT_STREAM)
        return stream_writer_end(emit->writer, skipped);
    int status = emit_flush(emit), closed = io_close(&emit->file);
    return status != 0 ? status : closed;
}

void emit_abort(struct emit *emit, int code)
{
    if (emit->format == EMIT_STREAM) {
        stream_writer_abort(emit->writer, code, NULL);
    } else {
        int ignored = emit_flush(emit); /* the lines before; the run has failed already */
        (void)ignored;
    }
}

const struct io_file *emit_file(const struct emit *emit)
{
    return emit->format == EMIT_STREAM ? stream_writer_file(emit->writer) : &emit->file;
}
