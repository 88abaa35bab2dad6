/* parquet_page.c - from the bytes of a chunk to levels and values.
 *
 * A page is read as a whole, because that is how it was compressed. What a page takes is bounded by
 * bytes that are there: a header is believed only as far as its chunk has the bytes, and these can
 * expand to no more than their codec allows. Pages that are not compressed are not copied.
 *
 * Version 1 compresses levels and values together, and each of the two levels has its size in
 * front; version 2 has the levels in front, uncompressed, with their sizes in the header.
 */
#include "parquet_page.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "parquet_codec.h"
#include "parquet_crc.h"
#include "parquet_thrift.h"

#define PAGE_FIRST_LOOK ((size_t)256)
#define PAGE_ASK ((size_t)64 << 20)        /* larger ones are taken only where memory is free */
#define PAGE_MAX_HEADER ((size_t)16 << 20) /* statistics may hold long values */

/* ---- headers */

static void page_read_data(struct thrift *thrift, uint8_t type, struct parquet_page_header *header)
{
    struct thrift_field field = {0};
    (void)thrift_struct(thrift, type);
    while (thrift_field_next(thrift, &field)) {
        switch (field.id) {
        case 1:
            header->values = thrift_int(thrift, field.type);
            break;
        case 2:
            header->encoding = thrift_int(thrift, field.type);
            break;
        case 3:
            header->definition_encoding = thrift_int(thrift, field.type);
            break;
        case 4:
            header->repetition_encoding = thrift_int(thrift, field.type);
            break;
        default:
            thrift_skip(thrift, field.type);
        }
    }
}

static void page_read_dictionary(struct thrift *thrift, uint8_t type,
                                 struct parquet_page_header *header)
{
    struct thrift_field field = {0};
    (void)thrift_struct(thrift, type);
    while (thrift_field_next(thrift, &field)) {
        if (field.id == 1)
            header->values = thrift_int(thrift, field.type);
        else if (field.id == 2)
            header->encoding = thrift_int(thrift, field.type);
        else
            thrift_skip(thrift, field.type);
    }
}

static void page_read_data_v2(struct thrift *thrift, uint8_t type,
                              struct parquet_page_header *header)
{
    struct thrift_field field = {0};
    (void)thrift_struct(thrift, type);
    while (thrift_field_next(thrift, &field)) {
        switch (field.id) {
        case 1:
            header->values = thrift_int(thrift, field.type);
            break;
        case 4:
            header->encoding = thrift_int(thrift, field.type);
            break;
        case 5:
            header->definition_bytes = thrift_int(thrift, field.type);
            break;
        case 6:
            header->repetition_bytes = thrift_int(thrift, field.type);
            break;
        case 7:
            header->compressed = thrift_bool(thrift, field.type);
            break;
        default:
            thrift_skip(thrift, field.type);
        }
    }
}

int parquet_page_parse(struct parquet_page_header *header, const uint8_t *bytes, size_t size)
{
    *header = (struct parquet_page_header){.type = -1,
                                           .expanded = -1,
                                           .stored = -1,
                                           .values = -1,
                                           .encoding = -1,
                                           .definition_encoding = PARQUET_RLE,
                                           .repetition_encoding = PARQUET_RLE,
                                           .compressed = true};
    struct thrift thrift = {.next = bytes, .end = bytes + size};
    struct thrift_field field = {0};
    while (thrift_field_next(&thrift, &field)) {
        switch (field.id) {
        case 1:
            header->type = thrift_int(&thrift, field.type);
            break;
        case 2:
            header->expanded = thrift_int(&thrift, field.type);
            break;
        case 3:
            header->stored = thrift_int(&thrift, field.type);
            break;
        case 4:
            header->has_crc = true;
            header->crc = (uint32_t)thrift_int(&thrift, field.type);
            break;
        case 5:
            page_read_data(&thrift, field.type, header);
            break;
        case 7:
            page_read_dictionary(&thrift, field.type, header);
            break;
        case 8:
            page_read_data_v2(&thrift, field.type, header);
            break;
        default:
            thrift_skip(&thrift, field.type);
        }
    }
    if (thrift.state == THRIFT_GOOD)
        return (int)(thrift.next - bytes);
    return thrift.state == THRIFT_SHORT ? 0 : -1;
}

