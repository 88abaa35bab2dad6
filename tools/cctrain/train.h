/* train.h - a run of training, from its first row to its last checkpoint.
 */
#ifndef CCTRAIN_TRAIN_H
#define CCTRAIN_TRAIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "recipe.h"

struct train_setup {
    const char *out;    /* run folder */
    char *const *paths; /* none: standard input */
    size_t path_count;
    struct recipe recipe;  /* steps as given */
    bool has_steps;        /* --steps was given */
    bool has_latents;      /* --latents was given */
    const json_t *options; /* those that make the recipe, {name: value}; borrowed */
    const char *activation;
    const char *init;   /* or NULL */
    const char *device; /* as kernels_open() takes it */
    unsigned threads;
    uint64_t save_every, keep, log_every;
    bool resume;
    const char *metrics; /* or NULL */
    bool has_shuffle;    /* --shuffle-rows or --shuffle-seed was given */
    uint64_t shuffle_rows, shuffle_seed;
};

/* 0 where all steps are done; ERR_PEER where input ended before; or another negative code, logged.
 * What had been trained is in a checkpoint then, unless that is what failed, or the loss was not
 * finite. Runs in the main thread, as signals reach no other. */
int train_run(const struct train_setup *setup) MUST_CHECK;

/* Prints what memory, disk and rows that would take: lines of name, tab, number. */
int train_plan(const struct train_setup *setup) MUST_CHECK;

#endif
