/* parquet_codec.h - how pages are compressed. */
#ifndef TOKSTREAM_PARQUET_CODEC_H
#define TOKSTREAM_PARQUET_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "parquet_meta.h"

/* 0; ERR_USAGE where it is not built, ERR_DATA where there is no such codec (logged). */
int parquet_codec_check(int64_t codec, const char *column, const char *name) MUST_CHECK;

/* Whether `size` bytes may expand to `expanded`, by the codec's own limits: looked at before memory
 * is taken. */
bool parquet_codec_possible(enum parquet_codec codec, size_t size, size_t expanded);

/* False unless `from` expands to `size` bytes exactly. Not logged. */
bool parquet_codec_expand(enum parquet_codec codec, uint8_t *to, size_t size, const uint8_t *from,
                          size_t from_size);

#endif
