/* checkpoint.h - a training run on disk: run folder, step folders, manifest.
 *
 *     RUN/step-N/cc.safetensors     the weights (crosscoder.h)
 *     RUN/step-N/cfg.json           the seed's keys, for its loader
 *     RUN/step-N/optim.safetensors  Adam's moments
 *     RUN/step-N/state.json         step, rows, sums, counters
 *     RUN/step-N/manifest.json      sizes and XXH3-128 of the others; written last
 *     RUN/step-N.tmp                one that was being written; never read
 *
 * A step counts once its manifest agrees with its files. Who writes one: make step-N.tmp, write
 * the files, checkpoint_seal(), rename, checkpoint_sync_folder() of the run folder; then after any
 * loss of power the step is there whole, or the one before is the newest.
 */
#ifndef CCPIPE_CHECKPOINT_H
#define CCPIPE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "crosscoder.h"
#include "err.h"

#define CHECKPOINT_WEIGHTS "cc.safetensors"
#define CHECKPOINT_MANIFEST "manifest.json"

/* The newest step of a run folder whose manifest verifies: *step and *folder (free() it). 0; 1
 * where there is no step at all; ERR_DATA (logged) where there are some and none verifies; or
 * another negative code. With `warn`, steps that do not verify are named in a warning. */
int checkpoint_newest(const char *run, uint64_t *step, char **folder, bool warn) MUST_CHECK;

/* The step numbers of a run folder, whether they verify or not, newest first: *steps (count),
 * free() it. ERR_USAGE (logged) where the folder cannot be opened. */
int checkpoint_list(const char *run, uint64_t **steps, size_t *count) MUST_CHECK;

/* Checks manifest.json of a step folder against its files. 0, or ERR_DATA / ERR_TRUNCATED (logged
 * unless `quiet`), ERR_IO, ERR_MEMORY. */
int checkpoint_verify(const char *folder, bool quiet) MUST_CHECK;

/* Writes manifest.json for the files named (relative to folder) and fsyncs them, it, and the
 * folder. */
int checkpoint_seal(const char *folder, const char *const *files, size_t count) MUST_CHECK;

/* fsync of a folder. */
int checkpoint_sync_folder(const char *folder) MUST_CHECK;

/* Removes a folder with the plain files in it; what is not there is no error. A symbolic link to a
 * folder is removed, and not what it points to. */
int checkpoint_remove(const char *folder) MUST_CHECK;

#endif
