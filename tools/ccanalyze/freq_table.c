/* freq_table.c - a small reader of tab-separated values: a header line, then lines of numbers. */
#include "freq_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/log.h"
#include "common/opt.h"

#define FREQ_TABLE_MAX_BYTES (1u << 30)

/* Cuts the line at *text off (its newline becomes 0) and moves *text behind it; NULL at the end. */
static char *freq_line(char **text)
{
    char *line = *text;
    if (*line == '\0')
        return NULL;
    char *end = line + strcspn(line, "\n");
    *text = *end == '\0' ? end : end + 1;
    *end = '\0';
    return line;
}

/* The n-th field of a line, its length in *length; NULL where the line is shorter. */
static const char *freq_field(const char *line, size_t n, size_t *length)
{
    for (; n > 0; n--) {
        line = strchr(line, '\t');
        if (line == NULL)
            return NULL;
        line++;
    }
    *length = strcspn(line, "\t");
    return line;
}

static bool freq_find_column(const char *header, const char *name, size_t *column)
{
    const char *field;
    size_t length;
    for (size_t i = 0; (field = freq_field(header, i, &length)) != NULL; i++)
        if (length == strlen(name) && memcmp(field, name, length) == 0) {
            *column = i;
            return true;
        }
    return false;
}

static bool freq_number(const char *line, size_t column, uint64_t *value)
{
    char digits[24];
    size_t length;
    const char *field = freq_field(line, column, &length);
    if (field == NULL || length >= sizeof digits)
        return false;
    memcpy(digits, field, length);
    digits[length] = '\0';
    return opt_parse_count(digits, 0, UINT64_MAX, value);
}

static int freq_parse_lines(char *text, const char *path, uint8_t *dead, size_t latents)
{
    size_t index_column, count_column, seen = 0, number = 1;
    char *line = freq_line(&text);
    if (line == NULL || !freq_find_column(line, "index", &index_column) ||
        !freq_find_column(line, "count", &count_column))
        return log_fail(ERR_USAGE,
                        "'%s' has no columns 'index' and 'count': is it the output of "
                        "ccanalyze freq?",
                        path);
    memset(dead, 2, latents); /* 2: no line yet */
    while ((line = freq_line(&text)) != NULL) {
        uint64_t index, count;
        number++;
        if (!freq_number(line, index_column, &index) || !freq_number(line, count_column, &count))
            return log_fail(ERR_DATA, "'%s' line %zu: no index and count", path, number);
        if (index >= latents || dead[index] != 2)
            return log_fail(ERR_USAGE, "'%s' line %zu: latent %llu %s", path, number,
                            (unsigned long long)index,
                            index >= latents ? "is not in this crosscoder" : "comes twice");
        dead[index] = count == 0;
        seen++;
    }
    if (seen == latents)
        return 0;
    return log_fail(ERR_USAGE, "'%s' has %zu latents, the crosscoder has %zu", path, seen, latents);
}

int freq_table_parse(char *text, size_t size, const char *name, uint8_t *dead, size_t latents,
                     size_t *dead_count)
{
    *dead_count = 0;
    if (memchr(text, '\0', size) != NULL)
        return log_fail(ERR_DATA, "'%s' is not text", name);
    int status = freq_parse_lines(text, name, dead, latents);
    for (size_t j = 0; status == 0 && j < latents; j++)
        *dead_count += dead[j];
    return status;
}

int freq_table_read(const char *path, uint8_t *dead, size_t latents, size_t *dead_count)
{
    char *text = NULL;
    size_t size;
    int status = io_read_file(&text, &size, path, FREQ_TABLE_MAX_BYTES);
    if (status == 0)
        status = freq_table_parse(text, size, path, dead, latents, dead_count);
    free(text);
    return status;
}
