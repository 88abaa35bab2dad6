/* test_npy.c - .npy headers written by numpy, headers no numpy writes, and the way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/log.h"
#include "common/npy.h"

#define FILES "tests/golden/files/"

static uint8_t *read_golden(const char *name, size_t *size)
{
    char path[256], *text;
    snprintf(path, sizeof path, FILES "%s", name);
    assert_int_equal(io_read_file(&text, size, path, 1u << 20), 0);
    return (uint8_t *)text;
}

/* What numpy was told to write (tests/oracle/make_small_files.py). */
static void test_files_of_numpy(void **state)
{
    (void)state;
    static const struct {
        const char *name, *type;
        size_t item_bytes;
        unsigned rank;
        uint64_t shape[3];
        uint64_t elements;
    } files[] = {
        {"i4_3x4.npy", "<i4", 4, 2, {3, 4}, 12}, {"u2_5.npy", "<u2", 2, 1, {5}, 5},
        {"f8_scalar.npy", "<f8", 8, 0, {0}, 1},  {"f4_2x0x3.npy", "<f4", 4, 3, {2, 0, 3}, 0},
        {"u1_2.npy", "|u1", 1, 1, {2}, 2},       {"i1_2.npy", "|i1", 1, 1, {2}, 2},
        {"i2_2.npy", "<i2", 2, 1, {2}, 2},       {"u4_2.npy", "<u4", 4, 1, {2}, 2},
        {"i8_2.npy", "<i8", 8, 1, {2}, 2},       {"u8_2.npy", "<u8", 8, 1, {2}, 2},
        {"f2_2.npy", "<f2", 2, 1, {2}, 2},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size;
        uint8_t *bytes = read_golden(files[i].name, &size);
        struct npy_header header;
        assert_int_equal(npy_parse(&header, bytes, size, files[i].name), 0);
        assert_string_equal(header.type, files[i].type);
        assert_int_equal(header.item_bytes, files[i].item_bytes);
        assert_int_equal(header.rank, files[i].rank);
        for (unsigned j = 0; j < header.rank; j++)
            assert_int_equal(header.shape[j], files[i].shape[j]);
        assert_int_equal(header.elements, files[i].elements);
        assert_int_equal(header.data_offset + header.elements * header.item_bytes, size);
        free(bytes);
    }
}

static void test_a_prefix_says_how_much_is_needed(void **state)
{
    (void)state;
    static const char *const names[] = {"i4_3x4.npy", "u2_5.npy", "f8_scalar.npy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        uint8_t *bytes = read_golden(names[i], &size);
        struct npy_header header;
        size_t have = 0;
        int status, calls = 0;
        while ((status = npy_parse(&header, bytes, have, names[i])) == 1) {
            assert_true(header.data_offset > have && header.data_offset <= size);
            have = header.data_offset;
            calls++;
        }
        assert_int_equal(status, 0);
        assert_int_equal(have, header.data_offset);
        assert_true(calls <= 3);
        for (size_t cut = 0; cut < have; cut++)
            assert_int_equal(npy_parse(&header, bytes, cut, names[i]), 1);
        free(bytes);
    }
}

static void test_what_numpy_can_and_we_do_not(void **state)
{
    (void)state;
    static const char *const names[] = {"refused_big_endian.npy", "refused_fortran.npy",
                                        "refused_object.npy",     "refused_structured.npy",
                                        "refused_bool.npy",       "refused_string.npy"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t size;
        uint8_t *bytes = read_golden(names[i], &size);
        struct npy_header header;
        assert_int_equal(npy_parse(&header, bytes, size, names[i]), ERR_USAGE);
        free(bytes);
    }
}

/* A version 1.0 file of a header's text. */
static int parse_text(struct npy_header *header, const char *text)
{
    uint8_t bytes[512] = "\x93NUMPY\x01";
    size_t length = strlen(text);
    assert_true(length + 10 <= sizeof bytes);
    bytes[8] = (uint8_t)length;
    bytes[9] = (uint8_t)(length >> 8);
    memcpy(bytes + 10, text, length);
    return npy_parse(header, bytes, length + 10, "text");
}

static void test_order_spacing_and_commas_are_free(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 4), }          \n",
        "{'shape':(3,4),'fortran_order':False,'descr':'<i4'}",
        "  { \"shape\" : ( 3 ,\t4 , ) ,\n\"descr\" : \"<i4\" , 'fortran_order' : False }\r\n",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3L, 4L), }",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct npy_header header;
        assert_int_equal(parse_text(&header, texts[i]), 0);
        assert_string_equal(header.type, "<i4");
        assert_int_equal(header.rank, 2);
        assert_int_equal(header.shape[0], 3);
        assert_int_equal(header.shape[1], 4);
        assert_int_equal(header.elements, 12);
    }
}

#define HEAD "{'descr': '<i4', 'fortran_order': False, "

