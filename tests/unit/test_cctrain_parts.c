/* test_cctrain_parts.c - cctrain's schedules, initial weights, dead latents and lines of metrics.
 */
#include "scratch.h"

#include <math.h>
#include <stdlib.h>

#include "common/io.h"
#include "common/log.h"
#include "tools/cctrain/dictionary.h"
#include "tools/cctrain/ledger.h"
#include "tools/cctrain/metrics.h"
#include "tools/cctrain/schedule.h"
#include "tools/cctrain/state.h"

/* ---- schedules */

static void near(double got, double want)
{
    if (fabs(got - want) > 1e-12 * fabs(want))
        fail_msg("%.17g is not %.17g", got, want);
}

static const struct recipe recipe = {.steps = 3000,
                                     .lr = 1e-3,
                                     .l1 = 0.7,
                                     .l1_warmup = 0.05,
                                     .lr_decay = 0.2,
                                     .beta1 = 0.9,
                                     .beta2 = 0.999,
                                     .eps = 1e-8};

static void lambda_rises_over_its_share_and_stays(void **state)
{
    (void)state;
    static const double wanted[][2] = {{0, 0}, {1, 0.7 / 150}, {75, 0.35}, {150, 0.7}, {2999, 0.7}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct schedule_rates rates;
        schedule_rates(&rates, &recipe, (uint64_t)wanted[i][0]);
        near(rates.l1, wanted[i][1]);
    }
}

static void the_rate_is_constant_and_then_falls_to_0(void **state)
{
    (void)state;
    static const double wanted[][2] = {
        {0, 1e-3}, {2399, 1e-3}, {2400, 1e-3}, {2700, 5e-4}, {2999, 1e-3 / 600}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        struct schedule_rates rates;
        schedule_rates(&rates, &recipe, (uint64_t)wanted[i][0]);
        near(rates.lr, wanted[i][1]);
        near(rates.adam.lr, wanted[i][1]);
    }
}

static void warm_up_multiplies(void **state)
{
    (void)state;
    struct recipe warm = recipe;
    struct schedule_rates rates;
    warm.lr_warmup = 2800; /* still rising when the decay begins */
    static const double wanted[][2] = {{0, 0}, {700, 2.5e-4}, {2700, 5e-4 * 2700 / 2800}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        schedule_rates(&rates, &warm, (uint64_t)wanted[i][0]);
        near(rates.lr, wanted[i][1]);
    }
}

static void shares_of_0_leave_their_factor_out(void **state)
{
    (void)state;
    struct recipe flat = recipe;
    struct schedule_rates rates;
    flat.l1_warmup = flat.lr_decay = 0;
    for (uint64_t t = 0; t < 3000; t += 2999) {
        schedule_rates(&rates, &flat, t);
        near(rates.l1, 0.7);
        near(rates.lr, 1e-3);
    }
}

static void adam_is_corrected_from_the_first_step(void **state)
{
    (void)state;
    struct schedule_rates rates;
    schedule_rates(&rates, &recipe, 0);
    near(rates.adam.correction1, 1 - 0.9);
    near(rates.adam.correction2, 1 - 0.999);
    schedule_rates(&rates, &recipe, 2);
    near(rates.adam.correction1, 1 - 0.9 * 0.9 * 0.9);
    near(rates.adam.correction2, 1 - 0.999 * 0.999 * 0.999);
    near(rates.adam.beta1, 0.9);
    near(rates.adam.beta2, 0.999);
    near(rates.adam.eps, 1e-8);
}

/* ---- initial weights */

enum { LATENTS = 600, WIDTH_A = 40, WIDTH_B = 25, WIDTH = WIDTH_A + WIDTH_B };

static void init(struct crosscoder *cc, uint64_t seed)
{
    const struct crosscoder_source sources[] = {{(char *)(uintptr_t) "a.x", WIDTH_A, 1},
                                                {(char *)(uintptr_t) "b.x", WIDTH_B, 1}};
    assert_int_equal(crosscoder_init(cc, sources, 2, LATENTS), 0);
    dictionary_init(cc, seed);
}

