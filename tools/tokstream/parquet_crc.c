/* parquet_crc.c - CRC-32, eight bytes a step.
 *
 * table[k][b] is the remainder of byte b followed by k zero bytes, so the remainders of eight bytes
 * are looked up independently and added. Made at the first use, by whichever threads come first.
 */
#include "parquet_crc.h"

#include <pthread.h>

#include "common/le.h"

static uint32_t crc_table[8][256];

static void crc_fill(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t rest = b;
        for (int bit = 0; bit < 8; bit++)
            rest = (rest >> 1) ^ (0xedb88320u & (0u - (rest & 1)));
        crc_table[0][b] = rest;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t rest = crc_table[k - 1][b];
            crc_table[k][b] = (rest >> 8) ^ crc_table[0][rest & 0xff];
        }
}

uint32_t parquet_crc(const uint8_t *bytes, size_t size)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, crc_fill);
    uint32_t rest = 0xffffffffu;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word = le_get64(bytes) ^ rest;
        rest = 0;
        for (int k = 0; k < 8; k++)
            rest ^= crc_table[7 - k][(word >> (8 * k)) & 0xff];
    }
    for (; size > 0; bytes++, size--)
        rest = (rest >> 8) ^ crc_table[0][(rest ^ *bytes) & 0xff];
    return ~rest;
}
