/* salvaged.h - what the tests of salvage share: a file as it should be, and what is tried on a
 * damaged one.
 *
 * What must come out is known from the undamaged file alone: where each record lies, and its rows.
 */
#ifndef TESTS_SALVAGED_H
#define TESTS_SALVAGED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/stream.h"
#include "scratch.h"
#include "tools/ccanalyze/salvage.h"
#include "tools/ccanalyze/verify.h"

#define GOLDEN "tests/golden/stream/"
#define MOST_RECORDS 32
#define MOST_ROWS 64
#define MOST_ROW_BYTES 512

static const char *damaged, *saved; /* paths in the scratch folder */

/* ---- a file as it should be */

struct row {
    uint8_t bytes[MOST_ROW_BYTES];
    size_t size;
};

struct sample {
    uint8_t *bytes;
    size_t size;
    size_t starts[MOST_RECORDS +
                  1];            /* of frames; the last one is where the index begins, or the end */
    size_t frames;               /* BEGIN, DATA..., END */
    uint32_t rows[MOST_RECORDS]; /* in each */
    struct row original[MOST_ROWS];
    uint64_t row_count;
};

/* The rows of a stream, tags and bytes, or sequences: their number. */
static inline uint64_t read_rows(const char *path, struct row rows[MOST_ROWS])
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    struct stream_record record;
    uint64_t count = 0;
    int status;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1), 0);
    size_t row_bytes = begin_row_bytes(stream_reader_begin(reader));
    while ((status = stream_reader_next(reader, &record)) == 1) {
        size_t at = 0;
        struct stream_sequence sequence;
        for (uint32_t i = 0; i < record.rows; i++, count++) {
            assert_true(count < MOST_ROWS);
            if (record.tags == NULL) {
                const uint8_t *from = record.data + at;
                assert_int_equal(stream_sequence_next(&record, &at, &sequence), 1);
                rows[count].size = (size_t)(record.data + at - from);
                memcpy(rows[count].bytes, from, rows[count].size);
            } else {
                rows[count].size = 16 + row_bytes;
                memcpy(rows[count].bytes, record.tags + 16 * i, 16);
                memcpy(rows[count].bytes + 16, record.data + i * row_bytes, row_bytes);
            }
        }
    }
    assert_int_equal(status, 0);
    assert_true(!stream_reader_begin(reader)->has_rows ||
                stream_reader_begin(reader)->rows == count);
    stream_reader_free(reader);
    return count;
}

/* Frames by the file's own index, or by the sizes in bare headers. */
static inline void open_sample(struct sample *sample, const char *path)
{
    char *text;
    assert_int_equal(io_read_file(&text, &sample->size, path, 1u << 24), 0);
    sample->bytes = (uint8_t *)text;
    sample->frames = 0;
    sample->row_count = 0;
    if (memcmp(text, "CCPS", 4) == 0) {
        for (size_t at = 0; at < sample->size; at += 80 + le_get32(sample->bytes + at + 52)) {
            sample->starts[sample->frames] = at;
            sample->rows[sample->frames++] = le_get32(sample->bytes + at + 48);
        }
        sample->starts[sample->frames] = sample->size;
    } else {
        size_t end = (size_t)le_get64(sample->bytes + sample->size - 24);
        const uint8_t *entry = sample->bytes + end + 8 + 24;
        sample->frames = (size_t)le_get64(entry - 8);
        for (size_t i = 0; i < sample->frames; i++, entry += 24) {
            sample->starts[i] = (size_t)le_get64(entry);
            sample->rows[i] = le_get32(entry + 16);
        }
        sample->starts[sample->frames] = end;
    }
    for (size_t i = 0; i < sample->frames; i++)
        sample->row_count += sample->rows[i];
    if (strcmp(path, GOLDEN "aborted.ccps") != 0)
        assert_int_equal(read_rows(path, sample->original), sample->row_count);
}

/* ---- what is tried on a damaged file */

static inline int verify_status(const char *path)
{
    struct verify_report report;
    return verify_path(&report, path, 1);
}

/* Salvages `damaged` to `saved`. */
static inline int salvage_status(struct salvage_figures *figures)
{
    struct salvage *salvage;
    int status = salvage_open(&salvage, damaged);
    if (status != 0) {
        assert_null(salvage);
        return status;
    }
    *figures = salvage_count(salvage);
    unlink(saved);
    status = salvage_write(salvage, saved, STREAM_CODEC_LZ4, 1, NULL);
    salvage_free(salvage);
    return status;
}

/* The saved file must verify and hold the rows of the frames that `kept` names, in order. */
static inline void check_saved(const struct sample *sample, const bool kept[MOST_RECORDS],
                               const struct salvage_figures *figures)
{
    static struct row rows[MOST_ROWS];
    assert_int_equal(verify_status(saved), 0);
    uint64_t count = read_rows(saved, rows), at = 0, lost = 0;
    for (size_t i = 0, from = 0; i < sample->frames; from += sample->rows[i++]) {
        if (!kept[i]) {
            lost += sample->rows[i];
            continue;
        }
        for (uint32_t j = 0; j < sample->rows[i]; j++, at++) {
            assert_true(at < count);
            assert_int_equal(rows[at].size, sample->original[from + j].size);
            assert_memory_equal(rows[at].bytes, sample->original[from + j].bytes, rows[at].size);
        }
    }
    assert_int_equal(at, count);
    assert_int_equal(figures->rows, count);
    if (figures->lost_known)
        assert_int_equal(figures->lost, lost);
    else
        assert_true(figures->lost <= lost);
}

/* ---- set-up and tear-down of cmocka */

static inline int salvaged_set_up(void **state)
{
    log_init("test_salvage", LOG_SILENT);
    if (scratch_open(state) != 0)
        return -1;
    damaged = strdup(scratch_path("damaged"));
    saved = strdup(scratch_path("saved"));
    return damaged == NULL || saved == NULL;
}

static inline int salvaged_tear_down(void **state)
{
    free((char *)damaged);
    free((char *)saved);
    return scratch_close(state);
}

#endif
