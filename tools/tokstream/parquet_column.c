/* parquet_column.c - levels and values into lists of ids.
 *
 * Levels are read as runs: in a column of long lists there are few, as "a list begins" and "an item
 * follows" are what they say, and each run stands for many items at once. Up to COLUMN_BATCH levels
 * are looked at, which tells how many items follow and where lists begin; then these items are
 * decoded in one go. So memory is a page, a batch, and one list.
 *
 * `ids` holds lists that are complete, and behind them one that may go on in the next batch, page
 * or, in version 1, from a page to another. Only the end of the chunk completes the last one.
 */
#include "parquet_column.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "parquet_page.h"
#include "parquet_rle.h"

#define COLUMN_BATCH ((size_t)16 << 10) /* levels; a batch of ids fits a level 2 cache */

struct parquet_column {
    struct source *source;
    struct parquet_leaf leaf;
    const struct parquet_group *group;
    struct parquet_pages pages;
    uint64_t values_left, rows_begun;
    bool finished; /* no more pages, and all was right */

    /* the page at hand */
    uint32_t levels_left;
    struct parquet_rle repetition, definition;
    bool by_dictionary;
    struct parquet_rle indices;
    const uint8_t *plain;
    size_t plain_left; /* items */

    uint32_t *dictionary; /* (dictionary_size) */
    int64_t *wide;        /* the same, where one of them is no id; else NULL */
    size_t dictionary_size;
    bool has_dictionary;

    uint32_t *ids; /* (room) */
    size_t used, room;
    size_t starts[COLUMN_BATCH + 1]; /* in ids, of the lists there */
    size_t start_count, next;        /* next: the list to hand out */
    uint64_t open_cut;               /* tokens already left out of the list at the front */
};

struct parquet_column *parquet_column_create(struct source *source, const struct parquet_leaf *leaf)
{
    struct parquet_column *column = mem_alloc_zero(1, sizeof *column);
    if (column == NULL) {
        (void)mem_fail("a Parquet column", 1, sizeof *column);
        return NULL;
    }
    column->source = source;
    column->leaf = *leaf;
    return column;
}

static void column_free_dictionary(struct parquet_column *column)
{
    free(column->dictionary);
    free(column->wide);
    column->dictionary = NULL;
    column->wide = NULL;
    column->dictionary_size = 0;
    column->has_dictionary = false;
}

void parquet_column_free(struct parquet_column *column)
{
    if (column == NULL)
        return;
    parquet_pages_free(&column->pages);
    column_free_dictionary(column);
    free(column->ids);
    free(column);
}

size_t parquet_column_bytes(void)
{
    return sizeof(struct parquet_column) + 2 * COLUMN_BATCH * sizeof(uint32_t) + BYTES_AHEAD;
}

void parquet_column_start(struct parquet_column *column, const struct parquet_group *group)
{
    column->group = group;
    parquet_pages_start(&column->pages, &column->source->bytes, group);
    column->values_left = group->values;
    column->rows_begun = 0;
    column->finished = false;
    column->levels_left = 0;
    column_free_dictionary(column);
    column->used = column->start_count = column->next = 0;
    column->open_cut = 0;
}

/* ---- plain items */

static size_t column_item_bytes(const struct parquet_column *column)
{
    return column->leaf.type == PARQUET_INT32 ? 4 : 8;
}

/* Of 64 bits, an unsigned one above 2^63 is as little an id as a negative one. */
static int64_t column_item(const struct parquet_column *column, const uint8_t *at)
{
    if (column->leaf.type == PARQUET_INT32)
        return column->leaf.is_unsigned ? (int64_t)le_get32(at) : (int32_t)le_get32(at);
    return (int64_t)le_get64(at);
}

/* The first of `count` items that is no id, or `count`; the others before it are in `to`. */
static size_t column_convert(const struct parquet_column *column, uint32_t *to, const uint8_t *from,
                             size_t count)
{
    size_t step = column_item_bytes(column);
    for (size_t i = 0; i < count; i++) {
        int64_t id = column_item(column, from + i * step);
        if (!source_is_id(id))
            return i;
        to[i] = (uint32_t)id;
    }
    return count;
}

