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
    bool json;
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
    table->columns = columns;
    table->column_count = column_count;
    if (table->json) {
        table_put_text(table, "{\"");
        table_put_text(table, list);
        table_put_text(table, "\":[");
    }
    for (size_t i = 0; i < column_count && !table->json; i++) {
        table_put_text(table, columns[i]);
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
    for (const char *at = value; *at != '\0'; at++) {
        if (*at == '\t')
            table_put(table, "\\t", 2);
        else if (*at == '\n')
            table_put(table, "\\n", 2);
        else if (*at == '\r')
            table_put(table, "\\r", 2);
        else if (*at == '\\')
            table_put(table, "\\\\", 2);
        else
            table_put(table, at, 1);
    }
}

/* ---- rows */

int table_element(struct table *table, json_t *element)
{
    assert(table->json);
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

int table_end(struct table *table, json_t *extra)
{
    if (table->json) {
        const char *key;
        json_t *value;
        table_put_text(table, "\n]");
        json_object_foreach(extra, key, value)
        {
            char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT |
                                               JSON_REAL_PRECISION(TABLE_DIGITS));
            table->failed = table->failed || text == NULL;
            table_put_text(table, ",\"");
            table_put_text(table, key);
            table_put_text(table, "\":");
            table_put_text(table, text == NULL ? "" : text);
            free(text);
        }
        table_put_text(table, "}\n");
    }
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
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(TABLE_DIGITS));
    json_decref(value);
    if (text == NULL)
        return mem_fail("the output", 1, 1);
    struct io_file file = IO_FILE_CLOSED;
    int status = io_open_output(&file, output, false);
    if (status == 0)
        status = io_write(&file, text, strlen(text));
    if (status == 0)
        status = io_write(&file, "\n", 1);
    int closed = io_close(&file);
    free(text);
    return status != 0 ? status : closed;
}
