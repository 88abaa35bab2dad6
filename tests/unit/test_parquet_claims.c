/* test_parquet_claims.c - sizes, offsets and counts that a Parquet file claims are refused before
 * anything is read or allocated by them.
 */
#include "parquet_column.h"

#include "common/log.h"
#include "tools/tokstream/source.h"

static int open_only(const struct written *file)
{
    struct source_setup source_setup = {.column = "ids", .most = 1000};
    struct source *source;
    assert_true(memory_file_set(&memory, file->out.bytes, file->out.size));
    int status = source_open(&source, memory.path, false, &source_setup);
    source_free(source);
    return status;
}

static void test_a_chunk_lies_in_front_of_the_footer(void **state)
{
    (void)state;
    static struct written file;
    static const struct {
        int64_t offset, bytes;
        int status;
    } cases[] = {{0, 0, 0},
                 {0, 1, ERR_DATA},
                 {1, 0, ERR_DATA},
                 {1, -1, 0},
                 {-1, 0, ERR_DATA},
                 {-1000, 0, ERR_DATA},
                 {0, -1000, ERR_DATA},
                 {0, INT32_MAX, ERR_DATA},
                 {INT32_MAX, 0, ERR_DATA}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin_file(&file);
        write_page(&file, &first_half, 4, 0);
        end_group(&file);
        file.groups[0].offset += cases[i].offset;
        file.groups[0].bytes += cases[i].bytes;
        end_file(&file, 4, 0);
        assert_int_equal(open_only(&file), cases[i].status);
    }
}

static void test_rows_add_up(void **state)
{
    (void)state;
    static struct written file;
    for (int64_t more = -3; more <= 3; more++)
        for (int where = 0; where < 2; where++) {
            begin_file(&file);
            write_page(&file, &first_half, 4, 0);
            if (where == 0)
                file.extra_rows = more;
            else
                file.groups[0].rows += more; /* at most one for each of the 3 values */
            end_group(&file);
            end_file(&file, 4, 0);
            bool good = where == 0 ? more == 0 : more >= -2 && more <= 1;
            assert_int_equal(open_only(&file), good ? 0 : ERR_DATA);
        }
}

/* The first page of a chunk of the bytes given; what is left out is behind the chunk. */
static int first_page(struct parquet_pages *pages, const struct bytes_out *out, size_t left_out,
                      enum parquet_codec codec)
{
    struct bytes bytes;
    struct parquet_page page;
    struct parquet_group group = {.offset = 0, .bytes = out->size - left_out, .codec = codec};
    assert_true(memory_file_set(&memory, out->bytes, out->size));
    assert_int_equal(bytes_open(&bytes, memory.path), 0);
    *pages = (struct parquet_pages){.room = 0};
    parquet_pages_start(pages, &bytes, &group);
    int status = parquet_pages_next(pages, &page);
    bytes_close(&bytes);
    return status;
}

static void test_a_page_ends_with_its_chunk(void **state)
{
    (void)state;
    static struct written file;
    struct parquet_pages pages;
    file.out.size = 0;
    write_page(&file, &first_half, 4, 0);
    for (size_t left_out = 0; left_out < file.out.size; left_out++) {
        assert_int_equal(first_page(&pages, &file.out, left_out, PARQUET_UNCOMPRESSED),
                         left_out == 0 ? 1 : ERR_DATA);
        parquet_pages_free(&pages);
    }
}

/* Sizes of a header alone, with 40 bytes behind it. */
static void write_claim(struct bytes_out *out, int64_t expanded, int64_t stored, int64_t levels)
{
    static const uint8_t nothing[40];
    out->size = 0;
    out_int(out, 1, PARQUET_DATA_V2);
    out_int(out, 2, expanded);
    out_int(out, 3, stored);
    out_field(out, THRIFT_STRUCT, 8);
    out_int(out, 1, 1);
    out_int(out, 4, PARQUET_PLAIN);
    out_int(out, 5, levels);
    out_int(out, 6, levels);
    out_stop(out);
    out_stop(out);
    out_bytes(out, nothing, sizeof nothing);
}

static void test_a_header_is_believed_as_far_as_there_are_bytes(void **state)
{
    (void)state;
    static struct bytes_out out;
    static const struct {
        int64_t expanded, stored, levels;
    } wrong[] = {{1000000000, 40, 0}, {2000, 40, 0},     {100, 41, 0},         {100, -1, 0},
                 {-1, 40, 0},         {100, 40, 21},     {100, 40, INT64_MAX}, {100, 40, -1},
                 {10, 40, 6},         {1LL << 32, 40, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct parquet_pages pages;
        write_claim(&out, wrong[i].expanded, wrong[i].stored, wrong[i].levels);
        assert_int_equal(first_page(&pages, &out, 0, PARQUET_SNAPPY), ERR_DATA);
        assert_true(pages.room <= 40 * 22); /* more cannot come of 40 bytes */
        parquet_pages_free(&pages);
    }
}

int main(void)
{
    log_init("test_parquet_claims", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_chunk_lies_in_front_of_the_footer),
        cmocka_unit_test(test_rows_add_up),
        cmocka_unit_test(test_a_page_ends_with_its_chunk),
        cmocka_unit_test(test_a_header_is_believed_as_far_as_there_are_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
