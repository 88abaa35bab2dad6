/* array.c - flat arrays of ids.
 *
 * A sequence is `row` items in the file, of which the first `keep` are read. The number of items is
 * known from the start, but for a pipe without a header, where the end of input tells. A file whose
 * size is not what its header says is refused before the first sequence.
 */
#include "array.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/npy.h"

struct array {
    struct source source;
    unsigned item_bytes;
    bool is_signed;
    bool bounded;   /* `items` is known */
    uint64_t items; /* in the file */
    uint64_t row;   /* items from one sequence to the next; 0: all are empty */
    size_t keep;    /* those of a row that are read */
    size_t data;    /* offset of the first item */
    uint64_t next;  /* number of the sequence at the window */
    uint32_t *ids;  /* (room) */
    size_t room;
};

static struct array *array_of(struct source *source)
{
    return (struct array *)source;
}

/* ---- one sequence */

static int64_t array_item(const struct array *array, const uint8_t *at)
{
    switch (array->item_bytes) {
    case 2:
        return le_get16(at);
    case 4:
        return array->is_signed ? (int32_t)le_get32(at) : (int64_t)le_get32(at);
    default: { /* an unsigned one above 2^63 is as negative as it is too large */
        uint64_t item = le_get64(at);
        int64_t value;
        memcpy(&value, &item, sizeof value);
        return value;
    }
    }
}

static int array_reserve(struct array *array, size_t count)
{
    if (count <= array->room)
        return 0;
    uint32_t *grown = mem_resize(array->ids, count, sizeof *grown);
    if (grown == NULL)
        return mem_fail("a sequence", count, sizeof *grown);
    array->ids = grown;
    array->room = count;
    return 0;
}

static int array_convert(struct array *array, const uint8_t *bytes, size_t count)
{
    int status = array_reserve(array, count);
    for (size_t i = 0; i < count && status == 0; i++) {
        int64_t id = array_item(array, bytes + i * array->item_bytes);
        if (!source_is_id(id))
            status = source_bad_id(&array->source, array->next, id);
        array->ids[i] = (uint32_t)id;
    }
    return status;
}

static int array_cut_short(const struct array *array)
{
    return log_fail(ERR_TRUNCATED,
                    "'%s' ends at offset %" PRId64 ", inside an item or before the last item that "
                    "its header announces: was it cut?",
                    source_name(&array->source), bytes_offset(&array->source.bytes));
}

/* Items of the next sequence; where only the end of input tells, those that are there. */
static int array_row_items(struct array *array, uint64_t *count)
{
    struct bytes *bytes = &array->source.bytes;
    *count = array->row;
    if (array->bounded) {
        uint64_t left = array->items - array->next * array->row;
        *count = left < *count ? left : *count;
        return 0;
    }
    int status = bytes_want(bytes, array->keep * array->item_bytes, BYTES_AHEAD);
    size_t have = bytes_have(bytes);
    if (status != 0 || have / array->item_bytes >= *count)
        return status;
    if (have % array->item_bytes != 0)
        return array_cut_short(array);
    *count = have / array->item_bytes;
    return 0;
}

static int array_next(struct source *source, struct source_sequence *sequence)
{
    struct array *array = array_of(source);
    uint64_t count;
    if (source->counted && array->next >= source->count)
        return 0;
    int status = array_row_items(array, &count);
    if (status != 0)
        return status;
    if (count == 0 && !array->bounded) {
        source->counted = true;
        source->count = array->next;
        return 0;
    }
    size_t kept = count < array->keep ? (size_t)count : array->keep;
    size_t size = kept * array->item_bytes;
    if ((status = bytes_want(&source->bytes, size, BYTES_AHEAD)) != 0)
        return status;
    if (bytes_have(&source->bytes) < size)
        return array_cut_short(array);
    if ((status = array_convert(array, bytes_at(&source->bytes), kept)) != 0)
        return status;
    bytes_use(&source->bytes, size);
    status = bytes_skip(&source->bytes, (count - kept) * array->item_bytes);
    if (status != 1)
        return status < 0 ? status : array_cut_short(array);
    array->next++;
    *sequence = (struct source_sequence){array->ids, kept, count - kept};
    return 1;
}

static int array_seek(struct source *source, uint64_t i)
{
    struct array *array = array_of(source);
    if (source->counted && i >= source->count)
        return 0;
    if (source_is_regular(source)) {
        bytes_seek(&source->bytes, (int64_t)(array->data + i * array->row * array->item_bytes));
        array->next = i;
        return 1;
    }
    struct source_sequence passed;
    while (array->next < i) {
        int status = array_next(source, &passed);
        if (status != 1)
            return status;
    }
    return 1;
}

static void array_free(struct source *source)
{
    free(array_of(source)->ids);
}

/* ---- opening */

