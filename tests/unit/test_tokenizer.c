/* test_tokenizer.c - tokenizer.json files of the tokenizers library, with the text it decodes and a
 * hash computed from its own id -> piece; and files that are wrong.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io.h"
#include "common/log.h"
#include "common/tokenizer.h"

#define FILES "tests/golden/files/"
#define MAX_IDS 64

static struct tokenizer *parse(const char *text)
{
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_parse(&tokenizer, text, strlen(text), "text"), 0);
    return tokenizer;
}

static void assert_text(const struct tokenizer *tokenizer, const uint32_t *ids, size_t n,
                        const char *expected)
{
    char *text = tokenizer_text(tokenizer, ids, n);
    assert_non_null(text);
    assert_string_equal(text, expected);
    free(text);
}

/* ---- files of the library */

/* One line of expected.tsv: ids, a tab, hexadecimal UTF-8. */
static void check_line(const struct tokenizer *tokenizer, char *line)
{
    uint32_t ids[MAX_IDS];
    size_t n = 0, length = 0;
    char expected[256], *tab = strchr(line, '\t'), *next = line;
    assert_non_null(tab);
    while (next < tab) {
        assert_true(n < MAX_IDS);
        ids[n++] = (uint32_t)strtoul(next, &next, 10);
    }
    for (const char *hex = tab + 1; hex[0] > ' '; hex += 2) {
        unsigned byte;
        assert_int_equal(sscanf(hex, "%2x", &byte), 1);
        expected[length++] = (char)byte;
    }
    expected[length] = '\0';
    assert_text(tokenizer, ids, n, expected);
}

static void check_folder(const char *folder, unsigned least_lines)
{
    struct tokenizer *tokenizer;
    char path[256], line[1024], hash[33];
    unsigned lines = 0;
    assert_int_equal(tokenizer_open_folder(&tokenizer, folder), 0);
    assert_non_null(tokenizer);
    snprintf(path, sizeof path, "%s/expected.tsv", folder);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (; fgets(line, sizeof line, file) != NULL; lines++)
        check_line(tokenizer, line);
    fclose(file);
    assert_true(lines >= least_lines);
    snprintf(path, sizeof path, "%s/hash", folder);
    file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, 33, file));
    fclose(file);
    tokenizer_hash(tokenizer, hash);
    assert_string_equal(hash, line);
    tokenizer_free(tokenizer);
}

static void test_text_and_hash_of_the_library(void **state)
{
    (void)state;
    check_folder(FILES "bpe", 10);
    check_folder(FILES "unigram", 2);
}

static void test_pieces(void **state)
{
    (void)state;
    struct tokenizer *tokenizer;
    assert_int_equal(tokenizer_open_folder(&tokenizer, FILES "bpe"), 0);
    assert_string_equal(tokenizer_piece(tokenizer, 2), "<bos>");
    assert_string_equal(tokenizer_piece(tokenizer, 4), "<0x00>");
    assert_string_equal(tokenizer_piece(tokenizer, 4 + 255), "<0xFF>");
    assert_string_equal(tokenizer_piece(tokenizer, 266), "▁the");
    assert_string_equal(tokenizer_piece(tokenizer, 270), "<start_of_turn>");
    assert_int_equal(tokenizer_size(tokenizer), 272);
    assert_null(tokenizer_piece(tokenizer, 272));
    assert_null(tokenizer_piece(tokenizer, UINT32_MAX));
    tokenizer_free(tokenizer);
}

static void test_a_folder_without_one(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = (struct tokenizer *)&state;
    assert_int_equal(tokenizer_open_folder(&tokenizer, FILES "sharded"), 0);
    assert_null(tokenizer);
    tokenizer_free(NULL);
}

static void test_a_pipe_is_refused(void **state)
{
    (void)state;
    char folder[] = "/tmp/test_tokenizer.XXXXXX", path[64];
    struct tokenizer *tokenizer;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(tokenizer_open_folder(&tokenizer, folder), ERR_USAGE);
    assert_null(tokenizer);
    unlink(path);
    rmdir(folder);
}

/* ---- text */

#define BYTES                                                                                  \
    "{\"model\":{\"vocab\":{\"<0xC3>\":0,\"<0xA9>\":1,\"<0xE2>\":2,\"<0x00>\":3,\"<0xED>\":4," \
    "\"<0xA0>\":5,\"<0x80>\":6,\"<0xc3>\":7,\"a\":8,\"<0xF4>\":9,\"<0x90>\":10,\"<0xC0>\":11}}}"

/* A part of a run that is UTF-8 is kept; each other byte is one U+FFFD. */
static void test_bytes_that_are_not_utf8(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = parse(BYTES);
    assert_text(tokenizer, (uint32_t[]){0, 1}, 2, "é");
    assert_text(tokenizer, (uint32_t[]){1, 0, 1, 0}, 4, "\uFFFDé\uFFFD");
    assert_text(tokenizer, (uint32_t[]){0, 8, 1}, 3, "\uFFFDa\uFFFD");
    assert_text(tokenizer, (uint32_t[]){2, 0, 1}, 3, "\uFFFDé");
    assert_text(tokenizer, (uint32_t[]){3}, 1, "\uFFFD");                   /* U+0000 */
    assert_text(tokenizer, (uint32_t[]){4, 5, 6}, 3, "\uFFFD\uFFFD\uFFFD"); /* a surrogate */
    assert_text(tokenizer, (uint32_t[]){9, 10, 6, 6}, 4, "\uFFFD\uFFFD\uFFFD\uFFFD");
    assert_text(tokenizer, (uint32_t[]){11, 6}, 2, "\uFFFD\uFFFD"); /* overlong */
    assert_text(tokenizer, (uint32_t[]){7}, 1, "<0xc3>");           /* not how bytes are written */
    tokenizer_free(tokenizer);
}

