/* parquet_writer.h - Parquet files put together by hand, so that a test can have pages that no
 * writer at hand makes, right and wrong ones. */
#ifndef TEST_PARQUET_WRITER_H
#define TEST_PARQUET_WRITER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/le.h"
#include "tools/tokstream/parquet_thrift.h"

struct bytes_out {
    uint8_t bytes[1 << 16];
    size_t size;
};

static inline void out_byte(struct bytes_out *out, unsigned byte)
{
    out->bytes[out->size++] = (uint8_t)byte;
}

static inline void out_bytes(struct bytes_out *out, const void *bytes, size_t size)
{
    memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
}

static inline void out_32(struct bytes_out *out, uint32_t value)
{
    le_put32(out->bytes + out->size, value);
    out->size += 4;
}

static inline void out_64(struct bytes_out *out, uint64_t value)
{
    le_put64(out->bytes + out->size, value);
    out->size += 8;
}

static inline void out_varint(struct bytes_out *out, uint64_t value)
{
    for (; value >= 128; value >>= 7)
        out_byte(out, (unsigned)(value & 127) | 128);
    out_byte(out, (unsigned)value);
}

/* ---- thrift; fields with their numbers in full */

static inline void out_field(struct bytes_out *out, enum thrift_type type, int id)
{
    out_byte(out, type);
    out_varint(out, (uint64_t)(2 * id));
}

static inline void out_int(struct bytes_out *out, int id, int64_t value)
{
    out_field(out, THRIFT_I64, id);
    out_varint(out, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

static inline void out_text(struct bytes_out *out, int id, const char *text)
{
    out_field(out, THRIFT_BINARY, id);
    out_varint(out, strlen(text));
    out_bytes(out, text, strlen(text));
}

static inline void out_structs(struct bytes_out *out, int id, size_t count)
{
    out_field(out, THRIFT_LIST, id);
    out_byte(out, 0xf0 | THRIFT_STRUCT);
    out_varint(out, count);
}

static inline void out_stop(struct bytes_out *out)
{
    out_byte(out, THRIFT_STOP);
}

/* ---- schemas; repetition 0 required, 1 optional, 2 repeated */

struct schema_entry {
    const char *name;
    int type; /* 1 INT32, 2 INT64, -1 a group */
    int repetition, children;
    int converted;    /* 0: none */
    int signed_logic; /* 1 + is signed; 0: no logical type */
};

static inline void out_schema_entry(struct bytes_out *out, const struct schema_entry *entry)
{
    if (entry->type >= 0)
        out_int(out, 1, entry->type);
    out_int(out, 3, entry->repetition);
    out_text(out, 4, entry->name);
    if (entry->children > 0)
        out_int(out, 5, entry->children);
    if (entry->converted > 0)
        out_int(out, 6, entry->converted);
    if (entry->signed_logic > 0) {
        out_field(out, THRIFT_STRUCT, 10);
        out_field(out, THRIFT_STRUCT, 10);
        out_field(out, THRIFT_I8, 1);
        out_byte(out, 32);
        out_field(out, entry->signed_logic == 2 ? THRIFT_TRUE : THRIFT_FALSE, 2);
        out_stop(out);
        out_stop(out);
    }
    out_stop(out);
}

/* ---- levels: a packed run of all, as many as there are, in groups of 8 */

static inline void out_packed(struct bytes_out *out, const uint32_t *values, size_t count,
                              unsigned width)
{
    uint64_t word = 0;
    unsigned bits = 0;
    size_t groups = (count + 7) / 8;
    out_varint(out, groups << 1 | 1);
    for (size_t i = 0; i < groups * 8; i++) {
        word |= (uint64_t)(i < count ? values[i] : 0) << bits;
        for (bits += width; bits >= 8; bits -= 8, word >>= 8)
            out_byte(out, (unsigned)(word & 255));
    }
}

static inline void out_equal(struct bytes_out *out, uint32_t value, size_t count, unsigned width)
{
    out_varint(out, count << 1);
    for (unsigned bits = 0; bits < width; bits += 8)
        out_byte(out, value >> bits & 255);
}

#endif
