/* test_cctrain_memory.c - what a training step takes of the device's memory: what was told before,
 * and nothing after the first step. And of the host's time nothing: a step is not waited for.
 */
#include "training_device.h"

enum { B = 300, F = 70, D = 36, STEPS = 4 };

/* The backend, with its alloc() counted. */
static const struct kernels *counted_backend;
static uint64_t counted_bytes, counted_calls;

static int counted_alloc(struct kernels_device *device, void **d_memory, size_t bytes)
{
    counted_bytes += bytes;
    counted_calls++;
    return counted_backend->alloc(device, d_memory, bytes);
}

/* Of one buffer for whichever right side is packed: what was told, and what the products asked for.
 */
static void packed_bytes(const struct step *step, uint64_t *told, uint64_t *asked)
{
    const struct kernels_gemm *const products[] = {step->encode, step->decode,
                                                   step->latent_gradient, step->encoder_gradient,
                                                   step->decoder_gradient};
    *told = *asked = 0;
    if (!step->kernels->packs)
        return;
    *told = (uint64_t)B * F * dtype_size(step->type); /* dpre, the largest */
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        uint64_t bytes = step->kernels->gemm_packed_bytes(products[i]);
        *asked = bytes > *asked ? bytes : *asked;
    }
}

static void check_memory(struct parity *parity)
{
    struct kernels counted = *parity->kernels;
    struct begin begin;
    struct step step = {.kernels = NULL};
    struct step_memory memory;
    uint64_t told, asked, after_first = 0, calls = 0;
    float *rows = parity_host((size_t)B * D, sizeof *rows);
    struct crosscoder_source source = {(char *)(uintptr_t) "a.x", D, 1};
    struct crosscoder cc;
    const struct recipe recipe = {
        .steps = STEPS, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .l1 = 1};
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    begin.dtype = DTYPE_F32;
    assert_int_equal(begin_add_source(&begin, "a.x", "a.x", "x", "", D, 1), 0);
    assert_int_equal(crosscoder_init(&cc, &source, 1, F), 0);
    dictionary_init(&cc, 49);
    for (size_t i = 0; i < (size_t)B * D; i++)
        rows[i] = parity_uniform(parity);
    counted_backend = parity->kernels;
    counted.alloc = counted_alloc;
    counted_bytes = counted_calls = 0;
    const struct step_setup setup = {
        &counted, parity->device, parity->type, method_find("relu"), &begin, F, B};
    step_memory(&memory, &setup);
    assert_int_equal(step_create(&step, &setup), 0);
    packed_bytes(&step, &told, &asked);
    /* The clip and the four squares of gradients are not worth telling of. */
    assert_int_equal(counted_bytes - asked, step_memory_all(&memory) - told + 4 * 8 + 2 * 4);
    const size_t parameters = (size_t)2 * F * D + F + D, copies = (size_t)2 * F * D;
    assert_int_equal(memory.adam, 8 * parameters);
    assert_int_equal(memory.weights, 8 * parameters + (parity->type == DTYPE_F32 ? 0 : 2 * copies));
    assert_int_equal(memory.buffer, (size_t)2 * B * D * sizeof *rows);
    assert_int_equal(step_upload(&step, &cc), 0);
    /* An emulated device's memory is this process's alone, so what queues take shows; and what is
     * enqueued there is done when somebody waits for it. */
    bool emulated = strstr(counted.description(parity->device), "emulated device") != NULL;
    for (uint64_t t = 0; t < STEPS; t++) {
        struct schedule_rates rates;
        const struct step_report *report;
        schedule_rates(&rates, &recipe, t);
        step_run(&step, (const uint8_t *)rows, t, &rates, 1);
        if (emulated)
            assert_int_equal(counted.event_poll(step.reports[t % STEP_DEPTH].done), 0);
        assert_int_equal(step_report(&step, t, &report), 0);
        uint64_t available = counted.memory_free(parity->device);
        if (t == 0) {
            after_first = available;
            calls = counted_calls;
        }
        assert_int_equal(counted_calls, calls);
        if (emulated)
            assert_int_equal(available, after_first);
    }
    step_free(&step);
    crosscoder_free(&cc);
    begin_free(&begin);
    free(rows);
}

static void a_step_takes_the_memory_that_was_told_and_no_time_of_the_host(void **state)
{
    (void)state;
    parity_each_type(check_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_takes_the_memory_that_was_told_and_no_time_of_the_host),
    };
    log_init("test_cctrain_memory", LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