static void test_ids_without_a_piece(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = parse("{\"model\":{\"vocab\":{\"▁a\":1,\"b\":9}}}");
    assert_int_equal(tokenizer_size(tokenizer), 10);
    assert_null(tokenizer_piece(tokenizer, 5));
    assert_text(tokenizer, (uint32_t[]){1, 5, 9, 4294967295u}, 4, " a<id 5>b<id 4294967295>");
    assert_text(tokenizer, NULL, 0, "");
    tokenizer_free(tokenizer);
}

static void test_long_text(void **state)
{
    (void)state;
    enum { N = 20000 };
    struct tokenizer *tokenizer = parse("{\"model\":{\"vocab\":{\"▁word\":0}}}");
    uint32_t *ids = calloc(N, sizeof *ids);
    assert_non_null(ids);
    char *text = tokenizer_text(tokenizer, ids, N);
    assert_non_null(text);
    assert_int_equal(strlen(text), 5 * N);
    for (size_t i = 0; i < N; i++)
        assert_memory_equal(text + 5 * i, " word", 5);
    free(text);
    free(ids);
    tokenizer_free(tokenizer);
}

/* ---- the hash */

static void assert_same_hash(const char *left, const char *right, int same)
{
    struct tokenizer *a = parse(left), *b = parse(right);
    char hash_a[33], hash_b[33];
    tokenizer_hash(a, hash_a);
    tokenizer_hash(b, hash_b);
    assert_int_equal(strlen(hash_a), 32);
    assert_int_equal(strcmp(hash_a, hash_b) == 0, same);
    tokenizer_free(a);
    tokenizer_free(b);
}

static void test_the_hash_knows_content_and_not_form(void **state)
{
    (void)state;
    static const char *const base =
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1}},\"added_tokens\":[{\"id\":2,\"content\":\"c\"}]}";
    static const char *const same[] = {
        "{\"added_tokens\" : [ {\"content\":\"c\", \"special\":true, \"id\":2} ],\n"
        " \"model\": {\"merges\": [\"a b\"], \"vocab\": {\"b\": 1, \"\\u0061\": 0}}}",
        "{\"model\":{\"vocab\":[[\"a\",-1.5],[\"b\",0]]},"
        "\"added_tokens\":[{\"id\":2,\"content\":\"c\"}]}",
        /* an added token that the vocabulary has as well, under the same or another name */
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2}},"
        "\"added_tokens\":[{\"id\":2,\"content\":\"c\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"x\":2}},"
        "\"added_tokens\":[{\"id\":2,\"content\":\"c\"},{\"id\":2,\"content\":\"c\"}]}",
    };
    static const char *const other[] = {
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2}}}",
        "{\"model\":{\"vocab\":{\"a\":1,\"b\":0}},\"added_tokens\":[{\"id\":2,\"content\":\"c\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1}},\"added_tokens\":[{\"id\":3,\"content\":\"c\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1}},\"added_tokens\":[{\"id\":2,\"content\":\"C\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":1}}}",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_same_hash(base, same[i], 1);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_same_hash(base, other[i], 0);
}

/* ---- what is wrong */

static void test_malformed_files(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"model\":{}}",
        "{\"model\":{\"vocab\":3}}",
        "{\"model\":{\"vocab\":{}}}",
        "{\"model\":{\"vocab\":[]}}",
        "{\"model\":{\"vocab\":{\"a\":-1}}}",
        "{\"model\":{\"vocab\":{\"a\":4194304}}}",
        "{\"model\":{\"vocab\":{\"a\":99999999999999999999}}}",
        "{\"model\":{\"vocab\":{\"a\":1.0}}}",
        "{\"model\":{\"vocab\":{\"a\":\"0\"}}}",
        "{\"model\":{\"vocab\":{\"a\":0,\"b\":0}}}",
        "{\"model\":{\"vocab\":{\"a\":0,\"a\":1}}}",
        "{\"model\":{\"vocab\":[\"a\"]}}",
        "{\"model\":{\"vocab\":[[1,\"a\"]]}}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":{}}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[3]}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"id\":1}]}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"content\":\"b\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"id\":-1,\"content\":\"b\"}]}",
        "{\"model\":{\"vocab\":{\"a\":0}},\"added_tokens\":[{\"id\":1,\"content\":\"b\"},"
        "{\"id\":1,\"content\":\"c\"}]}",
        "{\"model\":{\"vocab\":{\"\xff\":0}}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct tokenizer *tokenizer = (struct tokenizer *)&state;
        int status = tokenizer_parse(&tokenizer, texts[i], strlen(texts[i]), "text");
        if (status != ERR_DATA)
            print_error("%s\n", texts[i]);
        assert_int_equal(status, ERR_DATA);
        assert_null(tokenizer);
    }
}

static void test_the_largest_id(void **state)
{
    (void)state;
    struct tokenizer *tokenizer = parse("{\"model\":{\"vocab\":{\"a\":4194303,\"b\":7}}}");
    assert_int_equal(tokenizer_size(tokenizer), 4194304);
    assert_string_equal(tokenizer_piece(tokenizer, 4194303), "a");
    assert_string_equal(tokenizer_piece(tokenizer, 7), "b");
    tokenizer_free(tokenizer);
}

int main(void)
{
    log_init("test_tokenizer", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_and_hash_of_the_library),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_a_folder_without_one),
        cmocka_unit_test(test_a_pipe_is_refused),
        cmocka_unit_test(test_bytes_that_are_not_utf8),
        cmocka_unit_test(test_ids_without_a_piece),
        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_the_hash_knows_content_and_not_form),
        cmocka_unit_test(test_malformed_files),
        cmocka_unit_test(test_the_largest_id),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
