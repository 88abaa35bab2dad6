/* parquet_page.h - the pages of a column chunk, one after the other, expanded. */
#ifndef TOKSTREAM_PARQUET_PAGE_H
#define TOKSTREAM_PARQUET_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "parquet_meta.h"

/* Numbers of the format. */
enum parquet_page_type { PARQUET_DATA, PARQUET_INDEX, PARQUET_DICTIONARY, PARQUET_DATA_V2 };
enum parquet_encoding {
    PARQUET_PLAIN = 0,
    PARQUET_PLAIN_DICTIONARY = 2,
    PARQUET_RLE = 3,
    PARQUET_BIT_PACKED = 4,
    PARQUET_RLE_DICTIONARY = 8
};

struct parquet_page_header {
    int64_t type, expanded, stored; /* sizes of what follows the header */
    int64_t values, encoding;
    int64_t definition_encoding, repetition_encoding; /* v1 */
    int64_t definition_bytes, repetition_bytes;       /* v2 */
    bool compressed;                                  /* v2 */
    bool has_crc;
    uint32_t crc;
};

/* Parses the header at the beginning of `bytes`: its size; 0 where it is longer than `size`, -1
 * where it is none. */
int parquet_page_parse(struct parquet_page_header *header, const uint8_t *bytes, size_t size);

/* A page as it is decoded. The pointers are valid until the next parquet_pages_next(). Behind each
 * part BYTES_SLACK more bytes may be read. */
struct parquet_page {
    enum parquet_page_type type; /* DATA (of both versions) or DICTIONARY */
    enum parquet_encoding encoding;
    uint32_t values; /* levels of a data page, entries of a dictionary */
    const uint8_t *repetition, *definition, *body;
    size_t repetition_bytes, definition_bytes, body_bytes;
};

struct parquet_pages {
    struct bytes *bytes;
    enum parquet_codec codec;
    int64_t end;       /* of the chunk in the file */
    int64_t at;        /* offset of the page at hand, for messages */
    uint8_t *expanded; /* (room + BYTES_SLACK) */
    size_t room;
};

/* Sets `pages` to a chunk; zeroed before its first use. */
void parquet_pages_start(struct parquet_pages *pages, struct bytes *bytes,
                         const struct parquet_group *group);

/* The next data or dictionary page: 1, 0 at the end of the chunk, or a negative code (logged). */
int parquet_pages_next(struct parquet_pages *pages, struct parquet_page *page) MUST_CHECK;

/* Says that the page at hand is damaged, and how; ERR_DATA. */
int parquet_pages_corrupt(const struct parquet_pages *pages, const char *what);

/* Frees the memory; legal on a zeroed struct. */
void parquet_pages_free(struct parquet_pages *pages);

#endif
