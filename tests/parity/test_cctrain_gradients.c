/* test_cctrain_gradients.c - the gradient of every parameter: the plain trainer's against central
 * differences of its loss, and the device's against the plain trainer's, at odd sizes and for one,
 * two and three sources of unequal widths.
 */
#include "training_device.h"

enum { B = 7, F = 11 };

static const double l1_coeff = 0.37;

/* Rows and weights, drawn until no latent is near its kink, where there is no gradient. */
static void draw(struct training *t, float *x, uint64_t seed)
{
    struct parity random = {.state = seed};
    double nearest;
    do {
        for (size_t i = 0; i < t->b * t->d; i++)
            x[i] = 2 * parity_uniform(&random);
        for (size_t i = 0; i < DICTIONARY_COUNT; i++)
            for (size_t k = 0; k < t->count[i]; k++)
                t->w[i][k] = (double)(float)(0.7 * (double)parity_uniform(&random));
        training_forward(t, x);
        nearest = 1;
        for (size_t i = 0; i < t->b * t->f; i++)
            nearest = fmin(nearest, fabs(t->pre[i]));
    } while (nearest < 2e-3);
}

/* In each parameter alone the loss is a quadratic plus a norm, whose third derivative is below
 * 1/n², so a central difference is off by h²/6 of that and by the rounding of the loss over h. */
static void plain_gradients_are_those_of_the_loss(const uint32_t *widths, size_t s)
{
    struct training t;
    training_create(&t, widths, s, B, F, DTYPE_F32);
    float *x = parity_host(t.b * t.d, sizeof *x);
    draw(&t, x, 49 + s);
    training_gradients(&t, x, l1_coeff);
    const double h = 1e-5, tolerance = 1e-8 * (1 + t.loss);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < t.count[i]; k++) {
            double at = t.w[i][k], gradient = t.g[i][k].v;
            t.w[i][k] = at + h;
            double above = training_loss(&t, x, l1_coeff);
            t.w[i][k] = at - h;
            double below = training_loss(&t, x, l1_coeff);
            t.w[i][k] = at;
            parity_near(gradient, (above - below) / (2 * h), tolerance, "gradient", k);
        }
    free(x);
    training_free(&t);
}

/* T = F32: the bound of training.h. T = BF16: a sum that falls near the middle of two BF16 values
 * may be rounded to the other one, in f, g or dpre, each by at most 2^-7 of itself. */
static void device_gradients_are_the_plain_ones(const uint32_t *widths, size_t s, enum dtype type)
{
    struct training t;
    struct training_device device;
    training_create(&t, widths, s, B, F, type);
    training_device_open(&device, &t, 2);
    float *x = parity_host(t.b * t.d, sizeof *x);
    draw(&t, x, 49 + s);
    training_device_start(&device, &t);
    training_gradients(&t, x, l1_coeff);
    /* Adam's first moment is the gradient where it keeps nothing and nothing is clipped. */
    struct schedule_rates rates = {.l1 = l1_coeff,
                                   .lr = 0,
                                   .adam = {.lr = 0,
                                            .beta1 = 0,
                                            .beta2 = 0.999,
                                            .eps = 1e-8,
                                            .correction1 = 1,
                                            .correction2 = 0.001}};
    step_run(&device.step, (const uint8_t *)x, 0, &rates, 0);
    double unit = training_slack(&t) * PARITY_U + (type == DTYPE_BF16 ? 3 * 0x1p-7 : 0);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        float *got = training_device_get(&device, i, true);
        double off = 0, all = 0;
        for (size_t k = 0; k < t.count[i]; k++) {
            parity_near((double)got[k], t.g[i][k].v, unit * t.g[i][k].m,
                        device.step.dictionary.tensors[i].name, k);
            off += pow((double)got[k] - t.g[i][k].v, 2);
            all += pow(t.g[i][k].v, 2);
        }
        /* Few are rounded the other way: all in all they are within the rounding of one value. */
        assert_true(sqrt(off) <= PARITY_U_BF16 * sqrt(all));
        free(got);
    }
    const struct step_report *report;
    assert_int_equal(step_report(&device.step, 0, &report), 0);
    double norm_slack = 0, l2_slack = 0, l1_slack = 0;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < t.count[i]; k++)
            norm_slack += pow(t.g[i][k].m, 2);
    for (size_t i = 0; i < t.b * t.d; i++)
        l2_slack += 2 * fabs(t.error[i].v) * t.error[i].m / B;
    for (size_t i = 0; i < t.b * t.f; i++)
        l1_slack += t.latent[i].m * training_weight(&t, i % t.f) / B;
    parity_near((double)report->clip[1], t.grad_norm, unit * sqrt(norm_slack), "grad_norm", 0);
    parity_near(report->recon[s].error / B, t.l2, unit * l2_slack, "l2", 0);
    parity_near(*report->l1 / B, t.l1, unit * l1_slack, "l1", 0);
    uint64_t active = 0;
    for (size_t j = 0; j < F; j++)
        active += report->counts[j];
    assert_int_equal(active, lround(t.l0 * B));
    free(x);
    training_device_close(&device);
    training_free(&t);
}

static const uint32_t one[] = {5}, two[] = {3, 6}, three[] = {4, 1, 7};

static void of_one_source(void **state)
{
    (void)state;
    plain_gradients_are_those_of_the_loss(one, 1);
    device_gradients_are_the_plain_ones(one, 1, DTYPE_F32);
    device_gradients_are_the_plain_ones(one, 1, DTYPE_BF16);
}

static void of_two_sources_of_unequal_widths(void **state)
{
    (void)state;
    plain_gradients_are_those_of_the_loss(two, 2);
    device_gradients_are_the_plain_ones(two, 2, DTYPE_F32);
    device_gradients_are_the_plain_ones(two, 2, DTYPE_BF16);
}

static void of_three_sources_one_of_them_a_single_column(void **state)
{
    (void)state;
    plain_gradients_are_those_of_the_loss(three, 3);
    device_gradients_are_the_plain_ones(three, 3, DTYPE_F32);
    device_gradients_are_the_plain_ones(three, 3, DTYPE_BF16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_one_source),
        cmocka_unit_test(of_two_sources_of_unequal_widths),
        cmocka_unit_test(of_three_sources_one_of_them_a_single_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
