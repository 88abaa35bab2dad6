/* parquet_thrift.h - reading Thrift's compact protocol, in which Parquet's metadata is written.
 *
 * A cursor over bytes in memory. The first failure sticks: all calls then return zeros and false,
 * and whoever parses a struct looks at `state` once, at its end:
 *
 *     struct thrift_field field = {0};
 *     while (thrift_field_next(&thrift, &field))
 *         switch (field.id) {
 *         case 1: rows = thrift_int(&thrift, &field); break;
 *         default: thrift_skip(&thrift, field.type);
 *         }
 */
#ifndef TOKSTREAM_PARQUET_THRIFT_H
#define TOKSTREAM_PARQUET_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define THRIFT_MAX_DEPTH 32

enum thrift_state {
    THRIFT_GOOD,
    THRIFT_SHORT, /* the bytes end before the struct does */
    THRIFT_BAD
};

enum thrift_type {
    THRIFT_STOP,
    THRIFT_TRUE,
    THRIFT_FALSE,
    THRIFT_I8,
    THRIFT_I16,
    THRIFT_I32,
    THRIFT_I64,
    THRIFT_DOUBLE,
    THRIFT_BINARY,
    THRIFT_LIST,
    THRIFT_SET,
    THRIFT_MAP,
    THRIFT_STRUCT
};

struct thrift {
    const uint8_t *next, *end;
    enum thrift_state state;
    unsigned depth; /* of what is being skipped */
};

struct thrift_field {
    int32_t id;
    uint8_t type;
};

/* The next field of a struct, whose value then has to be read or skipped; false behind the last and
 * after a failure. *field starts as zeros for each struct. */
bool thrift_field_next(struct thrift *thrift, struct thrift_field *field);

/* Values, of a field or of a list's element of that type; of another type it is THRIFT_BAD.
 * Integers of all widths are one. */
int64_t thrift_int(struct thrift *thrift, uint8_t type);
bool thrift_bool(struct thrift *thrift, uint8_t type);

/* Bytes that stay in the cursor's memory. */
const uint8_t *thrift_binary(struct thrift *thrift, uint8_t type, size_t *size);

/* The header of a list: the number of elements, which is at most the number of bytes left. */
size_t thrift_list(struct thrift *thrift, uint8_t type, uint8_t *element);

/* A struct's fields follow; false, and THRIFT_BAD, where the type is another. */
bool thrift_struct(struct thrift *thrift, uint8_t type);

void thrift_skip(struct thrift *thrift, uint8_t type);

#endif
