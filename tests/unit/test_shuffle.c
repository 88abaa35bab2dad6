/* test_shuffle.c - shufbuf's work from file to file: order and bytes against the rule on a plain
 * array, epochs, a later start, inputs that are cut or damaged.
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

#include "common/log.h"
#include "common/opt.h"
#include "common/stream.h"
#include "tests/unit/shuffle_rule.h"
#include "tools/shufbuf/shuffle.h"

#define WIDTH 5
#define ROW_BYTES (2 * WIDTH)

static char folder[] = "/tmp/test_shuffle_XXXXXX";
static char in[64], out[64], other[64];

/* bf16 values 1.x of the row's number: finite, and different for each row below 2^28. */
static void make_row(uint64_t number, uint8_t tag[STREAM_TAG_BYTES], uint8_t bytes[ROW_BYTES])
{
    stream_tag_put(tag, (struct stream_tag){number, (uint32_t)(number * 3), (uint32_t)~number});
    for (unsigned i = 0; i < WIDTH; i++)
        le_put16(bytes + 2 * i, (uint16_t)(0x3f80 | (number >> (7 * i) & 0x7f)));
}

/* `count` rows in records of `cut`, the first with number `first`. */
static void write_input(const char *path, uint64_t first, uint64_t count, uint64_t cut)
{
    struct begin begin;
    struct stream_writer *writer;
    uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    begin.dtype = DTYPE_BF16;
    begin.has_rows = true;
    begin.rows = count;
    begin.first_row = first;
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", WIDTH, 1), 0);
    assert_int_equal(stream_writer_open(&writer, path, STREAM_CODEC_LZ4, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    for (uint64_t r = 0; r < count; r++) {
        make_row(r, tag, bytes);
        assert_int_equal(stream_writer_rows(writer, tag, bytes, 1), 0);
        if ((r + 1) % cut == 0)
            assert_int_equal(stream_writer_flush(writer), 0);
    }
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
}

/* Reads a stream's rows, checking that each is whole; their numbers, which the caller frees. */
static uint64_t *read_rows(const char *path, uint64_t *count, int *status)
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    struct stream_record record;
    uint8_t tag[STREAM_TAG_BYTES], bytes[ROW_BYTES];
    uint64_t *numbers = NULL;
    *count = 0;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    uint64_t first = stream_reader_begin(reader)->first_row;
    while ((*status = stream_reader_next(reader, &record)) == 1) {
        assert_true(record.first_row == first + *count);
        numbers = realloc(numbers, (size_t)(*count + record.rows) * sizeof *numbers);
        assert_non_null(numbers);
        for (uint32_t i = 0; i < record.rows; i++) {
            uint64_t number = stream_tag_get(record.tags + i * STREAM_TAG_BYTES).sequence;
            make_row(number, tag, bytes);
            assert_memory_equal(record.tags + i * STREAM_TAG_BYTES, tag, sizeof tag);
            assert_memory_equal(record.data + i * ROW_BYTES, bytes, sizeof bytes);
            numbers[(*count)++] = number;
        }
    }
    stream_reader_free(reader);
    return numbers;
}

static struct shuffle_setup setup_of(uint64_t rows, uint64_t seed, const json_t *recipe)
{
    static char *paths[] = {in};
    return (struct shuffle_setup){.paths = paths,
                                  .path_count = 1,
                                  .rows = rows,
                                  .seed = seed,
                                  .epochs = 1,
                                  .output = out,
                                  .codec = STREAM_CODEC_LZ4,
                                  .threads = 2,
                                  .recipe = recipe};
}

/* Runs, and compares the output's rows with the rule's from draw skip_draws on; epochs of `count`.
 */
static void run_and_compare(const struct shuffle_setup *setup, uint64_t count)
{
    uint64_t all = count * setup->epochs, served;
    uint64_t *order = shuffle_rule(setup->rows, setup->seed, all);
    int status;
    assert_int_equal(shuffle_run(setup), 0);
    uint64_t *numbers = read_rows(setup->output, &served, &status);
    assert_int_equal(status, 0);
    assert_true(served == all - setup->skip_draws);
    for (uint64_t i = 0; i < served; i++)
        assert_true(numbers[i] == order[setup->skip_draws + i] % count);
    free(numbers);
    free(order);
}

static void order_is_that_of_the_rule(void **state)
{
    static const uint64_t sizes[] = {1, 2, 7, 100, 1000}, counts[] = {0, 1, 99, 100, 101, 300, 342};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        write_input(in, 0, counts[c], 40);
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct shuffle_setup setup = setup_of(sizes[s], 49, *state);
            run_and_compare(&setup, counts[c]);
        }
    }
}

