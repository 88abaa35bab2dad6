/* test_salvage.c - verify and salvage on cut and changed caches: every cut, changed bytes at every
 * place, records out of place, parts behind each other.
 *
 * What must come out is known from the undamaged file alone: where each record lies, and its rows.
 * A cut saves the records that end before it; a changed byte costs the record it is in. DEEP=1
 * tries all 255 other values of each byte, else it is a few.
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
#include "common/record.h"
#include "common/stream.h"
#include "scratch.h"
#include "tools/ccanalyze/salvage.h"
#include "tools/ccanalyze/verify.h"

#define GOLDEN "tests/golden/stream/"
#define MOST_RECORDS 32
#define MOST_ROWS 64
#define MOST_ROW_BYTES 512

static const char *damaged, *saved; /* paths in the scratch folder */

/* ---- a file as it should be */

struct row {
    uint8_t bytes[MOST_ROW_BYTES];
    size_t size;
};

struct sample {
    uint8_t *bytes;
    size_t size;
    size_t starts[MOST_RECORDS +
                  1];            /* of frames; the last one is where the index begins, or the end */
    size_t frames;               /* BEGIN, DATA..., END */
    uint32_t rows[MOST_RECORDS]; /* in each */
    struct row original[MOST_ROWS];
    uint64_t row_count;
};

/* The rows of a stream, tags and bytes, or sequences: their number. */
static uint64_t read_rows(const char *path, struct row rows[MOST_ROWS])
{
    char *paths[] = {(char *)path};
    struct stream_reader *reader;
    struct stream_record record;
    uint64_t count = 0;
    int status;
    assert_int_equal(stream_reader_open(&reader, paths, 1, BEGIN_ANY, 1), 0);
    size_t row_bytes = begin_row_bytes(stream_reader_begin(reader));
    while ((status = stream_reader_next(reader, &record)) == 1) {
        size_t at = 0;
        struct stream_sequence sequence;
        for (uint32_t i = 0; i < record.rows; i++, count++) {
            assert_true(count < MOST_ROWS);
            if (record.tags == NULL) {
                const uint8_t *from = record.data + at;
                assert_int_equal(stream_sequence_next(&record, &at, &sequence), 1);
                rows[count].size = (size_t)(record.data + at - from);
                memcpy(rows[count].bytes, from, rows[count].size);
            } else {
                rows[count].size = 16 + row_bytes;
                memcpy(rows[count].bytes, record.tags + 16 * i, 16);
                memcpy(rows[count].bytes + 16, record.data + i * row_bytes, row_bytes);
            }
        }
    }
    assert_int_equal(status, 0);
    assert_true(!stream_reader_begin(reader)->has_rows ||
                stream_reader_begin(reader)->rows == count);
    stream_reader_free(reader);
    return count;
}

/* Frames by the file's own index, or by the sizes in bare headers. */
static void open_sample(struct sample *sample, const char *path)
{
    char *text;
    assert_int_equal(io_read_file(&text, &sample->size, path, 1u << 24), 0);
    sample->bytes = (uint8_t *)text;
    sample->frames = 0;
    sample->row_count = 0;
    if (memcmp(text, "CCPS", 4) == 0) {
        for (size_t at = 0; at < sample->size; at += 80 + le_get32(sample->bytes + at + 52)) {
            sample->starts[sample->frames] = at;
            sample->rows[sample->frames++] = le_get32(sample->bytes + at + 48);
        }
        sample->starts[sample->frames] = sample->size;
    } else {
        size_t end = (size_t)le_get64(sample->bytes + sample->size - 24);
        const uint8_t *entry = sample->bytes + end + 8 + 24;
        sample->frames = (size_t)le_get64(entry - 8);
        for (size_t i = 0; i < sample->frames; i++, entry += 24) {
            sample->starts[i] = (size_t)le_get64(entry);
            sample->rows[i] = le_get32(entry + 16);
        }
        sample->starts[sample->frames] = end;
    }
    for (size_t i = 0; i < sample->frames; i++)
        sample->row_count += sample->rows[i];
    if (strcmp(path, GOLDEN "aborted.ccps") != 0)
        assert_int_equal(read_rows(path, sample->original), sample->row_count);
}

/* ---- what is tried on a damaged file */

static int verify_status(const char *path)
{
    struct verify_report report;
    return verify_path(&report, path, 1);
}

/* Salvages `damaged` to `saved`. */
static int salvage_status(struct salvage_figures *figures)
{
    struct salvage *salvage;
    int status = salvage_open(&salvage, damaged);
    if (status != 0) {
        assert_null(salvage);
        return status;
    }
    *figures = salvage_count(salvage);
    unlink(saved);
    status = salvage_write(salvage, saved, STREAM_CODEC_LZ4, 1, NULL);
    salvage_free(salvage);
    return status;
}