static void every_latent_begins_with_the_same_norm_in_each_source(void **state)
{
    (void)state;
    struct crosscoder cc;
    init(&cc, 49);
    for (size_t j = 0; j < LATENTS; j++) {
        double a = 0, b = 0;
        for (size_t c = 0; c < WIDTH; c++) {
            double w = (double)cc.w_dec[j * WIDTH + c];
            *(c < WIDTH_A ? &a : &b) += w * w;
        }
        /* each element is rounded twice to f32 */
        assert_true(fabs(sqrt(a) - 0.08) < 0.08 * 0x1p-23);
        assert_true(fabs(sqrt(b) - 0.08) < 0.08 * 0x1p-23);
    }
    crosscoder_free(&cc);
}

static void the_encoder_is_the_decoder_transposed_and_biases_are_0(void **state)
{
    (void)state;
    struct crosscoder cc;
    init(&cc, 49);
    for (size_t j = 0; j < LATENTS; j++)
        for (size_t c = 0; c < WIDTH; c++)
            assert_true(cc.w_enc[c * LATENTS + j] == cc.w_dec[j * WIDTH + c]);
    for (size_t j = 0; j < LATENTS; j++)
        assert_true(cc.b_enc[j] == 0);
    for (size_t c = 0; c < WIDTH; c++)
        assert_true(cc.b_dec[c] == 0);
    crosscoder_free(&cc);
}

/* Elements times √d/0.08 have variance 1, fourth moment 3 d/(d + 2); uniform ones would have 1.8.
 * Of n = 39,000 the mean is within 5/√n, the fourth moment within 5 √96/√n. */
static void elements_are_normal(void **state)
{
    (void)state;
    struct crosscoder cc;
    init(&cc, 49);
    double sum = 0, fourth = 0, expected = 0, neighbours = 0, before = 0;
    for (size_t i = 0; i < (size_t)LATENTS * WIDTH; i++) {
        double d = i % WIDTH < WIDTH_A ? WIDTH_A : WIDTH_B;
        double z = (double)cc.w_dec[i] * sqrt(d) / 0.08;
        sum += z;
        fourth += z * z * z * z;
        expected += 3 * d / (d + 2);
        neighbours += z * before;
        before = z;
    }
    double n = (double)LATENTS * WIDTH;
    assert_true(fabs(sum / n) < 5 / sqrt(n));
    assert_true(fabs(neighbours / n) < 5 / sqrt(n));
    assert_true(fabs(fourth - expected) / n < 5 * sqrt(96 / n));
    crosscoder_free(&cc);
}

static void the_seed_decides(void **state)
{
    (void)state;
    struct crosscoder a, b, c;
    init(&a, 49);
    init(&b, 49);
    init(&c, 50);
    size_t bytes = sizeof *a.w_dec * LATENTS * WIDTH, same = 0;
    assert_memory_equal(a.w_dec, b.w_dec, bytes);
    for (size_t i = 0; i < (size_t)LATENTS * WIDTH; i++)
        same += a.w_dec[i] == c.w_dec[i];
    assert_true(same < 10);
    crosscoder_free(&a);
    crosscoder_free(&b);
    crosscoder_free(&c);
}

/* ---- dead latents */

