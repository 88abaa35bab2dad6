/* test_parquet_parts.c - Thrift, runs, checksums and codecs, each alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/rng.h"
#include "tests/unit/parquet_writer.h"
#include "tools/tokstream/parquet_codec.h"
#include "tools/tokstream/parquet_crc.h"
#include "tools/tokstream/parquet_rle.h"
#include "tools/tokstream/parquet_thrift.h"

/* ---- thrift */

static struct thrift thrift_of(const struct bytes_out *out)
{
    return (struct thrift){.next = out->bytes, .end = out->bytes + out->size};
}

static void test_integers_of_all_sizes(void **state)
{
    (void)state;
    static const int64_t values[] = {0,   1,      -1,        63,        -64,       64,       -65,
                                     300, -70000, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct bytes_out out = {.size = 0};
        out_int(&out, 300, values[i]);
        out_stop(&out);
        struct thrift thrift = thrift_of(&out);
        struct thrift_field field = {0};
        assert_true(thrift_field_next(&thrift, &field));
        assert_int_equal(field.id, 300);
        assert_true(thrift_int(&thrift, field.type) == values[i]);
        assert_false(thrift_field_next(&thrift, &field));
        assert_int_equal(thrift.state, THRIFT_GOOD);
        assert_ptr_equal(thrift.next, thrift.end);
    }
}

/* Bytes by hand, from the protocol's description: steps in the high half of a field's first byte.
 */
static void test_field_steps(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x15, 0x02, 0xf5, 0x01, 0x03, 0x07, 0x31, 0x12, 0x00};
    struct thrift thrift = {.next = bytes, .end = bytes + sizeof bytes};
    struct thrift_field field = {0};
    assert_true(thrift_field_next(&thrift, &field));
    assert_int_equal(field.id, 1);
    assert_true(thrift_int(&thrift, field.type) == 1);
    assert_true(thrift_field_next(&thrift, &field));
    assert_int_equal(field.id, 16);
    assert_true(thrift_int(&thrift, field.type) == -1);
    assert_true(thrift_field_next(&thrift, &field)); /* 0x03: the number itself follows, -4 */
    assert_int_equal(field.id, -4);
    assert_int_equal(field.type, THRIFT_I8);
    assert_true(thrift_int(&thrift, field.type) == 0x31);
    assert_true(thrift_field_next(&thrift, &field)); /* 0x12: a bool, one step on */
    assert_int_equal(field.id, -3);
    assert_false(thrift_bool(&thrift, field.type));
    assert_false(thrift_field_next(&thrift, &field));
    assert_int_equal(thrift.state, THRIFT_GOOD);
}

