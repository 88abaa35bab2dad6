/* test_salvage_records.c - verify and salvage on caches whose bytes are whole and whose records are
 * not as they should be: parts behind each other, records out of place, twice, and with junk
 * between them.
 */
#include "salvaged.h"

#include "common/record.h"

/* Joins two files into `damaged`, the second one cut to `size` bytes. */
static void join(const char *first, const char *second, size_t size)
{
    static struct sample a, b;
    open_sample(&a, first);
    open_sample(&b, second);
    assert_true(size <= b.size);
    uint8_t *joined = malloc(a.size + size);
    assert_non_null(joined);
    memcpy(joined, a.bytes, a.size);
    memcpy(joined + a.size, b.bytes, size);
    scratch_write("damaged", joined, a.size + size);
    free(joined);
    free(a.bytes);
    free(b.bytes);
}

static void test_parts_of_a_cat_stay_parts(void **state)
{
    (void)state;
    static struct row rows[MOST_ROWS];
    struct salvage_figures figures;
    static struct sample sample;
    open_sample(&sample, GOLDEN "rows-bf16.lz4");
    join(GOLDEN "rows-bf16.lz4", GOLDEN "rows-bf16.lz4", sample.size);
    assert_int_equal(verify_status(damaged), 0);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.parts, 2);
    assert_int_equal(figures.damages, 0);
    assert_int_equal(verify_status(saved), 0);
    assert_int_equal(read_rows(saved, rows), 8);

    /* The second one cut within its last record of rows: the first is whole, and three rows more.
     */
    join(GOLDEN "rows-bf16.lz4", GOLDEN "rows-bf16.lz4", sample.starts[3] - 1);
    assert_int_equal(verify_status(damaged), ERR_TRUNCATED);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.parts, 2);
    assert_int_equal(figures.rows, 7);
    assert_false(figures.lost_known);
    assert_int_equal(verify_status(saved), 0);
    assert_int_equal(read_rows(saved, rows), 7);
    for (size_t i = 0; i < 7; i++)
        assert_memory_equal(rows[i].bytes, sample.original[i % 4].bytes, rows[i].size);

    /* The first one cut: what follows begins in the middle of nothing, and is found. */
    size_t cut = sample.starts[2] + 5;
    uint8_t *bytes = malloc(cut + sample.size);
    assert_non_null(bytes);
    memcpy(bytes, sample.bytes, cut);
    memcpy(bytes + cut, sample.bytes, sample.size);
    scratch_write("damaged", bytes, cut + sample.size);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 7);
    assert_int_equal(read_rows(saved, rows), 7);
    free(bytes);
    free(sample.bytes);
}

static void test_streams_that_do_not_belong_together_are_refused(void **state)
{
    (void)state;
    struct salvage_figures figures;
    static struct sample sample;
    open_sample(&sample, GOLDEN "tokens.ccps");
    join(GOLDEN "rows-f32.ccps", GOLDEN "tokens.ccps", sample.size);
    assert_int_equal(salvage_status(&figures), ERR_USAGE);
    free(sample.bytes);
}

/* The JSON of BEGIN, and the identity of the stream. */
static json_t *begin_of(const char *path, char identity[33])
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1), 0);
    assert_int_equal(begin_identity(stream_reader_begin(reader), identity), 0);
    json_t *json = json_deep_copy(stream_reader_begin_json(reader));
    stream_reader_free(reader);
    return json;
}

static void test_a_shorter_stream_is_the_same_and_one_with_gaps_another(void **state)
{
    (void)state;
    char before[33], after[33];
    struct salvage_figures figures;
    static struct sample sample;
    open_sample(&sample, GOLDEN "rows-f32.ccps");
    json_decref(begin_of(GOLDEN "rows-f32.ccps", before));

    scratch_write("damaged", sample.bytes, sample.starts[3]);
    assert_int_equal(salvage_status(&figures), 0);
    json_t *begin = begin_of(saved, after);
    assert_string_equal(before, after);
    assert_int_equal(json_integer_value(json_object_get(begin, "rows")), 4);
    json_decref(begin);
    assert_true(figures.lost_known); /* BEGIN had announced five */
    assert_int_equal(figures.lost, 1);

    sample.bytes[sample.starts[2] + 100] ^= 1; /* the second record of rows: rows 2 and 3 */
    scratch_write("damaged", sample.bytes, sample.size);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 3);
    assert_int_equal(figures.lost, 2);
    begin = begin_of(saved, after);
    assert_string_not_equal(before, after);
    char *gaps = json_dumps(
        json_object_get(json_object_get(json_object_get(begin, "extra"), "salvaged"), "gaps"),
        JSON_COMPACT);
    assert_string_equal(gaps, "[[2,2]]");
    free(gaps);
    json_decref(begin);
    free(sample.bytes);
}

