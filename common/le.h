/* le.h - little-endian put and get on bytes of any alignment. The wire is never a struct dump. */
#ifndef CCPIPE_LE_H
#define CCPIPE_LE_H

#include <stdint.h>

static inline void le_put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
}

static inline void le_put32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline void le_put64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

static inline uint16_t le_get16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

static inline uint32_t le_get32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

static inline uint64_t le_get64(const uint8_t *from)
{
    return (uint64_t)le_get32(from) | (uint64_t)le_get32(from + 4) << 32;
}

#endif