/* Says that the item that would be ids[at] is no id. */
static int column_bad_id(const struct parquet_column *column, size_t at, int64_t id)
{
    size_t behind = 0; /* lists that begin behind it */
    while (behind < column->start_count && column->starts[column->start_count - 1 - behind] > at)
        behind++;
    /* Empty lists at the same place come before it. */
    uint64_t row = column->group->first_row + column->rows_begun - 1 - behind;
    return source_bad_id(column->source, row, id);
}

/* ---- pages */

static int column_take_dictionary(struct parquet_column *column, const struct parquet_page *page)
{
    size_t count = page->values, step = column_item_bytes(column);
    if (column->has_dictionary)
        return parquet_pages_corrupt(&column->pages, "it is a second dictionary");
    if (page->encoding != PARQUET_PLAIN && page->encoding != PARQUET_PLAIN_DICTIONARY)
        return parquet_pages_corrupt(&column->pages, "it is a dictionary in another encoding");
    if (page->body_bytes / step < count)
        return parquet_pages_corrupt(&column->pages, "its dictionary is longer than the page");
    column->dictionary = mem_alloc(count, sizeof *column->dictionary);
    if (column->dictionary == NULL)
        return mem_fail("a dictionary", count, sizeof *column->dictionary);
    column->has_dictionary = true;
    column->dictionary_size = count;
    if (column_convert(column, column->dictionary, page->body, count) == count)
        return 0;
    column->wide = mem_alloc(count, sizeof *column->wide);
    if (column->wide == NULL)
        return mem_fail("a dictionary", count, sizeof *column->wide);
    for (size_t i = 0; i < count; i++)
        column->wide[i] = column_item(column, page->body + i * step);
    return 0;
}

static const char *column_encoding_name(int encoding)
{
    static const char *const names[] = {
        "PLAIN",          "GROUP_VAR_INT",       "PLAIN_DICTIONARY",        "RLE",
        "BIT_PACKED",     "DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY",
        "RLE_DICTIONARY", "BYTE_STREAM_SPLIT"};
    return encoding >= 0 && encoding < (int)(sizeof names / sizeof *names) ? names[encoding] : NULL;
}

static int column_take_values(struct parquet_column *column, const struct parquet_page *page)
{
    const char *name = column_encoding_name((int)page->encoding);
    column->by_dictionary =
        page->encoding == PARQUET_PLAIN_DICTIONARY || page->encoding == PARQUET_RLE_DICTIONARY;
    if (page->encoding == PARQUET_PLAIN) {
        column->plain = page->body;
        column->plain_left = page->body_bytes / column_item_bytes(column);
        return 0;
    }
    if (name == NULL)
        return parquet_pages_corrupt(&column->pages, "it is in no known encoding");
    if (!column->by_dictionary)
        return log_fail(ERR_USAGE,
                        "'%s', page at offset %" PRId64 ": reading the encoding %s is not built "
                        "(PLAIN and dictionaries are)",
                        source_name(column->source), column->pages.at, name);
    if (!column->has_dictionary)
        return parquet_pages_corrupt(&column->pages, "its dictionary is missing");
    if (page->body_bytes == 0) { /* a page without an item */
        parquet_rle_init(&column->indices, page->body, 0, 32);
        return 0;
    }
    if (page->body[0] > 32)
        return parquet_pages_corrupt(&column->pages, "its dictionary indices have over 32 bits");
    parquet_rle_init(&column->indices, page->body + 1, page->body_bytes - 1, page->body[0]);
    return 0;
}