static void write_one_of_each(struct bytes_out *out)
{
    static const uint8_t number[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    out_field(out, THRIFT_TRUE, 1);
    out_field(out, THRIFT_I8, 2);
    out_byte(out, 5);
    out_int(out, 3, -123456789);
    out_field(out, THRIFT_DOUBLE, 4);
    out_bytes(out, number, 8);
    out_text(out, 5, "some text");
    out_field(out, THRIFT_LIST, 6);
    out_byte(out, 0x30 | THRIFT_TRUE); /* three bools, a byte each */
    out_bytes(out, "\1\2\1", 3);
    out_structs(out, 7, 20);
    for (int i = 0; i < 20; i++) {
        out_int(out, 1, i);
        out_stop(out);
    }
    out_field(out, THRIFT_MAP, 8);
    out_varint(out, 2);
    out_byte(out, THRIFT_BINARY << 4 | THRIFT_I32);
    out_bytes(out, "\1a\4\1b\6", 6);
    out_field(out, THRIFT_MAP, 9);
    out_byte(out, 0); /* an empty map has no types */
    out_field(out, THRIFT_SET, 10);
    out_byte(out, 0x20 | THRIFT_I16);
    out_bytes(out, "\2\4", 2);
    out_stop(out);
}

static void test_unknown_fields_are_passed_over(void **state)
{
    (void)state;
    struct bytes_out out = {.size = 0};
    write_one_of_each(&out);
    struct thrift thrift = thrift_of(&out);
    struct thrift_field field = {0};
    int count = 0;
    while (thrift_field_next(&thrift, &field)) {
        assert_int_equal(field.id, ++count);
        thrift_skip(&thrift, field.type);
    }
    assert_int_equal(count, 10);
    assert_int_equal(thrift.state, THRIFT_GOOD);
    assert_ptr_equal(thrift.next, thrift.end);
}

static void test_every_cut_is_short(void **state)
{
    (void)state;
    struct bytes_out out = {.size = 0};
    write_one_of_each(&out);
    for (size_t size = 0; size < out.size; size++) {
        struct thrift thrift = {.next = out.bytes, .end = out.bytes + size};
        struct thrift_field field = {0};
        while (thrift_field_next(&thrift, &field))
            thrift_skip(&thrift, field.type);
        assert_int_equal(thrift.state, THRIFT_SHORT);
    }
}

static void test_what_is_no_thrift(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } wrong[] = {
        {"\x1d", 1},                                          /* no such type */
        {"\x15\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11}, /* more than 64 bits */
        {"\x15\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 12},
        {"\x05\xff\xff\xff\x7f\1", 6}, /* a field's number beyond 16 bits */
        {"\x19\x1d\1", 3},             /* a list of no such type */
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const uint8_t *bytes = (const uint8_t *)wrong[i].bytes;
        struct thrift thrift = {.next = bytes, .end = bytes + wrong[i].size};
        struct thrift_field field = {0};
        while (thrift_field_next(&thrift, &field))
            thrift_skip(&thrift, field.type);
        assert_int_equal(thrift.state, THRIFT_BAD);
    }
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    for (size_t depth = THRIFT_MAX_DEPTH - 1; depth <= THRIFT_MAX_DEPTH + 1; depth++) {
        struct bytes_out out = {.size = 0};
        for (size_t i = 0; i < depth; i++)
            out_field(&out, THRIFT_STRUCT, 1);
        for (size_t i = 0; i < depth + 1; i++)
            out_stop(&out);
        struct thrift thrift = thrift_of(&out);
        struct thrift_field field = {0};
        while (thrift_field_next(&thrift, &field))
            thrift_skip(&thrift, field.type);
        assert_int_equal(thrift.state, depth <= THRIFT_MAX_DEPTH ? THRIFT_GOOD : THRIFT_BAD);
    }
}

static void test_a_list_is_not_longer_than_its_bytes(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0xf8, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0};
    struct thrift thrift = {.next = bytes, .end = bytes + sizeof bytes};
    uint8_t element;
    assert_int_equal(thrift_list(&thrift, THRIFT_LIST, &element), 0);
    assert_int_equal(thrift.state, THRIFT_SHORT);
    struct thrift again = {.next = bytes, .end = bytes + sizeof bytes};
    (void)thrift_int(&again, THRIFT_BINARY);
    assert_int_equal(again.state, THRIFT_BAD);
}

/* ---- runs */

#define MOST 2000

struct runs {
    struct bytes_out out;
    uint32_t values[MOST];
    size_t count;
};

/* Runs of both kinds, of values that repeat now and then. */
static void make_runs(struct runs *runs, unsigned width, uint64_t stream)
{
    uint64_t draw = 0;
    uint32_t mask = width == 0 ? 0 : UINT32_MAX >> (32 - width);
    *runs = (struct runs){.count = 0};
    while (runs->count < MOST - 500) {
        uint64_t kind = rng_u64(7, stream, draw++);
        size_t n = 1 + (size_t)(kind >> 8) % 100;
        uint32_t value = (uint32_t)rng_u64(7, stream, draw++) & mask;
        if ((kind & 1) == 0) {
            out_equal(&runs->out, value, n, width);
            for (size_t i = 0; i < n; i++)
                runs->values[runs->count++] = value;
        } else {
            n = 8 * ((n + 7) / 8);
            for (size_t i = 0; i < n; i++) {
                uint64_t number = rng_u64(7, stream, draw++);
                value = (number >> 40) % 3 == 0 ? (uint32_t)number & mask : value;
                runs->values[runs->count + i] = value;
            }
            out_packed(&runs->out, runs->values + runs->count, n, width);
            runs->count += n;
        }
        if ((kind & 6) == 0)
            out_equal(&runs->out, 0, 0, width); /* a run of nothing */
    }
}

static void test_runs_of_every_width(void **state)
{
    (void)state;
    static struct runs runs;
    static uint32_t values[MOST];
    for (unsigned width = 0; width <= 32; width++)
        for (size_t piece = 1; piece < 400; piece = piece * 3 + 1) {
            struct parquet_rle rle;
            make_runs(&runs, width, width);
            parquet_rle_init(&rle, runs.out.bytes, runs.out.size, width);
            for (size_t at = 0; at < runs.count; at += piece) {
                size_t n = piece < runs.count - at ? piece : runs.count - at;
                assert_true(parquet_rle_values(&rle, values + at, n));
            }
            assert_memory_equal(values, runs.values, runs.count * sizeof *values);
            if (width > 0)
                assert_false(parquet_rle_values(&rle, values, 1));
        }
}

static void test_equal_values_come_together(void **state)
{
    (void)state;
    static struct runs runs;
    for (unsigned width = 1; width <= 3; width++)
        for (uint64_t most = 1; most < 400; most = most * 3 + 1) {
            struct parquet_rle rle;
            size_t at = 0;
            uint64_t n;
            uint32_t value;
            make_runs(&runs, width, 100 + width);
            parquet_rle_init(&rle, runs.out.bytes, runs.out.size, width);
            for (; (n = parquet_rle_run(&rle, most, &value)) > 0; at += n) {
                assert_true(n <= most && at + n <= runs.count);
                for (size_t i = 0; i < n; i++)
                    assert_int_equal(runs.values[at + i], value);
            }
            assert_int_equal(at, runs.count);
        }
}

/* A packed run may announce more values than its last bytes hold, and not one more is given. */
static void test_a_packed_run_ends_with_its_bytes(void **state)
{
    (void)state;
    static const uint8_t bytes[16] = {0x07, 0x21, 0x43, 0x65}; /* 3 groups of 4 bits, 3 bytes */
    struct parquet_rle rle;
    uint32_t values[6];
    parquet_rle_init(&rle, bytes, 4, 4);
    assert_true(parquet_rle_values(&rle, values, 6));
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(values[i], i + 1);
    assert_false(parquet_rle_values(&rle, values, 1));
}

static void test_what_is_no_run(void **state)
{
    (void)state;
    static const uint8_t endless[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t wide[16] = {0x04, 0x08}; /* two times 8, in 3 bits */
    static const uint8_t cut[16] = {0x04, 0x01};  /* two times a value of 2 bytes */
    struct parquet_rle rle;
    uint32_t value;
    parquet_rle_init(&rle, endless, 6, 8);
    assert_false(parquet_rle_values(&rle, &value, 1));
    parquet_rle_init(&rle, wide, 2, 3);
    assert_int_equal(parquet_rle_run(&rle, 5, &value), 0);
    parquet_rle_init(&rle, cut, 2, 12);
    assert_int_equal(parquet_rle_run(&rle, 5, &value), 0);
    parquet_rle_init(&rle, cut, 0, 1);
    assert_int_equal(parquet_rle_run(&rle, 5, &value), 0);
}

/* ---- checksums and codecs */

/* Bit by bit, as the polynomial is defined. */
static uint32_t crc_by_bits(const uint8_t *bytes, size_t size)
{
    uint32_t rest = 0xffffffffu;
    for (size_t i = 0; i < size; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            uint32_t odd = (rest ^ bytes[i] >> bit) & 1;
            rest = rest >> 1 ^ (odd != 0 ? 0xedb88320u : 0);
        }
    return ~rest;
}

static void test_crc(void **state)
{
    (void)state;
    uint8_t bytes[100];
    assert_true(parquet_crc((const uint8_t *)"123456789", 9) == 0xcbf43926u); /* the check value */
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)rng_u64(3, 0, i);
    for (size_t size = 0; size <= sizeof bytes; size++)
        assert_true(parquet_crc(bytes, size) == crc_by_bits(bytes, size));
}

static void test_codecs(void **state)
{
    (void)state;
    static const uint8_t snappy[] = {0x0a, 0x00, 'a', 0x15, 0x01}; /* "a", then a copy of 9 */
    uint8_t to[16];
    assert_true(parquet_codec_expand(PARQUET_SNAPPY, to, 10, snappy, sizeof snappy));
    assert_memory_equal(to, "aaaaaaaaaa", 10);
    assert_false(parquet_codec_expand(PARQUET_SNAPPY, to, 9, snappy, sizeof snappy));
    assert_false(parquet_codec_expand(PARQUET_SNAPPY, to, 11, snappy, sizeof snappy));
    assert_false(parquet_codec_expand(PARQUET_SNAPPY, to, 10, snappy, sizeof snappy - 1));
    assert_true(parquet_codec_expand(PARQUET_UNCOMPRESSED, to, 5, snappy, 5));
    assert_false(parquet_codec_expand(PARQUET_UNCOMPRESSED, to, 5, snappy, 4));
    assert_true(parquet_codec_possible(PARQUET_SNAPPY, 1000, 21000));
    assert_false(parquet_codec_possible(PARQUET_SNAPPY, 1000, 30000));
    assert_int_equal(parquet_codec_check(PARQUET_SNAPPY, "c", "f"), 0);
    assert_int_equal(parquet_codec_check(PARQUET_ZSTD, "c", "f"), ERR_USAGE);
    assert_int_equal(parquet_codec_check(8, "c", "f"), ERR_DATA);
    assert_int_equal(parquet_codec_check(-1, "c", "f"), ERR_DATA);
}

int main(void)
{
    log_init("test_parquet_parts", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_of_all_sizes),
        cmocka_unit_test(test_field_steps),
        cmocka_unit_test(test_unknown_fields_are_passed_over),
        cmocka_unit_test(test_every_cut_is_short),
        cmocka_unit_test(test_what_is_no_thrift),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_a_list_is_not_longer_than_its_bytes),
        cmocka_unit_test(test_runs_of_every_width),
        cmocka_unit_test(test_equal_values_come_together),
        cmocka_unit_test(test_a_packed_run_ends_with_its_bytes),
        cmocka_unit_test(test_what_is_no_run),
        cmocka_unit_test(test_crc),
        cmocka_unit_test(test_codecs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
