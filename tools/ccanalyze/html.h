/* html.h - text and numbers into a page, safely.
 *
 * Names and tokens come from files that others wrote, so every one of them passes through here:
 * what comes out holds no mark-up, is valid UTF-8, and fits into element content and into
 * attributes in double quotes. Whether writing worked is for the caller to see from the FILE at the
 * end.
 */
#ifndef CCANALYZE_HTML_H
#define CCANALYZE_HTML_H

#include <stdint.h>
#include <stdio.h>

/* Escapes & < > " and '. Control characters become their pictures (U+2400 on), newline and tab too;
 * bytes that are not UTF-8, and C1 controls, become U+FFFD. */
void html_text(FILE *out, const char *text);

/* A token for element content: as html_text(), with ↵ and ⇥ for newline and tab, and ␣ for each
 * space of a token that is nothing but spaces; these marks stand in <i>. */
void html_token(FILE *out, const char *text);

/* "16,384". */
void html_count(FILE *out, uint64_t value);

/* Rounded for the eye to `digits` significant ones, in full from 0.0001 up to a million, or to so
 * many `decimals`, for columns of like numbers. The value of the <data> element around it has nine
 * digits, which give every f32 back and are those of the tables; an en dash, without an element,
 * where it is not finite. */
void html_real(FILE *out, double value, int digits);
void html_fixed(FILE *out, double value, int decimals);

#endif
