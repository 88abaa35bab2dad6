/* test_rng.c - Philox against the known answers of the Random123 distribution (kat_vectors), and
 * the moments of what is derived from it.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"

static void philox_gives_the_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        const uint32_t *c = known[i].counter, *k = known[i].key;
        rng_philox(out, (uint64_t)k[1] << 32 | k[0], (uint64_t)c[1] << 32 | c[0],
                   (uint64_t)c[3] << 32 | c[2]);
        assert_memory_equal(out, known[i].answer, sizeof out);
    }
}

static void u64_is_the_counter_and_the_stream(void **state)
{
    (void)state;
    /* The first known answer read as a little-endian 64-bit number. */
    assert_true(rng_u64(0, 0, 0) == UINT64_C(0xe169c58d6627e8d5));
    assert_true(rng_u64(1, 0, 0) != rng_u64(0, 0, 0));
    assert_true(rng_u64(0, 1, 0) != rng_u64(0, 0, 0));
    assert_true(rng_u64(0, 0, 1) != rng_u64(0, 0, 0));
}

/* Each bit of n numbers is set n/2 times, within 6 standard deviations of sqrt(n)/2 (64 bits, so
 * that a sound generator fails this with probability 64 * 2e-9; the seed is fixed). */
static void u64_bits_are_balanced(void **state)
{
    (void)state;
    enum { N = 100000 };
    unsigned set[64] = {0};
    for (uint64_t i = 0; i < N; i++) {
        uint64_t value = rng_u64(49, 3, i);
        for (unsigned bit = 0; bit < 64; bit++)
            set[bit] += (unsigned)(value >> bit & 1);
    }
    for (unsigned bit = 0; bit < 64; bit++)
        assert_true(fabs(set[bit] - N / 2.0) < 6 * sqrt(N) / 2);
}

/* Moments 1 to 4 of a standard normal are 0 1 0 3, with variances of their estimates 1/n, 2/n,
 * 15/n, 96/n; 5 standard deviations. The share beyond 2 is 0.0455. */
static void normal_has_the_moments_of_a_normal(void **state)
{
    (void)state;
    enum { N = 200000 };
    double sum[5] = {0}, beyond = 0;
    for (uint64_t i = 0; i < N; i++) {
        double z = rng_normal(7, 11, i);
        assert_true(isfinite(z));
        sum[1] += z;
        sum[2] += z * z;
        sum[3] += z * z * z;
        sum[4] += z * z * z * z;
        beyond += fabs(z) > 2;
    }
    assert_true(fabs(sum[1] / N) < 5 * sqrt(1.0 / N));
    assert_true(fabs(sum[2] / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(sum[3] / N) < 5 * sqrt(15.0 / N));
    assert_true(fabs(sum[4] / N - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(beyond / N - 0.0455) < 5 * sqrt(0.0455 / N));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(u64_is_the_counter_and_the_stream),
        cmocka_unit_test(u64_bits_are_balanced),
        cmocka_unit_test(normal_has_the_moments_of_a_normal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
