/* test_parquet_column.c - pages put together by hand: rows that go over pages, encodings that
 * change from page to page, levels of every depth, and what a damaged file may say. */
#include "parquet_column.h"

#include "common/log.h"
#include "tools/tokstream/source.h"

/* All rows as text, "1 2|3||", and the status behind them. */
static int read_all(const struct written *file, size_t most, char *text, size_t room)
{
    struct source_setup setup = {.column = "ids", .most = most, .seq_len = most};
    struct source *source;
    struct source_sequence sequence;
    size_t used = 0;
    text[0] = '\0';
    assert_true(memory_file_set(&memory, file->out.bytes, file->out.size));
    int status = source_open(&source, memory.path, false, &setup);
    if (status != 0)
        return status;
    while ((status = source->kind->next(source, &sequence)) == 1) {
        for (size_t i = 0; i < sequence.length; i++)
            used += (size_t)snprintf(text + used, room - used, "%s%u", i > 0 ? " " : "",
                                     (unsigned)sequence.ids[i]);
        if (sequence.cut > 0)
            used += (size_t)snprintf(text + used, room - used, "+%u", (unsigned)sequence.cut);
        used += (size_t)snprintf(text + used, room - used, "|");
        assert_true(used < room);
    }
    source_free(source);
    return status;
}

static void assert_reads(const struct written *file, const char *expected)
{
    char text[2000];
    assert_int_equal(read_all(file, 1000, text, sizeof text), 0);
    assert_string_equal(text, expected);
}

static void assert_refused(const struct written *file, int code)
{
    char text[2000];
    assert_int_equal(read_all(file, 1000, text, sizeof text), code);
}

/* With first_half: [10 11] [12 | 13 14 15] [] [16] with the second list going over both. */
static const struct page second_half = {.count = 5,
                                        .repetition = {1, 1, 1, 0, 0},
                                        .definition = {3, 3, 3, 1, 3},
                                        .items = 4,
                                        .values = {13, 14, 15, 16}};
#define BOTH_HALVES "10 11|12 13 14 15||16|"
static const int64_t dictionary[] = {16, 15, 14, 13, 12, 11, 10};

/* The same page with indices into that dictionary. */
static struct page by_dictionary(struct page page, enum parquet_encoding encoding, unsigned width)
{
    page.encoding = encoding;
    page.width = width;
    for (size_t i = 0; i < page.items; i++)
        page.values[i] = 16 - page.values[i];
    return page;
}

static struct page in_form(struct page page, enum form form)
{
    page.form = form;
    return page;
}

static void test_a_row_goes_over_two_pages(void **state)
{
    (void)state;
    static struct written file;
    for (int codec = 0; codec <= PARQUET_SNAPPY; codec++)
        for (int item_bytes = 4; item_bytes <= 8; item_bytes += 4)
            for (int form = V1; form <= V2_STORED; form++) {
                struct page one = in_form(first_half, (enum form)form);
                struct page two = in_form(second_half, (enum form)form);
                one.crc = true;
                begin_file(&file);
                write_page(&file, &one, item_bytes, codec);
                write_page(&file, &two, item_bytes, codec);
                end_group(&file);
                end_file(&file, item_bytes, codec);
                assert_reads(&file, BOTH_HALVES);
            }
}

static void test_encodings_change_from_page_to_page(void **state)
{
    (void)state;
    static struct written file;
    static const enum parquet_encoding names[] = {PARQUET_PLAIN_DICTIONARY, PARQUET_RLE_DICTIONARY};
    for (unsigned width = 3; width <= 32; width++)
        for (int i = 0; i < 2; i++)
            for (int order = 0; order < 2; order++) {
                struct page coded[] = {by_dictionary(first_half, names[i], width),
                                       by_dictionary(second_half, names[i], width)};
                begin_file(&file);
                write_dictionary(&file, dictionary, 7, 8, PARQUET_SNAPPY);
                write_page(&file, order == 0 ? &coded[0] : &first_half, 8, PARQUET_SNAPPY);
                write_index(&file);
                write_page(&file, order == 0 ? &second_half : &coded[1], 8, PARQUET_SNAPPY);
                end_group(&file);
                end_file(&file, 8, PARQUET_SNAPPY);
                assert_reads(&file, BOTH_HALVES);
            }
}

