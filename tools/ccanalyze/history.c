/* history.c - columns come into being when a line first has their key; all of them have room for
 * the same number of rows.
 */
#include "history.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

static int history_short(void)
{
    return log_fail(ERR_MEMORY, "not enough memory for the metrics");
}

/* Room for twice as many rows, in all columns. */
static int history_grow(struct history *history)
{
    size_t capacity = history->capacity == 0 ? 256 : 2 * history->capacity;
    double *steps = mem_resize(history->steps, capacity, sizeof *steps);
    if (steps == NULL)
        return history_short();
    history->steps = steps;
    for (size_t i = 0; i < history->column_count; i++) {
        double *values = mem_resize(history->columns[i].values, capacity, sizeof *values);
        if (values == NULL)
            return history_short();
        history->columns[i].values = values;
    }
    history->capacity = capacity;
    return 0;
}

static struct history_column *history_column(const struct history *history, const char *key)
{
    for (size_t i = 0; i < history->column_count; i++)
        if (strcmp(history->columns[i].key, key) == 0)
            return &history->columns[i];
    return NULL;
}

/* A new column, NaN in all rows so far. */
static int history_add_column(struct history *history, const char *key)
{
    if (history->column_count == HISTORY_MOST_COLUMNS)
        return log_fail(ERR_DATA, "more than %d different keys in the metrics",
                        HISTORY_MOST_COLUMNS);
    struct history_column *columns =
        mem_resize(history->columns, history->column_count + 1, sizeof *columns);
    if (columns == NULL)
        return history_short();
    history->columns = columns;
    struct history_column *column = &columns[history->column_count];
    column->key = strdup(key);
    column->values = mem_alloc(history->capacity, sizeof *column->values);
    if (column->key == NULL || column->values == NULL) {
        free(column->key);
        free(column->values);
        return history_short();
    }
    history->column_count++;
    for (size_t row = 0; row <= history->rows; row++)
        column->values[row] = (double)NAN;
    return 0;
}

/* Fills in the row behind the last one. */
static int history_add_members(struct history *history, json_t *line)
{
    const char *key;
    json_t *value;
    for (size_t i = 0; i < history->column_count; i++)
        history->columns[i].values[history->rows] = (double)NAN;
    json_object_foreach(line, key, value)
    {
        if (!json_is_number(value) || strcmp(key, "step") == 0)
            continue;
        struct history_column *column = history_column(history, key);
        if (column == NULL) {
            int status = history_add_column(history, key);
            if (status != 0)
                return status;
            column = &history->columns[history->column_count - 1];
        }
        column->values[history->rows] = json_number_value(value);
    }
    return 0;
}

/* One line, parsed; `place` is "NAME:LINE". */
static int history_add_line(struct history *history, json_t *line, const char *place)
{
    if (!json_is_object(line))
        return log_fail(ERR_DATA, "'%s': not an object of metrics", place);
    json_t *step = json_object_get(line, "step");
    if (!json_is_number(step))
        return 0;
    double at = json_number_value(step);
    if (history->rows > 0 && !(at > history->steps[history->rows - 1]))
        return log_fail(ERR_DATA, "'%s': step %g does not follow step %g", place, at,
                        history->steps[history->rows - 1]);
    int status = history->rows == history->capacity ? history_grow(history) : 0;
    if (status == 0)
        status = history_add_members(history, line);
    if (status == 0)
        history->steps[history->rows++] = at;
    return status;
}

int history_parse(struct history *history, const char *text, size_t size, const char *name)
{
    int status = 0;
    size_t number = 1;
    *history = (struct history){0};
    for (const char *at = text; status == 0; number++) {
        const char *end = memchr(at, '\n', size - (size_t)(at - text));
        if (end == NULL)
            break;
        char place[512];
        snprintf(place, sizeof place, "%s:%zu", name, number);
        json_t *line = json_parse(at, (size_t)(end - at), place);
        status = line == NULL ? ERR_DATA : history_add_line(history, line, place);
        json_decref(line);
        at = end + 1;
    }
    if (status != 0)
        history_free(history);
    return status;
}

int history_read(struct history *history, const char *path)
{
    char *text = NULL;
    size_t size;
    *history = (struct history){0};
    int status = io_read_file(&text, &size, path, HISTORY_MOST_BYTES);
    if (status == 0)
        status = history_parse(history, text, size, path);
    free(text);
    return status;
}

void history_free(struct history *history)
{
    for (size_t i = 0; i < history->column_count; i++) {
        free(history->columns[i].key);
        free(history->columns[i].values);
    }
    free(history->columns);
    free(history->steps);
    *history = (struct history){0};
}

const double *history_find(const struct history *history, const char *key)
{
    const struct history_column *column = history_column(history, key);
    return column == NULL ? NULL : column->values;
}

double history_last(const struct history *history, const char *key)
{
    const double *values = history_find(history, key);
    for (size_t row = history->rows; values != NULL && row > 0; row--)
        if (!isnan(values[row - 1]))
            return values[row - 1];
    return (double)NAN;
}
