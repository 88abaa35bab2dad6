/* resolve.c - everything that can be refused before the first step is refused here.
 *
 * A run's position is the number of the row that it goes on with. A stream may begin before it,
 * then rows are passed over and their sum is compared, but not behind it. So a run that is resumed
 * before its first checkpoint stands at row 0; one that is started without --resume takes the
 * stream as it comes and remembers where it began.
 *
 * "The same stream" is told in two ways. begin_identity() compares what the stages say they do,
 * and is known before the first row; it is blind to rows that came out differently (another kind of
 * processor). The sum of the rows that are passed over compares those, where the stream has them.
 *
 * Steps that were not given are settled by the first BEGIN and kept in the state, as a stream that
 * begins at the run's position has fewer rows, and the schedules must not change with it.
 */
#include "resolve.h"

#include <inttypes.h>
#include <string.h>

#include "common/crosscoder.h"
#include "common/log.h"
#include "common/mem.h"

/* ---- options */

static int resolve_set_count(json_t *recipe, const char *key, uint64_t value)
{
    return json_object_set_new(recipe, key, json_integer((json_int_t)value)) == 0
               ? 0
               : mem_fail("the recipe", 1, 1);
}

/* F of the --init file. */
static int resolve_init_latents(struct recipe *recipe, const char *path)
{
    struct crosscoder cc;
    int status = crosscoder_read_shape(&cc, path);
    if (status != 0)
        return status;
    recipe->latents = cc.latents;
    crosscoder_free(&cc);
    return 0;
}

/* What was not given now and was settled otherwise when the run began. */
static int resolve_inherit(struct recipe *recipe, json_t *options, const struct state *old,
                           const struct train_setup *setup)
{
    json_t *init = json_object_get(old->recipe, "init");
    json_t *latents = json_object_get(old->recipe, "latents");
    if (!setup->has_steps)
        recipe->steps = old->steps;
    if (!json_is_string(init))
        return 0;
    if (!setup->has_latents && json_is_integer(latents))
        recipe->latents = (uint64_t)json_integer_value(latents);
    if (setup->init == NULL && json_object_set(options, "init", init) != 0)
        return mem_fail("the recipe", 1, 1);
    return 0;
}

int resolve_options(struct recipe *recipe, struct state *state, const struct run *run,
                    const struct train_setup *setup)
{
    *recipe = setup->recipe;
    memset(state, 0, sizeof *state);
    json_t *options = json_deep_copy(setup->options);
    int status = options == NULL ? mem_fail("the recipe", 1, 1) : 0;
    if (status == 0 && run->newest == NULL && setup->init != NULL && !setup->has_latents)
        status = resolve_init_latents(recipe, setup->init);
    if (status == 0 && run->newest != NULL)
        status = state_read(state, run->newest);
    if (status == 0 && run->newest != NULL)
        status = resolve_inherit(recipe, options, state, setup);
    if (status == 0)
        status = resolve_set_count(options, "latents", recipe->latents);
    if (status == 0)
        status = resolve_set_count(options, "steps", recipe->steps);
    if (status == 0 && run->newest != NULL)
        status = state_check_recipe(state, options);
    json_decref(state->recipe);
    state->recipe = options;
    return status == 0 && run->newest != NULL && state->step == state->steps ? 1 : status;
}

/* ---- the stream */

static int resolve_steps(struct recipe *recipe, struct state *state, const struct begin *begin,
                         const char *name)
{
    if (!begin->has_rows)
        return log_fail(ERR_USAGE,
                        "'%s' does not say how many rows it has: give --steps, the number of "
                        "batches to train on",
                        name);
    recipe->steps = begin->rows / recipe->batch;
    return resolve_set_count(state->recipe, "steps", recipe->steps);
}

/* Whether rows from BEGIN's first on are enough. */
static int resolve_check_rows(const struct recipe *recipe, const struct state *state,
                              const struct begin *begin, const char *name)
{
    uint64_t all;
    if (__builtin_mul_overflow(recipe->steps, recipe->batch, &all) ||
        __builtin_add_overflow(all, state->first_row, &all) || all > INT64_MAX)
        return log_fail(ERR_USAGE, "--steps %" PRIu64 " of %" PRIu64 " rows are beyond counting",
                        recipe->steps, recipe->batch);
    if (begin->first_row > state->next_row)
        return log_fail(ERR_USAGE,
                        "'%s' begins at row %" PRIu64 ", after row %" PRIu64
                        " where the run stands: rows would be left out",
                        name, begin->first_row, state->next_row);
    if (begin->has_rows && all - begin->first_row > begin->rows)
        return log_fail(ERR_USAGE,
                        "--steps %" PRIu64 " of %" PRIu64 " rows need %" PRIu64 " rows from row "
                        "%" PRIu64 " on, and '%s' has %" PRIu64 "; at most --steps %" PRIu64,
                        recipe->steps, recipe->batch, all - begin->first_row, begin->first_row,
                        name, begin->rows,
                        (begin->first_row + begin->rows - state->first_row) / recipe->batch);
    return 0;
}

int resolve_stream(struct recipe *recipe, struct state *state, const struct run *run,
                   const struct train_setup *setup, const struct begin *begin, const char *name)
{
    char identity[33];
    int status = begin_identity(begin, identity);
    if (status != 0)
        return status;
    if (run->newest == NULL) {
        memcpy(state->stream, identity, sizeof identity);
        state->first_row = state->next_row = setup->resume ? 0 : begin->first_row;
        if (!setup->has_steps)
            status = resolve_steps(recipe, state, begin, name);
        state->steps = recipe->steps;
    } else if (strcmp(state->stream, identity) != 0) {
        return log_fail(ERR_USAGE,
                        "'%s' is not the stream that the run was trained on (%s, and that was "
                        "%s): the same commands with the same options make it again",
                        name, identity, state->stream);
    }
    return status != 0 ? status : resolve_check_rows(recipe, state, begin, name);
}
