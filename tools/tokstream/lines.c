/* lines.c - ids as text and JSON lines.
 *
 * Read in order, a file is read once and nothing is kept but the line at hand. To reach sequences
 * singly, lines_index() notes where each line begins: 8 bytes a sequence. A last line without its
 * newline counts; a newline at the very end begins no further one.
 *
 * JSON is parsed by jansson, so that all of it is checked; what takes time in a run that trains on
 * the tokens is elsewhere.
 */
#include "lines.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

/* Parsed JSON takes at most this many bytes per byte of text ("{}," is an object of 8 buckets). The
 * memory is asked for only where a line is longer than a sequence usually is. */
#define LINES_PARSED_RATIO 80
#define LINES_ASK ((size_t)4 << 20)
#define LINES_SHOWN_KEYS 20

struct lines {
    struct source source;
    enum lines_form form;
    uint64_t next;   /* number of the sequence at the window, or behind blank lines there */
    uint64_t *table; /* (source.count) offsets, once indexed */
    size_t table_room;
    uint32_t *ids; /* (room) */
    size_t room, count;
    uint64_t cut;
};

struct line {
    const char *text;
    size_t length; /* without the newline */
    size_t size;   /* with it */
};

static struct lines *lines_of(struct source *source)
{
    return (struct lines *)source;
}

static int lines_corrupt(const struct lines *lines, const char *what)
{
    return log_fail(ERR_DATA, "'%s', row %" PRIu64 " at offset %" PRId64 ": %s",
                    source_name(&lines->source), lines->next, bytes_offset(&lines->source.bytes),
                    what);
}

/* ---- lines */

/* The line at the window's beginning, which stays there: 1, or 0 at the end of input. */
static int lines_look(struct lines *lines, struct line *line)
{
    struct bytes *bytes = &lines->source.bytes;
    size_t searched = 0;
    for (;;) {
        size_t have = bytes_have(bytes);
        const uint8_t *at = have == 0 ? NULL : bytes_at(bytes);
        const uint8_t *newline =
            have > searched ? memchr(at + searched, '\n', have - searched) : NULL;
        if (newline != NULL) {
            size_t length = (size_t)(newline - at);
            *line = (struct line){(const char *)at, length, length + 1};
            return 1;
        }
        if (have > LINES_MOST_BYTES)
            return lines_corrupt(lines, "the line is longer than 256 MiB");
        searched = have;
        size_t more = searched < BYTES_AHEAD ? BYTES_AHEAD : searched;
        int status = bytes_want(bytes, searched + 1, searched + more);
        if (status != 0)
            return status;
        if (bytes_have(bytes) == searched) {
            *line = (struct line){(const char *)at, searched, searched};
            return searched > 0;
        }
    }
}

static bool lines_is_blank(const struct line *line)
{
    for (size_t i = 0; i < line->length; i++)
        if (memchr(" \t\r", line->text[i], 3) == NULL)
            return false;
    return true;
}

/* The next line that is a sequence. */
static int lines_find(struct lines *lines, struct line *line)
{
    struct source *source = &lines->source;
    int status;
    while ((status = lines_look(lines, line)) == 1 && lines->form == LINES_JSON &&
           lines_is_blank(line))
        bytes_use(&source->bytes, line->size);
    if (status == 0 && !source->counted) {
        source->counted = true;
        source->count = lines->next;
    }
    return status;
}

/* ---- one sequence */

static int lines_add(struct lines *lines, int64_t id)
{
    if (!source_is_id(id))
        return source_bad_id(&lines->source, lines->next, id);
    if (lines->count == lines->source.setup->most) {
        lines->cut++;
        return 0;
    }
    if (lines->count == lines->room) {
        size_t room = 2 * lines->room + 1024;
        uint32_t *grown = mem_resize(lines->ids, room, sizeof *grown);
        if (grown == NULL)
            return mem_fail("a sequence", room, sizeof *grown);
        lines->ids = grown;
        lines->room = room;
    }
    lines->ids[lines->count++] = (uint32_t)id;
    return 0;
}

static int lines_bad_word(const struct lines *lines, const char *word, size_t length)
{
    return log_fail(ERR_DATA,
                    "'%s', row %" PRIu64 " (line %" PRIu64 "): '%.*s' is no token id (0 to "
                    "4294967295)",
                    source_name(&lines->source), lines->next, lines->next + 1,
                    (int)(length < 40 ? length : 40), word);
}

static int lines_parse_text(struct lines *lines, const struct line *line)
{
    const char *at = line->text, *end = at + line->length;
    for (;;) {
        while (at < end && memchr(" \t\r\v\f", *at, 5) != NULL)
            at++;
        if (at == end)
            return 0;
        const char *word = at;
        int64_t id = 0;
        for (; at < end && *at >= '0' && *at <= '9' && id <= UINT32_MAX; at++)
            id = 10 * id + (*at - '0');
        bool whole = at > word && (at == end || memchr(" \t\r\v\f", *at, 5) != NULL);
        while (at < end && memchr(" \t\r\v\f", *at, 5) == NULL)
            at++;
        if (!whole || id > UINT32_MAX)
            return lines_bad_word(lines, word, (size_t)(at - word));
        int status = lines_add(lines, id);
        if (status != 0)
            return status;
    }
}