/* The next page that has levels: 1, or 0 at the end of the chunk. */
static int column_next_page(struct parquet_column *column)
{
    struct parquet_page page;
    int status;
    while ((status = parquet_pages_next(&column->pages, &page)) == 1) {
        if (page.type == PARQUET_DICTIONARY) {
            if ((status = column_take_dictionary(column, &page)) != 0)
                return status;
            continue;
        }
        if (page.values > column->values_left)
            return parquet_pages_corrupt(&column->pages, "it has more values than its chunk");
        if ((status = column_take_values(column, &page)) != 0)
            return status;
        parquet_rle_init(&column->repetition, page.repetition, page.repetition_bytes, 1);
        parquet_rle_init(&column->definition, page.definition, page.definition_bytes,
                         column->leaf.max_definition > 1 ? 2 : 1);
        column->values_left -= page.values;
        column->levels_left = page.values;
        if (page.values > 0)
            return 1;
    }
    return status;
}

/* ---- a batch: levels */

/* What a run of levels says of `count` places. */
struct column_run {
    uint64_t count;
    uint32_t repetition, definition;
};

/* The next run in which both levels stay the same. */
static int column_next_run(struct parquet_column *column, uint64_t most, struct column_run *run)
{
    struct parquet_rle ahead = column->repetition;
    uint64_t count = parquet_rle_run(&ahead, most, &run->repetition);
    run->count = count == 0 ? 0 : parquet_rle_run(&column->definition, count, &run->definition);
    if (run->count == 0 || run->definition > column->leaf.max_definition)
        return parquet_pages_corrupt(&column->pages, "its levels are damaged");
    if (run->count == count)
        column->repetition = ahead;
    else
        (void)parquet_rle_run(&column->repetition, run->count, &run->repetition);
    return 0;
}

static int column_null(const struct parquet_column *column, const char *what)
{
    return log_fail(ERR_DATA, "'%s', row %" PRIu64 ": %s is null", source_name(column->source),
                    column->group->first_row + column->rows_begun - 1, what);
}

/* Notes the lists that a run begins; *items grows by the items that it has. */
static int column_take_run(struct parquet_column *column, const struct column_run *run,
                           size_t *items)
{
    const struct parquet_leaf *leaf = &column->leaf;
    bool item = run->definition == leaf->max_definition;
    bool begins = run->repetition == 0;
    if (begins) {
        if (run->count > column->group->rows - column->rows_begun)
            return parquet_pages_corrupt(&column->pages, "it has more rows than its row group");
        for (uint64_t i = 0; i < run->count; i++)
            column->starts[column->start_count++] = column->used + *items + (item ? (size_t)i : 0);
        column->rows_begun += item ? run->count : 1; /* the first one is named, if it is null */
    } else if (column->rows_begun == 0 || run->definition < leaf->in_list) {
        return parquet_pages_corrupt(&column->pages, "its levels are damaged");
    }
    if (item)
        *items += (size_t)run->count;
    else if (run->definition >= leaf->in_list)
        return column_null(column, "a token");
    else if (run->definition + 1 < leaf->in_list)
        return column_null(column, "the list");
    else
        column->rows_begun += run->count - 1;
    return 0;
}

/* Looks at levels of the page at hand, up to COLUMN_BATCH. */
static int column_read_levels(struct parquet_column *column, size_t *items)
{
    size_t batch = COLUMN_BATCH;
    *items = 0;
    if (column->levels_left < batch)
        batch = column->levels_left;
    column->levels_left -= (uint32_t)batch;
    while (batch > 0) {
        struct column_run run;
        int status = column_next_run(column, batch, &run);
        if (status == 0)
            status = column_take_run(column, &run, items);
        if (status != 0)
            return status;
        batch -= (size_t)run.count;
    }
    return 0;
}

/* ---- a batch: items */

static int column_reserve(struct parquet_column *column, size_t more)
{
    if (more <= column->room - column->used)
        return 0;
    size_t room = 2 * column->room + more;
    uint32_t *grown = mem_resize(column->ids, room, sizeof *grown);
    if (grown == NULL)
        return mem_fail("a list of tokens", room, sizeof *grown);
    column->ids = grown;
    column->room = room;
    return 0;
}

