/* parquet_codec.c - a table of codecs; one that is to be read is a further row. */
#include "parquet_codec.h"

#include <inttypes.h>
#include <snappy-c.h>
#include <string.h>

#include "common/log.h"

struct codec {
    const char *name;
    size_t ratio; /* a byte expands to so many at most */
    bool (*expand)(uint8_t *to, size_t size, const uint8_t *from, size_t from_size);
};

static bool codec_copy(uint8_t *to, size_t size, const uint8_t *from, size_t from_size)
{
    if (size != from_size)
        return false;
    memcpy(to, from, size);
    return true;
}

static bool codec_snappy(uint8_t *to, size_t size, const uint8_t *from, size_t from_size)
{
    size_t announced, written = size;
    return snappy_uncompressed_length((const char *)from, from_size, &announced) == SNAPPY_OK &&
           announced == size &&
           snappy_uncompress((const char *)from, from_size, (char *)to, &written) == SNAPPY_OK &&
           written == size;
}

/* By the format's numbers. Snappy's densest element is a copy of 64 bytes in 3. */
static const struct codec codec_table[] = {
    [PARQUET_UNCOMPRESSED] = {"none", 1, codec_copy},
    [PARQUET_SNAPPY] = {"snappy", 22, codec_snappy},
    [PARQUET_GZIP] = {"gzip", 0, NULL},
    [PARQUET_LZO] = {"lzo", 0, NULL},
    [PARQUET_BROTLI] = {"brotli", 0, NULL},
    [PARQUET_LZ4] = {"lz4 (the deprecated framing)", 0, NULL},
    [PARQUET_ZSTD] = {"zstd", 0, NULL},
    [PARQUET_LZ4_RAW] = {"lz4_raw", 0, NULL},
};

int parquet_codec_check(int64_t codec, const char *column, const char *name)
{
    if (codec < 0 || codec >= (int64_t)(sizeof codec_table / sizeof *codec_table))
        return log_fail(
            ERR_DATA, "'%s': Parquet footer: column '%s' has codec %" PRId64 ", which there is not",
            name, column, codec);
    if (codec_table[codec].expand == NULL)
        return log_fail(ERR_USAGE,
                        "'%s': column '%s' is compressed with %s: reading that is not built "
                        "(snappy and none are)",
                        name, column, codec_table[codec].name);
    return 0;
}

bool parquet_codec_possible(enum parquet_codec codec, size_t size, size_t expanded)
{
    return expanded / codec_table[codec].ratio <= size;
}

bool parquet_codec_expand(enum parquet_codec codec, uint8_t *to, size_t size, const uint8_t *from,
                          size_t from_size)
{
    return codec_table[codec].expand(to, size, from, from_size);
}
