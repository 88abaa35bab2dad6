/* test_stream.c - the stream's reader and writer against files of an independent writer, against
 * each other, and against every cut and every changed byte of small files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/log.h"
#include "common/stream.h"

#define GOLDEN "tests/golden/stream/"

static char scratch[64];

static char *scratch_path(const char *name)
{
    char *path = io_join(scratch, name);
    assert_non_null(path);
    return path;
}

/* A new file each time: to cut an old one and fill it again is brought to the disk at once by some
 * file systems. */
static void write_bytes(const char *path, const uint8_t *bytes, size_t size)
{
    unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static uint8_t *read_bytes(const char *path, size_t *size)
{
    char *text;
    assert_int_equal(io_read_file(&text, size, path, 1u << 28), 0);
    return (uint8_t *)text;
}

/* Reads all of a stream; the first failure's code, or 0. Row bytes are appended to *all. */
static int drain(const char *path, enum begin_kind kind, unsigned threads, uint64_t *rows)
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    struct stream_record record;
    int status = stream_reader_open(&reader, paths, 1, kind, threads);
    *rows = 0;
    if (status != 0)
        return status;
    while ((status = stream_reader_next(reader, &record)) == 1)
        *rows += record.rows;
    stream_reader_free(reader);
    return status;
}

/* ---- files of the independent writer */

static float golden_value(uint64_t i, uint64_t j)
{
    float magnitude = (float)(i + 1) * (0.5f + (float)j);
    return j % 2 == 0 ? magnitude : -magnitude;
}

static void test_golden_rows_in_f32(void **state)
{
    (void)state;
    char *paths[] = {(char *)GOLDEN "rows-f32.ccps"};
    struct stream_reader *reader;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 2), 0);
    const struct begin *begin = stream_reader_begin(reader);
    assert_int_equal(begin->source_count, 2);
    assert_string_equal(begin->sources[1].name, "b.x");
    assert_int_equal(begin->sources[1].width, 2);
    assert_true(begin->sources[1].scale == 0.5);
    assert_true(begin->has_rows);
    assert_int_equal(begin->rows, 5);
    struct stream_record record;
    uint64_t row = 0;
    int status;
    while ((status = stream_reader_next(reader, &record)) == 1) {
        assert_int_equal(record.first_row, row);
        for (uint32_t i = 0; i < record.rows; i++, row++) {
            struct stream_tag tag = stream_tag_get(record.tags + 16 * i);
            assert_int_equal(tag.sequence, 100 + row / 2);
            assert_int_equal(tag.position, 1 + row % 2);
            assert_int_equal(tag.token, 7 * row);
            float values[5];
            memcpy(values, record.data + 20 * i, sizeof values);
            for (uint64_t j = 0; j < 5; j++)
                assert_true(values[j] == golden_value(row, j));
        }
    }
    assert_int_equal(status, 0);
    assert_int_equal(row, 5);
    assert_int_equal(stream_reader_end(reader)->records, 3);
    stream_reader_free(reader);
}

static void test_golden_planes_and_index(void **state)
{
    (void)state;
    char *paths[] = {(char *)GOLDEN "rows-bf16.lz4"};
    struct stream_reader *reader;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    assert_true(stream_reader_begin(reader)->has_rows); /* null in BEGIN, 4 in END */
    assert_int_equal(stream_reader_begin(reader)->rows, 4);
    /* The second data record holds row 3 alone: by the index the first is not even read. */
    assert_int_equal(stream_reader_seek(reader, 3), 0);
    struct stream_record record;
    assert_int_equal(stream_reader_next(reader, &record), 1);
    assert_int_equal(record.first_row, 3);
    assert_int_equal(record.rows, 1);
    for (uint64_t j = 0; j < 5; j++)
        assert_true(dtype_bf16_to_f32(le_get16(record.data + 2 * j)) == golden_value(3, j));
    assert_int_equal(stream_reader_next(reader, &record), 0);
    assert_int_equal(stream_reader_rewind(reader), 0);
    assert_int_equal(stream_reader_next(reader, &record), 1);
    assert_int_equal(record.first_row, 0);
    assert_int_equal(record.rows, 3);
    assert_int_equal(stream_reader_next(reader, &record), 1);
    assert_int_equal(stream_reader_next(reader, &record), 0);
    assert_int_equal(stream_reader_end(reader)->rows, 4);
    stream_reader_free(reader);
}