static void a_latent_is_dead_after_ten_million_silent_rows(void **state)
{
    (void)state;
    uint64_t last_active[4] = {0};
    struct ledger ledger = {
        .latents = 4, .sources = 1, .batch = 1000000, .last_active = last_active};
    uint32_t counts[4] = {1, 0, 5, 0};
    struct kernels_recon_sums recon[2] = {{1, 1, 1}, {1, 1, 1}};
    double l1 = 0;
    float clip[2] = {1, 1};
    struct step_report report = {.recon = recon, .counts = counts, .l1 = &l1, .clip = clip};
    struct schedule_rates rates = {0};
    struct ledger_figures figures;
    for (uint64_t t = 0; t < 20; t++) {
        counts[0] = t == 0;     /* rows 0 to 999,999 alone */
        counts[1] = t >= 15;    /* late */
        counts[2] = t % 7 == 0; /* now and then */
        assert_int_equal(ledger_enter(&ledger, &figures, t, &report, &rates), 0);
        /* Latent 3 never fires. Latent 0 fired within the last ten million rows up to step 9. */
        double dead = 1 + (t >= 10) + (t < 15);
        assert_true(ledger_dead_fraction(&ledger, t) == dead / 4);
    }
}

static void a_loss_or_gradient_that_is_not_finite_is_corrupt_data(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    uint64_t last_active[1] = {0};
    struct ledger ledger = {.latents = 1, .sources = 1, .batch = 4, .last_active = last_active};
    uint32_t counts[1] = {1};
    struct schedule_rates rates = {.l1 = 1};
    struct ledger_figures figures;
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 9; i++) {
        struct kernels_recon_sums recon[2] = {{1, 1, 1}, {i / 3 == 0 ? bad[i % 3] : 1, 1, 1}};
        double l1 = i / 3 == 1 ? bad[i % 3] : 1;
        float clip[2] = {1, i / 3 == 2 ? (float)bad[i % 3] : 1};
        struct step_report report = {.recon = recon, .counts = counts, .l1 = &l1, .clip = clip};
        assert_int_equal(ledger_enter(&ledger, &figures, 0, &report, &rates), ERR_DATA);
    }
    log_init("test", LOG_NOTE);
}

/* ---- lines of metrics */

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* Opens as a run resumed at `step`, writes a line, and checks what the file holds. */
static void resumed_at(uint64_t step, const char *before, const char *after)
{
    struct metrics_file metrics;
    const char *path = scratch_path("metrics.jsonl");
    put(path, before);
    assert_int_equal(metrics_open(&metrics, path, true, step), 0);
    json_t *line = json_pack("{s:i}", "step", 99);
    assert_int_equal(metrics_write(&metrics, line), 0);
    json_decref(line);
    assert_int_equal(metrics_close(&metrics), 0);
    char *text = NULL;
    size_t size;
    assert_int_equal(io_read_file(&text, &size, path, 4096), 0);
    assert_string_equal(text, after);
    free(text);
}

static void resumed_metrics_are_cut_back(void **state)
{
    (void)state;
    resumed_at(20, "{\"step\":0}\n{\"step\":10}\n{\"step\":20}\n{\"step\":30}\n",
               "{\"step\":0}\n{\"step\":10}\n{\"step\":99}\n");
    resumed_at(21, "{\"step\":0}\n{\"step\":10}\n{\"step\":20}\n",
               "{\"step\":0}\n{\"step\":10}\n{\"step\":20}\n{\"step\":99}\n");
    /* half a line, and a line without its newline */
    resumed_at(100, "{\"step\":0}\n{\"st", "{\"step\":0}\n{\"step\":99}\n");
    resumed_at(100, "{\"step\":0}\n{\"step\":10}", "{\"step\":0}\n{\"step\":99}\n");
    resumed_at(0, "{\"step\":0}\n", "{\"step\":99}\n");
    resumed_at(5, "", "{\"step\":99}\n");
}

/* ---- state.json */

/* Whether state.json with these figures and this sum's low half is believed. */
static int read_figures(uint64_t step, uint64_t rows, uint64_t next, const char *low)
{
    char text[512];
    snprintf(text, sizeof text,
             "{\"step\":%llu,\"steps\":9,\"rows_trained\":%llu,\"first_row\":3,\"next_row\":%llu,"
             "\"sum\":{\"low\":\"%s\",\"high\":\"00000000000000ff\"},"
             "\"stream\":\"0123456789abcdef0123456789abcdef\",\"recipe\":{}}",
             (unsigned long long)step, (unsigned long long)rows, (unsigned long long)next, low);
    put(scratch_path(STATE_FILE), text);
    struct state state;
    int status = state_read(&state, scratch);
    state_free(&state);
    return status;
}

