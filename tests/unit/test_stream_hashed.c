/* test_stream_hashed.c - streams whose rows travel by a data plane: what BEGIN says of it, hostile
 * values in it, and DATA that holds hashes.
 */
#define _GNU_SOURCE /* memfd_create */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"
#include "common/stream.h"

enum { BUFFERS = 2, CAPACITY = 3, WIDTH = 5 };

static void make_begin(struct begin *begin, enum begin_plane plane)
{
    assert_int_equal(begin_init(begin, BEGIN_ACTIVATIONS, "actgen"), 0);
    assert_int_equal(begin_add_source(begin, "a.x", "a", "x", "h", WIDTH, 0.5), 0);
    begin->dtype = DTYPE_F32;
    begin->plane = plane;
    if (plane == BEGIN_INLINE)
        return;
    memcpy(begin->attach.socket, "ccpipe-0123.x_y", sizeof "ccpipe-0123.x_y");
    begin->attach.buffers = BUFFERS;
    begin->attach.capacity = CAPACITY;
    for (size_t i = 0; i < (plane == BEGIN_NCCL ? 128 : 64); i++)
        begin->attach.key[i] = (uint8_t)(255 - i);
}

/* The stream of `begin` with these rows, in a file without a name; its path. */
static int write_stream(char path[64], const struct begin *begin, const uint8_t *tags,
                        const uint8_t *data, size_t rows, enum stream_codec codec,
                        struct rowsum *sum)
{
    int fd = memfd_create("stream", 0);
    assert_true(fd >= 0);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    struct stream_writer *writer;
    assert_int_equal(stream_writer_open(&writer, path, codec, 1), 0);
    assert_int_equal(stream_writer_begin(writer, begin), 0);
    assert_int_equal(stream_writer_rows(writer, tags, data, rows), 0);
    *sum = *stream_writer_sum(writer);
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    return fd;
}

static int read_stream(const char *path, enum begin_kind kind, struct stream_reader **reader,
                       struct stream_record *record)
{
    char *paths[] = {(char *)path};
    int status = stream_reader_open(reader, paths, 1, kind, 1);
    return status != 0 ? status : stream_reader_next(*reader, record);
}

/* Four rows, their hashes one by one, and the hashes as DATA has them. */
static void make_rows(uint8_t tags[64], float rows[4][WIDTH], uint8_t data[4 * STREAM_HASHED_BYTES])
{
    for (uint32_t i = 0; i < 4; i++) {
        stream_tag_put(tags + 16 * i, (struct stream_tag){100 + i, i, 7 * i});
        for (uint32_t j = 0; j < WIDTH; j++)
            rows[i][j] = (float)(i + 1) * (0.5f + (float)j);
        struct stream_hashed row = {.place = 5 - i};
        rowsum_add_tagged(&row.hash, tags + 16 * i, rows[i], sizeof rows[i]);
        stream_hashed_put(data + STREAM_HASHED_BYTES * i, row);
    }
}

static void test_end_is_that_of_the_rows_inline(void **state)
{
    (void)state;
    uint8_t tags[64], data[4 * STREAM_HASHED_BYTES];
    float rows[4][WIDTH];
    make_rows(tags, rows, data);
    static const enum stream_codec codecs[] = {STREAM_CODEC_NONE, STREAM_CODEC_LZ4};
    for (size_t k = 0; k < 4; k++) {
        struct begin begin;
        char path[64];
        struct rowsum want, sum;
        make_begin(&begin, BEGIN_INLINE);
        close(write_stream(path, &begin, tags, (const uint8_t *)rows, 4, STREAM_CODEC_NONE, &want));
        begin_free(&begin);
        make_begin(&begin, k % 2 == 0 ? BEGIN_CUDA_IPC : BEGIN_NCCL);
        int fd = write_stream(path, &begin, tags, data, 4, codecs[k / 2], &sum);
        begin_free(&begin);
        assert_true(rowsum_equal(&sum, &want));
        struct stream_reader *reader;
        struct stream_record record;
        assert_int_equal(read_stream(path, BEGIN_ACTIVATIONS_VIA, &reader, &record), 1);
        assert_int_equal(record.rows, 4);
        assert_memory_equal(record.tags, tags, sizeof tags);
        assert_int_equal(record.data_bytes, sizeof data);
        assert_memory_equal(record.data, data, sizeof data);
        const struct begin_attach *attach = &stream_reader_begin(reader)->attach;
        assert_string_equal(attach->socket, "ccpipe-0123.x_y");
        assert_int_equal(attach->buffers, BUFFERS);
        assert_int_equal(attach->capacity, CAPACITY);
        assert_int_equal(attach->key[63], 192);
        assert_int_equal(attach->key[127], k % 2 == 0 ? 0 : 128);
        assert_int_equal(stream_reader_next(reader, &record), 0);
        assert_true(rowsum_equal(&stream_reader_end(reader)->sum, &want));
        stream_reader_free(reader);
        close(fd);
    }
}