static void test_golden_zstd_tokens_and_empty(void **state)
{
    (void)state;
    uint64_t rows;
    assert_int_equal(drain(GOLDEN "rows-int8.zst", BEGIN_ACTIVATIONS, 1, &rows), 0);
    assert_int_equal(rows, 3);
    assert_int_equal(drain(GOLDEN "tokens.ccps", BEGIN_TOKENS, 1, &rows), 0);
    assert_int_equal(rows, 3);
    assert_int_equal(drain(GOLDEN "empty.ccps", BEGIN_ACTIVATIONS, 1, &rows), 0);
    assert_int_equal(rows, 0);
    assert_int_equal(drain(GOLDEN "aborted.ccps", BEGIN_ACTIVATIONS, 1, &rows), ERR_TRUNCATED);
    assert_int_equal(rows, 2);
    assert_int_equal(drain(GOLDEN "tokens.ccps", BEGIN_ACTIVATIONS, 1, &rows), ERR_USAGE);
}

/* ---- the writer */

static void golden_begin(struct begin *begin, enum begin_kind kind)
{
    assert_int_equal(begin_init(begin, kind, "oracle"), 0);
    free((char *)begin->tool);
    begin->tool = strdup("oracle 1");
}

static void test_writer_writes_golden_tokens(void **state)
{
    (void)state;
    char *path = scratch_path("tokens");
    struct begin begin;
    golden_begin(&begin, BEGIN_TOKENS);
    begin.has_rows = true;
    begin.rows = 3;
    struct stream_writer *writer;
    assert_int_equal(stream_writer_open(&writer, path, STREAM_CODEC_NONE, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    const uint32_t first[] = {2, 10, 11, 4294967295u}, last[] = {2, 3};
    assert_int_equal(stream_writer_sequence(writer, 0, first, 4), 0);
    assert_int_equal(stream_writer_sequence(writer, 1, first, 0), 0);
    assert_int_equal(stream_writer_sequence(writer, 5, last, 2), 0);
    json_t *skipped = json_pack("{s:i}", "cut", 1);
    assert_int_equal(stream_writer_end(writer, skipped), 0);
    json_decref(skipped);
    stream_writer_free(writer);
    begin_free(&begin);
    size_t size, golden_size;
    uint8_t *ours = read_bytes(path, &size);
    uint8_t *golden = read_bytes(GOLDEN "tokens.ccps", &golden_size);
    assert_int_equal(size, golden_size);
    assert_memory_equal(ours, golden, size);
    free(ours);
    free(golden);
    free(path);
}

#define ROWS 3000
#define WIDTH 301

/* A row's bytes are a function of its number, without NaN or infinity. */
static void make_row(uint8_t *tag, uint8_t *row, uint64_t number)
{
    stream_tag_put(tag, (struct stream_tag){number / 7, (uint32_t)(number % 7), (uint32_t)number});
    for (uint32_t j = 0; j < WIDTH; j++)
        le_put16(row + 2 * j, (uint16_t)((number * 2654435761u + j * 40503u) % 0x7f00u));
}

static void write_rows(const char *path, enum stream_codec codec, unsigned threads, uint64_t from,
                       uint64_t to)
{
    struct begin begin;
    golden_begin(&begin, BEGIN_ACTIVATIONS);
    begin.dtype = DTYPE_BF16;
    assert_int_equal(begin_add_source(&begin, "m.h", "m", "h", "", WIDTH, 1.0), 0);
    struct stream_writer *writer;
    assert_int_equal(stream_writer_open(&writer, path, codec, threads), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    uint8_t tag[16], row[2 * WIDTH];
    for (uint64_t i = from; i < to; i++) {
        make_row(tag, row, i);
        assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
    }
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
}

static void check_rows(struct stream_reader *reader, uint64_t row, uint64_t first_content)
{
    struct stream_record record;
    uint8_t tag[16], bytes[2 * WIDTH];
    int status;
    while ((status = stream_reader_next(reader, &record)) == 1) {
        assert_true(record.first_row <= row);
        for (uint64_t i = row - record.first_row; i < record.rows; i++, row++) {
            make_row(tag, bytes, first_content + row);
            assert_memory_equal(tag, record.tags + 16 * i, 16);
            assert_memory_equal(bytes, record.data + i * sizeof bytes, sizeof bytes);
        }
    }
    assert_int_equal(status, 0);
    assert_int_equal(row, ROWS);
}

static void test_round_trip_of_all_codecs(void **state)
{
    (void)state;
    static const enum stream_codec codecs[] = {STREAM_CODEC_NONE, STREAM_CODEC_LZ4,
                                               STREAM_CODEC_ZSTD};
    for (size_t c = 0; c < 3; c++) {
        char *path = scratch_path("rows");
        write_rows(path, codecs[c], 3, 0, ROWS);
        char *paths[] = {path};
        struct stream_reader *reader;
        assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 3), 0);
        assert_int_equal(stream_reader_begin(reader)->rows, ROWS);
        check_rows(reader, 0, 0);
        for (uint64_t row = 1; row < ROWS; row += 599) {
            assert_int_equal(stream_reader_seek(reader, row), 0);
            check_rows(reader, row, 0);
        }
        stream_reader_free(reader);
        free(path);
    }
}

static void test_threads_do_not_change_the_bytes(void **state)
{
    (void)state;
    char *a = scratch_path("one"), *b = scratch_path("four");
    write_rows(a, STREAM_CODEC_LZ4, 1, 0, ROWS);
    write_rows(b, STREAM_CODEC_LZ4, 4, 0, ROWS);
    size_t size_a, size_b;
    uint8_t *bytes_a = read_bytes(a, &size_a), *bytes_b = read_bytes(b, &size_b);
    assert_int_equal(size_a, size_b);
    assert_memory_equal(bytes_a, bytes_b, size_a);
    free(bytes_a);
    free(bytes_b);
    free(a);
    free(b);
}

static void test_cat_reads_as_one(void **state)
{
    (void)state;
    char *a = scratch_path("a"), *b = scratch_path("b"), *both = scratch_path("both");
    write_rows(a, STREAM_CODEC_LZ4, 1, 0, 1700);
    write_rows(b, STREAM_CODEC_NONE, 1, 1700, ROWS);
    size_t size_a, size_b;
    uint8_t *bytes_a = read_bytes(a, &size_a), *bytes_b = read_bytes(b, &size_b);
    uint8_t *joined = malloc(size_a + size_b);
    assert_non_null(joined);
    memcpy(joined, bytes_a, size_a);
    memcpy(joined + size_a, bytes_b, size_b);
    write_bytes(both, joined, size_a + size_b);
    char *one[] = {both}, *two[] = {a, b};
    struct stream_reader *reader;
    assert_int_equal(stream_reader_open(&reader, one, 1, BEGIN_ACTIVATIONS, 2), 0);
    check_rows(reader, 0, 0);
    stream_reader_free(reader);
    assert_int_equal(stream_reader_open(&reader, two, 2, BEGIN_ACTIVATIONS, 2), 0);
    assert_int_equal(stream_reader_begin(reader)->rows, ROWS);
    check_rows(reader, 0, 0);
    assert_int_equal(stream_reader_seek(reader, 1600), 0);
    check_rows(reader, 1600, 0);
    stream_reader_free(reader);
    free(joined);
    free(bytes_a);
    free(bytes_b);
    free(a);
    free(b);
    free(both);
}

/* ---- damage */

/* Offset behind the frame of END in the golden file with an index: the index footer tells. */
static size_t end_of_part(const uint8_t *bytes, size_t size)
{
    return (size_t)le_get64(bytes + size - 24);
}

/* Puts a u64 into an entry of the index at the end of a file, and its checksum right. */
static void set_entry(uint8_t *bytes, size_t size, size_t entry, size_t field, uint64_t value)
{
    uint8_t *body = bytes + size - (size_t)le_get64(bytes + size - 16);
    size_t summed = (size_t)(bytes + size - body) - 32;
    le_put64(body + 24 + 24 * entry + field, value);
    le_put64(body + summed, XXH3_64bits(body, summed));
}

/* What reads rows may not be kept from them by an index, whatever it says of END (entry 3): behind
 * it, before the file, or so far that a sum overflows, in the first part or in the second. */
static void test_an_index_that_points_elsewhere_is_none(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {1u << 20, UINT64_MAX - 50, INT64_MAX, UINT64_MAX / 2 + 1};
    char *path = scratch_path("index");
    size_t size;
    uint8_t *bytes = read_bytes(GOLDEN "rows-bf16.lz4", &size), *two = malloc(2 * size);
    assert_non_null(two);
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        uint64_t rows;
        memcpy(two, bytes, size);
        memcpy(two + size, bytes, size);
        set_entry(two + size, size, 3, 0, offsets[i]);
        write_bytes(path, two, 2 * size);
        assert_int_equal(drain(path, BEGIN_ACTIVATIONS, 1, &rows), 0);
        assert_int_equal(rows, 8);
        write_bytes(path, two + size, size);
        assert_int_equal(drain(path, BEGIN_ACTIVATIONS, 1, &rows), 0);
        assert_int_equal(rows, 4);
    }
    free(two);
    free(bytes);
    free(path);
}

