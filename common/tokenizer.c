/* tokenizer.c - id -> piece out of tokenizer.json.
 *
 * The file's JSON is hundreds of MB once parsed (merges above all) and is let go as soon as the
 * pieces are copied. They are copied into one block of records in order of id, u32 id, u32 length,
 * u8 added, length bytes of UTF-8, 0 little-endian; the pieces point into it, and the hash is that
 * of the block. So the hash knows ids, pieces and which of them are added tokens, and nothing of
 * the file's form.
 *
 * An added token takes its id from the model's vocabulary where both have it, as the tokenizers
 * library does. Merges, normalizers and decoders are not read: for display, a piece is text with ▁
 * for a space, or a byte "<0xNN>".
 */
#include "tokenizer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "io.h"
#include "json.h"
#include "le.h"
#include "log.h"
#include "mem.h"
#include "utf8.h"

#define TOKENIZER_MAX_BYTES ((size_t)256 << 20) /* of the file */
#define TOKENIZER_MAX_IDS (1u << 22)
#define TOKENIZER_RECORD_HEAD 9
#define TOKENIZER_SPACE "\xe2\x96\x81"    /* ▁ U+2581 */
#define TOKENIZER_REPLACED "\xef\xbf\xbd" /* U+FFFD */

struct tokenizer {
    const char **pieces; /* (size), into the block; NULL: no such id */
    uint32_t size;
    uint8_t *block;
    size_t block_bytes;
};

/* While reading: where each id's piece is in the JSON. */
struct tokenizer_draft {
    const char **pieces; /* (TOKENIZER_MAX_IDS at most), borrowed from the JSON */
    uint8_t *added;
    uint32_t size, room;
    const char *name;
};

/* ---- reading */

static int tokenizer_draft_reserve(struct tokenizer_draft *draft, uint32_t size)
{
    if (size > draft->room) {
        uint32_t room = size < 1024                    ? 1024
                        : size < TOKENIZER_MAX_IDS / 2 ? size * 2
                                                       : TOKENIZER_MAX_IDS;
        const char **pieces = mem_resize(draft->pieces, room, sizeof *pieces);
        if (pieces != NULL)
            draft->pieces = pieces;
        uint8_t *added = mem_resize(draft->added, room, 1);
        if (added != NULL)
            draft->added = added;
        if (pieces == NULL || added == NULL)
            return mem_fail("a vocabulary", room, sizeof *pieces);
        draft->room = room;
    }
    for (; draft->size < size; draft->size++) {
        draft->pieces[draft->size] = NULL;
        draft->added[draft->size] = 0;
    }
    return 0;
}

/* Enters a piece under its id. */
static int tokenizer_draft_set(struct tokenizer_draft *draft, const json_t *id, const char *piece,
                               bool added)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 ||
        json_integer_value(id) >= (json_int_t)TOKENIZER_MAX_IDS)
        return log_fail(ERR_DATA, "'%s': the id of '%s' is not an integer below %u", draft->name,
                        piece, TOKENIZER_MAX_IDS);
    uint32_t at = (uint32_t)json_integer_value(id);
    int status = tokenizer_draft_reserve(draft, at + 1 > draft->size ? at + 1 : draft->size);
    if (status != 0)
        return status;
    const char *before = draft->pieces[at];
    bool overrides = added && draft->added[at] == 0;
    if (before != NULL && !overrides && strcmp(before, piece) != 0)
        return log_fail(ERR_DATA, "'%s': id %" PRIu32 " is both '%s' and '%s'", draft->name, at,
                        before, piece);
    draft->pieces[at] = piece;
    draft->added[at] = added;
    return 0;
}

/* BPE, WordPiece, WordLevel: {piece: id}. */
static int tokenizer_read_object(struct tokenizer_draft *draft, const json_t *vocab)
{
    const char *piece;
    json_t *id;
    int status;
    json_object_foreach((json_t *)vocab, piece,
                        id) if ((status = tokenizer_draft_set(draft, id, piece, false)) !=
                                0) return status;
    return 0;
}

