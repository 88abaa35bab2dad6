/* actgen.h - what the tests of actgen share: token streams, runs of the program, the rows that it
 * wrote. The program is run as users run it; rows are read by common/stream.h, which has tests of
 * its own against another writer.
 */
#ifndef CCPIPE_TESTS_ACTGEN_H
#define CCPIPE_TESTS_ACTGEN_H

/* cmocka.h wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io.h"
#include "common/json.h"
#include "common/stream.h"

enum { ACTGEN_MAX_ARGUMENTS = 64 };

/* The rows of a stream of activations. */
struct actgen_rows {
    json_t *begin, *skipped;
    size_t count, width, row_bytes;
    struct stream_tag *tags; /* (count) */
    float *values;           /* (count, width), int8 undone */
    uint8_t *bytes;          /* (count, row_bytes) as on the wire */
};

/* Removes a folder and what lies in it. */
static inline void actgen_remove(const char *folder)
{
    DIR *open_folder = opendir(folder);
    const struct dirent *entry;
    while (open_folder != NULL && (entry = readdir(open_folder)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = io_join(folder, entry->d_name);
        if (path != NULL && unlink(path) != 0)
            actgen_remove(path);
        free(path);
    }
    if (open_folder != NULL)
        closedir(open_folder);
    (void)rmdir(folder);
}

static char actgen_folder[] = "/tmp/ccpipe-actgen-XXXXXX";

static inline void actgen_clean(void)
{
    actgen_remove(actgen_folder);
}

/* The path of a name in a folder of this program's own, which goes away with it. Always the same
 * string for a name; there are few. */
static inline char *actgen_path(const char *name)
{
    static char *paths[32];
    size_t i = 0, prefix = sizeof actgen_folder;
    if (strcmp(actgen_folder + sizeof actgen_folder - 7, "XXXXXX") == 0) {
        assert_non_null(mkdtemp(actgen_folder));
        assert_int_equal(atexit(actgen_clean), 0);
    }
    while (paths[i] != NULL && strcmp(paths[i] + prefix, name) != 0)
        i++;
    assert_true(i < sizeof paths / sizeof *paths);
    if (paths[i] == NULL)
        paths[i] = io_join(actgen_folder, name);
    assert_non_null(paths[i]);
    return paths[i];
}

/* Runs BIN/actgen with the arguments up to NULL; the exit status. What it says on standard error
 * goes to actgen_path("stderr"), standard output to actgen_path("stdout"). */
static inline int actgen_run_list(const char *const *arguments)
{
    const char *folder = getenv("BIN");
    char program[512];
    snprintf(program, sizeof program, "%s/actgen", folder != NULL ? folder : "bin");
    char *const out = actgen_path("stdout"), *const err = actgen_path("stderr");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int to = open(out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int said = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (dup2(to, 1) < 0 || dup2(said, 2) < 0)
            _exit(99);
        execv(program, (char *const *)(uintptr_t)arguments);
        _exit(98);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define actgen_run(...) actgen_run_list((const char *const[]){"actgen", __VA_ARGS__, NULL})

/* What the last run said on standard error; valid until the next call. */
static inline const char *actgen_said(void)
{
    static char *text;
    size_t size;
    free(text);
    assert_int_equal(io_read_file(&text, &size, actgen_path("stderr"), 1u << 20), 0);
    return text;
}

static inline void actgen_assert_says(const char *words)
{
    if (strstr(actgen_said(), words) == NULL)
        fail_msg("'%s' is not in: %s", words, actgen_said());
}

/* A run that shall succeed. */
#define actgen_succeed(...)                                  \
    do {                                                     \
        int status_ = actgen_run(__VA_ARGS__);               \
        if (status_ != 0)                                    \
            fail_msg("exit %d: %s", status_, actgen_said()); \
    } while (0)

/* A token stream of sequences of `lengths`, one behind the other in `ids`, with indices first,
 * first + 1, ... seq_len 0: BEGIN says no length. */
static inline void actgen_write_tokens(const char *path, const uint32_t *ids,
                                       const uint32_t *lengths, size_t count, uint64_t seq_len,
                                       uint64_t first)
{
    struct begin begin;
    struct stream_writer *writer;
    assert_int_equal(begin_init(&begin, BEGIN_TOKENS, "test"), 0);
    begin.has_seq_len = seq_len != 0;
    begin.seq_len = seq_len;
    begin.has_rows = true;
    begin.rows = count;
    assert_int_equal(stream_writer_open(&writer, path, STREAM_CODEC_NONE, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(stream_writer_sequence(writer, first + i, ids, lengths[i]), 0);
        ids += lengths[i];
    }
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
}

/* The ids (count * length) of a token stream whose sequences all have `length`. */
static inline uint32_t *actgen_read_tokens(const char *path, size_t count, uint32_t length)
{
    char *paths[] = {(char *)(uintptr_t)path};
    struct stream_reader *reader;
    struct stream_record record;
    struct stream_sequence sequence;
    uint32_t *ids = malloc(count * length * sizeof *ids);
    size_t n = 0;
    assert_non_null(ids);
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_TOKENS, 1), 0);
    while (stream_reader_next(reader, &record) == 1)
        for (size_t at = 0; stream_sequence_next(&record, &at, &sequence) == 1 && n < count; n++) {
            assert_int_equal(sequence.length, length);
            for (uint32_t i = 0; i < length; i++)
                ids[n * length + i] = le_get32(sequence.ids + 4 * (size_t)i);
        }
    assert_int_equal(n, count);
    stream_reader_free(reader);
    return ids;
}

static inline void actgen_take_row(const struct actgen_rows *rows, const struct begin *begin,
                                   size_t row)
{
    const uint8_t *bytes = rows->bytes + row * rows->row_bytes;
    size_t quanta = begin->dtype == DTYPE_I8 ? 4 * begin->source_count : 0, column = 0;
    float *values = rows->values + row * rows->width;
    if (begin->dtype != DTYPE_I8) {
        dtype_to_f32(values, bytes, begin->dtype, rows->width);
        return;
    }
    for (size_t s = 0; s < begin->source_count; s++) {
        float quantum;
        memcpy(&quantum, bytes + 4 * s, sizeof quantum);
        for (size_t end = column + begin->sources[s].width; column < end; column++)
            values[column] = quantum * (float)(int8_t)bytes[quanta + column];
    }
}

/* Reads a whole stream; actgen_free_rows() frees the members. */
static inline void actgen_read_rows(struct actgen_rows *rows, const char *path)
{
    char *paths[] = {(char *)(uintptr_t)path};
    struct stream_reader *reader;
    struct stream_record record;
    int status;
    memset(rows, 0, sizeof *rows);
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    const struct begin *begin = stream_reader_begin(reader);
    rows->begin = json_deep_copy(stream_reader_begin_json(reader));
    rows->width = begin_width(begin);
    rows->row_bytes = begin_row_bytes(begin);
    while ((status = stream_reader_next(reader, &record)) == 1) {
        size_t n = rows->count + record.rows;
        rows->tags = realloc(rows->tags, n * sizeof *rows->tags);
        rows->values = realloc(rows->values, n * rows->width * sizeof(float));
        rows->bytes = realloc(rows->bytes, n * rows->row_bytes);
        assert_true(rows->tags != NULL && rows->values != NULL && rows->bytes != NULL);
        memcpy(rows->bytes + rows->count * rows->row_bytes, record.data, record.data_bytes);
        for (uint32_t i = 0; i < record.rows; i++) {
            rows->tags[rows->count + i] =
                stream_tag_get(record.tags + (size_t)i * STREAM_TAG_BYTES);
            actgen_take_row(rows, begin, rows->count + i);
        }
        rows->count = n;
    }
    assert_int_equal(status, 0);
    rows->skipped = json_deep_copy(stream_reader_end(reader)->skipped);
    stream_reader_free(reader);
}

static inline void actgen_free_rows(struct actgen_rows *rows)
{
    json_decref(rows->begin);
    json_decref(rows->skipped);
    free(rows->tags);
    free(rows->values);
    free(rows->bytes);
}

/* BEGIN's entry of a source, by its name or (name NULL) its place. */
static inline const json_t *actgen_source(const struct actgen_rows *rows, const char *name,
                                          size_t place)
{
    const json_t *sources = json_object_get(rows->begin, "sources");
    for (size_t i = 0; name != NULL && i < json_array_size(sources); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(sources, i), "name")), name) ==
            0)
            place = i;
    return json_array_get(sources, place);
}

static inline int64_t actgen_number(const json_t *object, const char *key)
{
    assert_true(json_is_integer(json_object_get(object, key)));
    return json_integer_value(json_object_get(object, key));
}

#endif
