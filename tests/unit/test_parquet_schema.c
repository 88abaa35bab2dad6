/* test_parquet_schema.c - where the ids of a list are, in schemas of every shape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/log.h"
#include "tests/unit/parquet_writer.h"
#include "tools/tokstream/parquet_schema.h"

enum { REQUIRED, OPTIONAL, REPEATED };
#define INT32 PARQUET_INT32
#define INT64 PARQUET_INT64
#define GROUP (-1)
#define MOST 12

/* The root, then the entries up to one without a name. */
static int find(struct parquet_leaf *leaf, size_t *leaves, int columns,
                const struct schema_entry *entries)
{
    struct bytes_out out = {.size = 0};
    struct schema_entry root = {"schema", GROUP, REQUIRED, columns, 0, 0};
    size_t count = 0;
    while (entries[count].name != NULL)
        count++;
    out_structs(&out, 2, count + 1);
    out_schema_entry(&out, &root);
    for (size_t i = 0; i < count; i++)
        out_schema_entry(&out, &entries[i]);
    struct thrift thrift = {.next = out.bytes, .end = out.bytes + out.size};
    struct thrift_field field = {0};
    assert_true(thrift_field_next(&thrift, &field));
    return parquet_schema_find(leaf, leaves, &thrift, field.type, "ids", "test");
}

struct schema_case {
    struct schema_entry entries[MOST];
    int columns;
    struct parquet_leaf leaf;
    size_t leaves;
};

