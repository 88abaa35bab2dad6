/* html.c - one character at a time; whatever is not known to be harmless is replaced. */
#include "html.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/utf8.h"

#define HTML_REPLACED "\ufffd"

/* Writes the character at `at`, and returns what follows it. */
static const char *html_character(FILE *out, const char *at)
{
    const uint8_t *bytes = (const uint8_t *)at;
    size_t length = utf8_character(bytes, strlen(at));
    if (length == 0) {
        fputs(HTML_REPLACED, out);
        return at + 1;
    }
    if (bytes[0] < 0x20) /* U+2400 ... U+241F picture U+0000 ... U+001F */
        fprintf(out, "\xe2\x90%c", 0x80 + bytes[0]);
    else if (bytes[0] == 0x7f)
        fputs("\u2421", out);
    else if (bytes[0] == 0xc2 && bytes[1] < 0xa0) /* C1 controls */
        fputs(HTML_REPLACED, out);
    else if (strchr("&<>\"'", at[0]) != NULL)
        fprintf(out, "&#%d;", at[0]);
    else
        fwrite(at, 1, length, out);
    return at + length;
}

void html_text(FILE *out, const char *text)
{
    while (*text != '\0')
        text = html_character(out, text);
}

void html_token(FILE *out, const char *text)
{
    bool blank = text[strspn(text, " ")] == '\0';
    while (*text != '\0') {
        const char *mark = *text == '\n'           ? "↵"
                           : *text == '\t'         ? "⇥"
                           : *text == ' ' && blank ? "␣"
                                                   : NULL;
        if (mark == NULL) {
            text = html_character(out, text);
        } else {
            fprintf(out, "<i>%s</i>", mark);
            text++;
        }
    }
}

void html_count(FILE *out, uint64_t value)
{
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRIu64, value);
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            fputc(',', out);
        fputc(digits[i], out);
    }
}

/* The number, with its sign in front as a minus and not a hyphen, in the value of <data>. */
static bool html_number(FILE *out, double value)
{
    if (!isfinite(value)) {
        fputs("–", out);
        return false;
    }
    fprintf(out, "<data value=\"%.9g\">%s", value, value < 0 ? "−" : "");
    return true;
}

void html_real(FILE *out, double value, int digits)
{
    if (!html_number(out, value))
        return;
    double size = fabs(value);
    int power = size > 0 ? (int)floor(log10(size)) : 0;
    if (power < -4 || power >= 6)
        fprintf(out, "%.*e", digits - 1, size);
    else if (power >= digits - 1)
        html_count(out, (uint64_t)llround(size));
    else
        fprintf(out, "%.*f", digits - 1 - power, size);
    fputs("</data>", out);
}

void html_fixed(FILE *out, double value, int decimals)
{
    if (!html_number(out, value))
        return;
    fprintf(out, "%.*f</data>", decimals, fabs(value));
}