/* Unigram: [[piece, score], ...], the place is the id. */
static int tokenizer_read_list(struct tokenizer_draft *draft, const json_t *vocab)
{
    size_t count = json_array_size(vocab);
    if (count > TOKENIZER_MAX_IDS)
        return log_fail(ERR_DATA, "'%s': %zu pieces, more than %u", draft->name, count,
                        TOKENIZER_MAX_IDS);
    int status = tokenizer_draft_reserve(draft, (uint32_t)count);
    for (size_t i = 0; i < count && status == 0; i++) {
        const char *piece = json_string_value(json_array_get(json_array_get(vocab, i), 0));
        if (piece == NULL)
            return log_fail(ERR_DATA, "'%s': entry %zu of model.vocab has no piece", draft->name,
                            i);
        draft->pieces[i] = piece;
    }
    return status;
}

static int tokenizer_read_added(struct tokenizer_draft *draft, const json_t *list)
{
    if (list == NULL || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return log_fail(ERR_DATA, "'%s': added_tokens is not a list", draft->name);
    size_t i;
    json_t *token;
    json_array_foreach((json_t *)list, i, token)
    {
        const char *content = json_string_value(json_object_get(token, "content"));
        if (content == NULL)
            return log_fail(ERR_DATA, "'%s': entry %zu of added_tokens has no content", draft->name,
                            i);
        int status = tokenizer_draft_set(draft, json_object_get(token, "id"), content, true);
        if (status != 0)
            return status;
    }
    return 0;
}

static int tokenizer_read(struct tokenizer_draft *draft, const json_t *root)
{
    const json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    int status;
    if (json_is_object(vocab))
        status = tokenizer_read_object(draft, vocab);
    else if (json_is_array(vocab))
        status = tokenizer_read_list(draft, vocab);
    else
        status =
            log_fail(ERR_DATA, "'%s': model.vocab is neither an object nor a list", draft->name);
    if (status != 0)
        return status;
    status = tokenizer_read_added(draft, json_object_get(root, "added_tokens"));
    if (status == 0 && draft->size == 0)
        status = log_fail(ERR_DATA, "'%s': the vocabulary is empty", draft->name);
    return status;
}

/* Copies the draft into the block of records. */
static int tokenizer_fill(struct tokenizer *tokenizer, const struct tokenizer_draft *draft)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < draft->size; i++) /* all of it is inside a file of 256 MiB */
        if (draft->pieces[i] != NULL)
            bytes += TOKENIZER_RECORD_HEAD + strlen(draft->pieces[i]) + 1;
    tokenizer->pieces = mem_alloc_zero(draft->size, sizeof *tokenizer->pieces);
    tokenizer->block = mem_alloc(bytes, 1);
    if (tokenizer->pieces == NULL || tokenizer->block == NULL)
        return mem_fail("a vocabulary", bytes, 1);
    tokenizer->size = draft->size;
    tokenizer->block_bytes = bytes;
    uint8_t *next = tokenizer->block;
    for (uint32_t i = 0; i < draft->size; i++) {
        if (draft->pieces[i] == NULL)
            continue;
        size_t length = strlen(draft->pieces[i]);
        le_put32(next, i);
        le_put32(next + 4, (uint32_t)length);
        next[8] = draft->added[i];
        memcpy(next + TOKENIZER_RECORD_HEAD, draft->pieces[i], length + 1);
        tokenizer->pieces[i] = (const char *)next + TOKENIZER_RECORD_HEAD;
        next += TOKENIZER_RECORD_HEAD + length + 1;
    }
    return 0;
}

int tokenizer_parse(struct tokenizer **tokenizer, const char *text, size_t size, const char *name)
{
    *tokenizer = NULL;
    json_t *root = json_parse(text, size, name);
    if (root == NULL)
        return ERR_DATA;
    struct tokenizer_draft draft = {.name = name};
    struct tokenizer *made = NULL;
    int status = tokenizer_read(&draft, root);
    if (status == 0 && (made = mem_alloc_zero(1, sizeof *made)) == NULL)
        status = mem_fail("a vocabulary", 1, sizeof *made);
    if (status == 0)
        status = tokenizer_fill(made, &draft);
    free((void *)draft.pieces);
    free(draft.added);
    json_decref(root);
    if (status != 0) {
        tokenizer_free(made);
        return status;
    }
    *tokenizer = made;
    return 0;
}