static void test_lists_of_every_shape(void **state)
{
    (void)state;
    static const struct schema_case cases[] = {
        /* optional list, optional item: 0 null, 1 empty, 2 a null item, 3 an item */
        {{{"ids", GROUP, OPTIONAL, 1, 3, 0},
          {"list", GROUP, REPEATED, 1, 0, 0},
          {"element", INT32, OPTIONAL, 0, 0, 0}},
         1,
         {INT32, false, 3, 2, 0},
         1},
        {{{"ids", GROUP, OPTIONAL, 1, 3, 0},
          {"list", GROUP, REPEATED, 1, 0, 0},
          {"item", INT64, REQUIRED, 0, 0, 0}},
         1,
         {INT64, false, 2, 2, 0},
         1},
        {{{"ids", GROUP, REQUIRED, 1, 3, 0},
          {"bag", GROUP, REPEATED, 1, 0, 0},
          {"array", INT32, OPTIONAL, 0, 0, 0}},
         1,
         {INT32, false, 2, 1, 0},
         1},
        {{{"ids", GROUP, REQUIRED, 1, 3, 0},
          {"list", GROUP, REPEATED, 1, 0, 0},
          {"element", INT32, REQUIRED, 0, 0, 0}},
         1,
         {INT32, false, 1, 1, 0},
         1},
        /* two levels, and one */
        {{{"ids", GROUP, OPTIONAL, 1, 3, 0}, {"array", INT32, REPEATED, 0, 0, 0}},
         1,
         {INT32, false, 2, 2, 0},
         1},
        {{{"ids", INT64, REPEATED, 0, 0, 0}}, 1, {INT64, false, 1, 1, 0}, 1},
        /* unsigned, by the old annotation (13 is UINT_32) and by the new one */
        {{{"ids", INT32, REPEATED, 0, 13, 0}}, 1, {INT32, true, 1, 1, 0}, 1},
        {{{"ids", INT32, REPEATED, 0, 0, 1}}, 1, {INT32, true, 1, 1, 0}, 1},
        {{{"ids", INT32, REPEATED, 0, 17, 2}}, 1, {INT32, false, 1, 1, 0}, 1},
        /* among others, which have one, three and two leaves; a name below the first level counts
         * for nothing */
        {{{"text", 6, OPTIONAL, 0, 0, 0},
          {"pair", GROUP, OPTIONAL, 2, 0, 0},
          {"ids", INT32, OPTIONAL, 0, 0, 0},
          {"both", GROUP, REPEATED, 2, 0, 0},
          {"a", INT32, REQUIRED, 0, 0, 0},
          {"b", 5, REQUIRED, 0, 0, 0},
          {"ids", INT32, REPEATED, 0, 0, 0},
          {"last", GROUP, REQUIRED, 2, 0, 0},
          {"x", INT32, REQUIRED, 0, 0, 0},
          {"y", INT32, REQUIRED, 0, 0, 0}},
         4,
         {INT32, false, 1, 1, 4},
         7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct parquet_leaf leaf;
        size_t leaves;
        assert_int_equal(find(&leaf, &leaves, cases[i].columns, cases[i].entries), 0);
        assert_int_equal(leaf.type, cases[i].leaf.type);
        assert_int_equal(leaf.is_unsigned, cases[i].leaf.is_unsigned);
        assert_int_equal(leaf.max_definition, cases[i].leaf.max_definition);
        assert_int_equal(leaf.in_list, cases[i].leaf.in_list);
        assert_int_equal(leaf.column, cases[i].leaf.column);
        assert_int_equal(leaves, cases[i].leaves);
    }
}

static void test_what_is_no_list_of_integers(void **state)
{
    (void)state;
    static const struct schema_case cases[] = {
        {{{"id", INT32, REPEATED, 0, 0, 0}}, 1, {0}, 0},  /* another column */
        {{{"ids", INT32, OPTIONAL, 0, 0, 0}}, 1, {0}, 0}, /* no list */
        {{{"ids", 5, REPEATED, 0, 0, 0}}, 1, {0}, 0},     /* doubles */
        {{{"ids", GROUP, REPEATED, 2, 0, 0},
          {"a", INT32, REQUIRED, 0, 0, 0},
          {"b", INT32, REQUIRED, 0, 0, 0}},
         1,
         {0},
         0},
        {{{"ids", GROUP, REPEATED, 1, 0, 0}, {"a", INT32, REPEATED, 0, 0, 0}}, 1, {0}, 0},
        {{{"ids", GROUP, OPTIONAL, 1, 0, 0},
          {"a", GROUP, OPTIONAL, 1, 0, 0},
          {"b", GROUP, REPEATED, 1, 0, 0},
          {"c", INT32, OPTIONAL, 0, 0, 0}},
         1,
         {0},
         0},
        {{{NULL, 0, 0, 0, 0, 0}}, 0, {0}, 0}, /* no columns at all */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct parquet_leaf leaf;
        size_t leaves;
        assert_int_equal(find(&leaf, &leaves, cases[i].columns, cases[i].entries), ERR_USAGE);
    }
}

static void test_trees_that_are_none(void **state)
{
    (void)state;
    static const struct schema_case cases[] = {
        {{{"ids", INT32, REPEATED, 0, 0, 0}}, 2, {0}, 0}, /* a child too few */
        {{{"ids", GROUP, REPEATED, 1, 0, 0}}, 1, {0}, 0},
        {{{"x", GROUP, REPEATED, 3, 0, 0}, {"ids", INT32, REPEATED, 0, 0, 0}}, 1, {0}, 0},
        {{{"ids", INT32, REPEATED, 0, 0, 0}, {"x", INT32, REQUIRED, 0, 0, 0}},
         1,
         {0},
         0},                                       /* more */
        {{{"ids", INT32, 3, 0, 0, 0}}, 1, {0}, 0}, /* no such repetition */
        {{{"ids", INT32, -1, 0, 0, 0}}, 1, {0}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct parquet_leaf leaf;
        size_t leaves;
        assert_int_equal(find(&leaf, &leaves, cases[i].columns, cases[i].entries), ERR_DATA);
    }
}

static void test_depth_is_bounded(void **state)
{
    (void)state;
    for (int depth = 60; depth <= 70; depth++) {
        struct bytes_out out = {.size = 0};
        struct schema_entry root = {"schema", GROUP, REQUIRED, 2, 0, 0};
        struct schema_entry group = {"x", GROUP, REQUIRED, 1, 0, 0};
        struct schema_entry leaf = {"ids", INT32, REPEATED, 0, 0, 0};
        struct parquet_leaf found;
        size_t leaves;
        out_structs(&out, 2, (size_t)depth + 2);
        out_schema_entry(&out, &root);
        for (int i = 1; i < depth; i++)
            out_schema_entry(&out, &group);
        out_schema_entry(&out, &leaf);
        out_schema_entry(&out, &leaf);
        struct thrift thrift = {.next = out.bytes, .end = out.bytes + out.size};
        struct thrift_field field = {0};
        assert_true(thrift_field_next(&thrift, &field));
        int status = parquet_schema_find(&found, &leaves, &thrift, field.type, "ids", "test");
        assert_int_equal(status, depth <= 64 ? 0 : ERR_DATA);
    }
}

int main(void)
{
    log_init("test_parquet_schema", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_of_every_shape),
        cmocka_unit_test(test_what_is_no_list_of_integers),
        cmocka_unit_test(test_trees_that_are_none),
        cmocka_unit_test(test_depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
