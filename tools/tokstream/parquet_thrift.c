/* parquet_thrift.c - Thrift's compact protocol.
 *
 * Integers are zigzag varints of at most ten bytes; a field's header is the step from the last
 * field's number and a type in one byte, or, for large steps, the number itself behind the type. In
 * a struct a bool is its field's type; in a list it is a byte. What is not known is skipped by its
 * type, to a depth that no real file has.
 */
#include "parquet_thrift.h"

static void thrift_fail(struct thrift *thrift, enum thrift_state state)
{
    if (thrift->state == THRIFT_GOOD)
        thrift->state = state;
    thrift->next = thrift->end;
}

static uint8_t thrift_byte(struct thrift *thrift)
{
    if (thrift->next == thrift->end) {
        thrift_fail(thrift, THRIFT_SHORT);
        return 0;
    }
    return *thrift->next++;
}

static uint64_t thrift_varint(struct thrift *thrift)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = thrift_byte(thrift);
        if (shift == 63 && byte > 1)
            break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return thrift->state == THRIFT_GOOD ? value : 0;
    }
    thrift_fail(thrift, THRIFT_BAD);
    return 0;
}

static int64_t thrift_zigzag(struct thrift *thrift)
{
    uint64_t value = thrift_varint(thrift);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

bool thrift_field_next(struct thrift *thrift, struct thrift_field *field)
{
    uint8_t byte = thrift_byte(thrift);
    field->type = byte & 0x0f;
    if (thrift->state != THRIFT_GOOD || field->type == THRIFT_STOP)
        return false;
    int64_t id = byte >> 4 != 0 ? field->id + (byte >> 4) : thrift_zigzag(thrift);
    if (field->type > THRIFT_STRUCT || id < INT16_MIN || id > INT16_MAX)
        thrift_fail(thrift, THRIFT_BAD);
    field->id = (int32_t)id;
    return thrift->state == THRIFT_GOOD;
}

int64_t thrift_int(struct thrift *thrift, uint8_t type)
{
    if (type == THRIFT_I8)
        return (int8_t)thrift_byte(thrift);
    if (type >= THRIFT_I16 && type <= THRIFT_I64)
        return thrift_zigzag(thrift);
    thrift_fail(thrift, THRIFT_BAD);
    return 0;
}

bool thrift_bool(struct thrift *thrift, uint8_t type)
{
    if (type != THRIFT_TRUE && type != THRIFT_FALSE)
        thrift_fail(thrift, THRIFT_BAD);
    return type == THRIFT_TRUE;
}

const uint8_t *thrift_binary(struct thrift *thrift, uint8_t type, size_t *size)
{
    *size = 0;
    if (type != THRIFT_BINARY) {
        thrift_fail(thrift, THRIFT_BAD);
        return thrift->next;
    }
    uint64_t length = thrift_varint(thrift);
    if (length > (size_t)(thrift->end - thrift->next)) {
        thrift_fail(thrift, THRIFT_SHORT);
        return thrift->next;
    }
    const uint8_t *bytes = thrift->next;
    thrift->next += length;
    *size = (size_t)length;
    return bytes;
}

size_t thrift_list(struct thrift *thrift, uint8_t type, uint8_t *element)
{
    *element = THRIFT_STOP;
    if (type != THRIFT_LIST && type != THRIFT_SET) {
        thrift_fail(thrift, THRIFT_BAD);
        return 0;
    }
    uint8_t byte = thrift_byte(thrift);
    uint64_t count = byte >> 4 == 15 ? thrift_varint(thrift) : byte >> 4;
    *element = byte & 0x0f;
    if (count > (size_t)(thrift->end - thrift->next)) {
        thrift_fail(thrift, THRIFT_SHORT); /* an element takes a byte at least */
        return 0;
    }
    return (size_t)count;
}

bool thrift_struct(struct thrift *thrift, uint8_t type)
{
    if (type != THRIFT_STRUCT)
        thrift_fail(thrift, THRIFT_BAD);
    return thrift->state == THRIFT_GOOD;
}

/* ---- skipping */

static void thrift_advance(struct thrift *thrift, size_t size)
{
    if (size > (size_t)(thrift->end - thrift->next))
        thrift_fail(thrift, THRIFT_SHORT);
    else
        thrift->next += size;
}

/* An element of a list or map: as a field, but that a bool is a byte of its own. */
static void thrift_skip_element(struct thrift *thrift, uint8_t type)
{
    if (type == THRIFT_TRUE || type == THRIFT_FALSE)
        thrift_advance(thrift, 1);
    else
        thrift_skip(thrift, type);
}

static void thrift_skip_map(struct thrift *thrift)
{
    uint64_t count = thrift_varint(thrift);
    if (count == 0)
        return;
    uint8_t types = thrift_byte(thrift);
    for (uint64_t i = 0; i < count && thrift->state == THRIFT_GOOD; i++) {
        thrift_skip_element(thrift, types >> 4);
        thrift_skip_element(thrift, types & 0x0f);
    }
}

static void thrift_skip_nested(struct thrift *thrift, uint8_t type)
{
    struct thrift_field field = {0};
    uint8_t element;
    size_t count;
    switch (type) {
    case THRIFT_MAP:
        thrift_skip_map(thrift);
        return;
    case THRIFT_STRUCT:
        while (thrift_field_next(thrift, &field))
            thrift_skip(thrift, field.type);
        return;
    default:
        count = thrift_list(thrift, type, &element);
        for (size_t i = 0; i < count && thrift->state == THRIFT_GOOD; i++)
            thrift_skip_element(thrift, element);
    }
}

void thrift_skip(struct thrift *thrift, uint8_t type)
{
    size_t size;
    switch (type) {
    case THRIFT_TRUE:
    case THRIFT_FALSE:
        return;
    case THRIFT_I8:
    case THRIFT_I16:
    case THRIFT_I32:
    case THRIFT_I64:
        (void)thrift_int(thrift, type);
        return;
    case THRIFT_DOUBLE:
        thrift_advance(thrift, 8);
        return;
    case THRIFT_BINARY:
        (void)thrift_binary(thrift, type, &size);
        return;
    case THRIFT_LIST:
    case THRIFT_SET:
    case THRIFT_MAP:
    case THRIFT_STRUCT:
        break;
    default:
        thrift_fail(thrift, THRIFT_BAD);
        return;
    }
    if (++thrift->depth > THRIFT_MAX_DEPTH)
        thrift_fail(thrift, THRIFT_BAD);
    else
        thrift_skip_nested(thrift, type);
    thrift->depth--;
}
