/* test_perm.c - the keyed permutation is a bijection for every n, its inverse undoes it, and over
 * many keys each place gets each value as often as any other.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/perm.h"

static void check_bijection(uint64_t n, uint64_t seed, uint64_t stream)
{
    struct perm perm;
    perm_init(&perm, n, seed, stream);
    unsigned char *seen = calloc((size_t)n, 1);
    assert_non_null(seen);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t image = perm_at(&perm, i);
        assert_true(image < n);
        assert_int_equal(seen[image], 0);
        seen[image] = 1;
        assert_true(perm_inverse(&perm, image) == i);
    }
    free(seen);
}

static void every_n_is_a_bijection(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 300; n++)
        check_bijection(n, n * 17, n % 5);
}

static void powers_of_two_and_their_neighbours_are_bijections(void **state)
{
    (void)state;
    for (unsigned bits = 8; bits <= 17; bits++)
        for (uint64_t n = (UINT64_C(1) << bits) - 1; n <= (UINT64_C(1) << bits) + 1; n++)
            check_bijection(n, 49, bits);
}

static void huge_n_is_undone_by_its_inverse(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {UINT64_C(963566), UINT64_C(400000000), UINT64_C(1) << 32,
                                     (UINT64_C(1) << 62) + 1, UINT64_MAX};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct perm perm;
        perm_init(&perm, sizes[s], 1, 2);
        for (uint64_t i = 0; i < 2000; i++) {
            uint64_t at = i * (sizes[s] / 2000);
            uint64_t image = perm_at(&perm, at);
            assert_true(image < sizes[s]);
            assert_true(perm_inverse(&perm, image) == at);
        }
    }
}

static void seed_and_stream_choose_the_permutation(void **state)
{
    (void)state;
    enum { N = 1000 };
    struct perm a, b, c;
    perm_init(&a, N, 1, 1);
    perm_init(&b, N, 2, 1);
    perm_init(&c, N, 1, 2);
    unsigned ab = 0, ac = 0;
    for (uint64_t i = 0; i < N; i++) {
        ab += perm_at(&a, i) == perm_at(&b, i);
        ac += perm_at(&a, i) == perm_at(&c, i);
    }
    /* Two random permutations agree in 1 place on average (Poisson); 12 has probability 1e-9. */
    assert_true(ab < 12);
    assert_true(ac < 12);
}

/* Over K keys, each of the n x n pairs (place, value) is expected K/n times. Chi-square has
 * (n-1)^2 degrees of freedom, mean f and standard deviation sqrt(2f); 5 of them allowed. */
static void check_uniform(unsigned n, unsigned keys)
{
    unsigned *count = calloc((size_t)n * n, sizeof *count);
    assert_non_null(count);
    for (unsigned key = 0; key < keys; key++) {
        struct perm perm;
        perm_init(&perm, n, 5, key); /* as blocks do: one seed, successive streams */
        for (unsigned i = 0; i < n; i++)
            count[i * n + perm_at(&perm, i)]++;
    }
    double chi = 0, expected = (double)keys / n, freedom = (n - 1.0) * (n - 1.0);
    for (unsigned i = 0; i < n * n; i++)
        chi += (count[i] - expected) * (count[i] - expected) / expected;
    free(count);
    assert_true(fabs(chi - freedom) < 5 * sqrt(2 * freedom));
}

static void each_place_gets_each_value_equally_often(void **state)
{
    (void)state;
    check_uniform(2, 20000);
    check_uniform(3, 20000);
    check_uniform(4, 20000);
    check_uniform(7, 20000);
    check_uniform(16, 20000);
    check_uniform(100, 20000);
    check_uniform(256, 10000);
    check_uniform(257, 10000);
}

/* All 24 permutations of four things are equally likely (23 degrees of freedom). */
static void small_permutations_are_all_reached(void **state)
{
    (void)state;
    enum { KEYS = 48000 };
    unsigned count[256] = {0};
    for (unsigned key = 0; key < KEYS; key++) {
        struct perm perm;
        perm_init(&perm, 4, 49, key);
        unsigned code = 0;
        for (unsigned i = 0; i < 4; i++)
            code |= (unsigned)perm_at(&perm, i) << (2 * i);
        count[code]++;
    }
    double chi = 0;
    unsigned reached = 0;
    for (unsigned i = 0; i < 256; i++)
        if (count[i] > 0) {
            reached++;
            chi += (count[i] - KEYS / 24.0) * (count[i] - KEYS / 24.0) / (KEYS / 24.0);
        }
    assert_int_equal(reached, 24);
    assert_true(chi < 23 + 5 * sqrt(46));
}

/* Neighbours are not kept together: |p(i+1) - p(i)| averages n/3, as for two independent places,
 * within 5 %: its standard deviation over n places is below n * 0.24 / sqrt(n). */
static void neighbours_are_torn_apart(void **state)
{
    (void)state;
    enum { N = 50000 };
    for (uint64_t stream = 0; stream < 8; stream++) {
        struct perm perm;
        perm_init(&perm, N, 3, stream);
        double sum = 0;
        for (uint64_t i = 0; i + 1 < N; i++)
            sum += fabs((double)perm_at(&perm, i + 1) - (double)perm_at(&perm, i));
        assert_true(fabs(sum / N / (N / 3.0) - 1) < 0.05);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_n_is_a_bijection),
        cmocka_unit_test(powers_of_two_and_their_neighbours_are_bijections),
        cmocka_unit_test(huge_n_is_undone_by_its_inverse),
        cmocka_unit_test(seed_and_stream_choose_the_permutation),
        cmocka_unit_test(each_place_gets_each_value_equally_often),
        cmocka_unit_test(small_permutations_are_all_reached),
        cmocka_unit_test(neighbours_are_torn_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
