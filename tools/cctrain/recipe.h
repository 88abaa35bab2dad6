/* recipe.h - what a run is asked to do, apart from where and how often it is saved. */
#ifndef CCTRAIN_RECIPE_H
#define CCTRAIN_RECIPE_H

#include <stdint.h>

#include "common/dtype.h"

struct recipe {
    uint64_t latents; /* F */
    uint64_t batch;   /* B: rows of a step */
    uint64_t steps;   /* T */
    uint64_t seed;    /* of the initial weights */
    double lr, beta1, beta2, eps;
    double clip;        /* largest norm of the whole gradient; 0: any */
    double l1;          /* lambda */
    double l1_warmup;   /* share of the steps over which lambda rises from 0 */
    double lr_decay;    /* share of the steps, the last ones, over which lr falls to 0 */
    uint64_t lr_warmup; /* steps over which lr rises from 0 */
    enum dtype dtype;   /* of the products: F32 or BF16 */
};

#endif
