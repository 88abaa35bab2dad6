/* Memory and conversions: all of them exact, so every value is compared bit by bit.
 * The conversions have references of their own here, in f64 arithmetic instead of bits.
 */
#include "tests/parity/parity.h"

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The value of a binary number with `exponent` bits of exponent and `fraction` of fraction. */
static double decode(uint32_t bits, int exponent, int fraction)
{
    int bias = (1 << (exponent - 1)) - 1;
    int power = (int)(bits >> fraction) & ((1 << exponent) - 1);
    double digits = (double)(bits & ((1u << fraction) - 1));
    double sign = bits >> (exponent + fraction) & 1 ? -1 : 1;
    if (power == (1 << exponent) - 1)
        return digits > 0 ? NAN : sign * INFINITY;
    if (power == 0)
        return sign * ldexp(digits, 1 - bias - fraction);
    return sign * ldexp(ldexp(1, fraction) + digits, power - bias - fraction);
}

/* The bf16 nearest to a value, ties to even, as a value; nearbyint() rounds ties to even. */
static double nearest_bf16(double value)
{
    if (isnan(value) || isinf(value) || value == 0)
        return value;
    int exponent;
    frexp(value, &exponent); /* 0.5 <= |fraction| < 1, 8 digits */
    int last = exponent - 8 < -133 ? -133 : exponent - 8;
    double rounded = ldexp(nearbyint(ldexp(value, -last)), last);
    return fabs(rounded) >= 0x1p128 ? copysign(INFINITY, value) : rounded;
}

static void same_value(double got, double want, uint32_t from)
{
    if (isnan(want) ? isnan(got) : got == want && signbit(got) == signbit(want))
        return;
    fail_msg("%#x becomes %.17g, not %.17g", from, got, want);
}

/* Every f16 and every bf16. */
static void all_halves_convert(struct parity *parity)
{
    enum { N = 1 << 16 };
    uint16_t *halves = parity_host(N, sizeof *halves);
    for (uint32_t i = 0; i < N; i++)
        halves[i] = (uint16_t)i;
    void *d_from = parity_upload(parity, halves, N * sizeof *halves);
    void *d_to = parity_alloc(parity, N * sizeof(float));
    static const enum dtype types[] = {DTYPE_F16, DTYPE_BF16};
    for (size_t t = 0; t < 2; t++) {
        parity->kernels->cast(parity->queue, d_to, DTYPE_F32, d_from, types[t], N);
        float *got = parity_download(parity, d_to, N * sizeof *got);
        parity->kernels->cast(parity->queue, d_to, DTYPE_BF16, d_from, types[t], N);
        uint16_t *narrow = parity_download(parity, d_to, N * sizeof *narrow);
        for (uint32_t i = 0; i < N; i++) {
            double want = types[t] == DTYPE_F16 ? decode(i, 5, 10) : decode(i, 8, 7);
            same_value((double)got[i], want, i);
            same_value(decode(narrow[i], 8, 7), nearest_bf16(want), i);
        }
        free(got);
        free(narrow);
    }
    free(halves);
    parity_free(parity, d_from);
    parity_free(parity, d_to);
}

/* f32 -> bf16 around every tie: each bf16, its upper half, and one bit beside that. */
static void floats_round_to_nearest_even(struct parity *parity)
{
    enum { N = 5 << 16 };
    uint32_t *bits = parity_host(N, sizeof *bits);
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001};
    for (uint32_t i = 0; i < N; i++)
        bits[i] = i / 5 << 16 | low[i % 5];
    void *d_from = parity_upload(parity, bits, N * sizeof *bits);
    void *d_to = parity_alloc(parity, N * sizeof(uint16_t));
    parity->kernels->cast(parity->queue, d_to, DTYPE_BF16, d_from, DTYPE_F32, N);
    uint16_t *got = parity_download(parity, d_to, N * sizeof *got);
    for (uint32_t i = 0; i < N; i++)
        same_value(decode(got[i], 8, 7), nearest_bf16(decode(bits[i], 8, 23)), bits[i]);
    free(bits);
    free(got);
    parity_free(parity, d_from);
    parity_free(parity, d_to);
}

