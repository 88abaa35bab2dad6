/* test_mem.c - sizes that overflow, and what is refused before it is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/mem.h"

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    return 0;
}

static void products_overflow_without_harm(void **state)
{
    (void)state;
    const size_t half = (size_t)1 << (sizeof(size_t) * 4);
    size_t product = 7;
    assert_true(mem_mul(&product, half, half - 1));
    assert_true(product == SIZE_MAX - half + 1);
    assert_false(mem_mul(&product, half, half));
    assert_true(product == SIZE_MAX - half + 1);
    assert_true(mem_mul(&product, 0, SIZE_MAX));
    assert_int_equal(product, 0);
    assert_null(mem_alloc(half, half));
    assert_null(mem_alloc_zero(half, half));
    assert_null(mem_resize(NULL, half, half));
    assert_null(mem_alloc(half, half / 2)); /* no overflow, but no such memory */
    assert_int_equal(mem_fail("a test", half, half), ERR_MEMORY);
    assert_int_equal(mem_fail("a test", 3, 4), ERR_MEMORY);
}

static void nothing_can_be_freed(void **state)
{
    (void)state;
    void *none[] = {mem_alloc(0, 8), mem_alloc(8, 0), mem_alloc_zero(0, 0), mem_resize(NULL, 0, 8)};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        assert_non_null(none[i]);
        free(none[i]);
    }
}

static void resizing_keeps_what_there_is(void **state)
{
    (void)state;
    uint32_t *numbers = mem_alloc_zero(3, sizeof *numbers);
    assert_non_null(numbers);
    assert_int_equal(numbers[0] | numbers[1] | numbers[2], 0);
    numbers[2] = 5;
    assert_null(mem_resize(numbers, SIZE_MAX / 2, sizeof *numbers)); /* the old one stays */
    uint32_t *more = mem_resize(numbers, 3000, sizeof *more);
    assert_non_null(more);
    assert_int_equal(more[2], 5);
    free(more);
}

/* /proc/meminfo's total bounds what can be available; the cgroups can only lower it. */
static void available_memory_is_plausible(void **state)
{
    (void)state;
    unsigned long long total = 0;
    char line[256];
    FILE *file = fopen("/proc/meminfo", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "MemTotal:", 9) == 0)
            total = strtoull(line + 9, NULL, 10) * 1024;
    fclose(file);
    uint64_t available = mem_available();
    assert_true(available > 1u << 20);
    assert_true(available <= total);
    assert_int_equal(mem_require(1u << 20, "a test"), 0);
    assert_int_equal(mem_require(total + 1, "a test"), ERR_MEMORY);
    assert_int_equal(mem_require(UINT64_MAX, "a test"), ERR_MEMORY);
}

static void numbers_of_bytes_have_the_unit_that_fits(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0 bytes"},          {999, "999 bytes"},
                 {1000, "1.00 kB"},       {786432, "786.43 kB"},
                 {1000000, "1.00 MB"},    {99994000, "99.99 MB"},
                 {1000000000, "1.00 GB"}, {85899345920, "85.90 GB"},
                 {1u << 31, "2.15 GB"},   {UINT64_MAX, "18446744073.71 GB"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(mem_text(cases[i].bytes).text, cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_overflow_without_harm),
        cmocka_unit_test(nothing_can_be_freed),
        cmocka_unit_test(resizing_keeps_what_there_is),
        cmocka_unit_test(available_memory_is_plausible),
        cmocka_unit_test(numbers_of_bytes_have_the_unit_that_fits),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