/* Entry 2 says that it begins with row 0 too: not where the reader goes for the beginning. */
static void test_the_beginning_is_found_without_an_index(void **state)
{
    (void)state;
    char *path = scratch_path("index"), *paths[] = {path};
    size_t size;
    uint8_t *bytes = read_bytes(GOLDEN "rows-bf16.lz4", &size);
    set_entry(bytes, size, 2, 8, 0);
    write_bytes(path, bytes, size);
    struct stream_reader *reader;
    struct stream_record record;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(stream_reader_next(reader, &record), 1);
        assert_int_equal(record.rows, 3);
        assert_int_equal(stream_reader_next(reader, &record), 1);
        assert_int_equal(stream_reader_next(reader, &record), 0);
        assert_int_equal(stream_reader_rewind(reader), 0);
    }
    stream_reader_free(reader);
    free(bytes);
    free(path);
}

static void test_every_cut_is_found(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = read_bytes(GOLDEN "rows-bf16.lz4", &size);
    size_t end = end_of_part(bytes, size);
    char *path = scratch_path("cut");
    uint64_t rows;
    for (size_t cut = 0; cut < size; cut++) {
        write_bytes(path, bytes, cut);
        int status = drain(path, BEGIN_ACTIVATIONS, 1, &rows);
        assert_int_equal(status, cut == end ? 0 : ERR_TRUNCATED);
    }
    free(bytes);
    free(path);
}

