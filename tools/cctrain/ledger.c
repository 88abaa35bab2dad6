/* ledger.c - from sums over a batch to the figures that people read.
 *
 * Explained variance is given in two ways: `explained_variance` is the mean over rows of
 * 1 - ‖x - x̂‖²/‖x - x̄‖² (the reference recipe's), `fve` is 1 - Σ‖x - x̂‖²/Σ‖x - x̄‖²; x̄ is the mean
 * of the batch. The first is pulled down by rows near the mean, the second is that of papers.
 *
 * Every step is entered, also those without a line of metrics: a latent that fired once in ten
 * thousand steps is not dead, and a loss that is not finite must end the run before a checkpoint is
 * made of it. That costs a pass over F counters on the host, while the device is at the next step.
 */
#include "ledger.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"

int ledger_create(struct ledger *ledger, const struct step *step)
{
    *ledger = (struct ledger){.latents = step->latents,
                              .sources = step->sources,
                              .batch = step->batch,
                              .columns = step->columns};
    ledger->last_active = mem_alloc_zero(step->latents, sizeof *ledger->last_active);
    return ledger->last_active != NULL
               ? 0
               : mem_fail("latents", step->latents, sizeof *ledger->last_active);
}

void ledger_free(struct ledger *ledger)
{
    free(ledger->last_active);
    ledger->last_active = NULL;
}

int ledger_enter(struct ledger *ledger, struct ledger_figures *figures, uint64_t t,
                 const struct step_report *report, const struct schedule_rates *rates)
{
    double rows = (double)ledger->batch;
    uint64_t active = 0;
    for (size_t j = 0; j < ledger->latents; j++) {
        active += report->counts[j];
        if (report->counts[j] > 0)
            ledger->last_active[j] = t + 1;
    }
    const struct kernels_recon_sums *all = &report->recon[ledger->sources];
    figures->l2 = all->error / rows;
    figures->explained = 1 - all->error / all->variance;
    figures->l1 = *report->l1 / rows;
    figures->l0 = (double)active / rows;
    figures->loss = figures->l2 + rates->l1 * figures->l1;
    figures->grad_norm = (double)report->clip[1];
    if (isfinite(figures->loss) && isfinite(figures->grad_norm))
        return 0;
    return log_fail(ERR_DATA,
                    "step %" PRIu64 ": the loss is %g and the gradient's norm %g; no checkpoint is "
                    "written of this",
                    t, figures->loss, figures->grad_norm);
}

double ledger_dead_fraction(const struct ledger *ledger, uint64_t t)
{
    uint64_t rows = (t + 1) * ledger->batch;
    /* A batch that is partly inside of the window counts as inside. */
    uint64_t start = rows > LEDGER_WINDOW ? rows - LEDGER_WINDOW : 0;
    size_t dead = 0;
    for (size_t j = 0; j < ledger->latents; j++)
        if (ledger->last_active[j] * ledger->batch <= start)
            dead++;
    return (double)dead / (double)ledger->latents;
}

/* A, B, ... Z, AA, AB, ... */
static void ledger_letters(char *text, size_t size, size_t source)
{
    if (source < 26)
        snprintf(text, size, "%c", (char)('A' + source));
    else
        snprintf(text, size, "%c%c", (char)('A' + source / 26 - 1), (char)('A' + source % 26));
}

/* Both explained variances of source s, or of all with s = S. A batch without variance has none. */
static int ledger_add_variance(const struct ledger *ledger, json_t *line, size_t s,
                               const struct kernels_recon_sums *sums)
{
    char letters[8] = "", mean_name[32], pooled_name[32];
    if (s < ledger->sources)
        ledger_letters(letters, sizeof letters, s);
    const char *joint = s < ledger->sources ? "_" : "";
    snprintf(mean_name, sizeof mean_name, "explained_variance%s%s", joint, letters);
    snprintf(pooled_name, sizeof pooled_name, "fve%s%s", joint, letters);
    bool known = sums->variance > 0;
    json_t *mean = known ? json_real(sums->explained / (double)ledger->batch) : json_null();
    json_t *pooled = known ? json_real(1 - sums->error / sums->variance) : json_null();
    int failed = json_object_set_new(line, mean_name, mean);
    return failed | json_object_set_new(line, pooled_name, pooled);
}

json_t *ledger_line(const struct ledger *ledger, uint64_t t, const struct ledger_figures *figures,
                    const struct step_report *report, const struct schedule_rates *rates)
{
    json_t *line =
        json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "step", (json_int_t)t, "loss",
                  figures->loss, "l2_loss", figures->l2, "l1_loss", figures->l1, "l0_loss",
                  figures->l0, "l1_coeff", rates->l1, "lr", rates->lr, "grad_norm",
                  figures->grad_norm, "dead_fraction", ledger_dead_fraction(ledger, t));
    int failed = line == NULL;
    for (size_t s = 0; s <= ledger->sources && !failed; s++)
        failed = ledger_add_variance(ledger, line, s, &report->recon[s]);
    if (!failed)
        return line;
    json_decref(line);
    return NULL;
}
