/* test_json.c - what is refused before and by jansson, and the canonical text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/log.h"

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    return 0;
}

static bool parses(const char *text, size_t size)
{
    json_t *value = json_parse(text, size, "test");
    json_decref(value);
    return value != NULL;
}
#define PARSES(text) parses(text, sizeof(text) - 1)

/* `depth` arrays inside of each other, with a string full of brackets in the innermost. */
static bool nested(size_t depth)
{
    static const char inner[] = "\"[[{{\\\"[[[[\\\\\"";
    char text[4096];
    size_t size = 0;
    for (size_t i = 0; i < depth; i++)
        text[size++] = '[';
    memcpy(text + size, inner, sizeof inner - 1);
    size += sizeof inner - 1;
    for (size_t i = 0; i < depth; i++)
        text[size++] = ']';
    return parses(text, size);
}

static void depth_is_bounded(void **state)
{
    (void)state;
    assert_true(nested(1));
    assert_true(nested(JSON_MAX_DEPTH));
    assert_false(nested(JSON_MAX_DEPTH + 1));
    /* Many, but not inside of each other. */
    char text[1024] = "[1";
    size_t used = 2;
    for (int i = 0; i < 100; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, ",[]");
    text[used++] = ']';
    assert_true(parses(text, used));
    /* So deep that recursion would run out of stack. */
    size_t size = 50u << 20;
    char *deep = malloc(size);
    assert_non_null(deep);
    memset(deep, '[', size);
    assert_false(parses(deep, size));
    memset(deep, '{', size);
    assert_false(parses(deep, size));
    free(deep);
}

static void what_is_no_json_is_refused(void **state)
{
    (void)state;
    assert_true(PARSES("{\"a\": [1, 2.5, true, null, \"\\u00e9\"]}"));
    assert_false(PARSES(""));
    assert_false(PARSES("1"));
    assert_false(PARSES("{} {}"));
    assert_false(PARSES("{}x"));
    assert_false(PARSES("{\"a\": 1, \"a\": 2}"));
    assert_false(PARSES("{\"a\": 1,}"));
    assert_false(PARSES("{\"a\": NaN}"));
    assert_false(PARSES("{\"a\": 1e400}"));
    assert_false(PARSES("{\"a\": 123456789012345678901234567890}"));
    assert_false(PARSES("{\"a\": \"\xff\"}"));
    assert_false(PARSES("{\"a\": \"\\u0000\"}"));
    assert_false(PARSES("{\"a\": \"\\ud800\"}"));
    assert_false(PARSES("{}\0"));
    assert_false(PARSES("{\"a\": \"\0\"}"));
    assert_false(PARSES("{\"a\": \""));
    assert_false(PARSES("{\"a\": \"\\"));
    assert_false(PARSES("]]]]"));
}

static void members_have_their_type(void **state)
{
    (void)state;
    static const char text[] = "{\"s\": \"x\", \"n\": 9007199254740993, \"m\": -1, \"r\": 0.5,"
                               " \"b\": true, \"z\": null}";
    json_t *object = json_parse(text, sizeof text - 1, "test");
    assert_non_null(object);
    const char *string;
    uint64_t count;
    double real;
    assert_int_equal(json_get_string(object, "s", "test", &string), 0);
    assert_string_equal(string, "x");
    assert_int_equal(json_get_string(object, "n", "test", &string), ERR_DATA);
    assert_int_equal(json_get_string(object, "none", "test", &string), ERR_DATA);
    assert_int_equal(json_get_count(object, "n", "test", &count), 0);
    assert_true(count == 9007199254740993u); /* not by way of a double */
    assert_int_equal(json_get_count(object, "m", "test", &count), ERR_DATA);
    assert_int_equal(json_get_count(object, "r", "test", &count), ERR_DATA);
    assert_int_equal(json_get_count(object, "b", "test", &count), ERR_DATA);
    assert_int_equal(json_get_real(object, "r", "test", &real), 0);
    assert_true(real == 0.5);
    assert_int_equal(json_get_real(object, "m", "test", &real), 0);
    assert_true(real == -1.0);
    assert_int_equal(json_get_real(object, "z", "test", &real), ERR_DATA);
    assert_int_equal(json_get_real(object, "s", "test", &real), ERR_DATA);
    json_decref(object);
}

static void text_is_canonical(void **state)
{
    (void)state;
    static const char text[] = " { \"b\" : 0.1 , \"a\":[1 ,{\"z\":1,\"y\":\"\\u00e9\"}] , "
                               "\"c\":1.0, \"d\": 5e-5}\n";
    json_t *value = json_parse(text, sizeof text - 1, "test");
    assert_non_null(value);
    char *canonical = json_text(value);
    /* 17 digits give back the same double. */
    assert_string_equal(canonical, "{\"a\":[1,{\"y\":\"\xc3\xa9\",\"z\":1}],"
                                   "\"b\":0.10000000000000001,\"c\":1.0,"
                                   "\"d\":5.0000000000000002e-5}");
    free(canonical);
    json_decref(value);
}

static void files_are_written_and_read(void **state)
{
    (void)state;
    char path[] = "/tmp/test_json.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    json_t *value = json_pack("{s:i, s:[f, f]}", "b", 3, "a", 0.1, 1e300), *back;
    assert_int_equal(json_write_file(value, path), 0);
    assert_int_equal(json_read_file(&back, path, 1000), 0);
    assert_true(json_equal(value, back));
    json_decref(back);
    assert_int_equal(json_read_file(&back, path, 10), ERR_DATA);
    assert_null(back);
    assert_int_equal(json_write_file(value, "/dev/full"), ERR_IO);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(json_read_file(&back, path, 10), ERR_USAGE);
    json_decref(value);
}

/* Sums that no integer of JSON holds are the largest; no program writes such counts. */
static void counts_are_added_by_name(void **state)
{
    (void)state;
    const json_int_t largest = INT64_MAX;
    json_t *sums = json_pack("{s:I, s:i}", "cut", largest - 5, "lost", 2);
    json_t *more = json_pack("{s:i, s:i}", "cut", 5, "new", 7);
    json_t *over = json_pack("{s:i}", "cut", 1), *below = json_pack("{s:i}", "cut", -1);
    assert_true(json_is_counts(sums) && json_is_counts(more));
    assert_true(!json_is_counts(below) && !json_is_counts(NULL));
    assert_int_equal(json_add_counts(sums, more), 0);
    assert_true(json_integer_value(json_object_get(sums, "cut")) == largest);
    assert_int_equal(json_integer_value(json_object_get(sums, "lost")), 2);
    assert_int_equal(json_integer_value(json_object_get(sums, "new")), 7);
    assert_int_equal(json_add_counts(sums, over), 0);
    assert_true(json_integer_value(json_object_get(sums, "cut")) == largest);
    json_t *all[] = {sums, more, over, below};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        json_decref(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(depth_is_bounded),           cmocka_unit_test(what_is_no_json_is_refused),
        cmocka_unit_test(members_have_their_type),    cmocka_unit_test(text_is_canonical),
        cmocka_unit_test(files_are_written_and_read), cmocka_unit_test(counts_are_added_by_name),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
