/* rows.c - bf16 and f32 rows are their elements; an int8 row is a f32 quantum per source, then D
 * signed bytes (doc/FORMAT.md).
 */
#include "rows.h"

#include <string.h>

static void rows_dequantise(float *to, const struct begin *begin, const uint8_t *row)
{
    const int8_t *values = (const int8_t *)row + 4 * begin->source_count;
    for (size_t s = 0; s < begin->source_count; s++) {
        float quantum;
        dtype_to_f32(&quantum, row + 4 * s, DTYPE_F32, 1);
        for (uint32_t i = 0; i < begin->sources[s].width; i++)
            *to++ = quantum * (float)*values++;
    }
}

void rows_to_f32(float *to, const struct begin *begin, const uint8_t *data, size_t n)
{
    size_t width = begin_width(begin), bytes = begin_row_bytes(begin);
    if (begin->dtype != DTYPE_I8) {
        dtype_to_f32(to, data, begin->dtype, n * width);
        return;
    }
    for (size_t i = 0; i < n; i++)
        rows_dequantise(to + i * width, begin, data + i * bytes);
}
