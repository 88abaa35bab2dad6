/* parquet_crc.h - the CRC-32 of gzip (polynomial 0xEDB88320, reflected), with which writers of
 * Parquet may guard pages. */
#ifndef TOKSTREAM_PARQUET_CRC_H
#define TOKSTREAM_PARQUET_CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t parquet_crc(const uint8_t *bytes, size_t size);

#endif
