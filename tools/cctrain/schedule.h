/* schedule.h - lambda, the learning rate and Adam's corrections of a step.
 *
 * All are functions of the step's number alone, so that a resumed run has nothing to restore.
 */
#ifndef CCTRAIN_SCHEDULE_H
#define CCTRAIN_SCHEDULE_H

#include <stdint.h>

#include "kernels/kernels.h"
#include "recipe.h"

/* What step t (from 0) is done with. */
struct schedule_rates {
    double l1; /* lambda_t = lambda min(1, t / (l1_warmup T)) */
    double lr; /* lr_t = lr, over the last lr_decay T steps lr (T - t) / (lr_decay T); times
                  min(1, t / lr_warmup) */
    struct kernels_adam adam;
};

void schedule_rates(struct schedule_rates *rates, const struct recipe *recipe, uint64_t t);

#endif
