/* test_table.c - the two forms of a table, and the reader of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "tools/ccanalyze/freq_table.h"
#include "tools/ccanalyze/table.h"

static char path[] = "/tmp/test_table_XXXXXX";

static const char *const columns[] = {"index", "a\tb", "text"};

static void write_table(bool json, json_t *extra)
{
    struct table_form form = {path, json};
    struct table *table;
    assert_int_equal(table_open(&table, &form, "latents", columns, 3), 0);
    table_count(table, 0);
    table_real(table, (double)0.1f);
    table_text(table, "tab\t, line\n, \r, back\\slash, \x1b[31m, \x7f, \"é\"");
    assert_int_equal(table_row(table), 0);
    table_count(table, 9007199254740993u);
    table_real(table, (double)NAN);
    table_text(table, "");
    assert_int_equal(table_row(table), 0);
    table_count(table, 2);
    table_real(table, -(double)INFINITY);
    table_text(table, "x");
    assert_int_equal(table_row(table), 0);
    assert_int_equal(table_end(table, extra), 0);
    table_free(table);
}

/* What the file holds; the caller frees it. */
static char *read_back(void)
{
    char *text;
    size_t size;
    assert_int_equal(io_read_file(&text, &size, path, 1u << 26), 0);
    assert_int_equal(strlen(text), size);
    return text;
}

static void a_line_is_a_row(void **state)
{
    (void)state;
    write_table(false, json_pack("{s:i}", "rows", 3));
    char *text = read_back();
    assert_string_equal(text, "index\ta\\tb\ttext\n"
                              "0\t0.100000001\ttab\\t, line\\n, \\r, back\\\\slash, \\x1b[31m, "
                              "\\x7f, \"é\"\n"
                              "9007199254740993\t\t\n"
                              "2\t\tx\n");
    free(text);
}

static void json_has_the_same_values(void **state)
{
    (void)state;
    write_table(true, json_pack("{s:i, s:f}", "rows", 3, "half", 0.5));
    char *text = read_back();
    json_t *value = json_parse(text, strlen(text), path);
    json_t *expected = json_pack(
        "{s:[{s:i, s:f, s:s}, {s:I, s:n, s:s}, {s:i, s:n, s:s}], s:i, s:f}", "latents", "index", 0,
        "a\tb", 0.100000001, "text", "tab\t, line\n, \r, back\\slash, \x1b[31m, \x7f, \"é\"",
        "index", (json_int_t)9007199254740993, "a\tb", "text", "", "index", 2, "a\tb", "text", "x",
        "rows", 3, "half", 0.5);
    assert_non_null(expected);
    assert_true(json_equal(value, expected));
    json_decref(expected);
    json_decref(value);
    free(text);
}

static void an_empty_table_is_valid_in_both_forms(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        struct table_form form = {path, json != 0};
        struct table *table;
        assert_int_equal(table_open(&table, &form, "latents", columns, 1), 0);
        assert_int_equal(table_end(table, NULL), 0);
        table_free(table);
        char *text = read_back();
        assert_string_equal(text, json != 0 ? "{\"latents\":[\n]}\n" : "index\n");
        free(text);
    }
}

static void long_tables_come_out_whole(void **state)
{
    (void)state;
    struct table_form form = {path, false};
    struct table *table;
    assert_int_equal(table_open(&table, &form, "latents", columns, 1), 0);
    for (uint64_t i = 0; i < 200000; i++) {
        table_count(table, i);
        assert_int_equal(table_row(table), 0);
    }
    assert_int_equal(table_end(table, NULL), 0);
    table_free(table);
    char *text = read_back(), *at = strchr(text, '\n') + 1;
    for (unsigned long i = 0; i < 200000; i++)
        assert_int_equal(strtoul(at, &at, 10), i);
    assert_string_equal(at, "\n");
    free(text);
}

