/* npy.c - the header of .npy files.
 *
 * The header is a Python dict literal. NumPy reads it with Python's own parser; here a reader for
 * exactly the literals that such a dict can hold: strings without escapes, True, False and tuples
 * of integers, in any order and spacing. What else Python could write there (structured types are
 * lists) is refused by name where it stands for data that NumPy could have, else as corrupt.
 */
#include "npy.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "le.h"
#include "log.h"

#define NPY_MAX_HEADER 65536
#define NPY_ALIGNMENT 64

static const uint8_t npy_magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* A place in the dict literal. */
struct npy_text {
    const char *next, *end;
    const char *name; /* the file's, for messages */
};

static int npy_corrupt(const struct npy_text *text, const char *what)
{
    return log_fail(ERR_DATA, "'%s': .npy header: %s", text->name, what);
}

static void npy_skip_space(struct npy_text *text)
{
    while (text->next < text->end && strchr(" \t\r\n", *text->next) != NULL && *text->next != '\0')
        text->next++;
}

/* Passes over `c` and the spaces before it; false, without moving past it, where it is not there.
 */
static bool npy_accept(struct npy_text *text, char c)
{
    npy_skip_space(text);
    if (text->next == text->end || *text->next != c)
        return false;
    text->next++;
    return true;
}

static bool npy_accept_word(struct npy_text *text, const char *word)
{
    size_t length = strlen(word);
    npy_skip_space(text);
    if ((size_t)(text->end - text->next) < length || memcmp(text->next, word, length) != 0)
        return false;
    text->next += length;
    return true;
}

/* A quoted string without escapes; false where there is none. */
static bool npy_accept_string(struct npy_text *text, const char **string, size_t *length)
{
    npy_skip_space(text);
    if (text->next == text->end || (*text->next != '\'' && *text->next != '"'))
        return false;
    const char *close = memchr(text->next + 1, *text->next, (size_t)(text->end - text->next) - 1);
    if (close == NULL)
        return false;
    *string = text->next + 1;
    *length = (size_t)(close - *string);
    text->next = close + 1;
    return memchr(*string, '\\', *length) == NULL;
}

/* ---- the three values */

static int npy_read_type(struct npy_header *header, struct npy_text *text)
{
    static const struct {
        const char *type;
        size_t bytes;
    } known[] = {{"|u1", 1}, {"|i1", 1}, {"<u2", 2}, {"<i2", 2}, {"<f2", 2}, {"<u4", 4},
                 {"<i4", 4}, {"<f4", 4}, {"<u8", 8}, {"<i8", 8}, {"<f8", 8}};
    const char *type;
    size_t length;
    npy_skip_space(text);
    if (text->next < text->end && *text->next == '[')
        return log_fail(ERR_USAGE, "'%s': structured arrays are not read", text->name);
    if (!npy_accept_string(text, &type, &length))
        return npy_corrupt(text, "'descr' is not a string");
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (length == strlen(known[i].type) && memcmp(type, known[i].type, length) == 0) {
            memcpy(header->type, type, length);
            header->type[length] = '\0';
            header->item_bytes = known[i].bytes;
            return 0;
        }
    }
    int shown = length < 16 ? (int)length : 16;
    if (length > 0 && type[0] == '>')
        return log_fail(ERR_USAGE,
                        "'%s': elements of type '%.*s' are big-endian; save it with "
                        ".astype('<%.*s')",
                        text->name, shown, type, shown - 1, type + 1);
    if (length > 1 && type[1] == 'O')
        return log_fail(ERR_USAGE,
                        "'%s': object arrays ('%.*s') are not read: they hold pickled "
                        "Python objects",
                        text->name, shown, type);
    return log_fail(ERR_USAGE, "'%s': elements of type '%.*s' are not read", text->name, shown,
                    type);
}

static int npy_read_order(struct npy_text *text)
{
    if (npy_accept_word(text, "False"))
        return 0;
    if (npy_accept_word(text, "True"))
        return log_fail(ERR_USAGE,
                        "'%s': the array is in Fortran order; save it with "
                        "numpy.ascontiguousarray()",
                        text->name);
    return npy_corrupt(text, "'fortran_order' is neither True nor False");
}

/* A length of the shape; 'L' may follow, as Python 2 wrote it. */
static int npy_read_length(uint64_t *value, struct npy_text *text)
{
    uint64_t result = 0;
    npy_skip_space(text);
    const char *first = text->next;
    for (; text->next < text->end && *text->next >= '0' && *text->next <= '9'; text->next++)
        if (__builtin_mul_overflow(result, (uint64_t)10, &result) ||
            __builtin_add_overflow(result, (uint64_t)(*text->next - '0'), &result))
            return npy_corrupt(text, "a length in 'shape' overflows");
    if (text->next == first)
        return npy_corrupt(text, "'shape' is not a tuple of lengths");
    if (text->next < text->end && *text->next == 'L')
        text->next++;
    *value = result;
    return 0;
}

/* "()", "(3,)", "(3, 4)", "(3, 4,)"; "(3)" is a number and no tuple. */
static int npy_read_shape(struct npy_header *header, struct npy_text *text)
{
    if (!npy_accept(text, '('))
        return npy_corrupt(text, "'shape' is not a tuple");
    bool comma = true;
    header->rank = 0;
    while (!npy_accept(text, ')')) {
        if (!comma)
            return npy_corrupt(text, "'shape' is not a tuple of lengths");
        if (header->rank == NPY_MAX_RANK)
            return log_fail(ERR_USAGE, "'%s': more than %d dimensions are not read", text->name,
                            NPY_MAX_RANK);
        int status = npy_read_length(&header->shape[header->rank], text);
        if (status != 0)
            return status;
        header->rank++;
        comma = npy_accept(text, ',');
    }
    if (header->rank == 1 && !comma)
        return npy_corrupt(text, "'shape' is not a tuple");
    return 0;
}