static void a_later_start_continues_the_order(void **state)
{
    write_input(in, 0, 342, 40);
    static const uint64_t skips[] = {1, 39, 99, 100, 101, 150, 200, 299, 300, 301, 341, 342};
    for (size_t s = 0; s < sizeof skips / sizeof *skips; s++) {
        struct shuffle_setup setup = setup_of(100, 7, *state);
        setup.skip_draws = skips[s];
        run_and_compare(&setup, 342);
        setup.rows = 1000;
        run_and_compare(&setup, 342);
    }
}

static void epochs_run_into_each_other(void **state)
{
    write_input(in, 0, 130, 40);
    static const uint64_t skips[] = {0, 5, 100, 129, 130, 131, 200, 259, 260, 333, 389, 390};
    for (size_t s = 0; s < sizeof skips / sizeof *skips; s++) {
        struct shuffle_setup setup = setup_of(100, 7, *state);
        setup.epochs = 3;
        setup.skip_draws = skips[s];
        run_and_compare(&setup, 130);
        setup.rows = 17;
        run_and_compare(&setup, 130);
    }
}

static void an_input_whose_numbers_start_late_is_shuffled_alike(void **state)
{
    write_input(in, 12345, 342, 40);
    struct shuffle_setup setup = setup_of(100, 7, *state);
    run_and_compare(&setup, 342);
    setup.epochs = 2;
    setup.skip_draws = 555;
    run_and_compare(&setup, 342);
}

static void same_seed_same_bytes_other_seed_other_order(void **state)
{
    char *first, *second, *third;
    size_t sizes[3];
    write_input(in, 0, 1000, 40);
    struct shuffle_setup setup = setup_of(100, 7, *state);
    assert_int_equal(shuffle_run(&setup), 0);
    setup.output = other;
    setup.threads = 1;
    assert_int_equal(shuffle_run(&setup), 0);
    assert_int_equal(io_read_file(&first, &sizes[0], out, 1u << 24), 0);
    assert_int_equal(io_read_file(&second, &sizes[1], other, 1u << 24), 0);
    assert_int_equal(sizes[0], sizes[1]);
    assert_memory_equal(first, second, sizes[0]);
    setup.seed = 8;
    assert_int_equal(shuffle_run(&setup), 0);
    assert_int_equal(io_read_file(&third, &sizes[2], other, 1u << 24), 0);
    assert_true(sizes[2] != sizes[0] || memcmp(first, third, sizes[0]) != 0);
    free(first);
    free(second);
    free(third);
}

static void begin_says_where_the_rows_come_from(void **state)
{
    char *paths[] = {out};
    struct stream_reader *reader;
    write_input(in, 0, 342, 40);
    struct shuffle_setup setup = setup_of(100, 7, *state);
    setup.epochs = 2;
    setup.skip_draws = 111;
    assert_int_equal(shuffle_run(&setup), 0);
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    const struct begin *begin = stream_reader_begin(reader);
    assert_true(begin->has_rows && begin->rows == 2 * 342 - 111);
    assert_true(begin->first_row == 111);
    assert_memory_equal(begin->tool, "shufbuf ", 8);
    assert_true(json_equal(begin->options, *state));
    assert_string_equal(json_string_value(json_object_get(begin->upstream, "tool")),
                        "test " OPT_VERSION);
    assert_int_equal(begin->source_count, 1);
    assert_string_equal(begin->sources[0].name, "a.x");
    stream_reader_free(reader);
}

