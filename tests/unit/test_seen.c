/* test_seen.c - the table of keys, through many growths and with keys that collide. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/rng.h"
#include "tools/ccanalyze/seen.h"

enum { COUNT = 20000 };

/* Numbers in order, numbers that are alike in the low bits, and random ones. */
static uint64_t key_of(unsigned kind, uint64_t i)
{
    return kind == 0 ? i : kind == 1 ? i << 40 : rng_u64(1, 0, i);
}

static void keys_are_found_and_no_others(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 3; kind++) {
        struct seen seen = {0};
        assert_null(seen_find(&seen, 0));
        for (uint64_t i = 0; i < COUNT; i++) {
            assert_null(seen_find(&seen, key_of(kind, i)));
            assert_int_equal(seen_add(&seen, key_of(kind, i), ~i), 0);
        }
        assert_true(seen.count == COUNT && seen.capacity >= 2 * COUNT);
        for (uint64_t i = 0; i < COUNT; i++) {
            assert_true(*seen_find(&seen, key_of(kind, i)) == ~i);
            assert_null(seen_find(&seen, key_of(kind, COUNT + i)));
        }
        seen_free(&seen);
        assert_null(seen_find(&seen, key_of(kind, 0)));
    }
}

static void a_value_can_be_changed_in_place(void **state)
{
    (void)state;
    struct seen seen = {0};
    assert_int_equal(seen_add(&seen, UINT64_MAX, 1), 0);
    *seen_find(&seen, UINT64_MAX) = 2;
    assert_true(*seen_find(&seen, UINT64_MAX) == 2);
    seen_free(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_and_no_others),
        cmocka_unit_test(a_value_can_be_changed_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