/* Records that are there twice or out of order are taken once, in order. */
static void test_repeated_and_swapped_records(void **state)
{
    (void)state;
    static struct row rows[MOST_ROWS];
    struct salvage_figures figures;
    static struct sample sample;
    open_sample(&sample, GOLDEN "rows-f32.ccps");
    const size_t *at = sample.starts;
    uint8_t *made = malloc(2 * sample.size);
    assert_non_null(made);
    memcpy(made, sample.bytes, at[2]); /* BEGIN, rows 0 and 1, and these once more */
    memcpy(made + at[2], sample.bytes + at[1], sample.size - at[1]);
    scratch_write("damaged", made, sample.size + at[2] - at[1]);
    assert_true(verify_status(damaged) == ERR_DATA);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 5);
    assert_int_equal(figures.lost, 0);
    assert_int_equal(read_rows(saved, rows), 5);

    size_t first = at[2] - at[1], second = at[3] - at[2];
    memcpy(made, sample.bytes, sample.size);
    memcpy(made + at[1], sample.bytes + at[2], second);
    memcpy(made + at[1] + second, sample.bytes + at[1], first);
    scratch_write("damaged", made, sample.size);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 3); /* rows 2, 3 and 4: nothing goes back */
    assert_int_equal(figures.lost, 2);
    assert_int_equal(verify_status(saved), 0);
    free(made);
    free(sample.bytes);
}

/* Writes the sample with other numbers in one frame's header, whose checksum is true again. */
static void write_changed(const struct sample *sample, size_t frame, uint64_t sequence,
                          uint64_t first_row)
{
    uint8_t *made = malloc(sample->size);
    assert_non_null(made);
    memcpy(made, sample->bytes, sample->size);
    struct record_header header;
    assert_null(record_header_get(&header, made + sample->starts[frame]));
    header.sequence = sequence;
    header.first_row = first_row;
    record_header_put(made + sample->starts[frame], &header);
    scratch_write("damaged", made, sample->size);
    free(made);
}

/* Headers with true checksums that contradict each other. */
static void test_numbers_that_contradict(void **state)
{
    (void)state;
    static struct sample sample;
    struct salvage_figures figures;
    open_sample(&sample, GOLDEN "rows-f32.ccps");
    static const struct {
        uint64_t sequence, first_row;
    } third[] = {{2, 5}, {3, 5}, {4, 3}, {1, 4}}; /* it is record 3, from row 4 on */
    for (size_t i = 0; i < sizeof third / sizeof *third; i++) {
        write_changed(&sample, 3, third[i].sequence, third[i].first_row);
        assert_int_equal(verify_status(damaged), ERR_DATA);
        assert_int_equal(salvage_status(&figures), 0);
        bool kept[MOST_RECORDS] = {true, true, true, false, true};
        check_saved(&sample, kept, &figures);
    }

    /* Rows behind END are no rows of this stream. */
    size_t size = sample.starts[4] - sample.starts[3];
    uint8_t *made = malloc(sample.size + size);
    assert_non_null(made);
    memcpy(made, sample.bytes, sample.size);
    memcpy(made + sample.size, sample.bytes + sample.starts[3], size);
    struct record_header header;
    assert_null(record_header_get(&header, made + sample.size));
    header.sequence = 5;
    header.first_row = 5;
    record_header_put(made + sample.size, &header);
    scratch_write("damaged", made, sample.size + size);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 5);
    assert_int_equal(figures.damages, 1);
    free(made);
    free(sample.bytes);
}

/* Junk of every small length, and lengths that put what follows on the border of the pieces in
 * which it is sought. */
static void test_junk_between_records(void **state)
{
    (void)state;
    static struct sample sample;
    struct salvage_figures figures;
    static const size_t lengths[] = {1,       2,       3,       4,       5,      79,
                                     1048573, 1048574, 1048575, 1048576, 1048577};
    static const char *const files[] = {GOLDEN "rows-f32.ccps", GOLDEN "rows-bf16.lz4"};
    for (size_t i = 0; i < 2 * (sizeof lengths / sizeof *lengths); i++) {
        open_sample(&sample, files[i % 2]);
        size_t junk = lengths[i / 2], at = sample.starts[2];
        uint8_t *made = malloc(sample.size + junk);
        assert_non_null(made);
        memcpy(made, sample.bytes, at);
        memset(made + at, 'C', junk); /* as a record begins, but none */
        memcpy(made + at + junk, sample.bytes + at, sample.size - at);
        scratch_write("damaged", made, sample.size + junk);
        assert_int_equal(verify_status(damaged), ERR_DATA);
        assert_int_equal(salvage_status(&figures), 0);
        bool kept[MOST_RECORDS] = {true, true, true, true, true};
        check_saved(&sample, kept, &figures);
        assert_int_equal(figures.damages, 1);
        free(made);
        free(sample.bytes);
    }
}

