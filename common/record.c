/* record.c - encoding and checking of record headers, and the byte planes. */
#include "record.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "le.h"
#include "stream.h"

void record_header_put(uint8_t *to, const struct record_header *header)
{
    memcpy(to, RECORD_MAGIC, 4);
    le_put16(to + 4, STREAM_VERSION);
    le_put16(to + 6, header->type);
    le_put32(to + 8, header->flags);
    le_put32(to + 12, 0);
    memcpy(to + 16, header->run, RECORD_RUN_BYTES);
    le_put64(to + 32, header->sequence);
    le_put64(to + 40, header->first_row);
    le_put32(to + 48, header->rows);
    le_put32(to + 52, header->payload_bytes);
    le_put64(to + 56, 0);
    le_put64(to + 64, header->payload_hash);
    le_put64(to + 72, XXH3_64bits(to, 72));
}

const char *record_header_get(struct record_header *header, const uint8_t *from)
{
    if (memcmp(from, RECORD_MAGIC, 4) != 0)
        return "no record begins here (bad magic)";
    if (XXH3_64bits(from, 72) != le_get64(from + 72))
        return "the record header's checksum does not match";
    if (le_get16(from + 4) != STREAM_VERSION)
        return "a version of the format that this program does not read";
    header->type = le_get16(from + 6);
    header->flags = le_get32(from + 8);
    memcpy(header->run, from + 16, RECORD_RUN_BYTES);
    header->sequence = le_get64(from + 32);
    header->first_row = le_get64(from + 40);
    header->rows = le_get32(from + 48);
    header->payload_bytes = le_get32(from + 52);
    header->payload_hash = le_get64(from + 64);
    if (le_get32(from + 12) != 0 || le_get64(from + 56) != 0)
        return "reserved bytes of the record header are not 0";
    if (header->type < STREAM_BEGIN || header->type > STREAM_MARK)
        return "unknown record type";
    if ((header->flags & ~STREAM_PLANES) != 0 ||
        (header->flags != 0 && header->type != STREAM_DATA))
        return "unknown flags";
    if (header->payload_bytes > STREAM_MAX_PAYLOAD)
        return "the payload is larger than 64 MiB";
    return NULL;
}

uint64_t record_hash(const void *payload, size_t size)
{
    return XXH3_64bits(payload, size);
}

void record_run_id(uint8_t run[RECORD_RUN_BYTES], const void *payload, size_t size)
{
    XXH128_hash_t hash = XXH3_128bits(payload, size);
    le_put64(run, hash.low64);
    le_put64(run + 8, hash.high64);
}

void record_run_hex(char hex[33], const uint8_t run[RECORD_RUN_BYTES])
{
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)le_get64(run + 8),
             (unsigned long long)le_get64(run));
}

const char *record_type_name(uint16_t type)
{
    static const char *const names[] = {"?", "BEGIN", "DATA", "END", "ABORT", "MARK"};
    return names[type <= STREAM_MARK ? type : 0];
}

/* The two widths are written out so that the compiler sees constant strides and vectorises. */

void record_planes_split(uint8_t *to, const uint8_t *from, size_t n, size_t size)
{
    if (size == 2) {
        for (size_t i = 0; i < n; i++) {
            to[i] = from[2 * i + 1];
            to[n + i] = from[2 * i];
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        to[i] = from[4 * i + 3];
        to[n + i] = from[4 * i + 2];
        to[2 * n + i] = from[4 * i + 1];
        to[3 * n + i] = from[4 * i];
    }
}

void record_planes_join(uint8_t *to, const uint8_t *from, size_t n, size_t size)
{
    if (size == 2) {
        for (size_t i = 0; i < n; i++) {
            to[2 * i] = from[n + i];
            to[2 * i + 1] = from[i];
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        to[4 * i] = from[3 * n + i];
        to[4 * i + 1] = from[2 * n + i];
        to[4 * i + 2] = from[n + i];
        to[4 * i + 3] = from[i];
    }
}
