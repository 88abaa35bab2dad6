/* utf8.h - where a character of UTF-8 ends, for text that others wrote. */
#ifndef CCPIPE_UTF8_H
#define CCPIPE_UTF8_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of the well-formed character that begins at `from` (Unicode, table 3-7), of which `size` >=
 * 1 bytes may be read; or 0. U+0000 counts as ill-formed: a string cannot hold it. */
size_t utf8_character(const uint8_t *from, size_t size);

#ifdef __cplusplus
}
#endif
#endif