int tokenizer_open_folder(struct tokenizer **tokenizer, const char *folder)
{
    *tokenizer = NULL;
    char *text = NULL, *path = io_join(folder, "tokenizer.json");
    size_t size = 0;
    struct stat found;
    if (path == NULL)
        return mem_fail("a path", strlen(folder), 1);
    int status = 0;
    if (stat(path, &found) != 0)
        log_verbose("'%s' has no tokenizer.json", folder);
    else if (!S_ISREG(found.st_mode)) /* open() of a pipe would wait */
        status = log_fail(ERR_USAGE, "'%s' is not a regular file", path);
    else if ((status = io_read_file(&text, &size, path, TOKENIZER_MAX_BYTES)) == 0)
        status = tokenizer_parse(tokenizer, text, size, path);
    free(text);
    free(path);
    return status;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
    if (tokenizer == NULL)
        return;
    free((void *)tokenizer->pieces);
    free(tokenizer->block);
    free(tokenizer);
}

/* ---- look-ups */

uint32_t tokenizer_size(const struct tokenizer *tokenizer)
{
    return tokenizer->size;
}

const char *tokenizer_piece(const struct tokenizer *tokenizer, uint32_t id)
{
    return id < tokenizer->size ? tokenizer->pieces[id] : NULL;
}

void tokenizer_hash(const struct tokenizer *tokenizer, char hex[33])
{
    XXH128_hash_t hash = XXH3_128bits(tokenizer->block, tokenizer->block_bytes);
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

/* ---- text */

struct tokenizer_text {
    char *bytes;
    size_t size, room;
    bool failed;
};

static void tokenizer_text_add(struct tokenizer_text *text, const char *from, size_t size)
{
    if (text->failed)
        return;
    size_t needed = text->size + size + 1;
    if (needed > text->room) {
        size_t room = needed < 64 ? 64 : needed > SIZE_MAX / 2 ? needed : needed * 2;
        char *bytes = mem_resize(text->bytes, room, 1);
        if (bytes == NULL) {
            text->failed = true;
            return;
        }
        text->bytes = bytes;
        text->room = room;
    }
    memcpy(text->bytes + text->size, from, size);
    text->size += size;
    text->bytes[text->size] = '\0';
}

static int tokenizer_hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of a piece "<0xNN>", or -1. */
static int tokenizer_byte(const char *piece)
{
    if (strlen(piece) != 6 || strncmp(piece, "<0x", 3) != 0 || piece[5] != '>')
        return -1;
    int high = tokenizer_hex_digit(piece[3]), low = tokenizer_hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static void tokenizer_text_add_bytes(struct tokenizer_text *text, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size;) {
        size_t length = utf8_character(bytes + i, size - i);
        if (length == 0)
            tokenizer_text_add(text, TOKENIZER_REPLACED, strlen(TOKENIZER_REPLACED));
        else
            tokenizer_text_add(text, (const char *)bytes + i, length);
        i += length == 0 ? 1 : length;
    }
}

static void tokenizer_text_add_piece(struct tokenizer_text *text, const char *piece)
{
    const char *space;
    for (; (space = strstr(piece, TOKENIZER_SPACE)) != NULL;
         piece = space + strlen(TOKENIZER_SPACE)) {
        tokenizer_text_add(text, piece, (size_t)(space - piece));
        tokenizer_text_add(text, " ", 1);
    }
    tokenizer_text_add(text, piece, strlen(piece));
}

char *tokenizer_text(const struct tokenizer *tokenizer, const uint32_t *ids, size_t n)
{
    struct tokenizer_text text = {.bytes = NULL};
    tokenizer_text_add(&text, "", 0);
    uint8_t *run = mem_alloc(n, 1); /* byte pieces not written yet */
    size_t run_size = 0;
    for (size_t i = 0; i < n && run != NULL; i++) {
        const char *piece = tokenizer_piece(tokenizer, ids[i]);
        int byte = piece == NULL ? -1 : tokenizer_byte(piece);
        if (byte >= 0) {
            run[run_size++] = (uint8_t)byte;
            continue;
        }
        tokenizer_text_add_bytes(&text, run, run_size);
        run_size = 0;
        char number[32];
        snprintf(number, sizeof number, "<id %" PRIu32 ">", ids[i]);
        tokenizer_text_add_piece(&text, piece == NULL ? number : piece);
    }
    if (run != NULL)
        tokenizer_text_add_bytes(&text, run, run_size);
    if (run == NULL || text.failed) {
        free(text.bytes);
        text.bytes = NULL;
    }
    free(run);
    return text.bytes;
}