static void a_value_alone_is_indented(void **state)
{
    (void)state;
    assert_int_equal(table_json(path, json_pack("{s:f}", "a", 0.25)), 0);
    char *text = read_back();
    assert_string_equal(text, "{\n  \"a\": 0.25\n}\n");
    free(text);
    assert_int_equal(table_json(path, NULL), ERR_MEMORY);
}

static void an_output_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    struct table_form form = {"/no/such/folder/out", false};
    struct table *table;
    assert_int_equal(table_open(&table, &form, "latents", columns, 1), ERR_IO);
    assert_null(table);
    form.output = "/dev/full";
    assert_int_equal(table_open(&table, &form, "latents", columns, 1), 0);
    assert_int_equal(table_end(table, NULL), ERR_IO);
    table_free(table);
    table_free(NULL);
}

/* ---- reading a table of freq */

static int parse(const char *text, size_t size, uint8_t *dead, size_t latents, size_t *dead_count)
{
    char *copy = calloc(size + 1, 1);
    assert_non_null(copy);
    memcpy(copy, text, size);
    int status = freq_table_parse(copy, size, "freq.tsv", dead, latents, dead_count);
    free(copy);
    return status;
}

static void dead_latents_are_those_that_count_nothing(void **state)
{
    (void)state;
    uint8_t dead[4];
    size_t count;
    static const char text[] = "x\tcount\tindex\n\t0\t2\n1\t7\t0\n\t0\t3\ty\nz\t1\t1\n";
    assert_int_equal(parse(text, sizeof text - 1, dead, 4, &count), 0);
    assert_int_equal(count, 2);
    assert_memory_equal(dead, ((uint8_t[]){0, 0, 1, 1}), 4);
    assert_int_equal(parse(text, sizeof text - 2, dead, 4, &count), 0); /* no newline at the end */
}

static void other_tables_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"", ERR_USAGE},
        {"\n", ERR_USAGE},
        {"index\tfrequency\n0\t1\n", ERR_USAGE},
        {"index\tcount\n", ERR_USAGE},                   /* of another crosscoder */
        {"index\tcount\n0\t1\n", ERR_USAGE},             /* a line is missing */
        {"index\tcount\n0\t1\n1\t1\n2\t1\n", ERR_USAGE}, /* one too many */
        {"index\tcount\n0\t1\n0\t1\n", ERR_USAGE},       /* one twice */
        {"index\tcount\n0\t1\n1\n", ERR_DATA},           /* a line is cut */
        {"index\tcount\n0\t1\n1\t\n", ERR_DATA},
        {"index\tcount\n0\t1\n1\t-1\n", ERR_DATA},
        {"index\tcount\n0\t1\n1\t1.5\n", ERR_DATA},
        {"index\tcount\n0\t1\n\n1\t1\n", ERR_DATA},
        {"index\tcount\n0\t1\n1\t111111111111111111111111\n", ERR_DATA},
        {"index\tcounts\tcoun\n0\t1\n1\t1\n", ERR_USAGE},
    };
    uint8_t dead[2];
    size_t count;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        print_message("# %zu\n", i);
        assert_int_equal(parse(cases[i].text, strlen(cases[i].text), dead, 2, &count),
                         cases[i].status);
        assert_int_equal(count, 0);
    }
    static const char zero[] = "index\tcount\n0\t1\n1\t1\n\0";
    assert_int_equal(parse(zero, sizeof zero - 2, dead, 2, &count), 0);
    assert_int_equal(parse(zero, sizeof zero - 1, dead, 2, &count), ERR_DATA);
    assert_int_equal(freq_table_read("/no/such/file", dead, 2, &count), ERR_USAGE);
}

static int make_file(void **state)
{
    (void)state;
    log_init("test_table", LOG_SILENT);
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_a_row),
        cmocka_unit_test(json_has_the_same_values),
        cmocka_unit_test(an_empty_table_is_valid_in_both_forms),
        cmocka_unit_test(long_tables_come_out_whole),
        cmocka_unit_test(a_value_alone_is_indented),
        cmocka_unit_test(an_output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(dead_latents_are_those_that_count_nothing),
        cmocka_unit_test(other_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