static void flip_all(const char *golden, enum begin_kind kind, size_t end, uint64_t expected)
{
    size_t size;
    uint8_t *bytes = read_bytes(golden, &size);
    char *path = scratch_path("flip");
    uint64_t rows;
    for (size_t at = 0; at < size; at++) {
        for (unsigned change = 1; change < 256; change += 23) {
            bytes[at] ^= (uint8_t)change;
            write_bytes(path, bytes, size);
            int status = drain(path, kind, 1, &rows);
            if (at < end)
                assert_true(status == ERR_DATA || status == ERR_TRUNCATED);
            else
                assert_true(status == ERR_DATA || status == ERR_TRUNCATED || rows == expected);
            bytes[at] ^= (uint8_t)change;
        }
    }
    free(bytes);
    free(path);
}

static void test_every_changed_byte_is_found(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = read_bytes(GOLDEN "rows-bf16.lz4", &size);
    flip_all(GOLDEN "rows-bf16.lz4", BEGIN_ACTIVATIONS, end_of_part(bytes, size), 4);
    free(bytes);
    bytes = read_bytes(GOLDEN "rows-f32.ccps", &size);
    free(bytes);
    flip_all(GOLDEN "rows-f32.ccps", BEGIN_ACTIVATIONS, size, 5);
    bytes = read_bytes(GOLDEN "tokens.ccps", &size);
    free(bytes);
    flip_all(GOLDEN "tokens.ccps", BEGIN_TOKENS, size, 3);
}

/* Records of the bare golden file: where each begins. */
static size_t record_starts(const uint8_t *bytes, size_t size, size_t starts[16])
{
    size_t count = 0;
    for (size_t at = 0; at < size; at += 80 + le_get32(bytes + at + 52))
        starts[count++] = at;
    starts[count] = size;
    return count;
}

