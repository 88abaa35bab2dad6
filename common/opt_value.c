/* opt_value.c - text to value and back. Every source of options ends here, so that a number in a
 * file is checked as strictly as one on the command line.
 */
#include "opt_value.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "mem.h"

/* Limits in tables are doubles; above 2^53 they mean "no limit" up to what JSON can say. */
static uint64_t value_limit(double limit)
{
    return limit >= (double)INT64_MAX ? INT64_MAX : limit <= 0 ? 0 : (uint64_t)limit;
}

static void *value_at(const struct opt *opt, void *values)
{
    return (char *)values + opt->at;
}

bool opt_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
    uint64_t number = 0, scale = 1;
    const char *c = text;
    for (; *c >= '0' && *c <= '9'; c++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*c - '0'), &number))
            return false;
    if (c == text)
        return false;
    if (*c == 'k')
        scale = 1000;
    else if (*c == 'M')
        scale = 1000000;
    else if (*c == 'G')
        scale = 1000000000;
    if (scale != 1)
        c++;
    if (*c != '\0' || __builtin_mul_overflow(number, scale, &number) || number < min ||
        number > max)
        return false;
    *value = number;
    return true;
}

/* strtod() without what it allows in front, and without infinities and NaN. */
static bool value_parse_real(const char *text, double min, double max, double *value)
{
    char *end;
    if (strchr("+-.0123456789", text[0]) == NULL || text[0] == '\0')
        return false;
    errno = 0;
    double number = strtod(text, &end);
    bool overflow = errno == ERANGE && fabs(number) > 1;
    if (end == text || *end != '\0' || overflow || !isfinite(number) || number < min ||
        number > max)
        return false;
    *value = number;
    return true;
}

/* The place of `text` among words separated by '|', or -1. */
static int value_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    int index = 0;
    for (const char *word = choices;; index++) {
        size_t size = strcspn(word, "|");
        if (size == length && length > 0 && memcmp(word, text, size) == 0)
            return index;
        if (word[size] == '\0')
            return -1;
        word += size + 1;
    }
}

void opt_value_range(const struct opt *opt, char *text, size_t size)
{
    text[0] = '\0';
    if (opt->type == OPT_TYPE_COUNT) {
        uint64_t min = value_limit(opt->min), max = value_limit(opt->max);
        if (opt->max >= 9007199254740992.0)
            snprintf(text, size, "%" PRIu64 " or more", min);
        else
            snprintf(text, size, "%" PRIu64 " to %" PRIu64, min, max);
    } else if (opt->type == OPT_TYPE_REAL) {
        if (opt->max >= 1e300 && opt->min > -1e300)
            snprintf(text, size, "%.9g or more", opt->min);
        else if (opt->max < 1e300)
            snprintf(text, size, "%.9g to %.9g", opt->min, opt->max);
    } else if (opt->type == OPT_TYPE_CHOICE) {
        size_t used = 0;
        for (const char *c = opt->choices; *c != '\0' && used + 3 < size; c++) {
            if (*c == '|')
                text[used++] = ',';
            text[used++] = *c == '|' ? ' ' : *c;
        }
        text[used] = '\0';
    } else if (opt->type == OPT_TYPE_FLAG) {
        snprintf(text, size, "true or false");
    }
}

static int value_refuse(const struct opt *opt, const char *text, const char *from)
{
    char range[256];
    opt_value_range(opt, range, sizeof range);
    if (opt->type == OPT_TYPE_COUNT)
        return log_fail(ERR_USAGE, "%s: '%s' is not a count of %s (digits; k, M or G may follow)",
                        from, text, range);
    if (opt->type == OPT_TYPE_REAL)
        return log_fail(ERR_USAGE, "%s: '%s' is not a number%s%s", from, text,
                        range[0] == '\0' ? "" : " of ", range);
    return log_fail(ERR_USAGE, "%s: '%s' is none of %s", from, text, range);
}

static int value_append(struct opt_list *list, const char *text)
{
    const char **items = mem_resize(list->items, list->count + 1, sizeof *items);
    if (items == NULL)
        return mem_fail("a list of options", list->count + 1, sizeof *items);
    list->items = items;
    items[list->count++] = text;
    return 0;
}

int opt_value_set(const struct opt *opt, void *values, const char *text, const char *from)
{
    void *at = value_at(opt, values);
    bool good = true;
    switch (opt->type) {
    case OPT_TYPE_FLAG: {
        bool on = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
        good = on || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
        if (good)
            *(bool *)at = on;
        break;
    }
    case OPT_TYPE_STRING:
        *(const char **)at = text;
        break;
    case OPT_TYPE_LIST:
        return value_append(at, text);
    case OPT_TYPE_COUNT:
        good = opt_parse_count(text, value_limit(opt->min), value_limit(opt->max), at);
        break;
    case OPT_TYPE_REAL:
        good = value_parse_real(text, opt->min, opt->max, at);
        break;
    case OPT_TYPE_CHOICE: {
        int index = value_choice(opt->choices, text);
        good = index >= 0;
        if (good)
            *(int *)at = index;
        break;
    }
    case OPT_TYPE_END:
        break;
    }
    return good ? 0 : value_refuse(opt, text, from);
}

json_t *opt_value_string(const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL)
        return value;
    char *plain = strdup(text);
    if (plain == NULL)
        return NULL;
    for (char *c = plain; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    value = json_string(plain);
    free(plain);
    return value;
}

static json_t *value_list_json(const struct opt_list *list)
{
    json_t *array = json_array();
    for (size_t i = 0; array != NULL && i < list->count; i++)
        if (json_array_append_new(array, opt_value_string(list->items[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static json_t *value_choice_json(const char *choices, int index)
{
    for (; index > 0; index--)
        choices += strcspn(choices, "|") + 1;
    return json_stringn(choices, strcspn(choices, "|"));
}

json_t *opt_value_json(const struct opt *opt, const void *values, bool known)
{
    const void *at = (const char *)values + opt->at;
    if (!known && opt->type != OPT_TYPE_FLAG && opt->type != OPT_TYPE_LIST)
        return json_null();
    switch (opt->type) {
    case OPT_TYPE_FLAG:
        return json_boolean(*(const bool *)at);
    case OPT_TYPE_STRING:
        return opt_value_string(*(const char *const *)at);
    case OPT_TYPE_LIST:
        return value_list_json(at);
    case OPT_TYPE_COUNT:
        return json_integer((json_int_t) * (const uint64_t *)at);
    case OPT_TYPE_REAL:
        return json_real(*(const double *)at);
    case OPT_TYPE_CHOICE:
        return value_choice_json(opt->choices, *(const int *)at);
    case OPT_TYPE_END:
        break;
    }
    return NULL;
}

void opt_value_free(const struct opt *opt, void *values)
{
    if (opt->type != OPT_TYPE_LIST)
        return;
    struct opt_list *list = value_at(opt, values);
    free(list->items);
    *list = (struct opt_list){0};
}
