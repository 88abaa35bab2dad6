/* test_cctrain_steps.c - a training run step by step: the plain trainer against torch's run
 * (tests/golden/train, made by tests/oracle/make_training_golden.py), and the device against the
 * plain trainer, in f32 and in bf16.
 *
 * Adam divides by the gradient's own size, so a gradient that is nearly 0 turns its rounding into a
 * whole step of lr, and no bound for single weights holds over many steps. What may differ is
 * therefore measured on the plain trainer itself: "shadows" are runs of it whose every gradient is
 * off by a random sign times the rounding that training.h allows. The device may be off by twice
 * the farthest shadow.
 */
#include "training_device.h"

#include "common/io.h"
#include "common/json.h"
#include "common/npy.h"
#include "tools/cctrain/ledger.h"

enum { SHADOWS = 4, MOST_STEPS = 32 };

static const char folder[] = "tests/golden/train/";

/* A run: its recipe, its rows, and where it starts. */
struct run_input {
    struct recipe recipe;
    const uint32_t *widths;
    size_t s;
    const float *rows;
    const double *start[DICTIONARY_COUNT];
};

/* What the plain trainer says of each step, and its last weights. */
struct run_output {
    double loss[MOST_STEPS], l2[MOST_STEPS], l1[MOST_STEPS], l0[MOST_STEPS], norm[MOST_STEPS];
    double explained[MOST_STEPS][2][8];
    double *w[DICTIONARY_COUNT];
};

/* Runs the plain trainer; `random`: with gradients off by their rounding. */
static void run_plain(struct run_output *out, const struct run_input *in, struct parity *random)
{
    struct training t;
    const struct recipe *recipe = &in->recipe;
    training_create(&t, in->widths, in->s, (size_t)recipe->batch, (size_t)recipe->latents,
                    recipe->dtype);
    double unit = training_slack(&t) * PARITY_U;
    double flips = recipe->dtype == DTYPE_BF16 ? 0x1p-8 : 0;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        memcpy(t.w[i], in->start[i], t.count[i] * sizeof *t.w[i]);
    for (uint64_t step = 0; step < recipe->steps; step++) {
        struct schedule_rates rates;
        schedule_rates(&rates, recipe, step);
        training_gradients(&t, in->rows + step * t.b * t.d, rates.l1);
        out->loss[step] = t.loss, out->l2[step] = t.l2, out->l1[step] = t.l1;
        out->l0[step] = t.l0, out->norm[step] = t.grad_norm;
        memcpy(out->explained[step], t.explained, sizeof t.explained);
        for (size_t i = 0; i < DICTIONARY_COUNT && random != NULL; i++)
            for (size_t k = 0; k < t.count[i]; k++)
                t.g[i][k].v += ((parity_bits(random) & 1) != 0 ? 1 : -1) *
                               (unit * t.g[i][k].m + flips * fabs(t.g[i][k].v));
        training_update(&t, recipe, rates.lr, step);
    }
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        out->w[i] = t.w[i];
        t.w[i] = NULL;
    }
    training_free(&t);
}

static void output_free(struct run_output *out)
{
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        free(out->w[i]);
}

/* ---- torch's run */

struct golden {
    json_t *json;
    struct crosscoder start, final;
    float *rows;
    uint32_t widths[2];
    double *start_f64[DICTIONARY_COUNT];
};

static double number(const json_t *object, const char *key)
{
    double value = 0;
    assert_int_equal(json_get_real(object, key, "trajectory.json", &value), 0);
    return value;
}

static float *array_of(const struct crosscoder *cc, size_t tensor)
{
    float *const arrays[] = {cc->w_enc, cc->w_dec, cc->b_enc, cc->b_dec};
    return arrays[tensor];
}

static size_t count_of(const struct crosscoder *cc, size_t tensor)
{
    const size_t f = (size_t)cc->latents, d = (size_t)cc->width;
    const size_t counts[] = {d * f, d * f, f, d};
    return counts[tensor];
}