/* Sizes around a tile, and nothing behind the last element is written. */
static void casts_stop_at_the_end(struct parity *parity)
{
    static const size_t sizes[] = {0, 1, 7, 1023, 1024, 1025, 2051, 70001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        float *values;
        void *d_from = parity_random(parity, &values, DTYPE_F32, n + 1, 1e3f);
        for (unsigned t = 0; t < 2; t++) {
            enum dtype to = t == 0 ? DTYPE_F32 : DTYPE_BF16;
            size_t bytes = (n + 1) * dtype_size(to);
            uint8_t *fill = parity_host(bytes, 1);
            memset(fill, 0x5a, bytes);
            void *d_to = parity_upload(parity, fill, bytes);
            parity->kernels->cast(parity->queue, d_to, to, d_from, DTYPE_F32, n);
            uint8_t *got = parity_download(parity, d_to, bytes);
            for (size_t j = 0; j < n; j++) {
                uint16_t half;
                memcpy(&half, got + j * 2, sizeof half);
                if (to == DTYPE_F32)
                    assert_memory_equal(got + j * 4, values + j, 4);
                else
                    same_value(decode(half, 8, 7), nearest_bf16((double)values[j]),
                               bits_of(values[j]));
            }
            assert_memory_equal(got + n * dtype_size(to), fill, dtype_size(to));
            free(fill);
            free(got);
            parity_free(parity, d_to);
        }
        free(values);
        parity_free(parity, d_from);
    }
}

/* Sizes around the pieces that the threads copy, from and to unaligned places; the bytes on both
 * sides stay. */
static void memory_is_copied_and_cleared(struct parity *parity)
{
    static const size_t sizes[] = {0, 1, 63, 4097, (2 << 20) - 1, (2 << 20) + 1, 5000011};
    const struct kernels *k = parity->kernels;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i], all = n + 8;
        uint8_t *from = parity_host(all, 1), *to = parity_host(all, 1);
        for (size_t j = 0; j < all; j++)
            from[j] = (uint8_t)(1 + parity_bits(parity) % 255);
        uint8_t *d_first = parity_alloc(parity, all), *d_second = parity_alloc(parity, all);
        k->download(parity->queue, to, d_first, all);
        assert_int_equal(k->wait(parity->queue), 0);
        for (size_t j = 0; j < all; j++)
            if (to[j] != 0)
                fail_msg("new memory is not zero at %zu of %zu", j, all);
        k->upload(parity->queue, d_first + 3, from + 1, n);
        k->copy(parity->queue, d_second + 1, d_first + 3, n);
        memset(to, 0xee, all);
        k->download(parity->queue, to + 5, d_second + 1, n);
        assert_int_equal(k->wait(parity->queue), 0);
        assert_memory_equal(to + 5, from + 1, n);
        assert_true(to[4] == 0xee && to[5 + n] == 0xee);
        k->upload(parity->queue, d_first, from, all);
        k->clear(parity->queue, d_first + 3, n);
        k->download(parity->queue, to, d_first, all);
        assert_int_equal(k->wait(parity->queue), 0);
        assert_memory_equal(to, from, 3);
        assert_memory_equal(to + 3 + n, from + 3 + n, all - 3 - n);
        for (size_t j = 0; j < n; j++)
            if (to[3 + j] != 0)
                fail_msg("cleared memory is not zero at %zu of %zu", j, n);
        free(from);
        free(to);
        parity_free(parity, d_first);
        parity_free(parity, d_second);
    }
}

static void every_half_is_converted(void **state)
{
    (void)state;
    parity_each_type(all_halves_convert);
}

static void f32_rounds_to_bf16_nearest_even(void **state)
{
    (void)state;
    parity_each_type(floats_round_to_nearest_even);
}

static void a_cast_writes_n_elements(void **state)
{
    (void)state;
    parity_each_type(casts_stop_at_the_end);
}

static void copies_and_clearing_are_exact(void **state)
{
    (void)state;
    parity_each_type(memory_is_copied_and_cleared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_is_converted),
        cmocka_unit_test(f32_rounds_to_bf16_nearest_even),
        cmocka_unit_test(a_cast_writes_n_elements),
        cmocka_unit_test(copies_and_clearing_are_exact),
    };
    log_init("test_kernels_elements", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels elements", tests, NULL, NULL);
}