static void test_malformed_headers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"", ERR_DATA},
        {"{}", ERR_DATA},
        {"{", ERR_DATA},
        {"[]", ERR_DATA},
        {HEAD "}", ERR_DATA},
        {HEAD "'shape': (3, 4)", ERR_DATA},
        {HEAD "'shape': (3, 4", ERR_DATA},
        {HEAD "'shape': (3 4)}", ERR_DATA},
        {HEAD "'shape': (3)}", ERR_DATA},
        {HEAD "'shape': 3}", ERR_DATA},
        {HEAD "'shape': [3]}", ERR_DATA},
        {HEAD "'shape': (,)}", ERR_DATA},
        {HEAD "'shape': (3,,)}", ERR_DATA},
        {HEAD "'shape': (-3,)}", ERR_DATA},
        {HEAD "'shape': (3.0,)}", ERR_DATA},
        {HEAD "'shape': (18446744073709551616,)}", ERR_DATA},
        {HEAD "'shape': (18446744073709551615,)}", ERR_DATA},
        {HEAD "'shape': (4294967296, 4294967296)}", ERR_DATA},
        {HEAD "'shape': (2305843009213693952,)}", ERR_DATA},
        {HEAD "'shape': (1,1,1,1,1,1,1,1,1)}", ERR_USAGE},
        {HEAD "'shape': (3,)} x", ERR_DATA},
        {HEAD "'shape': (3,), 'shape': (3,)}", ERR_DATA},
        {HEAD "'shape': (3,), 'more': (3,)}", ERR_DATA},
        {HEAD "'shape' (3,)}", ERR_DATA},
        {"{'descr': '<i4' 'fortran_order': False, 'shape': (3,)}", ERR_DATA},
        {"{'descr': '<i4, 'fortran_order': False, 'shape': (3,)}", ERR_USAGE},
        {"{'descr': '<i\\x34', 'fortran_order': False, 'shape': (3,)}", ERR_DATA},
        {"{'descr': '', 'fortran_order': False, 'shape': (3,)}", ERR_USAGE},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (3,)}", ERR_USAGE},
        {"{'descr': '<i44', 'fortran_order': False, 'shape': (3,)}", ERR_USAGE},
        {"{'descr': 4, 'fortran_order': False, 'shape': (3,)}", ERR_DATA},
        {"{'descr': '<i4', 'fortran_order': 0, 'shape': (3,)}", ERR_DATA},
        {"{'descr': '<i4', 'fortran_order': True, 'shape': (3,)}", ERR_USAGE},
        {"{'descr': '<i4', 'fortran_order': , 'shape': (3,)}", ERR_DATA},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct npy_header header;
        int status = parse_text(&header, cases[i].text);
        if (status != cases[i].status)
            print_error("%s\n", cases[i].text);
        assert_int_equal(status, cases[i].status);
    }
}

static void test_wrong_beginnings(void **state)
{
    (void)state;
    struct npy_header header;
    static const uint8_t zip[] = "PK\3\4 an .npz file", version[] = "\x93NUMPY\x04\x00";
    static const uint8_t minor[] = "\x93NUMPY\x01\x01";
    static const uint8_t huge[] = "\x93NUMPY\x02\x00\x01\x00\x01\x00";
    assert_int_equal(npy_parse(&header, zip, sizeof zip, "zip"), ERR_DATA);
    assert_int_equal(npy_parse(&header, zip, 1, "zip"), ERR_DATA);
    assert_int_equal(npy_parse(&header, version, 8, "version"), ERR_USAGE);
    assert_int_equal(npy_parse(&header, minor, 8, "minor"), ERR_USAGE);
    assert_int_equal(npy_parse(&header, huge, 12, "huge"), ERR_DATA); /* 65537 bytes of header */
}

/* numpy 2 wrote the same header; it and ours are padded to a multiple of 64. */
static void test_our_header_is_numpys(void **state)
{
    (void)state;
    static const struct {
        const char *name, *type;
        unsigned rank;
        uint64_t shape[3];
    } files[] = {{"i4_3x4.npy", "<i4", 2, {3, 4}},
                 {"f4_2x0x3.npy", "<f4", 3, {2, 0, 3}},
                 {"u8_2.npy", "<u8", 1, {2}},
                 {"u1_2.npy", "|u1", 1, {2}}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size;
        uint8_t *bytes = read_golden(files[i].name, &size), ours[256];
        size_t length = npy_format(ours, files[i].type, files[i].shape, files[i].rank);
        assert_true(length <= size);
        assert_memory_equal(ours, bytes, length);
        free(bytes);
    }
}

static void test_the_longest_header_fits(void **state)
{
    (void)state;
    uint64_t shape[NPY_MAX_RANK];
    uint8_t bytes[256];
    memset(shape, 0xff, sizeof shape);
    size_t length = npy_format(bytes, "<longes", shape, NPY_MAX_RANK);
    assert_int_equal(length, 256);
    assert_int_equal(bytes[length - 1], '\n');
}

int main(void)
{
    log_init("test_npy", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_of_numpy),
        cmocka_unit_test(test_a_prefix_says_how_much_is_needed),
        cmocka_unit_test(test_what_numpy_can_and_we_do_not),
        cmocka_unit_test(test_order_spacing_and_commas_are_free),
        cmocka_unit_test(test_malformed_headers),
        cmocka_unit_test(test_wrong_beginnings),
        cmocka_unit_test(test_our_header_is_numpys),
        cmocka_unit_test(test_the_longest_header_fits),
    };
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
