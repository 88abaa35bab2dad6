/* vmath.h - exp and tanh in f32, branch-free, for loops that the compiler vectorises.
 *
 * libm's expf and tanhf are calls per element. These are polynomials fitted here (minimax in the
 * relative error, coefficients rounded to f32):
 *
 *   exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) = 1 + r + r^2 P(r), where P
 * of degree 4 leaves a relative error of 3.1e-9 (0.05 ulp). n is found by adding 1.5 * 2^23, which
 *   leaves n in the low bits; ln 2 is split so that n * high is exact for |n| < 256 (16 bits each).
 *   The rest is rounding: at most 2 ulp in all. Below -87.33 (results under 2^-126) the result is
 *   0, above 88.37 that of 88.37: finite, as no use here needs more (an attention score minus its
 *   row's maximum is <= 0).
 *
 *   tanh(x) = x + x^3 Q(x^2) up to 0.625 (degree 4, 4.4e-9), above it 1 - 2 / (exp(2x) + 1).
 *   At most 2 ulp.
 *
 * -ffast-math is not used anywhere: the additions that round would be optimised away.
 */
#ifndef CCPIPE_KERNELS_CPU_VMATH_H
#define CCPIPE_KERNELS_CPU_VMATH_H

#include <stdint.h>
#include <string.h>

static inline float vmath_exp(float x)
{
    const float magic = 0x1.8p23f;
    float clamped = x < 88.37f ? x : 88.37f;
    clamped = clamped > -88.0f ? clamped : -88.0f;
    float shifted = clamped * 0x1.715476p0f + magic;
    float n = shifted - magic;
    float r = clamped - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    float p = 0x1.6a23dp-10f;
    p = p * r + 0x1.123a2p-7f;
    p = p * r + 0x1.5558f2p-5f;
    p = p * r + 0x1.555492p-3f;
    p = p * r + 0x1.fffffcp-2f;
    float result = 1.0f + (r + r * r * p);
    /* The low bits of `shifted` are n: add it to the exponent. */
    uint32_t bits, power;
    memcpy(&power, &shifted, sizeof power);
    memcpy(&bits, &result, sizeof bits);
    bits += power << 23;
    memcpy(&result, &bits, sizeof result);
    result = x < -87.33f ? 0.0f : result;
    return x != x ? x : result;
}

static inline float vmath_tanh(float x)
{
    float a = x < 0.0f ? -x : x;
    float z = x * x;
    float q = -0x1.75e14p-8f;
    q = q * z + 0x1.52267ep-6f;
    q = q * z - 0x1.b83c56p-5f;
    q = q * z + 0x1.110726p-3f;
    q = q * z - 0x1.555532p-2f;
    float near = x + x * z * q;
    float large = 1.0f - 2.0f / (vmath_exp(2.0f * a) + 1.0f);
    large = x < 0.0f ? -large : large;
    return a < 0.625f ? near : large;
}

/* x * Phi(x) in the tanh form: x/2 (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715
 * x^3), which does not cancel where u is far below 0. */
static inline float vmath_gelu(float x)
{
    float u2 = 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1.0f + vmath_exp(-u2));
}

#endif
