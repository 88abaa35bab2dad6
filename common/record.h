/* record.h - the 80-byte header in front of every record (doc/FORMAT.md has the same table).
 *
 *  offset size
 *       0    4  magic "CCPS"
 *       4    2  version, 1
 *       6    2  type: BEGIN 1, DATA 2, END 3, ABORT 4, MARK 5
 *       8    4  flags: bit 0 PLANES; all others 0
 *      12    4  reserved, 0
 *      16   16  run id: XXH3-128 of BEGIN's payload, low half first
 *      32    8  sequence number of the record, BEGIN is 0
 *      40    8  number of the first row
 *      48    4  rows
 *      52    4  payload bytes, at most 64 MiB
 *      56    8  reserved, 0
 *      64    8  XXH3-64 of the payload
 *      72    8  XXH3-64 of bytes 0 to 71
 */
#ifndef CCPIPE_RECORD_H
#define CCPIPE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define RECORD_MAGIC "CCPS"
#define RECORD_RUN_BYTES 16

struct record_header {
    uint16_t type; /* enum stream_type */
    uint32_t flags;
    uint8_t run[RECORD_RUN_BYTES];
    uint64_t sequence, first_row;
    uint32_t rows, payload_bytes;
    uint64_t payload_hash;
};

/* Writes the 80 bytes; payload_hash and payload_bytes are those of the struct. */
void record_header_put(uint8_t *to, const struct record_header *header);

/* Reads and checks 80 bytes. NULL, or what is wrong with them, a static string. */
const char *record_header_get(struct record_header *header, const uint8_t *from);

/* XXH3-64 of a payload; the run id of a BEGIN payload. */
uint64_t record_hash(const void *payload, size_t size);
void record_run_id(uint8_t run[RECORD_RUN_BYTES], const void *payload, size_t size);

/* 32 hexadecimal digits of a run id, high half first, and a 0. */
void record_run_hex(char hex[33], const uint8_t run[RECORD_RUN_BYTES]);

/* "BEGIN", "DATA", ... or "?". */
const char *record_type_name(uint16_t type);

/* ---- byte planes: the elements' bytes split by significance, all most significant bytes first */

/* n elements of `size` bytes (2 or 4) from `from` to `to`, which do not overlap. */
void record_planes_split(uint8_t *to, const uint8_t *from, size_t n, size_t size);
void record_planes_join(uint8_t *to, const uint8_t *from, size_t n, size_t size);

#endif
