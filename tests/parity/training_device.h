/* training_device.h - cctrain's step on the CPU for the tests, set up from and compared with the
 * plain trainer of training.h.
 */
#ifndef CCPIPE_TESTS_TRAINING_DEVICE_H
#define CCPIPE_TESTS_TRAINING_DEVICE_H

#include "parity.h"
#include "training.h"

#include "tools/cctrain/step.h"

struct training_device {
    struct parity parity;
    struct begin begin;
    struct step step;
    struct crosscoder cc;
};

static inline void training_device_open(struct training_device *device, const struct training *t,
                                        unsigned threads)
{
    static const char *const names[] = {"a.x", "b.x", "c.x", "d.x"};
    struct crosscoder_source sources[4];
    memset(device, 0, sizeof *device);
    parity_open(&device->parity, threads, t->type);
    assert_int_equal(begin_init(&device->begin, BEGIN_ACTIVATIONS, "test"), 0);
    device->begin.dtype = DTYPE_F32;
    for (size_t i = 0; i < t->s; i++) {
        assert_int_equal(
            begin_add_source(&device->begin, names[i], names[i], "x", "", t->widths[i], 1), 0);
        sources[i] = (struct crosscoder_source){(char *)(uintptr_t)names[i], t->widths[i], 1};
    }
    struct step_setup setup = {.kernels = device->parity.kernels,
                               .device = device->parity.device,
                               .type = t->type,
                               .method = method_find("relu"),
                               .begin = &device->begin,
                               .latents = t->f,
                               .batch = t->b};
    assert_int_equal(step_create(&device->step, &setup), 0);
    assert_int_equal(crosscoder_init(&device->cc, sources, t->s, t->f), 0);
}

static inline void training_device_close(struct training_device *device)
{
    step_free(&device->step);
    crosscoder_free(&device->cc);
    begin_free(&device->begin);
    parity_close(&device->parity);
}

/* The plain trainer's weights become f32 in both. */
static inline void training_device_start(struct training_device *device, struct training *t)
{
    float *arrays[] = {device->cc.w_enc, device->cc.w_dec, device->cc.b_enc, device->cc.b_dec};
    for (size_t i = 0; i < DICTIONARY_COUNT; i++)
        for (size_t k = 0; k < t->count[i]; k++) {
            arrays[i][k] = (float)t->w[i][k];
            t->w[i][k] = (double)arrays[i][k];
        }
    assert_int_equal(step_upload(&device->step, &device->cc), 0);
}

/* f32 values of a tensor of the device: its weights, or its first moment. free() it. */
static inline float *training_device_get(struct training_device *device, size_t tensor, bool moment)
{
    const struct dictionary_tensor *t = &device->step.dictionary.tensors[tensor];
    float *values = parity_host(t->count, sizeof *values);
    device->step.kernels->download(device->step.queue, values, moment ? t->d_m : t->d_w,
                                   t->count * sizeof *values);
    assert_int_equal(device->step.kernels->wait(device->step.queue), 0);
    return values;
}

#endif
