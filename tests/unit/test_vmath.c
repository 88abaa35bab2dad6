/* exp and tanh of the CPU backend against libm's in f64, with and without fused multiply-add.
 *
 * DEEP=1 takes every f32 of the range instead of each 257th.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The header twice: as the compiler takes it here (no FMA), and as for x86-64-v3 and up. */
#define vmath_exp plain_exp
#define vmath_tanh plain_tanh
#define vmath_gelu plain_gelu
#include "kernels/cpu/vmath.h"
#undef vmath_exp
#undef vmath_tanh
#undef vmath_gelu
#undef CCPIPE_KERNELS_CPU_VMATH_H
#define vmath_exp fused_exp
#define vmath_tanh fused_tanh
#define vmath_gelu fused_gelu
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#pragma GCC optimize("fp-contract=fast")
#include "kernels/cpu/vmath.h"

typedef float function(float x);

static float call_fused_exp(float x)
{
    return fused_exp(x);
}

static float call_fused_tanh(float x)
{
    return fused_tanh(x);
}
#pragma GCC pop_options

static float call_plain_exp(float x)
{
    return plain_exp(x);
}

static float call_plain_tanh(float x)
{
    return plain_tanh(x);
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The distance of two f32 of 0's sign or of one sign is that of their bits, in units of the last
 * place. */
static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1, exponent < -125 ? -149 : exponent - 24);
}

/* Every `step`th f32 of both signs up to `most`. */
static void check_range(function *got, double (*want)(double), float least, float most)
{
    const char *deep = getenv("DEEP");
    uint32_t step = deep != NULL && deep[0] == '1' ? 1 : 257, last;
    float highest = fmaxf(fabsf(least), most);
    memcpy(&last, &highest, sizeof last);
    for (uint64_t bits = 0; bits <= last; bits += step) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = from_bits((uint32_t)bits | sign << 31);
            if (x < least || x > most)
                continue;
            double expected = want((double)x);
            if (ulps(got(x), expected) > 2)
                fail_msg("of %.9g: %.9g, not %.9g", (double)x, (double)got(x), expected);
        }
    }
}

static void check_exp(function *got)
{
    check_range(got, exp, -87.33f, 88.37f);
    static const float below[] = {-87.34f, -88.0f, -100.0f, -3.4e38f, -INFINITY};
    for (size_t i = 0; i < sizeof below / sizeof *below; i++)
        assert_true(got(below[i]) == 0);
    static const float above[] = {88.38f, 100.0f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof above / sizeof *above; i++)
        assert_true(got(above[i]) == got(88.37f));
    assert_true(got(0.0f) == 1 && got(-0.0f) == 1);
    assert_true(isnan((double)got(NAN)) != 0);
}

static void check_tanh(function *got)
{
    check_range(got, tanh, -20, 20);
    static const float large[] = {20.0f, 88.0f, 3.4e38f, INFINITY};
    for (size_t i = 0; i < sizeof large / sizeof *large; i++)
        assert_true(got(large[i]) == 1 && got(-large[i]) == -1);
    assert_true(isnan((double)got(NAN)) != 0);
}

static void exp_is_within_two_units(void **state)
{
    (void)state;
    check_exp(call_plain_exp);
}

static void tanh_is_within_two_units(void **state)
{
    (void)state;
    check_tanh(call_plain_tanh);
}

static void need_fma(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("fma"))
        skip();
}

static void exp_with_fma_is_within_two_units(void **state)
{
    (void)state;
    need_fma();
    check_exp(call_fused_exp);
}

static void tanh_with_fma_is_within_two_units(void **state)
{
    (void)state;
    need_fma();
    check_tanh(call_fused_tanh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_within_two_units),
        cmocka_unit_test(tanh_is_within_two_units),
        cmocka_unit_test(exp_with_fma_is_within_two_units),
        cmocka_unit_test(tanh_with_fma_is_within_two_units),
    };
    return cmocka_run_group_tests_name("vmath", tests, NULL, NULL);
}