static void test_dropped_doubled_and_swapped_records_are_found(void **state)
{
    (void)state;
    size_t size, starts[16];
    uint8_t *bytes = read_bytes(GOLDEN "rows-f32.ccps", &size);
    size_t count = record_starts(bytes, size, starts);
    assert_int_equal(count, 5);
    uint8_t *made = malloc(2 * size);
    assert_non_null(made);
    char *path = scratch_path("records");
    uint64_t rows;
    for (size_t i = 0; i < count; i++) {
        size_t length = starts[i + 1] - starts[i];
        memcpy(made, bytes, starts[i]);
        memcpy(made + starts[i], bytes + starts[i + 1], size - starts[i + 1]);
        write_bytes(path, made, size - length);
        assert_true(drain(path, BEGIN_ACTIVATIONS, 1, &rows) < 0);
        memcpy(made, bytes, starts[i + 1]);
        memcpy(made + starts[i + 1], bytes + starts[i], size - starts[i]);
        write_bytes(path, made, size + length);
        assert_true(drain(path, BEGIN_ACTIVATIONS, 1, &rows) < 0);
    }
    memcpy(made, bytes, starts[1]);
    memcpy(made + starts[1], bytes + starts[2], starts[3] - starts[2]);
    memcpy(made + starts[1] + starts[3] - starts[2], bytes + starts[1], starts[2] - starts[1]);
    memcpy(made + starts[3], bytes + starts[3], size - starts[3]);
    write_bytes(path, made, size);
    assert_int_equal(drain(path, BEGIN_ACTIVATIONS, 1, &rows), ERR_DATA);
    free(made);
    free(bytes);
    free(path);
}

static void test_rows_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    char *path = scratch_path("nan");
    struct begin begin;
    golden_begin(&begin, BEGIN_ACTIVATIONS);
    begin.dtype = DTYPE_F32;
    assert_int_equal(begin_add_source(&begin, "m.h", "m", "h", "", 2, 1.0), 0);
    struct stream_writer *writer;
    assert_int_equal(stream_writer_open(&writer, path, STREAM_CODEC_NONE, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    uint8_t tag[16] = {0}, row[8] = {0};
    le_put32(row + 4, 0x7f800000u);
    assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
    uint64_t rows;
    assert_int_equal(drain(path, BEGIN_ACTIVATIONS, 1, &rows), ERR_DATA);
    free(path);
}

/* ---- BEGIN */

static void test_begin_comparison(void **state)
{
    (void)state;
    struct begin a, b;
    golden_begin(&a, BEGIN_ACTIVATIONS);
    assert_int_equal(begin_add_source(&a, "m.h", "m", "h", "00", 4, 0.25), 0);
    assert_int_equal(begin_copy(&b, &a), 0);
    assert_int_equal(begin_compatible(&a, "a", &b, "b"), 0);
    b.sources[0].scale = 0.5;
    assert_int_equal(begin_compatible(&a, "a", &b, "b"), ERR_USAGE);
    b.sources[0].scale = 0.25;
    b.sources[0].width = 5;
    assert_int_equal(begin_compatible(&a, "a", &b, "b"), ERR_USAGE);
    b.sources[0].width = 4;
    char one[33], other[33];
    b.has_rows = true;
    b.rows = 77;
    b.first_row = 5;
    assert_int_equal(begin_identity(&a, one), 0);
    assert_int_equal(begin_identity(&b, other), 0);
    assert_string_equal(one, other);
    b.dtype = DTYPE_BF16;
    assert_int_equal(begin_identity(&b, other), 0);
    assert_string_not_equal(one, other);
    begin_free(&a);
    begin_free(&b);
}

static int set_up(void **state)
{
    (void)state;
    log_init("test_stream", LOG_SILENT);
    snprintf(scratch, sizeof scratch, "/tmp/test_stream.XXXXXX");
    return mkdtemp(scratch) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const names[] = {"tokens", "rows", "one",  "four",  "a",       "b",
                                        "both",   "cut",  "flip", "index", "records", "nan"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = io_join(scratch, names[i]);
        if (path != NULL)
            unlink(path);
        free(path);
    }
    return rmdir(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_rows_in_f32),
        cmocka_unit_test(test_golden_planes_and_index),
        cmocka_unit_test(test_golden_zstd_tokens_and_empty),
        cmocka_unit_test(test_writer_writes_golden_tokens),
        cmocka_unit_test(test_round_trip_of_all_codecs),
        cmocka_unit_test(test_threads_do_not_change_the_bytes),
        cmocka_unit_test(test_cat_reads_as_one),
        cmocka_unit_test(test_an_index_that_points_elsewhere_is_none),
        cmocka_unit_test(test_the_beginning_is_found_without_an_index),
        cmocka_unit_test(test_every_cut_is_found),
        cmocka_unit_test(test_every_changed_byte_is_found),
        cmocka_unit_test(test_dropped_doubled_and_swapped_records_are_found),
        cmocka_unit_test(test_rows_that_are_not_finite_are_refused),
        cmocka_unit_test(test_begin_comparison),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
