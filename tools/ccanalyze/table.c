/* table.c - rows are collected as text in memory and written in pieces, so that a failing write is
 * met by io.c, which knows a reader that went away from a full disk.
 */
#include "table.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/log.h"
#include "common/mem.h"

#define TABLE_PIECE 65536
#define TABLE_DIGITS 9

struct table {
    struct io_file file;
    bool json, list; /* list: JSON is an object with the list of rows, not one value */
    const char *const *columns;
    size_t column_count;
    size_t column; /* of the value that comes next */
    uint64_t rows;
    json_t *object; /* JSON: the row being filled */
    char *text;
    size_t size, capacity;
    bool failed; /* memory was short: told by the next table_row() */
};

static void table_put(struct table *table, const char *text, size_t size)
{
    if (table->failed)
        return;
    if (size > table->capacity - table->size) {
        size_t capacity = (table->size + size) * 2 + TABLE_PIECE;
        char *grown = mem_resize(table->text, capacity, 1);
        table->failed = grown == NULL;
        if (table->failed)
            return;
        table->text = grown;
        table->capacity = capacity;
    }
    memcpy(table->text + table->size, text, size);
    table->size += size;
}

static void table_put_text(struct table *table, const char *text)
{
    table_put(table, text, strlen(text));
}

/* As a field of TSV. */
static void table_put_escaped(struct table *table, const char *text)
{
    static const char named[] = "\t\n\r\\", letters[] = "tnr\\";
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char byte = (unsigned char)*at;
        const char *found = strchr(named, *at);
        char escape[8];
        if (found == NULL && byte >= 0x20 && byte != 0x7f) {
            table_put(table, at, 1);
            continue;
        }
        if (found != NULL)
            snprintf(escape, sizeof escape, "\\%c", letters[found - named]);
        else
            snprintf(escape, sizeof escape, "\\x%02x", byte);
        table_put_text(table, escape);
    }
}

static int table_write(struct table *table, size_t least)
{
    if (table->failed)
        return mem_fail("the table", table->size, 1);
    if (table->size < least)
        return 0;
    int status = io_write(&table->file, table->text, table->size);
    table->size = 0;
    return status;
}

int table_open(struct table **result, const struct table_form *form, const char *list,
               const char *const *columns, size_t column_count)
{
    *result = NULL;
    struct table *table = mem_alloc_zero(1, sizeof *table);
    if (table == NULL)
        return mem_fail("a table", 1, sizeof *table);
    int status = io_open_output(&table->file, form->output, false);
    if (status != 0) {
        free(table);
        return status;
    }
    table->json = form->json;
    table->list = list != NULL;
    table->columns = columns;
    table->column_count = column_count;
    if (table->json && table->list) {
        table_put_text(table, "{\"");
        table_put_text(table, list);
        table_put_text(table, "\":[");
    }
    for (size_t i = 0; i < column_count && !table->json; i++) {
        table_put_escaped(table, columns[i]);
        table_put_text(table, i + 1 < column_count ? "\t" : "\n");
    }
    *result = table;
    return 0;
}

/* ---- values */

static void table_set(struct table *table, json_t *value)
{
    assert(table->column < table->column_count);
    if (table->object == NULL)
        table->object = json_object();
    if (json_object_set_new(table->object, table->columns[table->column++], value) != 0)
        table->failed = true;
}

static void table_field(struct table *table, const char *text)
{
    assert(table->column < table->column_count);
    if (table->column++ > 0)
        table_put(table, "\t", 1);
    table_put_text(table, text);
}

void table_count(struct table *table, uint64_t value)
{
    if (table->json) {
        table_set(table, json_integer((json_int_t)value));
        return;
    }
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    table_field(table, text);
}

json_t *table_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

void table_real(struct table *table, double value)
{
    if (table->json) {
        table_set(table, table_json_real(value));
        return;
    }
    char text[32] = "";
    if (isfinite(value))
        snprintf(text, sizeof text, "%.*g", TABLE_DIGITS, value);
    table_field(table, text);
}

void table_text(struct table *table, const char *value)
{
    if (table->json) {
        table_set(table, json_string(value));
        return;
    }
    table_field(table, "");
    table_put_escaped(table, value);
}

/* ---- rows */

int table_element(struct table *table, json_t *element)
{
    assert(table->json && table->list);
    char *text = json_dumps(element, JSON_COMPACT | JSON_REAL_PRECISION(TABLE_DIGITS));
    json_decref(element);
    if (text == NULL)
        return mem_fail("a row of the table", 1, sizeof *table);
    table_put_text(table, table->rows++ > 0 ? ",\n" : "\n");
    table_put_text(table, text);
    free(text);
    return table_write(table, TABLE_PIECE);
}

int table_row(struct table *table)
{
    assert(table->column == table->column_count);
    table->column = 0;
    if (table->json) {
        json_t *object = table->object;
        table->object = NULL;
        return table_element(table, object);
    }
    table_put(table, "\n", 1);
    return table_write(table, TABLE_PIECE);
}

/* The end of the list, and the members that follow it. */
static void table_put_extra(struct table *table, const json_t *extra)
{
    const char *key;
    json_t *value;
    table_put_text(table, "\n]");
    json_object_foreach((json_t *)extra, key, value)
    {
        char *text =
            json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(TABLE_DIGITS));
        table->failed = table->failed || text == NULL;
        table_put_text(table, ",\"");
        table_put_text(table, key);
        table_put_text(table, "\":");
        table_put_text(table, text == NULL ? "" : text);
        free(text);
    }
    table_put_text(table, "}\n");
}

static void table_put_value(struct table *table, const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(TABLE_DIGITS));
    table->failed = table->failed || text == NULL;
    table_put_text(table, text == NULL ? "" : text);
    table_put_text(table, "\n");
    free(text);
}

int table_end(struct table *table, json_t *extra)
{
    if (table->json && table->list)
        table_put_extra(table, extra);
    else if (table->json)
        table_put_value(table, extra);
    json_decref(extra);
    int status = table_write(table, 0);
    return status != 0 ? status : io_close(&table->file);
}

void table_free(struct table *table)
{
    if (table == NULL)
        return;
    int ignored = io_close(&table->file); /* table_end() has checked its own close */
    (void)ignored;
    json_decref(table->object);
    free(table->text);
    free(table);
}

int table_json(const char *output, json_t *value)
{
    struct table_form form = {.output = output, .json = true};
    struct table *table = NULL;
    int status = table_open(&table, &form, NULL, NULL, 0);
    if (status == 0)
        status = table_end(table, value);
    else
        json_decref(value);
    table_free(table);
    return status;
}