int parquet_pages_corrupt(const struct parquet_pages *pages, const char *what)
{
    return log_fail(ERR_DATA, "'%s', page at offset %" PRId64 ": %s", pages->bytes->file.name,
                    pages->at, what);
}

/* ---- from page to page */

void parquet_pages_start(struct parquet_pages *pages, struct bytes *bytes,
                         const struct parquet_group *group)
{
    pages->bytes = bytes;
    pages->codec = group->codec;
    pages->end = group->offset + (int64_t)group->bytes;
    pages->at = group->offset;
    bytes_seek(bytes, group->offset);
}

void parquet_pages_free(struct parquet_pages *pages)
{
    free(pages->expanded);
    *pages = (struct parquet_pages){0};
}

/* The window gets the next `size` bytes, reading on up to the end of the chunk. */
static int page_want(struct parquet_pages *pages, size_t size)
{
    uint64_t left = (uint64_t)(pages->end - bytes_offset(pages->bytes));
    return bytes_want(pages->bytes, size, left < BYTES_AHEAD ? (size_t)left : BYTES_AHEAD);
}

/* Reads the header and moves behind it. */
static int page_read_header(struct parquet_pages *pages, struct parquet_page_header *header)
{
    uint64_t left = (uint64_t)(pages->end - pages->at);
    for (size_t size = PAGE_FIRST_LOOK;; size *= 8) {
        size = left < size ? (size_t)left : size;
        int status = page_want(pages, size);
        if (status != 0)
            return status;
        int used = parquet_page_parse(header, bytes_at(pages->bytes), size);
        if (used > 0) {
            bytes_use(pages->bytes, (size_t)used);
            break;
        }
        if (used < 0 || size == left || size > PAGE_MAX_HEADER)
            return parquet_pages_corrupt(pages, "its header is damaged");
    }
    left = (uint64_t)(pages->end - bytes_offset(pages->bytes));
    if (header->stored < 0 || header->expanded < 0 || (uint64_t)header->stored > left ||
        header->expanded > INT32_MAX)
        return parquet_pages_corrupt(pages, "it does not fit into its column chunk");
    return 0;
}

/* Room for `size` expanded bytes, which the codec must be able to make of `stored`. */
static int page_reserve(struct parquet_pages *pages, size_t size, size_t stored)
{
    if (!parquet_codec_possible(pages->codec, stored, size))
        return parquet_pages_corrupt(pages, "it cannot expand to the size that its header says");
    if (size <= pages->room)
        return 0;
    if (size > PAGE_ASK) {
        int status = mem_require(size, "a Parquet page");
        if (status != 0)
            return status;
    }
    free(pages->expanded);
    pages->room = 0;
    pages->expanded = mem_alloc(size + BYTES_SLACK, 1);
    if (pages->expanded == NULL)
        return mem_fail("a Parquet page", size, 1);
    memset(pages->expanded + size, 0, BYTES_SLACK);
    pages->room = size;
    return 0;
}

/* *body = the expanded form of `stored` bytes at `from`. */
static int page_expand(struct parquet_pages *pages, const uint8_t **body, size_t size,
                       const uint8_t *from, size_t stored, bool compressed)
{
    bool empty = size == 0 && stored == 0; /* not every writer compresses nothing */
    if (!compressed || empty || pages->codec == PARQUET_UNCOMPRESSED) {
        *body = from;
        return size == stored ? 0 : parquet_pages_corrupt(pages, "its two sizes differ");
    }
    int status = page_reserve(pages, size, stored);
    if (status != 0)
        return status;
    *body = pages->expanded;
    if (!parquet_codec_expand(pages->codec, pages->expanded, size, from, stored))
        return parquet_pages_corrupt(pages, "its compressed bytes are damaged");
    return 0;
}