static void test_readers_that_want_rows_refuse_it(void **state)
{
    (void)state;
    uint8_t tags[64], data[4 * STREAM_HASHED_BYTES];
    float rows[4][WIDTH];
    struct begin begin;
    char path[64];
    struct rowsum sum;
    make_rows(tags, rows, data);
    make_begin(&begin, BEGIN_NCCL);
    int fd = write_stream(path, &begin, tags, data, 4, STREAM_CODEC_NONE, &sum);
    begin_free(&begin);
    static const enum begin_kind kinds[] = {BEGIN_ACTIVATIONS, BEGIN_ANY};
    for (size_t k = 0; k < 2; k++) {
        struct stream_reader *reader;
        struct stream_record record;
        assert_int_equal(read_stream(path, kinds[k], &reader, &record), ERR_USAGE);
        assert_null(reader);
    }
    close(fd);
}

/* The window has 2 x 3 rows: place 5 is its last. */
static void test_a_place_beyond_the_window_is_refused(void **state)
{
    (void)state;
    for (uint64_t place = 5; place <= 6; place++) {
        uint8_t tags[64], data[4 * STREAM_HASHED_BYTES];
        float rows[4][WIDTH];
        struct begin begin;
        char path[64];
        struct rowsum sum;
        make_rows(tags, rows, data);
        le_put64(data + 2 * STREAM_HASHED_BYTES + 16, place);
        make_begin(&begin, BEGIN_CUDA_IPC);
        int fd = write_stream(path, &begin, tags, data, 4, STREAM_CODEC_NONE, &sum);
        begin_free(&begin);
        struct stream_reader *reader;
        struct stream_record record;
        assert_int_equal(read_stream(path, BEGIN_ACTIVATIONS_VIA, &reader, &record),
                         place == 5 ? 1 : ERR_DATA);
        stream_reader_free(reader);
        close(fd);
    }
}

/* ---- BEGIN */

/* A shuffle's BEGIN has the generator's upstream, and with it what attaches. */
static void test_the_identity_knows_nothing_of_the_plane(void **state)
{
    (void)state;
    char want[33], got[33];
    for (int nested = 0; nested < 2; nested++)
        for (int plane = BEGIN_INLINE; plane <= BEGIN_NCCL; plane++) {
            struct begin begin, shuffled;
            make_begin(&begin, (enum begin_plane)plane);
            make_begin(&shuffled, BEGIN_INLINE);
            shuffled.upstream = begin_to_json(&begin);
            assert_int_equal(begin_identity(nested ? &shuffled : &begin, got), 0);
            if (plane == BEGIN_INLINE)
                memcpy(want, got, sizeof want);
            assert_string_equal(got, want);
            assert_int_equal(json_object_get(shuffled.upstream, "attach") == NULL,
                             plane == BEGIN_INLINE); /* what was asked about is as it was */
            begin_free(&begin);
            begin_free(&shuffled);
        }
}

/* Byte for byte what a shuffle of the same rows inline says, of which shufbuf's tests know more. */
static void test_a_shuffle_of_them_says_nothing_of_the_plane(void **state)
{
    (void)state;
    json_t *options = json_pack("{s:i, s:i, s:i}", "rows", 4, "seed", 3, "epochs", 1), *want = NULL;
    for (int plane = BEGIN_INLINE; plane <= BEGIN_NCCL; plane++) {
        struct begin begin, shuffled;
        make_begin(&begin, (enum begin_plane)plane);
        json_t *json = begin_to_json(&begin);
        assert_int_equal(begin_shuffled(&shuffled, &begin, json, options, true, 9, 2), 0);
        assert_int_equal(shuffled.rows, 7);
        assert_int_equal(shuffled.first_row, 2);
        assert_true(strncmp(shuffled.tool, "shufbuf ", 8) == 0);
        json_t *got = begin_to_json(&shuffled);
        if (plane == BEGIN_INLINE)
            want = json_incref(got);
        assert_true(json_equal(got, want));
        assert_int_equal(json_object_get(json, "attach") == NULL, plane == BEGIN_INLINE);
        json_decref(got);
        json_decref(json);
        begin_free(&shuffled);
        begin_free(&begin);
    }
    json_decref(want);
    json_decref(options);
}

