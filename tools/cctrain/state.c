/* state.c - state.json is read by people and by other programs, too, hence the plain keys.
 *
 * The sum is written in hexadecimal: a JSON integer has no 64 bits in every reader. first_row and
 * next_row are numbers of the stream, rows_trained counts; they differ for a run that did not begin
 * with row 0 of its stream.
 *
 * The recipe is compared key by key as JSON values. A key that only one side has is a difference:
 * it is an option of another version, whose default may not be what the run was made with.
 */
#include "state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

#define STATE_MOST (1u << 20) /* bytes of the file */

int state_write(const struct state *state, const char *folder)
{
    char low[17], high[17];
    snprintf(low, sizeof low, "%016" PRIx64, state->sum.low);
    snprintf(high, sizeof high, "%016" PRIx64, state->sum.high);
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:{s:s, s:s}, s:s, s:O}", "step", (json_int_t)state->step,
        "steps", (json_int_t)state->steps, "rows_trained", (json_int_t)state->rows_trained,
        "first_row", (json_int_t)state->first_row, "next_row", (json_int_t)state->next_row, "sum",
        "low", low, "high", high, "stream", state->stream, "recipe", state->recipe);
    char *path = io_join(folder, STATE_FILE);
    int status =
        json == NULL || path == NULL ? mem_fail(STATE_FILE, 1, 1) : json_write_file(json, path);
    free(path);
    json_decref(json);
    return status;
}

/* A half of the sum: 16 hexadecimal digits. */
static int state_read_half(const json_t *sum, const char *key, const char *name, uint64_t *value)
{
    const char *text;
    int status = json_get_string(sum, key, name, &text);
    if (status != 0)
        return status;
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return log_fail(ERR_DATA, "'%s': 'sum.%s' is not 16 hexadecimal digits", name, key);
    *value = strtoull(text, NULL, 16);
    return 0;
}

static int state_parse(struct state *state, const json_t *json, const char *name)
{
    const struct {
        const char *key;
        uint64_t *value;
    } counts[] = {{"step", &state->step},
                  {"steps", &state->steps},
                  {"rows_trained", &state->rows_trained},
                  {"first_row", &state->first_row},
                  {"next_row", &state->next_row}};
    int status = 0;
    for (size_t i = 0; i < sizeof counts / sizeof *counts && status == 0; i++)
        status = json_get_count(json, counts[i].key, name, counts[i].value);
    const json_t *sum = json_object_get(json, "sum");
    if (status == 0)
        status = state_read_half(sum, "low", name, &state->sum.low);
    if (status == 0)
        status = state_read_half(sum, "high", name, &state->sum.high);
    const char *stream = "";
    if (status == 0)
        status = json_get_string(json, "stream", name, &stream);
    if (status != 0)
        return status;
    json_t *recipe = json_object_get(json, "recipe");
    if (strlen(stream) != sizeof state->stream - 1 || !json_is_object(recipe) ||
        state->step > state->steps || state->next_row - state->first_row != state->rows_trained)
        return log_fail(ERR_DATA, "'%s': the figures contradict each other", name);
    memcpy(state->stream, stream, sizeof state->stream);
    state->recipe = json_incref(recipe);
    return 0;
}

int state_read(struct state *state, const char *folder)
{
    memset(state, 0, sizeof *state);
    char *path = io_join(folder, STATE_FILE);
    if (path == NULL)
        return mem_fail(STATE_FILE, 1, 1);
    json_t *json = NULL;
    int status = json_read_file(&json, path, STATE_MOST);
    if (status == 0)
        status = state_parse(state, json, path);
    json_decref(json);
    free(path);
    return status;
}

void state_free(struct state *state)
{
    json_decref(state->recipe);
    state->recipe = NULL;
}

int state_check_recipe(const struct state *state, const json_t *recipe)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)recipe, key, value)
    {
        const json_t *then = json_object_get(state->recipe, key);
        if (then != NULL && json_equal(value, then))
            continue;
        const size_t how = JSON_ENCODE_ANY | JSON_REAL_PRECISION(15); /* as a person wrote them */
        char *now_text = json_dumps(value, how);
        char *then_text = then == NULL ? NULL : json_dumps(then, how);
        int status = log_fail(ERR_USAGE,
                              "--%s is %s now and was %s when the run began; --resume goes on with "
                              "the same recipe",
                              key, now_text != NULL ? now_text : "?",
                              then_text != NULL ? then_text : "not known");
        free(now_text);
        free(then_text);
        return status;
    }
    return 0;
}
