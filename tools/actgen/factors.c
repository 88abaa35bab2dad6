/* factors.c - √d ÷ mean norm, rounded to the digits that a file holds. */
#include "factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

enum { DIGITS = 9, FILE_MAX_BYTES = 1 << 20 };

/* 9 significant digits tell any two f32 apart. */
static double round_factor(double factor)
{
    char text[32];
    snprintf(text, sizeof text, "%.*g", DIGITS, factor);
    return strtod(text, NULL);
}

/* Rows are multiplied in f32, so the factor has to be a number there too. */
static bool is_usable(double factor)
{
    return isfinite((float)factor) && (float)factor > 0;
}

int factors_read(double *factors, const struct sources *sources, const char *path)
{
    json_t *file;
    int status = json_read_file(&file, path, FILE_MAX_BYTES);
    if (status != 0)
        return status;
    if (!json_is_object(file))
        status = log_fail(ERR_DATA, "'%s' is not an object of source names and factors", path);
    for (size_t i = 0; i < sources->count && status == 0; i++) {
        const char *name = sources->items[i].name;
        const json_t *member = json_object_get(file, name);
        if (member == NULL)
            status = log_fail(ERR_USAGE, "--norm '%s' has no factor for source '%s'", path, name);
        else if (!json_is_number(member) || !is_usable(json_number_value(member)))
            status =
                log_fail(ERR_DATA, "'%s': the factor of '%s' is not a positive number", path, name);
        else
            factors[i] = round_factor(json_number_value(member));
    }
    json_decref(file);
    return status;
}

int factors_from_mean(double *factor, const struct source *source, uint32_t width, double mean)
{
    double exact = sqrt((double)width) / mean;
    if (!(mean > 0) || !is_usable(exact))
        return log_fail(ERR_DATA,
                        "the mean norm of source '%s' is %g, so there is no factor for it; give "
                        "factors with --norm FILE, or --norm none",
                        source->name, mean);
    *factor = round_factor(exact);
    return 0;
}

int factors_write(const double *factors, const struct sources *sources, const char *path)
{
    json_t *object = json_object();
    int failed = object == NULL;
    for (size_t i = 0; i < sources->count && !failed; i++)
        failed = json_object_set_new(object, sources->items[i].name, json_real(factors[i])) != 0;
    char *text = failed ? NULL : json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(DIGITS));
    json_decref(object);
    if (text == NULL)
        return mem_fail("the factors", sources->count, 1);
    struct io_file file = IO_FILE_CLOSED;
    int status = io_open_output(&file, path, false);
    if (status == 0)
        status = io_write(&file, text, strlen(text));
    if (status == 0)
        status = io_write(&file, "\n", 1);
    int closed = io_close(&file);
    free(text);
    return status != 0 ? status : closed;
}
