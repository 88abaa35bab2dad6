/* test_token_hostile.c - every cut and every changed byte of small token files: nothing crashes,
 * and a file that was cut never reads as if it were whole. Where pages have checksums, no changed
 * byte of a page goes unseen either. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/log.h"
#include "tests/unit/memory_file.h"
#include "tools/tokstream/source.h"

#define MOST_TOKENS 4096
#define SEEDS "tests/fuzz/corpus/parquet/"
#define GOOD "tests/golden/tokens/good/"

/* Lengths and ids, one behind the other. */
struct rows {
    uint32_t words[MOST_TOKENS];
    size_t count;
};

static struct memory_file memory;

static uint8_t *load(const char *path, size_t *size)
{
    char *bytes = NULL;
    *size = 0;
    assert_int_equal(io_read_file(&bytes, size, path, 1u << 20), 0);
    return (uint8_t *)bytes;
}

/* 0 and all rows of the file, or the code that it was refused with. */
static int read_rows(struct rows *rows, const uint8_t *bytes, size_t size, unsigned raw_bytes)
{
    struct source_setup setup = {
        .column = "input_ids", .raw_bytes = raw_bytes, .seq_len = 16, .most = 16};
    struct source *source;
    struct source_sequence sequence;
    rows->count = 0;
    assert_true(memory_file_set(&memory, bytes, size));
    int status = source_open(&source, memory.path, false, &setup);
    if (status != 0)
        return status;
    while ((status = source->kind->next(source, &sequence)) == 1) {
        if (rows->count + sequence.length + 1 > MOST_TOKENS)
            break; /* more than any of the files has */
        rows->words[rows->count++] = (uint32_t)sequence.length;
        if (sequence.length > 0)
            memcpy(rows->words + rows->count, sequence.ids, sequence.length * 4);
        rows->count += sequence.length;
    }
    source_free(source);
    return status < 0 ? status : 0;
}

static int same_rows(const struct rows *a, const struct rows *b)
{
    return a->count == b->count && memcmp(a->words, b->words, a->count * 4) == 0;
}

static const char *const files[] = {
    SEEDS "dictionary.parquet", SEEDS "plain.parquet",        SEEDS "v2.parquet",
    SEEDS "v2-plain.parquet",   SEEDS "groups.parquet",       SEEDS "fallback.parquet",
    SEEDS "duckdb-few.parquet", GOOD "polars-groups.parquet", GOOD "u2.npy",
};

static void test_every_cut_is_refused(void **state)
{
    (void)state;
    static struct rows rows;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size;
        uint8_t *bytes = load(files[i], &size);
        assert_int_equal(read_rows(&rows, bytes, size, 0), 0);
        for (size_t cut = 0; cut < size; cut++) {
            int status = read_rows(&rows, bytes, cut, 0);
            assert_true(status == ERR_DATA || status == ERR_TRUNCATED || status == ERR_USAGE);
            assert_true(status == ERR_TRUNCATED || cut < 12); /* before the mark nothing is sure */
        }
        free(bytes);
    }
}

/* Without a checksum an id that changed is an id; but nothing may crash or take memory. */
static void test_changed_bytes_do_no_harm(void **state)
{
    (void)state;
    static struct rows good, rows;
    static const uint8_t changes[] = {1, 0x10, 0x80, 0xff};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t size;
        uint8_t *bytes = load(files[i], &size);
        assert_int_equal(read_rows(&good, bytes, size, 0), 0);
        for (size_t at = 0; at < size; at++)
            for (size_t k = 0; k < sizeof changes; k++) {
                bytes[at] ^= changes[k];
                int status = read_rows(&rows, bytes, size, 0);
                bytes[at] ^= changes[k];
                assert_true(status == 0 || status == ERR_DATA || status == ERR_TRUNCATED ||
                            status == ERR_USAGE);
            }
        assert_int_equal(read_rows(&rows, bytes, size, 0), 0);
        assert_true(same_rows(&rows, &good));
        free(bytes);
    }
}

/* The pages lie in front of the footer, whose length is the word before the last. In their headers,
 * which have no checksum, a change may be harmless, but other rows never come of one. */
static void test_checksums_of_pages_are_looked_at(void **state)
{
    (void)state;
    static struct rows good, rows;
    static const char *const guarded[] = {GOOD "groups.parquet", GOOD "checksum-v2.parquet"};
    for (size_t i = 0; i < 2; i++) {
        size_t size, refused = 0;
        uint8_t *bytes = load(guarded[i], &size);
        assert_int_equal(read_rows(&good, bytes, size, 0), 0);
        size_t footer = bytes[size - 8] | (size_t)bytes[size - 7] << 8;
        size_t pages = i == 0 ? size / 2 : size - 8 - footer; /* page indexes lie behind, too */
        for (size_t at = 4; at < pages; at++) {
            bytes[at] ^= 0x20;
            int status = read_rows(&rows, bytes, size, 0);
            bytes[at] ^= 0x20;
            assert_true(status != 0 || same_rows(&rows, &good));
            refused += status != 0;
        }
        assert_true(refused > (pages - 4) * 3 / 4);
        free(bytes);
    }
}

static int set_up(void **state)
{
    (void)state;
    return memory_file_open(&memory) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    memory_file_close(&memory);
    return 0;
}

int main(void)
{
    log_init("test_token_hostile", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_is_refused),
        cmocka_unit_test(test_changed_bytes_do_no_harm),
        cmocka_unit_test(test_checksums_of_pages_are_looked_at),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