static void a_state_that_contradicts_itself_is_corrupt(void **state)
{
    (void)state;
    static const char good[] = "fedcba9876543210";
    log_init("test", LOG_SILENT);
    assert_int_equal(read_figures(4, 40, 43, good), 0);
    assert_int_equal(read_figures(9, 40, 43, good), 0);
    assert_int_equal(read_figures(10, 40, 43, good), ERR_DATA); /* beyond the last step */
    assert_int_equal(read_figures(4, 40, 44, good), ERR_DATA);
    assert_int_equal(read_figures(4, 40, 43, "fedcba987654321"), ERR_DATA);
    assert_int_equal(read_figures(4, 40, 43, "fedcba987654321g"), ERR_DATA);
    put(scratch_path(STATE_FILE), "{\"step\":1}");
    struct state missing;
    assert_int_equal(state_read(&missing, scratch), ERR_DATA);
    state_free(&missing);
    log_init("test", LOG_NOTE);
}

static void a_state_is_read_as_it_was_written(void **state)
{
    (void)state;
    struct state found, written = {.step = 7,
                                   .steps = 11,
                                   .rows_trained = UINT64_C(1) << 40,
                                   .first_row = 5,
                                   .next_row = (UINT64_C(1) << 40) + 5,
                                   .sum = {UINT64_C(0xfedcba9876543210), UINT64_C(1) << 63},
                                   .stream = "0123456789abcdef0123456789abcdef"};
    written.recipe = json_pack("{s:f, s:n, s:I}", "lr", 5e-5, "init", "latents", (json_int_t)12);
    assert_int_equal(state_write(&written, scratch), 0);
    assert_int_equal(state_read(&found, scratch), 0);
    assert_true(found.step == written.step && found.steps == written.steps);
    assert_true(found.rows_trained == written.rows_trained);
    assert_true(found.first_row == written.first_row && found.next_row == written.next_row);
    assert_true(rowsum_equal(&found.sum, &written.sum));
    assert_string_equal(found.stream, written.stream);
    assert_int_equal(state_check_recipe(&found, written.recipe), 0);
    log_init("test", LOG_SILENT);
    assert_int_equal(json_object_set_new(written.recipe, "lr", json_real(5.0000001e-5)), 0);
    assert_int_equal(state_check_recipe(&found, written.recipe), ERR_USAGE);
    assert_int_equal(json_object_set_new(written.recipe, "lr", json_real(5e-5)), 0);
    assert_int_equal(json_object_set_new(written.recipe, "other", json_true()), 0);
    assert_int_equal(state_check_recipe(&found, written.recipe), ERR_USAGE);
    log_init("test", LOG_NOTE);
    state_free(&found);
    state_free(&written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lambda_rises_over_its_share_and_stays),
        cmocka_unit_test(the_rate_is_constant_and_then_falls_to_0),
        cmocka_unit_test(warm_up_multiplies),
        cmocka_unit_test(shares_of_0_leave_their_factor_out),
        cmocka_unit_test(adam_is_corrected_from_the_first_step),
        cmocka_unit_test(every_latent_begins_with_the_same_norm_in_each_source),
        cmocka_unit_test(the_encoder_is_the_decoder_transposed_and_biases_are_0),
        cmocka_unit_test(elements_are_normal),
        cmocka_unit_test(the_seed_decides),
        cmocka_unit_test(a_latent_is_dead_after_ten_million_silent_rows),
        cmocka_unit_test(a_loss_or_gradient_that_is_not_finite_is_corrupt_data),
        cmocka_unit_test(resumed_metrics_are_cut_back),
        cmocka_unit_test(a_state_that_contradicts_itself_is_corrupt),
        cmocka_unit_test(a_state_is_read_as_it_was_written),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
