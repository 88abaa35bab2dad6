/* utf8.c - the table of well-formed byte sequences as comparisons: overlong forms, surrogates and
 * what lies beyond U+10FFFF differ from good ones in the first two bytes alone. */
#include "utf8.h"

size_t utf8_character(const uint8_t *from, size_t size)
{
    uint8_t first = from[0];
    if (first < 0x80)
        return first != 0;
    size_t length = first >= 0xc2 && first <= 0xdf   ? 2
                    : first >= 0xe0 && first <= 0xef ? 3
                    : first >= 0xf0 && first <= 0xf4 ? 4
                                                     : 0;
    if (length == 0 || length > size)
        return 0;
    uint8_t least = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t most = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (from[1] < least || from[1] > most)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (from[i] < 0x80 || from[i] > 0xbf)
            return 0;
    return length;
}
