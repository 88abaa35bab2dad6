/* axis.c - ticks are counted in whole steps and multiplied out, so that no rounding adds up along
 * an axis and zero is exactly zero.
 */
#include "axis.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

double axis_place(const struct axis *axis, double value)
{
    double share = axis->log ? log(value / axis->min) / log(axis->max / axis->min)
                             : (value - axis->min) / (axis->max - axis->min);
    return axis->from + share * (axis->to - axis->from);
}

/* The ends are taken as inside when they are missed by rounding alone. */
#define AXIS_SLACK 1e-9

static const double axis_mantissas[] = {1, 2, 5};

/* mantissa · 10^power without the error of a negative power. */
static double axis_decimal(double mantissa, int power)
{
    return power < 0 ? mantissa / pow(10, -power) : mantissa * pow(10, power);
}

static size_t axis_linear(const struct axis *axis, size_t most, double *ticks)
{
    double span = axis->max - axis->min;
    int power = (int)floor(log10(span)) - 2;
    power = axis->whole && power < 0 ? 0 : power;
    for (size_t i = 0;; i++) {
        double mantissa = axis_mantissas[i % 3];
        int at = power + (int)(i / 3);
        double step = axis_decimal(mantissa, at);
        double first = ceil(axis->min / step - AXIS_SLACK);
        double last = floor(axis->max / step + AXIS_SLACK);
        if (last - first + 1 > (double)most)
            continue;
        size_t count = 0;
        for (double k = first; k <= last; k++)
            ticks[count++] = k == 0 ? 0 : axis_decimal(k * mantissa, at); /* never -0 */
        return count;
    }
}

static bool axis_inside(const struct axis *axis, double value)
{
    return value >= axis->min * (1 - AXIS_SLACK) && value <= axis->max * (1 + AXIS_SLACK);
}

/* Powers of ten, every `stride`-th, with `mantissas` values each; the count, or most + 1 for more.
 */
static size_t axis_powers(const struct axis *axis, int stride, size_t mantissas, size_t most,
                          double *ticks)
{
    int first = (int)floor(log10(axis->min)), last = (int)ceil(log10(axis->max));
    size_t count = 0;
    for (int power = first; power <= last; power++)
        for (size_t m = 0; m < mantissas; m++) {
            double value = axis_decimal(axis_mantissas[m], power);
            if (power % stride != 0 || !axis_inside(axis, value) || (axis->whole && value < 1))
                continue;
            if (count == most)
                return most + 1;
            ticks[count++] = value;
        }
    return count;
}

size_t axis_ticks(const struct axis *axis, size_t most, double *ticks)
{
    assert(most >= 2 && most <= AXIS_MOST_TICKS && axis->min < axis->max);
    if (!axis->log)
        return axis_linear(axis, most, ticks);
    size_t count = axis_powers(axis, 1, 3, most, ticks);
    for (int stride = 1; count > most; stride++)
        count = axis_powers(axis, stride, 1, most, ticks);
    /* Within less than a factor of two there may be no such value at all. */
    return count >= 2 || axis->whole ? count : axis_linear(axis, most, ticks);
}

/* ---- labels */

/* 10 to that power, as superscript digits. */
static void axis_power(char *text, size_t size, double mantissa, int power)
{
    static const char *const digits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
    char plain[16];
    snprintf(plain, sizeof plain, "%d", power < 0 ? -power : power);
    int used = mantissa == 1 ? snprintf(text, size, "10") : snprintf(text, size, "%g×10", mantissa);
    if (power < 0)
        used += snprintf(text + used, size - (size_t)used, "⁻");
    for (const char *at = plain; *at != '\0'; at++)
        used += snprintf(text + used, size - (size_t)used, "%s", digits[*at - '0']);
}

void axis_label(char *text, size_t size, double value)
{
    double magnitude = fabs(value);
    assert(size >= AXIS_LABEL_BYTES);
    if (value < 0) {
        int sign = snprintf(text, size, "−");
        text += sign;
        size -= (size_t)sign;
    }
    if (magnitude >= 1e6 || (magnitude < 1e-3 && magnitude > 0)) {
        int power = (int)floor(log10(magnitude) + AXIS_SLACK);
        /* Three digits are more than ticks have. */
        double mantissa = round(magnitude / axis_decimal(1, power) * 100) / 100;
        axis_power(text, size, mantissa, power);
    } else if (magnitude >= 1e4 && magnitude == floor(magnitude)) {
        snprintf(text, size, "%d,%03d", (int)magnitude / 1000, (int)magnitude % 1000);
    } else {
        snprintf(text, size, "%.6g", magnitude);
    }
}