/* ---- the dict */

enum { NPY_DESCR = 1, NPY_ORDER = 2, NPY_SHAPE = 4, NPY_ALL = 7 };

static int npy_read_member(struct npy_header *header, struct npy_text *text, unsigned *seen)
{
    static const struct {
        const char *key;
        unsigned bit;
    } keys[] = {{"descr", NPY_DESCR}, {"fortran_order", NPY_ORDER}, {"shape", NPY_SHAPE}};
    const char *key;
    size_t length;
    if (!npy_accept_string(text, &key, &length) || !npy_accept(text, ':'))
        return npy_corrupt(text, "not a dict of 'descr', 'fortran_order' and 'shape'");
    unsigned bit = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (length == strlen(keys[i].key) && memcmp(key, keys[i].key, length) == 0)
            bit = keys[i].bit;
    if (bit == 0 || (*seen & bit) != 0)
        return npy_corrupt(text, "a key is unknown or there twice");
    *seen |= bit;
    return bit == NPY_DESCR   ? npy_read_type(header, text)
           : bit == NPY_ORDER ? npy_read_order(text)
                              : npy_read_shape(header, text);
}

static int npy_read_dict(struct npy_header *header, struct npy_text *text)
{
    unsigned seen = 0;
    bool comma = true;
    if (!npy_accept(text, '{'))
        return npy_corrupt(text, "it does not begin with '{'");
    while (!npy_accept(text, '}')) {
        if (!comma)
            return npy_corrupt(text, "a ',' is missing");
        int status = npy_read_member(header, text, &seen);
        if (status != 0)
            return status;
        comma = npy_accept(text, ',');
    }
    npy_skip_space(text);
    if (text->next != text->end)
        return npy_corrupt(text, "something follows the dict");
    if (seen != NPY_ALL)
        return npy_corrupt(text, "'descr', 'fortran_order' or 'shape' is missing");
    return 0;
}

static int npy_count_elements(struct npy_header *header, const struct npy_text *text)
{
    uint64_t bytes = header->item_bytes;
    header->elements = 1;
    for (unsigned i = 0; i < header->rank; i++)
        if (__builtin_mul_overflow(header->elements, header->shape[i], &header->elements))
            return npy_corrupt(text, "the shape overflows");
    /* A file's size is an int64_t, so what does not fit cannot be there. */
    if (__builtin_mul_overflow(header->elements, bytes, &bytes) ||
        bytes > INT64_MAX - NPY_MAX_HEADER - 12)
        return npy_corrupt(text, "the shape overflows");
    return 0;
}

int npy_parse(struct npy_header *header, const uint8_t *bytes, size_t size, const char *name)
{
    *header = (struct npy_header){.rank = 0};
    for (size_t i = 0; i < size && i < sizeof npy_magic; i++)
        if (bytes[i] != npy_magic[i])
            return log_fail(ERR_DATA, "'%s' is not a .npy file", name);
    header->data_offset = 8;
    if (size < header->data_offset)
        return 1;
    uint8_t major = bytes[6];
    if (major < 1 || major > 3 || bytes[7] != 0)
        return log_fail(ERR_USAGE, "'%s': version %u.%u of the .npy format is not read", name,
                        major, bytes[7]);
    size_t start = header->data_offset = major == 1 ? 10 : 12;
    if (size < start)
        return 1;
    size_t length = major == 1 ? le_get16(bytes + 8) : le_get32(bytes + 8);
    if (length > NPY_MAX_HEADER)
        return log_fail(ERR_DATA, "'%s': .npy header of %zu bytes, more than %d", name, length,
                        NPY_MAX_HEADER);
    header->data_offset = start + length;
    if (size < header->data_offset)
        return 1;
    struct npy_text text = {.next = (const char *)bytes + start, .name = name};
    text.end = text.next + length;
    int status = npy_read_dict(header, &text);
    return status != 0 ? status : npy_count_elements(header, &text);
}

/* ---- writing */

size_t npy_format(uint8_t *to, const char *type, const uint64_t *shape, unsigned rank)
{
    /* 10 + 56 + 7 (type) + 8 x 22 (lengths) + 1 = 250 bytes at most. */
    assert(strlen(type) < sizeof((struct npy_header *)0)->type && rank <= NPY_MAX_RANK);
    char text[256];
    size_t length = (size_t)snprintf(text, sizeof text,
                                     "{'descr': '%s', 'fortran_order': False, 'shape': (", type);
    for (unsigned i = 0; i < rank; i++)
        length += (size_t)snprintf(text + length, sizeof text - length, "%s%" PRIu64,
                                   i == 0 ? "" : ", ", shape[i]);
    length += (size_t)snprintf(text + length, sizeof text - length, "%s), }", rank == 1 ? "," : "");
    size_t size = (10 + length + 1 + NPY_ALIGNMENT - 1) / NPY_ALIGNMENT * NPY_ALIGNMENT;
    memcpy(to, npy_magic, sizeof npy_magic);
    to[6] = 1;
    to[7] = 0;
    le_put16(to + 8, (uint16_t)(size - 10));
    memcpy(to + 10, text, length);
    memset(to + 10 + length, ' ', size - 11 - length);
    to[size - 1] = '\n';
    return size;
}