static void test_planes_follow_nothing(void **state)
{
    (void)state;
    for (int a = BEGIN_INLINE; a <= BEGIN_NCCL; a++)
        for (int b = BEGIN_INLINE; b <= BEGIN_NCCL; b++) {
            struct begin first, second;
            make_begin(&first, (enum begin_plane)a);
            make_begin(&second, (enum begin_plane)b);
            int want = a == BEGIN_INLINE && b == BEGIN_INLINE ? 0 : ERR_USAGE;
            assert_int_equal(begin_compatible(&first, "a", &second, "b"), want);
            begin_free(&first);
            begin_free(&second);
        }
}

static json_t *hex_of(size_t digits, char last)
{
    char hex[300];
    memset(hex, 'a', digits);
    hex[digits - 1] = last;
    return json_stringn(hex, digits);
}

static json_t *name_of(size_t length, char last)
{
    char name[300];
    memset(name, 'n', length);
    name[length - 1] = last;
    return json_stringn(name, length);
}

static void test_hostile_values_in_attach(void **state)
{
    (void)state;
    const struct {
        const char *key;
        json_t *value; /* NULL: the key is taken out */
        int want;
    } cases[] = {
        {"socket", name_of(100, 'z'), 0},
        {"socket", name_of(101, 'z'), ERR_DATA},
        {"socket", json_string(""), ERR_DATA},
        {"socket", name_of(5, '/'), ERR_DATA},
        {"socket", name_of(5, '%'), ERR_DATA},
        {"socket", json_integer(3), ERR_DATA},
        {"socket", NULL, ERR_DATA},
        {"buffers", json_integer(256), 0},
        {"buffers", json_integer(257), ERR_DATA},
        {"buffers", json_integer(1), ERR_DATA},
        {"buffers", json_integer(0), ERR_DATA},
        {"buffers", json_integer(-2), ERR_DATA},
        {"buffers", json_real(2.0), ERR_DATA},
        {"buffers", NULL, ERR_DATA},
        {"capacity", json_integer(1), 0},
        {"capacity", json_integer(0), ERR_DATA},
        {"capacity", json_integer(2147483647), 0},
        {"capacity", json_integer(2147483648), ERR_DATA},
        {"capacity", json_integer(INT64_MAX), ERR_DATA},
        {"capacity", NULL, ERR_DATA},
        {"handle", hex_of(128, '0'), 0},
        {"handle", hex_of(127, '0'), ERR_DATA},
        {"handle", hex_of(129, '0'), ERR_DATA},
        {"handle", hex_of(128, 'g'), ERR_DATA},
        {"handle", hex_of(128, 'A'), ERR_DATA},
        {"handle", json_null(), ERR_DATA},
        {"handle", NULL, ERR_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct begin begin, read;
        make_begin(&begin, BEGIN_CUDA_IPC);
        json_t *json = begin_to_json(&begin), *attach = json_object_get(json, "attach");
        if (cases[i].value == NULL)
            assert_int_equal(json_object_del(attach, cases[i].key), 0);
        else
            assert_int_equal(json_object_set_new(attach, cases[i].key, cases[i].value), 0);
        int status = begin_from_json(&read, json, "x");
        if (status != cases[i].want)
            print_error("case %zu (%s)\n", i, cases[i].key);
        assert_int_equal(status, cases[i].want);
        if (status == 0)
            begin_free(&read);
        json_decref(json);
        begin_free(&begin);
    }
}

static void test_hostile_planes(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct begin begin, read;
        make_begin(&begin, BEGIN_CUDA_IPC);
        json_t *json = begin_to_json(&begin);
        int failed = i == 0   ? json_object_del(json, "attach")
                     : i == 1 ? json_object_set_new(json, "attach", json_string("x"))
                     : i == 2 ? json_object_set_new(json, "data_plane", json_string("shm"))
                              : json_object_set_new(json, "data_plane", json_string("nccl"));
        assert_int_equal(failed, 0); /* nccl has an "id", and no "handle" */
        assert_int_equal(begin_from_json(&read, json, "x"), ERR_DATA);
        json_decref(json);
        begin_free(&begin);
    }
}

int main(void)
{
    log_init("test_stream_hashed", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_is_that_of_the_rows_inline),
        cmocka_unit_test(test_readers_that_want_rows_refuse_it),
        cmocka_unit_test(test_a_place_beyond_the_window_is_refused),
        cmocka_unit_test(test_the_identity_knows_nothing_of_the_plane),
        cmocka_unit_test(test_a_shuffle_of_them_says_nothing_of_the_plane),
        cmocka_unit_test(test_planes_follow_nothing),
        cmocka_unit_test(test_hostile_values_in_attach),
        cmocka_unit_test(test_hostile_planes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