static void golden_read(struct golden *golden)
{
    char path[64];
    memset(golden, 0, sizeof *golden);
    snprintf(path, sizeof path, "%strajectory.json", folder);
    assert_int_equal(json_read_file(&golden->json, path, 1 << 20), 0);
    snprintf(path, sizeof path, "%sinit.safetensors", folder);
    assert_int_equal(crosscoder_read(&golden->start, path), 0);
    snprintf(path, sizeof path, "%sfinal.safetensors", folder);
    assert_int_equal(crosscoder_read(&golden->final, path), 0);
    for (size_t i = 0; i < 2; i++)
        golden->widths[i] = golden->start.sources[i].width;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        golden->start_f64[i] = parity_host(count_of(&golden->start, i), sizeof(double));
        for (size_t k = 0; k < count_of(&golden->start, i); k++)
            golden->start_f64[i][k] = (double)array_of(&golden->start, i)[k];
    }
    snprintf(path, sizeof path, "%srows.npy", folder);
    char *bytes = NULL;
    size_t size = 0;
    struct npy_header header;
    assert_int_equal(io_read_file(&bytes, &size, path, 1 << 20), 0);
    assert_int_equal(npy_parse(&header, (const uint8_t *)bytes, size, path), 0);
    assert_string_equal(header.type, "<f4");
    assert_int_equal(size, header.data_offset + 4 * header.elements);
    golden->rows = parity_host(header.elements, sizeof *golden->rows);
    memcpy(golden->rows, bytes + header.data_offset, 4 * header.elements);
    free(bytes);
}

static void golden_free(struct golden *golden)
{
    json_decref(golden->json);
    crosscoder_free(&golden->start);
    crosscoder_free(&golden->final);
    free(golden->rows);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        free(golden->start_f64[i]);
}

static void golden_input(struct run_input *in, const struct golden *golden, enum dtype type)
{
    const json_t *recipe = json_object_get(golden->json, "recipe");
    *in = (struct run_input){
        .recipe = {.latents = (uint64_t)number(recipe, "latents"),
                   .batch = (uint64_t)number(recipe, "batch"),
                   .steps = (uint64_t)number(recipe, "steps"),
                   .lr = number(recipe, "lr"),
                   .beta1 = number(recipe, "beta1"),
                   .beta2 = number(recipe, "beta2"),
                   .eps = number(recipe, "eps"),
                   .clip = number(recipe, "clip"),
                   .l1 = number(recipe, "l1"),
                   .l1_warmup = number(recipe, "l1-warmup"),
                   .lr_decay = number(recipe, "lr-decay"),
                   .lr_warmup = (uint64_t)number(recipe, "lr-warmup"),
                   .dtype = type},
        .widths = golden->widths,
        .s = 2,
        .rows = golden->rows,
    };
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        in->start[i] = golden->start_f64[i];
}

/* Two f64 computations of one run. */
static void the_plain_trainer_is_torch(void **state)
{
    (void)state;
    struct golden golden;
    struct run_input in;
    struct run_output out;
    golden_read(&golden);
    golden_input(&in, &golden, DTYPE_F32);
    run_plain(&out, &in, NULL);
    for (size_t t = 0; t < in.recipe.steps; t++) {
        const json_t *line = json_array_get(json_object_get(golden.json, "steps"), t);
        const struct {
            const char *key;
            double got;
        } figures[] = {{"loss", out.loss[t]},
                       {"l2_loss", out.l2[t]},
                       {"l1_loss", out.l1[t]},
                       {"l0_loss", out.l0[t]},
                       {"grad_norm", out.norm[t]},
                       {"explained_variance_A", out.explained[t][0][0]},
                       {"explained_variance_B", out.explained[t][0][1]},
                       {"explained_variance", out.explained[t][0][2]},
                       {"fve_A", out.explained[t][1][0]},
                       {"fve_B", out.explained[t][1][1]},
                       {"fve", out.explained[t][1][2]}};
        for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
            parity_near(figures[i].got, number(line, figures[i].key),
                        1e-9 * (1 + fabs(number(line, figures[i].key))), figures[i].key, t);
        struct schedule_rates rates;
        schedule_rates(&rates, &in.recipe, t);
        parity_near(rates.l1, number(line, "l1_coeff"), 1e-15, "l1_coeff", t);
        parity_near(rates.lr, number(line, "lr"), 1e-15, "lr", t);
    }
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < count_of(&golden.final, i); k++)
            parity_near(out.w[i][k], (double)array_of(&golden.final, i)[k],
                        PARITY_U * (1 + fabs(out.w[i][k])), "weight", k);
    output_free(&out);
    golden_free(&golden);
}

/* ---- the device's run */

/* The farthest that shadows get from the plain run. */
struct run_slack {
    double loss[MOST_STEPS], l0[MOST_STEPS], norm[MOST_STEPS], explained[MOST_STEPS];
    double w[DICTIONARY_COUNT];
};