static int column_read_plain(struct parquet_column *column, size_t count)
{
    size_t step = column_item_bytes(column);
    if (count > column->plain_left)
        return parquet_pages_corrupt(&column->pages, "its items end before its levels do");
    size_t good = column_convert(column, column->ids + column->used, column->plain, count);
    if (good < count)
        return column_bad_id(column, column->used + good,
                             column_item(column, column->plain + good * step));
    column->plain += count * step;
    column->plain_left -= count;
    return 0;
}

static int column_read_indices(struct parquet_column *column, size_t count)
{
    uint32_t *to = column->ids + column->used, most = 0;
    if (!parquet_rle_values(&column->indices, to, count))
        return parquet_pages_corrupt(&column->pages, "its items end before its levels do");
    for (size_t i = 0; i < count; i++)
        most = to[i] > most ? to[i] : most;
    if (count > 0 && most >= column->dictionary_size)
        return parquet_pages_corrupt(&column->pages, "an index points behind its dictionary");
    for (size_t i = 0; i < count && column->wide != NULL; i++)
        if (!source_is_id(column->wide[to[i]]))
            return column_bad_id(column, column->used + i, column->wide[to[i]]);
    if (column->wide != NULL) {
        for (size_t i = 0; i < count; i++)
            to[i] = (uint32_t)column->wide[to[i]];
    } else {
        for (size_t i = 0; i < count; i++)
            to[i] = column->dictionary[to[i]];
    }
    return 0;
}

/* Moves the last list, which may go on, to the front; those before it were handed out. */
static void column_compact(struct parquet_column *column)
{
    if (column->start_count == 0)
        return;
    size_t start = column->starts[column->start_count - 1], length = column->used - start;
    if (length > 0)
        memmove(column->ids, column->ids + start, length * sizeof *column->ids);
    column->starts[0] = 0;
    column->start_count = 1;
    column->next = 0;
    column->used = length;
}

/* Leaves out what a list of several batches has too much, so that its memory is bounded. */
static void column_cut_open(struct parquet_column *column)
{
    size_t most = column->source->setup->most;
    if (column->start_count != 1 || column->used <= most)
        return;
    column->open_cut += column->used - most;
    column->used = most;
}

static int column_finish(struct parquet_column *column)
{
    column->finished = true;
    if (column->values_left == 0 && column->rows_begun == column->group->rows)
        return 0;
    return log_fail(ERR_DATA,
                    "'%s': the row group at row %" PRIu64 " has %" PRIu64 " rows, of which the "
                    "pages have %" PRIu64 ", and %" PRIu64 " values are missing",
                    source_name(column->source), column->group->first_row, column->group->rows,
                    column->rows_begun, column->values_left);
}

static int column_read_batch(struct parquet_column *column)
{
    column_compact(column);
    if (column->levels_left == 0) {
        int status = column_next_page(column);
        if (status != 1)
            return status < 0 ? status : column_finish(column);
    }
    size_t items;
    int status = column_read_levels(column, &items);
    if (status == 0)
        status = column_reserve(column, items);
    if (status == 0)
        status = column->by_dictionary ? column_read_indices(column, items)
                                       : column_read_plain(column, items);
    if (status != 0)
        return status;
    column->used += items;
    column_cut_open(column);
    return 0;
}

/* ---- lists */

int parquet_column_next(struct parquet_column *column, struct source_sequence *sequence)
{
    while (column->next + 1 >= column->start_count) {
        if (column->finished) {
            if (column->next == column->start_count)
                return 0;
            break;
        }
        int status = column_read_batch(column);
        if (status != 0)
            return status;
    }
    size_t most = column->source->setup->most, start = column->starts[column->next];
    bool last = ++column->next == column->start_count;
    size_t length = (last ? column->used : column->starts[column->next]) - start;
    size_t kept = length < most ? length : most;
    *sequence = (struct source_sequence){column->ids + start, kept, length - kept};
    if (column->next == 1) {
        sequence->cut += column->open_cut;
        column->open_cut = 0;
    }
    return 1;
}
