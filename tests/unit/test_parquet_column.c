/* test_parquet_column.c - pages put together by hand: rows that go over pages, encodings that
 * change from page to page, levels of every depth, and what a damaged file may say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <snappy-c.h>
#include <string.h>

#include "common/log.h"
#include "tests/unit/memory_file.h"
#include "tests/unit/parquet_writer.h"
#include "tools/tokstream/parquet_crc.h"
#include "tools/tokstream/parquet_page.h"
#include "tools/tokstream/source.h"

#define MOST 64

/* ---- a file with one column of one or more row groups */

struct written_group {
    int64_t offset, bytes, values, rows;
};

struct written {
    struct bytes_out out;
    struct written_group groups[4];
    size_t group_count;
    int64_t extra_rows; /* that the footer's total claims */
};

enum form { V1, V2, V2_STORED }; /* the last: v2 with is_compressed = false */

struct page {
    enum form form;
    enum parquet_encoding encoding;
    size_t count; /* levels */
    uint32_t repetition[MOST], definition[MOST];
    size_t items;            /* what follows them */
    int64_t values[MOST];    /* PLAIN: ids; dictionary: indices */
    unsigned width;          /* of indices */
    int claimed;             /* added to the count of levels in the header */
    int definition_encoding; /* 0: RLE */
    bool crc;
};

static void write_items(struct bytes_out *out, const struct page *page, int item_bytes)
{
    uint32_t indices[MOST];
    if (page->encoding == PARQUET_PLAIN) {
        for (size_t i = 0; i < page->items; i++) {
            if (item_bytes == 4)
                out_32(out, (uint32_t)page->values[i]);
            else
                out_64(out, (uint64_t)page->values[i]);
        }
        return;
    }
    for (size_t i = 0; i < page->items; i++)
        indices[i] = (uint32_t)page->values[i];
    out_byte(out, page->width);
    out_packed(out, indices, page->items, page->width);
}

static void compress(struct bytes_out *out, int codec)
{
    static char packed[1 << 17];
    size_t size = sizeof packed;
    if (codec != PARQUET_SNAPPY)
        return;
    assert_int_equal(snappy_compress((char *)out->bytes, out->size, packed, &size), SNAPPY_OK);
    assert_true(size <= sizeof out->bytes);
    memcpy(out->bytes, packed, size);
    out->size = size;
}

static void write_header(struct bytes_out *out, const struct page *page, int64_t expanded,
                         const struct bytes_out *stored, const int64_t levels[2])
{
    out_int(out, 1, page->form == V1 ? PARQUET_DATA : PARQUET_DATA_V2);
    out_int(out, 2, expanded);
    out_int(out, 3, (int64_t)stored->size);
    if (page->crc)
        out_int(out, 4, (int32_t)parquet_crc(stored->bytes, stored->size));
    out_field(out, THRIFT_STRUCT, page->form == V1 ? 5 : 8);
    out_int(out, 1, (int64_t)page->count + page->claimed);
    if (page->form == V1) {
        out_int(out, 2, page->encoding);
        out_int(out, 3, page->definition_encoding > 0 ? page->definition_encoding : PARQUET_RLE);
        out_int(out, 4, PARQUET_RLE);
    } else {
        out_int(out, 4, page->encoding);
        out_int(out, 5, levels[1]);
        out_int(out, 6, levels[0]);
        if (page->form == V2_STORED)
            out_field(out, THRIFT_FALSE, 7);
    }
    out_stop(out);
    out_stop(out);
}

static void write_page(struct written *file, const struct page *page, int item_bytes, int codec)
{
    static struct bytes_out levels[2], body, items;
    levels[0].size = levels[1].size = body.size = items.size = 0;
    out_packed(&levels[0], page->repetition, page->count, 1);
    out_packed(&levels[1], page->definition, page->count, 2);
    int64_t sizes[2] = {(int64_t)levels[0].size, (int64_t)levels[1].size};
    write_items(&items, page, item_bytes);
    for (int i = 0; i < 2; i++) {
        if (page->form == V1)
            out_32(&body, (uint32_t)levels[i].size);
        out_bytes(&body, levels[i].bytes, levels[i].size);
    }
    int64_t expanded = (int64_t)(body.size + items.size);
    if (page->form == V1) {
        out_bytes(&body, items.bytes, items.size);
        compress(&body, codec);
    } else {
        compress(&items, page->form == V2_STORED ? PARQUET_UNCOMPRESSED : codec);
        out_bytes(&body, items.bytes, items.size);
    }
    write_header(&file->out, page, expanded, &body, sizes);
    out_bytes(&file->out, body.bytes, body.size);
    struct written_group *group = &file->groups[file->group_count];
    group->values += (int64_t)page->count;
    for (size_t i = 0; i < page->count; i++)
        group->rows += page->repetition[i] == 0;
}