static int page_open_v2(struct parquet_pages *pages, const struct parquet_page_header *header,
                        const uint8_t *bytes, struct parquet_page *page)
{
    int64_t most = header->stored < header->expanded ? header->stored : header->expanded;
    if (header->repetition_bytes < 0 || header->definition_bytes < 0 ||
        header->definition_bytes > most - header->repetition_bytes)
        return parquet_pages_corrupt(pages, "its levels are longer than the page");
    page->repetition_bytes = (size_t)header->repetition_bytes;
    page->definition_bytes = (size_t)header->definition_bytes;
    page->repetition = bytes;
    page->definition = bytes + page->repetition_bytes;
    size_t levels = page->repetition_bytes + page->definition_bytes;
    page->body_bytes = (size_t)header->expanded - levels;
    return page_expand(pages, &page->body, page->body_bytes, bytes + levels,
                       (size_t)header->stored - levels, header->compressed);
}

/* Cuts a level with its size in front off the body. */
static int page_cut_level(const struct parquet_pages *pages, struct parquet_page *page,
                          const uint8_t **level, size_t *size)
{
    if (page->body_bytes < 4 || le_get32(page->body) > page->body_bytes - 4)
        return parquet_pages_corrupt(pages, "its levels are longer than the page");
    *size = le_get32(page->body);
    *level = page->body + 4;
    page->body += 4 + *size;
    page->body_bytes -= 4 + *size;
    return 0;
}

static int page_open_v1(struct parquet_pages *pages, const struct parquet_page_header *header,
                        const uint8_t *bytes, struct parquet_page *page)
{
    page->body_bytes = (size_t)header->expanded;
    int status =
        page_expand(pages, &page->body, page->body_bytes, bytes, (size_t)header->stored, true);
    if (status != 0 || page->type == PARQUET_DICTIONARY)
        return status;
    if (header->definition_encoding != PARQUET_RLE || header->repetition_encoding != PARQUET_RLE)
        return log_fail(ERR_USAGE,
                        "'%s', page at offset %" PRId64
                        ": its levels are written in the deprecated bit-packed encoding, which "
                        "is not read",
                        pages->bytes->file.name, pages->at);
    status = page_cut_level(pages, page, &page->repetition, &page->repetition_bytes);
    return status != 0 ? status
                       : page_cut_level(pages, page, &page->definition, &page->definition_bytes);
}

static int page_open(struct parquet_pages *pages, const struct parquet_page_header *header,
                     struct parquet_page *page)
{
    size_t stored = (size_t)header->stored;
    int status = page_want(pages, stored);
    if (status != 0)
        return status;
    const uint8_t *bytes = bytes_at(pages->bytes);
    if (header->has_crc && parquet_crc(bytes, stored) != header->crc)
        return parquet_pages_corrupt(pages, "its checksum does not match its bytes");
    if (header->values < 0 || header->values > INT32_MAX || header->encoding < 0 ||
        header->encoding > INT32_MAX)
        return parquet_pages_corrupt(pages, "it has no number of values, or no encoding");
    *page = (struct parquet_page){.type = (enum parquet_page_type)header->type,
                                  .encoding = (enum parquet_encoding)header->encoding,
                                  .values = (uint32_t)header->values};
    if (header->type == PARQUET_DATA_V2) {
        page->type = PARQUET_DATA;
        status = page_open_v2(pages, header, bytes, page);
    } else {
        status = page_open_v1(pages, header, bytes, page);
    }
    bytes_use(pages->bytes, stored);
    return status;
}

int parquet_pages_next(struct parquet_pages *pages, struct parquet_page *page)
{
    for (;;) {
        struct parquet_page_header header;
        pages->at = bytes_offset(pages->bytes);
        if (pages->at == pages->end)
            return 0;
        int status = page_read_header(pages, &header);
        if (status != 0)
            return status;
        if (header.type == PARQUET_INDEX) {
            bytes_seek(pages->bytes, bytes_offset(pages->bytes) + header.stored);
            continue;
        }
        if (header.type < PARQUET_DATA || header.type > PARQUET_DATA_V2)
            return parquet_pages_corrupt(pages, "it is of no known type");
        status = page_open(pages, &header, page);
        return status != 0 ? status : 1;
    }
}
