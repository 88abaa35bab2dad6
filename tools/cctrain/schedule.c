/* schedule.c - the formulas of schedule.h, in doubles. A share of 0 leaves its factor out. */
#include "schedule.h"

#include <math.h>

static double schedule_ramp(double t, double length)
{
    return t < length ? t / length : 1;
}

void schedule_rates(struct schedule_rates *rates, const struct recipe *recipe, uint64_t t)
{
    double steps = (double)recipe->steps, now = (double)t;
    double decay = recipe->lr_decay * steps;
    rates->l1 = recipe->l1 * schedule_ramp(now, recipe->l1_warmup * steps);
    rates->lr = recipe->lr * schedule_ramp(now, (double)recipe->lr_warmup) *
                schedule_ramp(steps - now, decay);
    rates->adam = (struct kernels_adam){
        .lr = rates->lr,
        .beta1 = recipe->beta1,
        .beta2 = recipe->beta2,
        .eps = recipe->eps,
        .correction1 = 1 - pow(recipe->beta1, now + 1),
        .correction2 = 1 - pow(recipe->beta2, now + 1),
    };
}