static void test_a_dictionary_of_one_needs_no_bits(void **state)
{
    (void)state;
    static struct written file;
    struct page page = {.encoding = PARQUET_RLE_DICTIONARY,
                        .count = 3,
                        .repetition = {0, 1, 0},
                        .definition = {3, 3, 3},
                        .items = 3,
                        .width = 0};
    begin_file(&file);
    write_dictionary(&file, dictionary, 1, 4, 0);
    write_page(&file, &page, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_reads(&file, "16 16|16|");
}

static void test_row_groups_have_dictionaries_of_their_own(void **state)
{
    (void)state;
    static struct written file;
    static const int64_t other[] = {0, 1, 2, 3, 4, 5, 6};
    struct page one = by_dictionary(first_half, PARQUET_RLE_DICTIONARY, 3);
    begin_file(&file);
    write_dictionary(&file, dictionary, 7, 4, 0);
    write_page(&file, &one, 4, 0);
    end_group(&file);
    write_dictionary(&file, other, 7, 4, 0);
    write_page(&file, &one, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_reads(&file, "10 11|12|6 5|4|");
    /* Without one of its own, that of the group before is not there. */
    begin_file(&file);
    write_dictionary(&file, dictionary, 7, 4, 0);
    write_page(&file, &one, 4, 0);
    end_group(&file);
    write_page(&file, &one, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_refused(&file, ERR_DATA);
}

static void test_lists_are_cut_across_pages(void **state)
{
    (void)state;
    static struct written file;
    char text[2000];
    begin_file(&file);
    write_page(&file, &first_half, 4, 0);
    write_page(&file, &second_half, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_int_equal(read_all(&file, 2, text, sizeof text), 0);
    assert_string_equal(text, "10 11|12 13+2||16|");
    assert_int_equal(read_all(&file, 1, text, sizeof text), 0);
    assert_string_equal(text, "10+1|12+3||16|");
}

/* A list of which each page has a piece, [1 | 2 3 4 | 5] [6], is not kept in full to be cut at its
 * end. */
static void test_a_list_of_many_pieces_is_cut(void **state)
{
    (void)state;
    static struct written file;
    char text[2000];
    const struct page pieces[] = {
        {.count = 1, .repetition = {0}, .definition = {3}, .items = 1, .values = {1}},
        {.count = 3,
         .repetition = {1, 1, 1},
         .definition = {3, 3, 3},
         .items = 3,
         .values = {2, 3, 4}},
        {.count = 2, .repetition = {1, 0}, .definition = {3, 3}, .items = 2, .values = {5, 6}}};
    begin_file(&file);
    for (int i = 0; i < 3; i++)
        write_page(&file, &pieces[i], 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_reads(&file, "1 2 3 4 5|6|");
    assert_int_equal(read_all(&file, 2, text, sizeof text), 0);
    assert_string_equal(text, "1 2+3|6|");
    assert_int_equal(read_all(&file, 4, text, sizeof text), 0);
    assert_string_equal(text, "1 2 3 4+1|6|");
}

/* One page, changed by `change`. */
static void refuse_page(struct page page, int code)
{
    static struct written file;
    begin_file(&file);
    write_page(&file, &page, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_refused(&file, code);
}

static void test_levels_that_are_wrong(void **state)
{
    (void)state;
    struct page page = first_half;
    page.repetition[0] = 1; /* the chunk begins inside a row */
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.definition[1] = 2; /* a null token */
    page.items = 2;
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.definition[2] = 0; /* a null list */
    page.items = 2;
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.definition[1] = 1; /* an empty list that goes on */
    page.items = 2;
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.items = 2; /* an item too few */
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.claimed = 20; /* more levels than are there */
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.claimed = -1; /* fewer than the chunk has */
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.values[1] = -1;
    refuse_page(page, ERR_DATA);
    page = first_half;
    page.definition_encoding = PARQUET_BIT_PACKED;
    refuse_page(page, ERR_USAGE);
    page = first_half;
    page.encoding = (enum parquet_encoding)5; /* not built; its items are never looked at */
    refuse_page(page, ERR_USAGE);
    page.encoding = (enum parquet_encoding)10; /* there is none */
    refuse_page(page, ERR_DATA);
    refuse_page(by_dictionary(first_half, PARQUET_RLE_DICTIONARY, 3), ERR_DATA); /* of none */
}

static void test_dictionaries_that_are_wrong(void **state)
{
    (void)state;
    static struct written file;
    static const int64_t negative[] = {5, -1, 7};
    struct page page = by_dictionary(first_half, PARQUET_RLE_DICTIONARY, 3);
    begin_file(&file); /* indices 6 5 4 of six */
    write_dictionary(&file, dictionary, 6, 4, 0);
    write_page(&file, &page, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_refused(&file, ERR_DATA);
    begin_file(&file);
    write_dictionary(&file, dictionary, 7, 4, 0);
    write_dictionary(&file, dictionary, 7, 4, 0);
    write_page(&file, &page, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_refused(&file, ERR_DATA);
    begin_file(&file);
    write_dictionary(&file, dictionary, 7, 4, 0);
    page.width = 33;
    write_page(&file, &page, 4, 0);
    end_group(&file);
    end_file(&file, 4, 0);
    assert_refused(&file, ERR_DATA);
    /* An entry that is no id is wrong only where it is used. */
    page = first_half;
    page.encoding = PARQUET_RLE_DICTIONARY;
    page.width = 2;
    for (int used = 0; used < 2; used++) {
        page.values[0] = 2;
        page.values[1] = used;
        page.values[2] = 0;
        begin_file(&file);
        write_dictionary(&file, negative, 3, 4, 0);
        write_page(&file, &page, 4, 0);
        end_group(&file);
        end_file(&file, 4, 0);
        if (used == 0)
            assert_reads(&file, "7 5|5|");
        else
            assert_refused(&file, ERR_DATA);
    }
}

static void test_counts_that_do_not_agree(void **state)
{
    (void)state;
    static struct written file;
    for (int64_t more = -1; more <= 1; more++)
        for (int what = 0; what < 2; what++) {
            begin_file(&file);
            write_page(&file, &first_half, 4, 0);
            write_page(&file, &second_half, 4, 0);
            *(what == 0 ? &file.groups[0].rows : &file.groups[0].values) += more;
            end_group(&file);
            end_file(&file, 4, 0);
            if (more == 0)
                assert_reads(&file, BOTH_HALVES);
            else
                assert_refused(&file, ERR_DATA);
        }
}

static void test_a_checksum_that_is_wrong(void **state)
{
    (void)state;
    static struct written file;
    struct page page = first_half;
    page.crc = true;
    for (int change = 0; change < 2; change++) {
        begin_file(&file);
        write_page(&file, &page, 4, 0);
        file.out.bytes[file.out.size - 1] ^= (uint8_t)change; /* in the last id */
        end_group(&file);
        end_file(&file, 4, 0);
        if (change == 0)
            assert_reads(&file, "10 11|12|");
        else
            assert_refused(&file, ERR_DATA);
    }
}

int main(void)
{
    log_init("test_parquet_column", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_goes_over_two_pages),
        cmocka_unit_test(test_encodings_change_from_page_to_page),
        cmocka_unit_test(test_a_dictionary_of_one_needs_no_bits),
        cmocka_unit_test(test_row_groups_have_dictionaries_of_their_own),
        cmocka_unit_test(test_lists_are_cut_across_pages),
        cmocka_unit_test(test_a_list_of_many_pieces_is_cut),
        cmocka_unit_test(test_levels_that_are_wrong),
        cmocka_unit_test(test_dictionaries_that_are_wrong),
        cmocka_unit_test(test_counts_that_do_not_agree),
        cmocka_unit_test(test_a_checksum_that_is_wrong),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
