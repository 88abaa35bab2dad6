/* test_html.c - what hostile text becomes in a page, and how numbers are rounded. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tools/ccanalyze/html.h"

static char *written;
static size_t written_size;
static FILE *out;

static void begin(void)
{
    out = open_memstream(&written, &written_size);
    assert_non_null(out);
}

static void gives(const char *expected)
{
    assert_int_equal(fclose(out), 0);
    assert_string_equal(written, expected);
    free(written);
}

static void text(const char *from, const char *expected)
{
    begin();
    html_text(out, from);
    gives(expected);
}

static void token(const char *from, const char *expected)
{
    begin();
    html_token(out, from);
    gives(expected);
}

static void mark_up_is_escaped(void **state)
{
    (void)state;
    text("<script>alert(1)</script>", "&#60;script&#62;alert(1)&#60;/script&#62;");
    text("\" onload='x' &amp;", "&#34; onload=&#39;x&#39; &#38;amp;");
    token("</p><img src=x>", "&#60;/p&#62;&#60;img src=x&#62;");
    text("", "");
}

static void other_text_is_kept(void **state)
{
    (void)state;
    text("a b`=/\\~", "a b`=/\\~");
    text("\xc3\xa9 \xe2\x96\x81the \xf0\x9f\x98\x80", "\xc3\xa9 \xe2\x96\x81the \xf0\x9f\x98\x80");
}

static void controls_are_pictured(void **state)
{
    (void)state;
    text("a\x01\x1b\n\x7f", "a\xe2\x90\x81\xe2\x90\x9b\xe2\x90\x8a\xe2\x90\xa1");
    text("\x1f ", "\xe2\x90\x9f ");
    text("\xc2\x85|\xc2\x9f|\xc2\xa0", "\xef\xbf\xbd|\xef\xbf\xbd|\xc2\xa0"); /* C1, and a space */
}

/* Overlong forms, surrogates, lone bytes, cut characters and what lies beyond U+10FFFF: each byte
 * is replaced by itself, and what follows is not swallowed. */
static void bytes_that_are_not_utf8_are_replaced(void **state)
{
    (void)state;
#define FFFD "\xef\xbf\xbd"
    text("\xc0\xbc", FFFD FFFD);
    text("\xe0\x80\xbc<", FFFD FFFD FFFD "&#60;");
    text("\xed\xa0\x80", FFFD FFFD FFFD);
    text("\xf4\x90\x80\x80", FFFD FFFD FFFD FFFD);
    text("\x80z", FFFD "z");
    text("\xe2\x96", FFFD FFFD);
    text("\xe2<b", FFFD "&#60;b");
    text("\xff\"", FFFD "&#34;");
}

static void white_space_of_tokens_is_seen(void **state)
{
    (void)state;
    token("\n", "<i>↵</i>");
    token("a\n\tb", "a<i>↵</i><i>⇥</i>b");
    token("  ", "<i>␣</i><i>␣</i>");
    token(" the", " the");
    token("\r", "\xe2\x90\x8d");
    token("", "");
}

static void count(uint64_t value, const char *expected)
{
    begin();
    html_count(out, value);
    gives(expected);
}

static void counts_are_in_groups(void **state)
{
    (void)state;
    count(0, "0");
    count(999, "999");
    count(1000, "1,000");
    count(16384, "16,384");
    count(399998976, "399,998,976");
    count(UINT64_MAX, "18,446,744,073,709,551,615");
}

static void real(double value, int digits, const char *expected)
{
    begin();
    html_real(out, value, digits);
    gives(expected);
}

static void reals_have_nine_digits_for_programs(void **state)
{
    (void)state;
    real(0.9376034550368786, 4, "<data value=\"0.937603455\">0.9376</data>");
    real(0.00212345, 3, "<data value=\"0.00212345\">0.00212</data>");
    real(-12.5, 4, "<data value=\"-12.5\">−12.50</data>");
    real(0, 3, "<data value=\"0\">0.00</data>");
    real(51469.3, 3, "<data value=\"51469.3\">51,469</data>");
    real(1e-7, 3, "<data value=\"1e-07\">1.00e-07</data>");
    real(2.5e6, 3, "<data value=\"2500000\">2.50e+06</data>");
    real((double)NAN, 3, "–");
    real((double)INFINITY, 3, "–");
}

static void fixed_reals_have_their_decimals(void **state)
{
    (void)state;
    begin();
    html_fixed(out, 0.0123456, 3);
    html_fixed(out, -0.5, 3);
    html_fixed(out, (double)NAN, 3);
    gives("<data value=\"0.0123456\">0.012</data><data value=\"-0.5\">−0.500</data>–");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mark_up_is_escaped),
        cmocka_unit_test(other_text_is_kept),
        cmocka_unit_test(controls_are_pictured),
        cmocka_unit_test(bytes_that_are_not_utf8_are_replaced),
        cmocka_unit_test(white_space_of_tokens_is_seen),
        cmocka_unit_test(counts_are_in_groups),
        cmocka_unit_test(reals_have_nine_digits_for_programs),
        cmocka_unit_test(fixed_reals_have_their_decimals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