/* The key is missing: those that are there. */
static int lines_name_keys(const struct lines *lines, const json_t *object)
{
    char names[512] = "";
    size_t used = 0, shown = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        size_t length = strlen(key);
        if (used + length + 5 > sizeof names || shown++ == LINES_SHOWN_KEYS)
            break;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", used > 0 ? ", " : "",
                                 key);
    }
    return log_fail(ERR_USAGE,
                    "'%s', row %" PRIu64 ": there is no key '%s' (--column); there is %s",
                    source_name(&lines->source), lines->next, lines->source.setup->column,
                    used > 0 ? names : "none");
}

static int lines_take_list(struct lines *lines, const json_t *value)
{
    const json_t *list = value;
    if (json_is_object(value)) {
        list = json_object_get(value, lines->source.setup->column);
        if (list == NULL)
            return lines_name_keys(lines, value);
    }
    if (json_is_null(list))
        return lines_corrupt(lines, "the list of ids is null");
    if (!json_is_array(list))
        return lines_corrupt(lines, "it holds no list of ids");
    size_t i;
    json_t *id;
    json_array_foreach((json_t *)list, i, id)
    {
        if (json_is_null(id))
            return lines_corrupt(lines, "a token is null");
        if (!json_is_integer(id))
            return lines_corrupt(lines, "the list holds what is no integer");
        int status = lines_add(lines, json_integer_value(id));
        if (status != 0)
            return status;
    }
    return 0;
}

static int lines_parse_json(struct lines *lines, const struct line *line)
{
    if (line->length > LINES_ASK) {
        int enough = mem_require((uint64_t)line->length * LINES_PARSED_RATIO, "a line of JSON");
        if (enough != 0)
            return enough;
    }
    char name[512];
    snprintf(name, sizeof name, "%.400s', row '%" PRIu64, source_name(&lines->source), lines->next);
    json_t *value = json_parse(line->text, line->length, name);
    if (value == NULL)
        return ERR_DATA;
    int status = lines_take_list(lines, value);
    json_decref(value);
    return status;
}

static int lines_next(struct source *source, struct source_sequence *sequence)
{
    struct lines *lines = lines_of(source);
    struct line line;
    if (source->counted && lines->next >= source->count)
        return 0;
    int status = lines_find(lines, &line);
    if (status != 1)
        return status;
    lines->count = 0;
    lines->cut = 0;
    status =
        lines->form == LINES_JSON ? lines_parse_json(lines, &line) : lines_parse_text(lines, &line);
    if (status != 0)
        return status;
    bytes_use(&source->bytes, line.size);
    lines->next++;
    *sequence = (struct source_sequence){lines->ids, lines->count, lines->cut};
    return 1;
}

/* ---- reaching them */

static int lines_seek(struct source *source, uint64_t i)
{
    struct lines *lines = lines_of(source);
    if (source->counted && i >= source->count)
        return 0;
    if (lines->table != NULL || i < lines->next) {
        uint64_t from = lines->table != NULL ? i : 0;
        bytes_seek(&source->bytes, lines->table != NULL ? (int64_t)lines->table[i] : 0);
        lines->next = from;
    }
    for (; lines->next < i; lines->next++) {
        struct line line;
        int status = lines_find(lines, &line);
        if (status != 1)
            return status;
        bytes_use(&source->bytes, line.size);
    }
    return 1;
}

static int lines_note(struct lines *lines, int64_t offset)
{
    if (lines->next == lines->table_room) {
        size_t room = 2 * lines->table_room + 4096;
        uint64_t *grown = mem_resize(lines->table, room, sizeof *grown);
        if (grown == NULL)
            return mem_fail("the table of lines", room, sizeof *grown);
        lines->table = grown;
        lines->table_room = room;
    }
    lines->table[lines->next++] = (uint64_t)offset;
    return 0;
}

static int lines_index(struct source *source)
{
    struct lines *lines = lines_of(source);
    struct line line;
    int status;
    if (lines->table != NULL)
        return 0;
    bytes_seek(&source->bytes, 0);
    lines->next = 0;
    while ((status = lines_find(lines, &line)) == 1) {
        if ((status = lines_note(lines, bytes_offset(&source->bytes))) != 0)
            return status;
        bytes_use(&source->bytes, line.size);
    }
    source->held = lines->table_room * sizeof *lines->table;
    return status;
}

static void lines_free(struct source *source)
{
    struct lines *lines = lines_of(source);
    free(lines->table);
    free(lines->ids);
}

/* ---- opening */

static const struct source_kind lines_text_kind = {.name = "text",
                                                   .seek = lines_seek,
                                                   .next = lines_next,
                                                   .index = lines_index,
                                                   .free = lines_free};
static const struct source_kind lines_json_kind = {.name = "JSON lines",
                                                   .seek = lines_seek,
                                                   .next = lines_next,
                                                   .index = lines_index,
                                                   .free = lines_free};

int lines_open(struct source **source, struct bytes *bytes, enum lines_form form,
               const struct source_setup *setup)
{
    bool json = form == LINES_JSON;
    struct lines *lines = (struct lines *)source_create(
        sizeof *lines, json ? &lines_json_kind : &lines_text_kind, bytes, setup);
    if (lines == NULL)
        return ERR_MEMORY;
    lines->form = form;
    lines->source.memory = 2 * BYTES_AHEAD; /* for lines that are not longer */
    *source = &lines->source;
    return 0;
}
