/* test_safetensors_write.c - our writer against bytes put together from the format; what cannot be
 * written, and what a failure leaves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "tests/unit/scratch.h"

static const float written_weight[6] = {-1.125f, -0.75f, -0.375f, 0, 0.375f, 0.75f};
static const uint8_t written_step[8] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t written_bias[6] = {0x80, 0x3f, 0x00, 0xc0, 0x00, 0x3f};
static const struct safetensors_entry written[] = {
    {"W.weight", SAFETENSORS_F32, 2, {2, 3}, written_weight},
    {"step", SAFETENSORS_I64, 0, {0}, written_step},
    {"nothing", SAFETENSORS_BF16, 2, {4, 0}, NULL},
    {"b", SAFETENSORS_BF16, 1, {3}, written_bias},
};
enum { WRITTEN_COUNT = sizeof written / sizeof *written };

static void test_our_bytes_are_those_of_the_format(void **state)
{
    (void)state;
    char *expected, *ours;
    size_t expected_size, size;
    struct stat found;
    json_t *metadata = json_pack("{s:s, s:s}", "größe", "\"1\"", "format", "pt");
    const char *path = scratch_path("written.safetensors");
    assert_int_equal(safetensors_write(path, written, WRITTEN_COUNT, metadata), 0);
    assert_int_equal(io_read_file(&ours, &size, path, 1u << 20), 0);
    assert_int_equal(
        io_read_file(&expected, &expected_size, "tests/golden/files/written.safetensors", 1u << 20),
        0);
    assert_int_equal(size, expected_size);
    assert_memory_equal(ours, expected, size);
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(found.st_mode & 0777, 0600);
    json_decref(metadata);
    free(expected);
    free(ours);
    unlink(path);
}

static void test_a_file_that_exists_stays(void **state)
{
    (void)state;
    char *text;
    size_t size;
    const char *path = scratch_path("written.safetensors");
    scratch_write("written.safetensors", "old", 3);
    assert_int_equal(safetensors_write(path, written, WRITTEN_COUNT, NULL), ERR_IO);
    assert_int_equal(io_read_file(&text, &size, path, 100), 0);
    assert_string_equal(text, "old");
    free(text);
    unlink(path);
    assert_int_equal(safetensors_write("/nonexistent/x", written, WRITTEN_COUNT, NULL), ERR_IO);
}

static void test_entries_that_cannot_be_written(void **state)
{
    (void)state;
    static const struct safetensors_entry twice[] = {{"a", SAFETENSORS_U8, 0, {0}, "x"},
                                                     {"a", SAFETENSORS_U8, 0, {0}, "x"}};
    static const struct safetensors_entry huge[] = {
        {"a", SAFETENSORS_F32, 2, {UINT64_C(1) << 32, UINT64_C(1) << 32}, "x"}};
    static const struct safetensors_entry together[] = {{"a", SAFETENSORS_U8, 1, {INT64_MAX}, "x"},
                                                        {"b", SAFETENSORS_U8, 1, {1}, "x"}};
    static const struct safetensors_entry name[] = {{"\xff", SAFETENSORS_U8, 0, {0}, "x"}};
    static const struct safetensors_entry reserved[] = {
        {"__metadata__", SAFETENSORS_U8, 0, {0}, "x"}};
    const char *path = scratch_path("written.safetensors");
    assert_int_equal(safetensors_write(path, twice, 2, NULL), ERR_USAGE);
    assert_int_equal(safetensors_write(path, huge, 1, NULL), ERR_USAGE);
    assert_int_equal(safetensors_write(path, together, 2, NULL), ERR_USAGE);
    assert_int_equal(safetensors_write(path, name, 1, NULL), ERR_USAGE);
    assert_int_equal(safetensors_write(path, reserved, 1, NULL), ERR_USAGE);
    assert_int_equal(access(path, F_OK), -1); /* nothing was created */
}

/* Byte i of entry e, for entries of more bytes than are fetched at once. */
static uint8_t piece_byte(size_t entry, uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 13) + entry);
}

static int fetch_piece(void *context, size_t index, void *to, uint64_t offset, uint64_t bytes)
{
    uint64_t *left = context; /* bytes until it fails */
    if (bytes > *left)
        return ERR_DEVICE;
    *left -= bytes;
    for (uint64_t i = 0; i < bytes; i++)
        ((uint8_t *)to)[i] = piece_byte(index, offset + i);
    return 0;
}

static void test_data_is_fetched_in_pieces(void **state)
{
    (void)state;
    static const struct safetensors_entry entries[] = {
        {"large", SAFETENSORS_U8, 1, {9000001}, NULL},
        {"here", SAFETENSORS_U8, 1, {3}, "abc"},
        {"empty", SAFETENSORS_U8, 1, {0}, NULL},
        {"small", SAFETENSORS_U8, 1, {5}, NULL},
    };
    const char *path = scratch_path("written.safetensors");
    uint64_t left = 9000006;
    assert_int_equal(safetensors_write_fetched(path, entries, 4, NULL, fetch_piece, &left), 0);
    assert_int_equal(left, 0);
    struct safetensors *model;
    assert_int_equal(safetensors_open(&model, path), 0);
    uint8_t *bytes = malloc(9000001);
    assert_non_null(bytes);
    for (size_t e = 0; e < 4; e++) {
        const struct safetensors_tensor *tensor = safetensors_find(model, entries[e].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->bytes, entries[e].shape[0]);
        assert_int_equal(safetensors_read(model, tensor, bytes, 0, tensor->bytes), 0);
        for (uint64_t i = 0; i < tensor->bytes; i++)
            assert_int_equal(bytes[i], e == 1 ? (uint8_t) "abc"[i] : piece_byte(e, i));
    }
    free(bytes);
    safetensors_free(model);
    unlink(path);
    left = 5000000;
    assert_int_equal(safetensors_write_fetched(path, entries, 4, NULL, fetch_piece, &left),
                     ERR_DEVICE);
    unlink(path);
}

/* RLIMIT_FSIZE stands for the disk: once inside the header, once inside the last tensor. */
static void test_a_disk_that_is_full(void **state)
{
    (void)state;
    struct rlimit kept;
    struct stat whole;
    const char *path = scratch_path("written.safetensors");
    assert_int_equal(safetensors_write(path, written, WRITTEN_COUNT, NULL), 0);
    assert_int_equal(stat(path, &whole), 0);
    unlink(path);
    const rlim_t limits[] = {100, (rlim_t)whole.st_size - 1};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &kept), 0);
    assert_ptr_not_equal(signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    for (size_t i = 0; i < 2; i++) {
        struct rlimit limit = {.rlim_cur = limits[i], .rlim_max = kept.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        int status = safetensors_write(path, written, WRITTEN_COUNT, NULL);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &kept), 0);
        assert_int_equal(status, ERR_IO);
        struct safetensors *model; /* left there, and not believed */
        assert_int_equal(safetensors_open(&model, path), ERR_TRUNCATED);
        unlink(path);
    }
    assert_ptr_not_equal(signal(SIGXFSZ, SIG_DFL), SIG_ERR);
}

int main(void)
{
    log_init("test_safetensors_write", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_our_bytes_are_those_of_the_format),
        cmocka_unit_test(test_a_file_that_exists_stays),
        cmocka_unit_test(test_entries_that_cannot_be_written),
        cmocka_unit_test(test_data_is_fetched_in_pieces),
        cmocka_unit_test(test_a_disk_that_is_full),
    };
    return cmocka_run_group_tests_name("safetensors_write", tests, scratch_open, scratch_close);
}
