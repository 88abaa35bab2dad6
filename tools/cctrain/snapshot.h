/* snapshot.h - what a checkpoint of a run is made of, out of the device and back into it.
 */
#ifndef CCTRAIN_SNAPSHOT_H
#define CCTRAIN_SNAPSHOT_H

#include <stddef.h>

#include "common/begin.h"
#include "common/crosscoder.h"
#include "ledger.h"
#include "state.h"
#include "step.h"

struct snapshot {
    struct step *step;
    struct ledger *ledger;
    struct crosscoder *cc;     /* host memory that the weights pass through */
    const struct begin *begin; /* of the rows */
    const struct recipe *recipe;
    const char *activation;
    struct state state;
};

/* The files that snapshot_write() makes. */
extern const char *const snapshot_files[];
extern const size_t snapshot_file_count;

/* Writes the files into a folder; a run_write_function, context: struct snapshot. */
int snapshot_write(void *context, const char *folder) MUST_CHECK;

/* Reads weights, moments and last activations; the state has been read before. */
int snapshot_read(struct snapshot *snapshot, const char *folder) MUST_CHECK;

/* Weights of `path` (anything that crosscoder_read() takes) into snapshot->cc, if widths and
 * latents are those of the run (ERR_USAGE). */
int snapshot_read_weights(struct snapshot *snapshot, const char *path) MUST_CHECK;

#endif