static const struct source_kind array_npy_kind = {
    .name = ".npy", .seek = array_seek, .next = array_next, .free = array_free};
static const struct source_kind array_raw_kind = {
    .name = "flat", .seek = array_seek, .next = array_next, .free = array_free};

/* Sets what follows from `items` and `row`. */
static void array_measure(struct array *array, uint64_t count)
{
    struct source *source = &array->source;
    size_t most = source->setup->most;
    array->keep = array->row < most ? (size_t)array->row : most;
    source->counted = array->bounded;
    source->count = count;
    source->has_length = array->bounded && array->row * count == array->items;
    source->length = array->keep;
    source->memory = BYTES_AHEAD + array->keep * (array->item_bytes + sizeof *array->ids);
}

static int array_needs_length(const char *name)
{
    return log_fail(ERR_USAGE, "'%s' is one flat array: say with --seq-len N where it is cut",
                    name);
}

int array_open_raw(struct source **source, struct bytes *bytes, const struct source_setup *setup)
{
    unsigned item_bytes = setup->raw_bytes;
    if (setup->seq_len == 0)
        return array_needs_length(bytes->file.name);
    if (bytes->size >= 0 && bytes->size % item_bytes != 0)
        return log_fail(ERR_TRUNCATED,
                        "'%s' has %" PRId64 " bytes, which is no whole number of items of %u bytes",
                        bytes->file.name, bytes->size, item_bytes);
    struct array *array =
        (struct array *)source_create(sizeof *array, &array_raw_kind, bytes, setup);
    if (array == NULL)
        return ERR_MEMORY;
    array->item_bytes = item_bytes;
    array->bounded = array->source.bytes.size >= 0;
    array->row = setup->seq_len;
    if (array->bounded)
        array->items = (uint64_t)array->source.bytes.size / item_bytes;
    array_measure(array, (array->items + array->row - 1) / array->row);
    *source = &array->source;
    return 0;
}

static const char *const array_types[] = {"<u2", "<i4", "<u4", "<i8", "<u8"};

static int array_check_npy(const struct npy_header *header, const struct bytes *bytes,
                           const struct source_setup *setup)
{
    const char *name = bytes->file.name;
    size_t known = sizeof array_types / sizeof *array_types, type = 0;
    while (type < known && strcmp(header->type, array_types[type]) != 0)
        type++;
    if (type == known)
        return log_fail(ERR_USAGE, "'%s' has items of type '%s'; ids are <u2, <i4, <u4, <i8 or <u8",
                        name, header->type);
    if (header->rank != 1 && header->rank != 2)
        return log_fail(ERR_USAGE, "'%s' has %u dimensions; ids have (sequences, length) or one",
                        name, header->rank);
    if (header->rank == 1 && setup->seq_len == 0)
        return array_needs_length(name);
    /* npy_parse() has seen to it that this is a size that a file can have. */
    uint64_t size = header->elements * header->item_bytes + header->data_offset;
    if (bytes->size >= 0 && (uint64_t)bytes->size != size)
        return log_fail((uint64_t)bytes->size < size ? ERR_TRUNCATED : ERR_DATA,
                        "'%s' has %" PRId64 " bytes, and its header announces %" PRIu64, name,
                        bytes->size, size);
    return 0;
}

static int array_read_header(struct npy_header *header, struct bytes *bytes)
{
    size_t size = bytes_have(bytes);
    for (;;) {
        int status = npy_parse(header, bytes_at(bytes), bytes_have(bytes), bytes->file.name);
        if (status != 1)
            return status;
        if (bytes_have(bytes) < size)
            return log_fail(ERR_TRUNCATED, "'%s' ends inside its header", bytes->file.name);
        size = header->data_offset;
        if ((status = bytes_want(bytes, size, size)) != 0)
            return status;
    }
}

int array_open_npy(struct source **source, struct bytes *bytes, const struct source_setup *setup)
{
    struct npy_header header;
    int status = array_read_header(&header, bytes);
    if (status == 0)
        status = array_check_npy(&header, bytes, setup);
    if (status != 0)
        return status;
    struct array *array =
        (struct array *)source_create(sizeof *array, &array_npy_kind, bytes, setup);
    if (array == NULL)
        return ERR_MEMORY;
    bool flat = header.rank == 1;
    array->item_bytes = (unsigned)header.item_bytes;
    array->is_signed = header.type[1] == 'i';
    array->bounded = true;
    array->items = header.elements;
    array->data = header.data_offset;
    array->row = flat ? setup->seq_len : header.shape[1];
    bytes_use(&array->source.bytes, header.data_offset);
    uint64_t pieces =
        array->row == 0 ? 0 : array->items / array->row + (array->items % array->row != 0);
    array_measure(array, flat ? pieces : header.shape[0]);
    *source = &array->source;
    return 0;
}
