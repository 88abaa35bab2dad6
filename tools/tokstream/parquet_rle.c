/* parquet_rle.c - see parquet_rle.h.
 *
 * Values are cut out of 64-bit words loaded at any byte: a value of up to 32 bits begins within the
 * first 8 bits of such a word, so one load is enough. The words are loaded up to 8 bytes beyond the
 * end, which the caller's buffer allows; those bytes are never part of a value.
 *
 * A packed run may announce more values than the last of its bytes hold, as some writers do not
 * fill up the last group; it ends with its bytes.
 */
#include "parquet_rle.h"

#include "common/le.h"

void parquet_rle_init(struct parquet_rle *rle, const uint8_t *bytes, size_t size, unsigned width)
{
    *rle = (struct parquet_rle){.next = bytes, .end = bytes + size, .width = width};
}

static bool rle_varint(struct parquet_rle *rle, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 35 && rle->next < rle->end; shift += 7) {
        uint8_t byte = *rle->next++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return true;
    }
    return false;
}

static void rle_begin_packed(struct parquet_rle *rle, uint64_t groups)
{
    uint64_t there = (uint64_t)(rle->end - rle->next), bytes = groups * rle->width;
    rle->left = groups * 8;
    if (bytes > there) {
        bytes = there;
        rle->left = bytes * 8 / rle->width;
    }
    rle->packed_at = rle->next;
    rle->packed_index = 0;
    rle->next += bytes;
}

static bool rle_begin_equal(struct parquet_rle *rle, uint64_t count)
{
    size_t size = (rle->width + 7) / 8;
    if ((size_t)(rle->end - rle->next) < size)
        return false;
    rle->value = 0;
    for (size_t i = 0; i < size; i++)
        rle->value |= (uint32_t)rle->next[i] << (8 * i);
    rle->next += size;
    rle->left = count;
    return rle->width == 32 || rle->value >> rle->width == 0;
}

/* The next run that is not empty. A dictionary of one entry needs no bits, and some writers then
 * write no runs either. */
static bool rle_begin_run(struct parquet_rle *rle)
{
    while (rle->left == 0) {
        uint64_t header;
        if (rle->width == 0 && rle->next == rle->end) {
            rle->packed = false;
            rle->value = 0;
            rle->left = UINT64_MAX;
            return true;
        }
        if (!rle_varint(rle, &header))
            return false;
        rle->packed = (header & 1) != 0;
        if (rle->packed)
            rle_begin_packed(rle, header >> 1);
        else if (!rle_begin_equal(rle, header >> 1))
            return false;
    }
    return true;
}

static inline uint32_t rle_packed_value(const struct parquet_rle *rle, uint64_t i)
{
    uint64_t bit = i * rle->width;
    uint64_t mask = ((uint64_t)1 << rle->width) - 1;
    return (uint32_t)(le_get64(rle->packed_at + (bit >> 3)) >> (bit & 7) & mask);
}

/* Equal bits from a packed run of width 1, up to 56 at once. */
static uint64_t rle_equal_bits(const struct parquet_rle *rle, uint64_t i, uint32_t value)
{
    uint64_t bits = le_get64(rle->packed_at + (i >> 3)) >> (i & 7);
    uint64_t other = (value != 0 ? ~bits : bits) | (uint64_t)1 << 56;
    return (uint64_t)__builtin_ctzll(other);
}

uint64_t parquet_rle_run(struct parquet_rle *rle, uint64_t most, uint32_t *value)
{
    if (!rle_begin_run(rle))
        return 0;
    uint64_t limit = rle->left < most ? rle->left : most, count = limit;
    if (!rle->packed) {
        *value = rle->value;
    } else {
        uint64_t at = rle->packed_index;
        *value = rle_packed_value(rle, at);
        if (rle->width == 1) {
            count = rle_equal_bits(rle, at, *value);
            count = count < limit ? count : limit;
        } else {
            count = 1;
            while (count < limit && rle_packed_value(rle, at + count) == *value)
                count++;
        }
        rle->packed_index += count;
    }
    rle->left -= count;
    return count;
}

bool parquet_rle_values(struct parquet_rle *rle, uint32_t *to, size_t count)
{
    while (count > 0) {
        if (!rle_begin_run(rle))
            return false;
        size_t n = rle->left < count ? (size_t)rle->left : count;
        if (rle->packed) {
            uint64_t at = rle->packed_index;
            for (size_t i = 0; i < n; i++)
                to[i] = rle_packed_value(rle, at + i);
            rle->packed_index += n;
        } else {
            for (size_t i = 0; i < n; i++)
                to[i] = rle->value;
        }
        rle->left -= n;
        to += n;
        count -= n;
    }
    return true;
}
