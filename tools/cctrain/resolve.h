/* resolve.h - the recipe of a run out of its options, the checkpoint it goes on from, and BEGIN.
 */
#ifndef CCTRAIN_RESOLVE_H
#define CCTRAIN_RESOLVE_H

#include "common/begin.h"
#include "run.h"
#include "state.h"
#include "train.h"

/* Before the stream is opened. With a checkpoint in `run` its state is read, and what was not given
 * is taken from there; what was given otherwise is refused (ERR_USAGE). 1 where the run is
 * finished; 0 to go on; or a negative code. state->recipe is then the recipe of this run (but for
 * "steps", below). */
int resolve_options(struct recipe *recipe, struct state *state, const struct run *run,
                    const struct train_setup *setup) MUST_CHECK;

/* With BEGIN: the number of steps, and whether the stream holds the rows that are needed, and is
 * the one that was trained on. `name` is the stream's. */
int resolve_stream(struct recipe *recipe, struct state *state, const struct run *run,
                   const struct train_setup *setup, const struct begin *begin,
                   const char *name) MUST_CHECK;

#endif