static void measure_slack(struct run_slack *slack, const struct run_output *plain,
                          const struct run_input *in, const size_t counts[DICTIONARY_COUNT])
{
    memset(slack, 0, sizeof *slack);
    struct parity random = {.state = 7};
    for (int shadow = 0; shadow < SHADOWS; shadow++) {
        struct run_output out;
        run_plain(&out, in, &random);
        for (size_t t = 0; t < in->recipe.steps; t++) {
            slack->loss[t] = fmax(slack->loss[t], fabs(out.loss[t] - plain->loss[t]));
            slack->l0[t] = fmax(slack->l0[t], fabs(out.l0[t] - plain->l0[t]));
            slack->norm[t] = fmax(slack->norm[t], fabs(out.norm[t] - plain->norm[t]));
            for (size_t i = 0; i <= in->s; i++)
                for (size_t way = 0; way < 2; way++)
                    slack->explained[t] =
                        fmax(slack->explained[t],
                             fabs(out.explained[t][way][i] - plain->explained[t][way][i]));
        }
        for (size_t i = 0; i < DICTIONARY_COUNT; i++)
            for (size_t k = 0; k < counts[i]; k++)
                slack->w[i] = fmax(slack->w[i], fabs(out.w[i][k] - plain->w[i][k]));
        output_free(&out);
    }
}

/* Twice the shadow, and the figure's own rounding. */
static double allowed(double slack, double value, double unit)
{
    return 2 * slack + unit * fabs(value);
}

static void check_report(const struct training_device *device, const struct run_output *plain,
                         const struct run_slack *slack, const struct run_input *in, uint64_t t,
                         double unit)
{
    struct ledger ledger;
    struct ledger_figures figures;
    const struct step_report *report;
    struct schedule_rates rates;
    struct step *step = (struct step *)(uintptr_t)&device->step;
    schedule_rates(&rates, &in->recipe, t);
    assert_int_equal(step_report(step, t, &report), 0);
    assert_int_equal(ledger_create(&ledger, step), 0);
    assert_int_equal(ledger_enter(&ledger, &figures, t, report, &rates), 0);
    parity_near(figures.loss, plain->loss[t], allowed(slack->loss[t], plain->loss[t], unit), "loss",
                t);
    /* A latent at its kink may be on or off. */
    double kinks = in->recipe.dtype == DTYPE_BF16 ? 2 : 1;
    parity_near(figures.l0, plain->l0[t], 2 * slack->l0[t] + kinks / (double)in->recipe.batch, "l0",
                t);
    parity_near(figures.grad_norm, plain->norm[t], allowed(slack->norm[t], plain->norm[t], unit),
                "grad_norm", t);
    for (size_t i = 0; i <= in->s; i++) {
        const struct kernels_recon_sums *sums = &report->recon[i];
        double mean = sums->explained / (double)in->recipe.batch;
        double pooled = 1 - sums->error / sums->variance;
        parity_near(mean, plain->explained[t][0][i],
                    allowed(slack->explained[t], 1 + fabs(mean), unit), "explained variance", t);
        parity_near(pooled, plain->explained[t][1][i],
                    allowed(slack->explained[t], 1 + fabs(pooled), unit), "fve", t);
    }
    ledger_free(&ledger);
}

static void compare_device(const struct run_input *in)
{
    struct run_output plain;
    struct run_slack slack;
    struct training t;
    struct training_device device;
    const struct recipe *recipe = &in->recipe;
    training_create(&t, in->widths, in->s, (size_t)recipe->batch, (size_t)recipe->latents,
                    recipe->dtype);
    run_plain(&plain, in, NULL);
    measure_slack(&slack, &plain, in, t.count);
    training_device_open(&device, &t, 2);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        memcpy(t.w[i], in->start[i], t.count[i] * sizeof *t.w[i]);
    training_device_start(&device, &t);
    double unit = training_slack(&t) * PARITY_U * 8;
    if (recipe->dtype == DTYPE_BF16)
        unit += PARITY_U_BF16;
    for (uint64_t step = 0; step < recipe->steps; step++) {
        struct schedule_rates rates;
        schedule_rates(&rates, recipe, step);
        step_run(&device.step, (const uint8_t *)(in->rows + step * t.b * t.d), step, &rates,
                 recipe->clip);
        check_report(&device, &plain, &slack, in, step, unit);
    }
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        float *got = training_device_get(&device, i, false);
        for (size_t k = 0; k < t.count[i]; k++)
            parity_near((double)got[k], plain.w[i][k], allowed(slack.w[i], plain.w[i][k], PARITY_U),
                        device.step.dictionary.tensors[i].name, k);
        free(got);
    }
    training_device_close(&device);
    training_free(&t);
    output_free(&plain);
}

static void the_device_runs_as_torch_did(void **state)
{
    (void)state;
    struct golden golden;
    struct run_input in;
    golden_read(&golden);
    golden_input(&in, &golden, DTYPE_F32);
    compare_device(&in);
    golden_input(&in, &golden, DTYPE_BF16);
    compare_device(&in);
    golden_free(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_plain_trainer_is_torch),
        cmocka_unit_test(the_device_runs_as_torch_did),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