/* A frame that claims to be skippable does not hide the records that it claims. */
static void test_a_skippable_frame_hides_nothing(void **state)
{
    (void)state;
    static struct sample sample;
    struct salvage_figures figures;
    open_sample(&sample, GOLDEN "rows-f32.ccps");
    le_put32(sample.bytes + sample.starts[1], 0x184D2A5Cu);
    le_put32(sample.bytes + sample.starts[1] + 4,
             (uint32_t)(sample.starts[4] - sample.starts[1] - 8));
    scratch_write("damaged", sample.bytes, sample.size);
    assert_int_equal(verify_status(damaged), ERR_DATA);
    assert_int_equal(salvage_status(&figures), 0);
    bool kept[MOST_RECORDS] = {true, false, true, true, true};
    check_saved(&sample, kept, &figures);
    free(sample.bytes);
}

static void test_aborted_and_empty_streams(void **state)
{
    (void)state;
    static struct row rows[MOST_ROWS];
    struct salvage_figures figures;
    static struct sample sample;
    open_sample(&sample, GOLDEN "aborted.ccps");
    scratch_write("damaged", sample.bytes, sample.size);
    assert_int_equal(verify_status(damaged), ERR_TRUNCATED);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(verify_status(saved), 0);
    assert_int_equal(read_rows(saved, rows), 2);
    assert_false(figures.lost_known);
    free(sample.bytes);

    open_sample(&sample, GOLDEN "empty.ccps");
    scratch_write("damaged", sample.bytes, sample.size);
    assert_int_equal(verify_status(damaged), 0);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(verify_status(saved), 0);
    assert_int_equal(read_rows(saved, rows), 0);
    free(sample.bytes);

    scratch_write("damaged", (const uint8_t *)"", 0);
    assert_int_equal(verify_status(damaged), ERR_TRUNCATED);
    assert_int_equal(salvage_status(&figures), ERR_TRUNCATED);
}

/* Rows that END counts as not finite are announced and not there: that is no loss. */
static void test_rows_left_out_by_right(void **state)
{
    (void)state;
    static struct row rows[MOST_ROWS];
    struct salvage_figures figures;
    struct begin begin;
    struct stream_writer *writer;
    uint8_t tag[16] = {0}, row[4] = {0};
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    assert_int_equal(begin_add_source(&begin, "m.h", "m", "h", "", 1, 1), 0);
    begin.dtype = DTYPE_F32;
    begin.has_rows = true;
    begin.rows = 3;
    json_t *skipped = json_pack("{s:i}", "not_finite", 1);
    for (int left_out = 1; left_out >= 0; left_out--) {
        assert_int_equal(stream_writer_open(&writer, damaged, STREAM_CODEC_NONE, 1), 0);
        assert_int_equal(stream_writer_begin(writer, &begin), 0);
        assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
        assert_int_equal(stream_writer_rows(writer, tag, row, 1), 0);
        assert_int_equal(stream_writer_end(writer, left_out ? skipped : NULL), 0);
        stream_writer_free(writer);
        /* Without that reason a row is missing, though all checksums agree. */
        assert_int_equal(verify_status(damaged), left_out ? 0 : ERR_DATA);
        assert_int_equal(salvage_status(&figures), 0);
        assert_int_equal(figures.lost, 0);
        assert_int_equal(verify_status(saved), 0);
        assert_int_equal(read_rows(saved, rows), 2);
    }
    json_decref(skipped);
    begin_free(&begin);
}

/* The index is nobody's business but verify's: each of its bytes, and one that is consistent and of
 * another file. */
static void test_an_index_of_other_records(void **state)
{
    (void)state;
    static struct sample a, b;
    open_sample(&a, GOLDEN "rows-bf16.lz4");
    struct salvage_figures figures;
    scratch_write("damaged", a.bytes, a.size);
    assert_int_equal(salvage_status(&figures), 0); /* the same rows in one record: another index */
    open_sample(&b, saved);
    size_t end_a = a.starts[a.frames], end_b = b.starts[b.frames];
    uint8_t *made = malloc(end_a + b.size - end_b);
    assert_non_null(made);
    memcpy(made, a.bytes, end_a);
    memcpy(made + end_a, b.bytes + end_b, b.size - end_b);
    scratch_write("damaged", made, end_a + b.size - end_b);
    assert_int_equal(verify_status(damaged), ERR_DATA);
    free(made);
    free(a.bytes);
    free(b.bytes);
}

