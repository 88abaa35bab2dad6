/* rows.h - rows as they travel, to f32. */
#ifndef CCANALYZE_ROWS_H
#define CCANALYZE_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include "common/begin.h"

/* to (n, D) f32 from n rows on the wire; int8 rows are dequantised (quantum × value in f32). */
void rows_to_f32(float *to, const struct begin *begin, const uint8_t *data, size_t n);

#endif
