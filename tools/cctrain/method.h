/* method.h - what makes a ReLU crosscoder another than a TopK one: activation, loss and gradients.
 *
 * The training loop calls forward and backward and knows no more. forward enqueues everything from
 * d_x to d_f, d_g and d_recon; backward the rest of the report's sums (d_counts, d_l1) and
 * everything to the gradient of each tensor of the dictionary; for that of W_dec it says besides
 * how strongly the loss pulls at the decoder's norms (step->decoder). Both are composed of the
 * blocks of step.h; a method with several reconstructions, a mask over the latents or an auxiliary
 * loss calls them as often and in the order that it needs.
 */
#ifndef CCTRAIN_METHOD_H
#define CCTRAIN_METHOD_H

struct step;
struct schedule_rates;

struct method {
    const char *name;
    void (*forward)(struct step *step);
    void (*backward)(struct step *step, const struct schedule_rates *rates);
};

/* The method of an --activation, or NULL where it is not built. */
const struct method *method_find(const char *name);

extern const struct method method_relu;

#endif