/* The golden sequences with another END, `times` behind each other. */
static void write_with_end(const char *skipped, int times)
{
    static struct sample sample;
    char text[512];
    open_sample(&sample, GOLDEN "tokens.ccps");
    size_t end = sample.starts[2];
    struct record_header header;
    assert_null(record_header_get(&header, sample.bytes + end));
    size_t size = (size_t)snprintf(text, sizeof text,
                                   "{\"records\":1,\"rows\":3,%s\"sum_high\":\"37af6f923916c039\","
                                   "\"sum_low\":\"9dfbe075b112c0f6\"}",
                                   skipped);
    header.payload_bytes = (uint32_t)size;
    header.payload_hash = record_hash(text, size);
    size_t part = end + STREAM_HEADER_BYTES + size;
    uint8_t *made = malloc((size_t)times * part);
    assert_non_null(made);
    for (int i = 0; i < times; i++) {
        memcpy(made + (size_t)i * part, sample.bytes, end);
        record_header_put(made + (size_t)i * part + end, &header);
        memcpy(made + (size_t)i * part + end + STREAM_HEADER_BYTES, text, size);
    }
    scratch_write("damaged", made, (size_t)times * part);
    free(made);
    free(sample.bytes);
}

/* An END that does not say what was left out, or says what is no count, is damage to the one as to
 * the other; counts of several parts add up as far as they can. */
static void test_what_end_says_was_skipped(void **state)
{
    (void)state;
    static const struct {
        const char *skipped;
        int times, want;
    } cases[] = {
        {"\"skipped\":{\"cut\":1},", 1, 0},
        {"\"skipped\":{},", 2, 0},
        {"", 1, ERR_DATA},
        {"\"skipped\":null,", 1, ERR_DATA},
        {"\"skipped\":[1],", 1, ERR_DATA},
        {"\"skipped\":{\"cut\":-1},", 1, ERR_DATA},
        {"\"skipped\":{\"cut\":\"1\"},", 1, ERR_DATA},
        {"\"skipped\":{\"cut\":9223372036854775807},", 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct salvage_figures figures;
        write_with_end(cases[i].skipped, cases[i].times);
        if (verify_status(damaged) != cases[i].want)
            print_error("case %zu\n", i);
        assert_int_equal(verify_status(damaged), cases[i].want);
        assert_int_equal(salvage_status(&figures), 0);
        assert_int_equal(figures.damages, cases[i].want == 0 ? 0 : 1);
        assert_int_equal(figures.rows, 3 * cases[i].times);
        assert_int_equal(verify_status(saved), 0);
    }
}

/* The last row under a number of 64 bits: what would be lost before it is no integer of JSON. */
static void test_row_numbers_that_json_cannot_hold_are_damage(void **state)
{
    (void)state;
    static struct sample sample;
    struct salvage_figures figures;
    struct record_header header;
    open_sample(&sample, GOLDEN "rows-f32.ccps");
    uint8_t *record = sample.bytes + sample.starts[3];
    assert_null(record_header_get(&header, record));
    assert_int_equal(header.first_row, 4);
    header.first_row = UINT64_MAX - 1;
    header.sequence++; /* so that rows may be missing before it */
    record_header_put(record, &header);
    scratch_write("damaged", sample.bytes, sample.size);
    assert_int_equal(verify_status(damaged), ERR_DATA);
    assert_int_equal(salvage_status(&figures), 0);
    assert_int_equal(figures.rows, 4);
    assert_int_equal(figures.lost, 1);
    assert_int_equal(verify_status(saved), 0);
    free(sample.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_a_cat_stay_parts),
        cmocka_unit_test(test_streams_that_do_not_belong_together_are_refused),
        cmocka_unit_test(test_a_shorter_stream_is_the_same_and_one_with_gaps_another),
        cmocka_unit_test(test_repeated_and_swapped_records),
        cmocka_unit_test(test_numbers_that_contradict),
        cmocka_unit_test(test_junk_between_records),
        cmocka_unit_test(test_a_skippable_frame_hides_nothing),
        cmocka_unit_test(test_aborted_and_empty_streams),
        cmocka_unit_test(test_rows_left_out_by_right),
        cmocka_unit_test(test_an_index_of_other_records),
        cmocka_unit_test(test_what_end_says_was_skipped),
        cmocka_unit_test(test_row_numbers_that_json_cannot_hold_are_damage),
    };
    return cmocka_run_group_tests(tests, salvaged_set_up, salvaged_tear_down);
}
