/* json.c - jansson behind limits. Depth is counted before jansson recurses into it. */
#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"
#include "log.h"
#include "mem.h"

/* Whether brackets nest deeper than JSON_MAX_DEPTH outside of strings. */
static bool json_too_deep(const char *text, size_t size)
{
    size_t depth = 0;
    bool string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (string && c == '\\')
            i++;
        else if (c == '"')
            string = !string;
        else if (!string && (c == '{' || c == '['))
            depth++;
        else if (!string && (c == '}' || c == ']') && depth > 0)
            depth--;
        if (depth > JSON_MAX_DEPTH)
            return true;
    }
    return false;
}

json_t *json_parse(const char *text, size_t size, const char *name)
{
    if (json_too_deep(text, size)) {
        if (name != NULL)
            (void)log_fail(ERR_DATA, "'%s': JSON is nested deeper than %d levels", name,
                           JSON_MAX_DEPTH);
        return NULL;
    }
    json_error_t error;
    json_t *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (value == NULL && name != NULL)
        (void)log_fail(ERR_DATA, "'%s': JSON, line %d, column %d: %s", name, error.line,
                       error.column, error.text);
    return value;
}

int json_read_file(json_t **value, const char *path, size_t limit)
{
    char *text;
    size_t size;
    *value = NULL;
    int status = io_read_file(&text, &size, path, limit);
    if (status != 0)
        return status;
    *value = json_parse(text, size, path);
    free(text);
    return *value == NULL ? ERR_DATA : 0;
}

char *json_text(const json_t *value)
{
    return json_dumps(value,
                      JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY);
}

int json_write_file(const json_t *value, const char *path)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY);
    if (text == NULL)
        return mem_fail("JSON", 1, 1);
    struct io_file file;
    int status = io_open_output(&file, path, false);
    if (status == 0) {
        status = io_write(&file, text, strlen(text));
        if (status == 0)
            status = io_write(&file, "\n", 1);
        int closed = io_close(&file);
        status = status != 0 ? status : closed;
    }
    free(text);
    return status;
}

static int json_wrong(const json_t *member, const char *name, const char *key, const char *needed)
{
    return log_fail(ERR_DATA, "'%s': key '%s' %s; %s is needed", name, key,
                    member == NULL ? "is missing" : "has another type or range", needed);
}

int json_get_string(const json_t *object, const char *key, const char *name, const char **value)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_string(member))
        return json_wrong(member, name, key, "a string");
    *value = json_string_value(member);
    return 0;
}

int json_get_count(const json_t *object, const char *key, const char *name, uint64_t *value)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_integer(member) || json_integer_value(member) < 0)
        return json_wrong(member, name, key, "an integer of 0 or more");
    *value = (uint64_t)json_integer_value(member);
    return 0;
}

int json_get_real(const json_t *object, const char *key, const char *name, double *value)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_number(member))
        return json_wrong(member, name, key, "a number");
    *value = json_number_value(member);
    return 0;
}

bool json_is_counts(const json_t *json)
{
    const char *key;
    json_t *count;
    json_object_foreach((json_t *)json, key, count)
    {
        if (!json_is_integer(count) || json_integer_value(count) < 0)
            return false;
    }
    return json_is_object(json);
}

int json_add_counts(json_t *sums, const json_t *counts)
{
    const char *key;
    json_t *count;
    json_object_foreach((json_t *)counts, key, count)
    {
        json_int_t sum = json_integer_value(json_object_get(sums, key));
        if (__builtin_add_overflow(sum, json_integer_value(count), &sum))
            sum = INT64_MAX;
        if (json_object_set_new(sums, key, json_integer(sum)) != 0)
            return mem_fail("counts", 1, sizeof sum);
    }
    return 0;
}
