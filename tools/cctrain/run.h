/* run.h - the run folder: one trainer at a time, checkpoints that are there whole or not at all.
 *
 * A checkpoint is written to step-N.tmp, sealed by its manifest, renamed, and the folder synced:
 * after any loss of power the newest step is this one or the one before. Older ones are removed
 * only after the new one has been read back and verified.
 */
#ifndef CCTRAIN_RUN_H
#define CCTRAIN_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct run {
    char *folder;
    int lock;     /* the folder, open and locked; -1 */
    bool created; /* by us: removed again where nothing came into it */
    char *newest; /* the checkpoint to resume from, or NULL */
    uint64_t step;
};

/* Makes the folder where it is not there, locks it, removes what a killed run left half written.
 * With `resume`, finds the newest step that verifies. Without, a folder that holds a step is
 * refused (ERR_USAGE). */
int run_open(struct run *run, const char *folder, bool resume) MUST_CHECK;

/* Once it is certain that the run goes on: removes the steps after the one that it goes on from,
 * which do not verify. */
int run_go_on(struct run *run) MUST_CHECK;
void run_close(struct run *run);

/* Writes the files of a checkpoint into `folder`. */
typedef int run_write_function(void *context, const char *folder);

/* Checkpoint `step`: `write` makes `files` in a folder, which is then put in its place; the newest
 * `keep` stay. On failure the step is not there and those before are untouched. */
int run_save(struct run *run, uint64_t step, uint64_t keep, run_write_function *write,
             void *context, const char *const *files, size_t file_count) MUST_CHECK;

#endif