/* The saved file must verify and hold the rows of the frames that `kept` names, in order. */
static void check_saved(const struct sample *sample, const bool kept[MOST_RECORDS],
                        const struct salvage_figures *figures)
{
    static struct row rows[MOST_ROWS];
    assert_int_equal(verify_status(saved), 0);
    uint64_t count = read_rows(saved, rows), at = 0, lost = 0;
    for (size_t i = 0, from = 0; i < sample->frames; from += sample->rows[i++]) {
        if (!kept[i]) {
            lost += sample->rows[i];
            continue;
        }
        for (uint32_t j = 0; j < sample->rows[i]; j++, at++) {
            assert_true(at < count);
            assert_int_equal(rows[at].size, sample->original[from + j].size);
            assert_memory_equal(rows[at].bytes, sample->original[from + j].bytes, rows[at].size);
        }
    }
    assert_int_equal(at, count);
    assert_int_equal(figures->rows, count);
    if (figures->lost_known)
        assert_int_equal(figures->lost, lost);
    else
        assert_true(figures->lost <= lost);
}

/* ---- cuts */

static void cut_everywhere(const char *path)
{
    static struct sample sample;
    open_sample(&sample, path);
    for (size_t cut = 0; cut < sample.size; cut++) {
        struct salvage_figures figures;
        bool kept[MOST_RECORDS] = {false};
        scratch_write("damaged", sample.bytes, cut);
        bool whole = cut == sample.starts[sample.frames];
        assert_int_equal(verify_status(damaged), whole ? 0 : ERR_TRUNCATED);
        int status = salvage_status(&figures);
        if (cut < sample.starts[1]) {
            assert_int_equal(status, ERR_TRUNCATED);
            continue;
        }
        assert_int_equal(status, 0);
        for (size_t i = 0; i < sample.frames; i++)
            kept[i] = sample.starts[i + 1] <= cut;
        check_saved(&sample, kept, &figures);
    }
    free(sample.bytes);
}

static void test_every_cut_saves_the_records_before_it(void **state)
{
    (void)state;
    cut_everywhere(GOLDEN "rows-bf16.lz4");
    cut_everywhere(GOLDEN "rows-f32.ccps");
    cut_everywhere(GOLDEN "tokens.ccps");
}

/* ---- changed bytes */

static size_t frame_of(const struct sample *sample, size_t at)
{
    size_t i = 0;
    while (i < sample->frames && at >= sample->starts[i + 1])
        i++;
    return i;
}

/* One changed byte: the record that it is in is lost, and no other. */
static void check_change(const struct sample *sample, size_t at)
{
    struct salvage_figures figures;
    bool kept[MOST_RECORDS];
    size_t frame = frame_of(sample, at);
    scratch_write("damaged", sample->bytes, sample->size);
    int verified = verify_status(damaged), status = salvage_status(&figures);
    assert_true(verified == ERR_DATA || verified == ERR_TRUNCATED);
    if (frame == 0) {
        assert_true(status == ERR_DATA || status == ERR_TRUNCATED);
        return;
    }
    assert_int_equal(status, 0);
    for (size_t i = 0; i < sample->frames; i++)
        kept[i] = i != frame;
    check_saved(sample, kept, &figures);
}

static void change_everywhere(const char *path)
{
    static struct sample sample;
    open_sample(&sample, path);
    unsigned step = getenv("DEEP") != NULL ? 1 : 101;
    for (size_t at = 0; at < sample.size; at++) {
        for (unsigned change = 1 + (unsigned)at % step; change < 256; change += step) {
            sample.bytes[at] ^= (uint8_t)change;
            check_change(&sample, at);
            sample.bytes[at] ^= (uint8_t)change;
        }
    }
    free(sample.bytes);
}

static void test_a_changed_byte_costs_its_record_alone(void **state)
{
    (void)state;
    change_everywhere(GOLDEN "rows-bf16.lz4");
    change_everywhere(GOLDEN "rows-f32.ccps");
    change_everywhere(GOLDEN "tokens.ccps");
}

/* ---- parts behind each other, and other files */

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

static int set_up(void **state)
{
    log_init("test_salvage", LOG_SILENT);
    if (scratch_open(state) != 0)
        return -1;
    damaged = strdup(scratch_path("damaged"));
    saved = strdup(scratch_path("saved"));
    return damaged == NULL || saved == NULL;
}

static int tear_down(void **state)
{
    free((char *)damaged);
    free((char *)saved);
    return scratch_close(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_saves_the_records_before_it),
        cmocka_unit_test(test_a_changed_byte_costs_its_record_alone),
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
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
