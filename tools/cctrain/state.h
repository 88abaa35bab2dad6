/* state.h - state.json: where a checkpoint stands, and what it must be gone on with.
 */
#ifndef CCTRAIN_STATE_H
#define CCTRAIN_STATE_H

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "common/rowsum.h"

#define STATE_FILE "state.json"

struct state {
    uint64_t step, steps;  /* done, of how many */
    uint64_t rows_trained; /* step * batch */
    uint64_t first_row;    /* the number of the row that the run began with */
    uint64_t next_row;     /* the number of the row to go on with */
    struct rowsum sum;     /* of the rows trained */
    char stream[33];       /* begin_identity() of the rows */
    json_t *recipe;        /* {option: value}; owned */
};

int state_write(const struct state *state, const char *folder) MUST_CHECK;

/* ERR_DATA, logged, where a key is missing or the figures contradict each other. */
int state_read(struct state *state, const char *folder) MUST_CHECK;
void state_free(struct state *state);

/* Whether `recipe` is the state's: 0, or ERR_USAGE naming the option and both values. */
int state_check_recipe(const struct state *state, const json_t *recipe) MUST_CHECK;

#endif
