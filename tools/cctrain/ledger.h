/* ledger.h - what the steps reported: figures for the metrics, and which latents are dead.
 */
#ifndef CCTRAIN_LEDGER_H
#define CCTRAIN_LEDGER_H

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "schedule.h"
#include "step.h"

#define LEDGER_WINDOW 10000000 /* rows without an activation that make a latent dead */

/* Figures of one step, all of its batch. */
struct ledger_figures {
    double loss, l2, l1, l0, grad_norm;
    double explained; /* of all sources: 1 - Σ‖x - x̂‖²/Σ‖x - x̄‖², or NaN */
};

struct ledger {
    size_t latents, sources;
    uint64_t batch;
    const struct kernels_columns *columns;
    uint64_t *last_active; /* (F) the number of steps done when it last fired; 0: never */
};

int ledger_create(struct ledger *ledger, const struct step *step) MUST_CHECK;
void ledger_free(struct ledger *ledger);

/* Enters the report of step t. A loss or gradient that is not finite is ERR_DATA, logged. */
int ledger_enter(struct ledger *ledger, struct ledger_figures *figures, uint64_t t,
                 const struct step_report *report, const struct schedule_rates *rates) MUST_CHECK;

/* Latents that were silent over the last min(LEDGER_WINDOW, all) rows, as a share, after step t. */
double ledger_dead_fraction(const struct ledger *ledger, uint64_t t);

/* The JSON line of step t, without the speed; NULL where memory is short. */
json_t *ledger_line(const struct ledger *ledger, uint64_t t, const struct ledger_figures *figures,
                    const struct step_report *report, const struct schedule_rates *rates);

#endif