/* Of an input of 342 rows that is cut behind `records` records (40 rows each): the draws of the
 * whole input must come, up to the first whose row is missing, and then the end that a reader takes
 * for ABORT. */
static void check_served_then_abort(uint64_t records, uint64_t n)
{
    uint64_t served;
    int status;
    uint64_t *numbers = read_rows(out, &served, &status);
    uint64_t *whole = shuffle_rule(n, 7, 342);
    assert_int_equal(status, ERR_TRUNCATED);
    assert_true(served == shuffle_rule_cut(n, 7, 40 * records));
    assert_memory_equal(numbers, whole, (size_t)served * sizeof *numbers);
    free(whole);
    free(numbers);
}

static void write_bytes(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Offsets of the LZ4 frames, by their magic number. */
static size_t find_frames(const char *bytes, size_t size, size_t *frames, size_t most)
{
    size_t count = 0;
    for (size_t i = 0; i + 4 <= size && count < most; i++)
        if (memcmp(bytes + i, "\x04\x22\x4d\x18", 4) == 0)
            frames[count++] = i;
    return count;
}

static void before_a_cut_the_draws_are_those_of_the_whole(void **state)
{
    char *bytes;
    size_t size, frames[12];
    write_input(in, 0, 342, 40);
    assert_int_equal(io_read_file(&bytes, &size, in, 1u << 24), 0);
    /* BEGIN, 8 records of 40 rows, one of 22, END */
    assert_int_equal(find_frames(bytes, size, frames, 12), 11);
    for (uint64_t records = 0; records < 9; records++)
        for (uint64_t rows = 30; rows < 400; rows += 90) {
            write_bytes(in, bytes, frames[1 + records] + 5);
            struct shuffle_setup setup = setup_of(rows, 7, *state);
            assert_int_equal(shuffle_run(&setup), ERR_TRUNCATED);
            check_served_then_abort(records, rows);
        }
    free(bytes);
}

static void before_damage_the_draws_are_those_of_the_whole(void **state)
{
    char *bytes;
    size_t size, frames[12];
    write_input(in, 0, 342, 40);
    assert_int_equal(io_read_file(&bytes, &size, in, 1u << 24), 0);
    assert_int_equal(find_frames(bytes, size, frames, 12), 11);
    for (uint64_t records = 0; records < 8; records++) {
        char *at = &bytes[(frames[1 + records] + frames[2 + records]) / 2];
        *at ^= 4;
        write_bytes(in, bytes, size);
        *at ^= 4;
        struct shuffle_setup setup = setup_of(100, 7, *state);
        assert_int_equal(shuffle_run(&setup), ERR_DATA);
        check_served_then_abort(records, 100);
    }
    free(bytes);
}

static void a_start_behind_the_end_is_refused(void **state)
{
    write_input(in, 0, 342, 40);
    struct shuffle_setup setup = setup_of(100, 7, *state);
    setup.skip_draws = 343;
    unlink(out);
    assert_int_equal(shuffle_run(&setup), ERR_USAGE);
    assert_int_equal(access(out, F_OK), -1);
}

/* BEGIN's count is exact by contract; what breaks it is refused and not passed on. */
static void a_wrong_count_in_begin_is_refused(void **state)
{
    struct begin begin;
    struct stream_writer *writer;
    uint8_t tag[STREAM_TAG_BYTES], row[ROW_BYTES];
    for (int extra = -1; extra <= 1; extra += 2) {
        assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
        begin.dtype = DTYPE_BF16;
        begin.has_rows = true;
        begin.rows = (uint64_t)(10 + extra);
        assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", WIDTH, 1), 0);
        assert_int_equal(stream_writer_open(&writer, in, STREAM_CODEC_NONE, 1), 0);
        assert_int_equal(stream_writer_begin(writer, &begin), 0);
        for (uint64_t r = 0; r < 10; r++) {
            make_row(r, tag, row);
            assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
        }
        assert_int_equal(stream_writer_end(writer, NULL), 0);
        stream_writer_free(writer);
        begin_free(&begin);
        struct shuffle_setup setup = setup_of(100, 7, *state);
        assert_int_equal(shuffle_run(&setup), ERR_DATA);
    }
}

/* Rows that BEGIN announced and END counts as not finite may be missing, also behind a shuffle. */
static void rows_that_were_not_finite_may_be_missing(void **state)
{
    struct begin begin;
    struct stream_writer *writer;
    struct stream_reader *reader;
    uint8_t tag[STREAM_TAG_BYTES], row[ROW_BYTES];
    char *paths[] = {in};
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    begin.dtype = DTYPE_BF16;
    begin.has_rows = true;
    begin.rows = 12;
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", WIDTH, 1), 0);
    assert_int_equal(stream_writer_open(&writer, in, STREAM_CODEC_NONE, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    for (uint64_t r = 0; r < 10; r++) {
        make_row(r, tag, row);
        assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
    }
    json_t *skipped = json_pack("{s:i, s:i}", "not_finite", 2, "position", 7);
    assert_int_equal(stream_writer_end(writer, skipped), 0);
    json_decref(skipped);
    stream_writer_free(writer);
    begin_free(&begin);
    /* A file's reader knows both. */
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ACTIVATIONS, 1), 0);
    assert_int_equal(stream_reader_begin(reader)->rows, 10);
    stream_reader_free(reader);
    struct shuffle_setup setup = setup_of(100, 7, *state);
    setup.epochs = 3;
    assert_int_equal(shuffle_run(&setup), 0);
}

static void memory_that_is_not_there_is_refused_before_output(void **state)
{
    /* A row of 2^24 f32 takes 64 MiB; a million of them are beyond any machine. No row follows. */
    struct begin begin;
    struct stream_writer *writer;
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    begin.dtype = DTYPE_F32;
    begin.has_rows = true;
    begin.rows = 2000000;
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", (1u << 24) - 16, 1), 0);
    assert_int_equal(stream_writer_open(&writer, in, STREAM_CODEC_NONE, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    stream_writer_free(writer);
    begin_free(&begin);
    struct shuffle_setup setup = setup_of(1000000, 7, *state);
    unlink(out);
    assert_int_equal(shuffle_run(&setup), ERR_MEMORY);
    assert_int_equal(access(out, F_OK), -1);
}

static int set_up(void **state)
{
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(in, sizeof in, "%s/in", folder);
    snprintf(out, sizeof out, "%s/out", folder);
    snprintf(other, sizeof other, "%s/other", folder);
    *state = json_pack("{s:i, s:i}", "rows", 100, "seed", 7);
    return *state == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    json_decref(*state);
    unlink(in);
    unlink(out);
    unlink(other);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_the_rule),
        cmocka_unit_test(a_later_start_continues_the_order),
        cmocka_unit_test(epochs_run_into_each_other),
        cmocka_unit_test(an_input_whose_numbers_start_late_is_shuffled_alike),
        cmocka_unit_test(same_seed_same_bytes_other_seed_other_order),
        cmocka_unit_test(begin_says_where_the_rows_come_from),
        cmocka_unit_test(before_a_cut_the_draws_are_those_of_the_whole),
        cmocka_unit_test(before_damage_the_draws_are_those_of_the_whole),
        cmocka_unit_test(a_start_behind_the_end_is_refused),
        cmocka_unit_test(rows_that_were_not_finite_may_be_missing),
        cmocka_unit_test(a_wrong_count_in_begin_is_refused),
        cmocka_unit_test(memory_that_is_not_there_is_refused_before_output),
    };
    log_init("test_shuffle", LOG_SILENT);
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