static void write_dictionary(struct written *file, const int64_t *ids, size_t count, int item_bytes,
                             int codec)
{
    static struct bytes_out body;
    struct page plain = {.encoding = PARQUET_PLAIN, .items = count};
    body.size = 0;
    memcpy(plain.values, ids, count * sizeof *ids);
    write_items(&body, &plain, item_bytes);
    int64_t expanded = (int64_t)body.size;
    compress(&body, codec);
    out_int(&file->out, 1, PARQUET_DICTIONARY);
    out_int(&file->out, 2, expanded);
    out_int(&file->out, 3, (int64_t)body.size);
    out_field(&file->out, THRIFT_STRUCT, 7);
    out_int(&file->out, 1, (int64_t)count);
    out_int(&file->out, 2, PARQUET_PLAIN);
    out_stop(&file->out);
    out_stop(&file->out);
    out_bytes(&file->out, body.bytes, body.size);
}

/* A page that is no data, and is passed over. */
static void write_index(struct written *file)
{
    out_int(&file->out, 1, PARQUET_INDEX);
    out_int(&file->out, 2, 5);
    out_int(&file->out, 3, 5);
    out_field(&file->out, THRIFT_STRUCT, 6);
    out_stop(&file->out);
    out_stop(&file->out);
    out_bytes(&file->out, "index", 5);
}

static void begin_file(struct written *file)
{
    *file = (struct written){.group_count = 0};
    out_bytes(&file->out, "PAR1", 4);
    file->groups[0].offset = 4;
}

static void end_group(struct written *file)
{
    struct written_group *group = &file->groups[file->group_count++];
    group->bytes = (int64_t)file->out.size - group->offset;
    if (file->group_count < 4)
        file->groups[file->group_count].offset = (int64_t)file->out.size;
}

/* optional group ids { repeated group list { optional TYPE element } } */
static void end_file(struct written *file, int item_bytes, int codec)
{
    int type = item_bytes == 4 ? PARQUET_INT32 : PARQUET_INT64;
    struct bytes_out *out = &file->out;
    const struct schema_entry schema[] = {{"schema", -1, 0, 1, 0, 0},
                                          {"ids", -1, 1, 1, 3, 0},
                                          {"list", -1, 2, 1, 0, 0},
                                          {"element", type, 1, 0, 0, 0}};
    size_t footer = out->size;
    int64_t rows = file->extra_rows;
    out_int(out, 1, 1);
    out_structs(out, 2, 4);
    for (int i = 0; i < 4; i++)
        out_schema_entry(out, &schema[i]);
    for (size_t i = 0; i < file->group_count; i++)
        rows += file->groups[i].rows;
    out_int(out, 3, rows);
    out_structs(out, 4, file->group_count);
    for (size_t i = 0; i < file->group_count; i++) {
        const struct written_group *group = &file->groups[i];
        out_structs(out, 1, 1);
        out_field(out, THRIFT_STRUCT, 3);
        out_int(out, 1, type);
        out_int(out, 4, codec);
        out_int(out, 5, group->values);
        out_int(out, 7, group->bytes);
        out_int(out, 9, group->offset);
        out_stop(out);
        out_stop(out);
        out_int(out, 3, group->rows);
        out_stop(out);
    }
    out_stop(out);
    uint32_t size = (uint32_t)(out->size - footer);
    out_32(out, size);
    out_bytes(out, "PAR1", 4);
}

/* ---- reading it */

static struct memory_file memory;

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

/* Two pages: [10 11] [12 | 13 14 15] [] [16] with the second list going over both. */
static const struct page first_half = {.count = 3,
                                       .repetition = {0, 1, 0},
                                       .definition = {3, 3, 3},
                                       .items = 3,
                                       .values = {10, 11, 12}};
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

/* ---- what is refused before anything is read or allocated */

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
        cmocka_unit_test(test_a_chunk_lies_in_front_of_the_footer),
        cmocka_unit_test(test_rows_add_up),
        cmocka_unit_test(test_a_page_ends_with_its_chunk),
        cmocka_unit_test(test_a_header_is_believed_as_far_as_there_are_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
