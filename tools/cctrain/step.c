/* step.c - memory of a step, its products, and the order in which things are enqueued.
 *
 * Two queues. Rows are uploaded by `copies` into one of two buffers while `queue` computes on the
 * other; events keep either from running ahead. Everything else is in order on `queue`, so that no
 * other buffer needs guarding. On the CPU a queue runs at once and all this is free.
 *
 * Where the backend packs, products multiply by a right side in the layout that it likes best.
 * Weights change with every step, so nothing can stay packed: one buffer serves all products in
 * turn, each of which packs and multiplies at once. On the CPU at the reference shape packing costs
 * 2 to 3 % of the products, and a plain right side 5 to 10 %.
 *
 * What a step costs on a GPU, at F 16384, B 4096, D 4608 in BF16 with 700 TF/s and 4 TB/s. The
 * bound is 5 products of 2 B D F operations, 4418 us, and Adam's 28 bytes a parameter, 1057 us.
 * Beyond it, in bytes, and beside the way that has an operation of its own for each:
 *
 *                                                       apart           us   here        us
 *   copies of the right sides of the products  12 DF + 4 BF + 4 BD     312   0            0
 *   a bias before a result in BF16                           20 BF     336   4 BF        67
 *   Σ_b f and counts; bias, mask and Σ_b dpre                 8 BF     134   6 BF       101
 *   norms of W_dec                                            4 DF      75   0            0
 *   the pull at the norms, into the gradient                 12 DF     226   0            0
 *   squares of the gradients                                  8 DF     151   12 DF      226
 *   the copies of the weights in BF16                         4 DF      75   4 DF        75
 *   x̂ in F32, written and read; x read, g written            12 BD      57   12 BD       57
 *   x off the wire, its means, db_dec                         8 BD      38   8 BD        38
 *   all                                                               1404              564
 *
 * So the bound is 0.91 of what a step takes if all of it runs at those rates, and 0.80 with
 * products at 0.9 of theirs and the rest at 0.85 (apart: 0.80 and 0.70). That has been counted, not
 * measured. Of what is left the squares could lose W_dec's 4 DF for a norm that is not exact, and
 * the mask 4 BF by an epilogue of the library, which knows no bias beside it.
 *
 * Who writes a buffer when: d_x until the encoder's gradient, d_f and d_g until the decoder's, so a
 * method may call the blocks in any order that has what it reads. d_dpre and d_f are apart, as
 * ReLU's slope is read from f while dpre is being made.
 *
 * In BF16 x, f, g and dpre are stored in BF16 and summed in f32; x̂, norms, all sums and all
 * gradients of weights are f32. x is rounded before the error is taken: the target is what the
 * product saw.
 */
#include "step.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* ---- memory */

/* One buffer: where its address goes, and its size. */
struct step_buffer {
    void *at; /* the member, a pointer to any type */
    size_t count, size;
};

/* The buffers of a step, in one place: their sum is told before they are taken. */
enum { STEP_BUFFERS = 14 + STEP_DEPTH };

static void step_list_buffers(struct step *step, struct step_buffer buffers[STEP_BUFFERS])
{
    size_t type = dtype_size(step->type), s = step->sources, b = step->batch;
    size_t f = step->latents, d = step->width;
    const struct step_buffer list[STEP_BUFFERS] = {
        {&step->d_rows[0], b, step->row_bytes},
        {&step->d_rows[1], b, step->row_bytes},
        {&step->d_x, b * d, type},
        {&step->d_f, b * f, type},
        {&step->d_dpre, b * f, type},
        {&step->d_g, b * d, type},
        {&step->d_xhat, b * d, sizeof(float)},
        {&step->d_means, d, sizeof(float)},
        {&step->decoder.d_norms, f * s, sizeof(float)},
        {&step->decoder.d_weight, f, sizeof(float)},
        {&step->d_bias, f, sizeof(float)},
        {&step->d_latent_sums, f, sizeof(float)},
        {&step->d_counts, f, sizeof(uint32_t)},
        {&step->d_l1, 1, sizeof(double)},
        {&step->d_recon, s + 1, sizeof(struct kernels_recon_sums)},
        /* listed to be freed; taken when the products have said what they need */
        {&step->d_packed, 0, 1},
    };
    memcpy(buffers, list, sizeof list);
}

static void step_set_sizes(struct step *step, const struct step_setup *setup)
{
    *step = (struct step){
        .kernels = setup->kernels,
        .device = setup->device,
        .method = setup->method,
        .sources = setup->begin->source_count,
        .batch = (size_t)setup->batch,
        .latents = (size_t)setup->latents,
        .width = begin_width(setup->begin),
        .row_bytes = begin_row_bytes(setup->begin),
        .type = setup->type,
        .wire = setup->begin->dtype,
    };
}

/* Elements of the largest right side of a product that is packed: weights, dpre or g. A plan is
 * made without a backend, for one that packs. */
static uint64_t step_packed_elements(const struct step *step)
{
    if (step->kernels != NULL && !step->kernels->packs)
        return 0;
    uint64_t rows = step->batch > step->width ? step->batch : step->width;
    uint64_t gradient = (uint64_t)step->batch * step->width;
    return rows * step->latents > gradient ? rows * step->latents : gradient;
}

void step_memory(struct step_memory *memory, const struct step_setup *setup)
{
    struct step step;
    struct step_buffer buffers[STEP_BUFFERS];
    step_set_sizes(&step, setup);
    step_list_buffers(&step, buffers);
    memory->adam = dictionary_bytes(step.latents, step.width, DTYPE_F32) / 2; /* of w, m, v and g */
    memory->weights = dictionary_bytes(step.latents, step.width, step.type) - memory->adam;
    memory->buffer = (uint64_t)STEP_DEPTH * step.batch * step.row_bytes;
    memory->workspace = step_packed_elements(&step) * dtype_size(step.type) - memory->buffer;
    for (size_t i = 0; i < STEP_BUFFERS; i++)
        memory->workspace += (uint64_t)buffers[i].count * buffers[i].size;
}

uint64_t step_memory_all(const struct step_memory *memory)
{
    return memory->weights + memory->adam + memory->workspace + memory->buffer;
}

static int step_take(struct step *step, void *at, size_t count, size_t size)
{
    return kernels_alloc(step->kernels, step->device, at, count, size, "a training step");
}

/* Page-locked: a download into other memory is waited for where it is enqueued. */
static int step_take_host(struct step *step, void *at, size_t count, size_t size)
{
    return kernels_host_alloc(step->kernels, step->device, at, count, size, "a step's report");
}

/* ---- products */

static int step_create_products(struct step *step)
{
    int64_t b = (int64_t)step->batch, f = (int64_t)step->latents, d = (int64_t)step->width;
    struct {
        struct kernels_gemm **gemm;
        struct kernels_gemm_shape shape;
    } products[] = {
        {&step->encode, {.m = b, .n = f, .k = d, .bias = true, .relu = true, .c = step->type}},
        {&step->decode, {.m = b, .n = d, .k = f, .bias = true, .c = DTYPE_F32}},
        {&step->latent_gradient, {.m = b, .n = f, .k = d, .trans_b = true, .c = step->type}},
        {&step->encoder_gradient, {.m = d, .n = f, .k = b, .trans_a = true, .c = DTYPE_F32}},
        {&step->decoder_gradient, {.m = f, .n = d, .k = b, .trans_a = true, .c = DTYPE_F32}},
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct kernels_gemm_shape *shape = &products[i].shape;
        shape->a = shape->b = step->type;
        shape->packed_b = step->kernels->packs;
        int status = step->kernels->gemm_create(step->device, products[i].gemm, shape);
        if (status != 0)
            return status;
        if (!shape->packed_b)
            continue;
        size_t bytes = step->kernels->gemm_packed_bytes(*products[i].gemm);
        most = bytes > most ? bytes : most;
    }
    return most > 0 ? step_take(step, &step->d_packed, most, 1) : 0;
}

/* c = act(a b + bias); see above for the packing. */
static void step_multiply(struct step *step, struct kernels_gemm *gemm, void *d_c, const void *d_a,
                          const void *d_b, const float *d_bias)
{
    if (step->kernels->packs)
        step->kernels->gemm_pack(step->queue, gemm, step->d_packed, d_b);
    step->kernels->gemm(step->queue, gemm, d_c, d_a, step->kernels->packs ? step->d_packed : d_b,
                        d_bias);
}

/* ---- set-up */

static int step_create_queues(struct step *step)
{
    const struct kernels *kernels = step->kernels;
    int status = kernels->queue_create(step->device, &step->queue);
    if (status == 0)
        status = kernels->queue_create(step->device, &step->copies);
    for (size_t i = 0; i < STEP_DEPTH && status == 0; i++) {
        struct kernels_event **events[] = {&step->filled[i], &step->taken[i],
                                           &step->reports[i].done};
        for (size_t k = 0; k < sizeof events / sizeof *events && status == 0; k++)
            status = kernels->event_create(step->device, events[k]);
    }
    return status;
}

static int step_create_host(struct step *step, const struct begin *begin)
{
    step->columns = mem_alloc(step->sources, sizeof *step->columns);
    if (step->columns == NULL)
        return mem_fail("sources", step->sources, sizeof *step->columns);
    uint32_t first = 0;
    for (size_t s = 0; s < step->sources; s++) {
        step->columns[s] = (struct kernels_columns){first, begin->sources[s].width};
        first += begin->sources[s].width;
    }
    for (size_t i = 0; i < STEP_DEPTH; i++) {
        struct step_report *report = &step->reports[i];
        int status = step_take_host(step, &report->recon, step->sources + 1, sizeof *report->recon);
        if (status == 0)
            status = step_take_host(step, &report->l1, 1, sizeof *report->l1);
        if (status == 0)
            status = step_take_host(step, &report->clip, 2, sizeof *report->clip);
        if (status == 0)
            status = step_take_host(step, &report->counts, step->latents, sizeof *report->counts);
        if (status != 0)
            return status;
    }
    return 0;
}

int step_create(struct step *step, const struct step_setup *setup)
{
    struct step_buffer buffers[STEP_BUFFERS];
    step_set_sizes(step, setup);
    step_list_buffers(step, buffers);
    int status = step_create_host(step, setup->begin);
    if (status == 0)
        status = step_create_queues(step);
    if (status == 0)
        status = dictionary_create(&step->dictionary, step->kernels, step->device, step->queue,
                                   step->type, step->latents, step->width);
    for (size_t i = 0; i < STEP_BUFFERS && status == 0; i++)
        if (buffers[i].count > 0)
            status = step_take(step, buffers[i].at, buffers[i].count, buffers[i].size);
    step->decoder.columns = step->columns;
    step->decoder.sources = step->sources;
    step->decoder.latents = step->latents;
    step->decoder.width = step->width;
    step->decoder.d_sums = step->d_latent_sums;
    return status != 0 ? status : step_create_products(step);
}

void step_free(struct step *step)
{
    const struct kernels *kernels = step->kernels;
    if (kernels == NULL)
        return;
    struct step_buffer buffers[STEP_BUFFERS];
    step_list_buffers(step, buffers);
    for (size_t i = 0; i < STEP_BUFFERS; i++) {
        void *memory;
        memcpy(&memory, buffers[i].at, sizeof memory);
        kernels->free(step->device, memory);
    }
    struct kernels_gemm *products[] = {step->encode, step->decode, step->latent_gradient,
                                       step->encoder_gradient, step->decoder_gradient};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        kernels->gemm_free(products[i]);
    for (size_t i = 0; i < STEP_DEPTH; i++) {
        kernels->event_free(step->filled[i]);
        kernels->event_free(step->taken[i]);
        kernels->event_free(step->reports[i].done);
        void *host[] = {step->reports[i].recon, step->reports[i].l1, step->reports[i].clip,
                        step->reports[i].counts};
        for (size_t k = 0; k < sizeof host / sizeof *host; k++)
            kernels->host_free(step->device, host[k]);
    }
    dictionary_free(&step->dictionary);
    kernels->queue_free(step->copies);
    kernels->queue_free(step->queue);
    free(step->columns);
    memset(step, 0, sizeof *step);
}

int step_upload(struct step *step, const struct crosscoder *cc)
{
    int status = dictionary_upload(&step->dictionary, cc);
    if (status != 0)
        return status;
    step->kernels->decoder_norms(step->queue, step->decoder.d_norms, step->decoder.d_weight,
                                 step->dictionary.tensors[DICTIONARY_W_DEC].d_w, step->columns,
                                 step->sources, step->latents, step->width);
    return step->kernels->wait(step->queue);
}

/* ---- blocks */

void step_encode(struct step *step)
{
    step_multiply(step, step->encode, step->d_f, step->d_x,
                  dictionary_weights(&step->dictionary, DICTIONARY_W_ENC),
                  step->dictionary.tensors[DICTIONARY_B_ENC].d_w);
}

void step_reconstruct(struct step *step)
{
    const struct kernels *kernels = step->kernels;
    const struct dictionary_tensor *b_dec = &step->dictionary.tensors[DICTIONARY_B_DEC];
    step_multiply(step, step->decode, step->d_xhat, step->d_f,
                  dictionary_weights(&step->dictionary, DICTIONARY_W_DEC), b_dec->d_w);
    kernels->column_means(step->queue, step->d_means, step->d_x, step->batch, step->width);
    kernels->recon(step->queue, step->d_g, step->d_recon, step->d_xhat, step->d_x, step->d_means,
                   step->columns, step->sources, (float)(2.0 / (double)step->batch), step->batch,
                   step->width);
    kernels->column_sums(step->queue, b_dec->d_g, step->d_g, step->batch, step->width);
}

void step_decoder_gradient(struct step *step)
{
    step_multiply(step, step->decoder_gradient, step->dictionary.tensors[DICTIONARY_W_DEC].d_g,
                  step->d_f, step->d_g, NULL);
}

void step_latent_gradient(struct step *step)
{
    step_multiply(step, step->latent_gradient, step->d_dpre, step->d_g,
                  dictionary_weights(&step->dictionary, DICTIONARY_W_DEC), NULL);
}

void step_encoder_gradient(struct step *step)
{
    step_multiply(step, step->encoder_gradient, step->dictionary.tensors[DICTIONARY_W_ENC].d_g,
                  step->d_x, step->d_dpre, NULL);
}

/* ---- the step */

void step_gather(struct step *step, uint64_t t, size_t first, const uint8_t *d_from,
                 const uint32_t *d_index, size_t rows)
{
    size_t slot = t % STEP_DEPTH;
    step->kernels->event_wait(step->copies, step->taken[slot]);
    step->kernels->move_rows(step->copies, step->d_rows[slot] + first * step->row_bytes, NULL,
                             d_from, d_index, rows, step->row_bytes);
}

static void step_load(struct step *step, const uint8_t *rows, uint64_t t)
{
    const struct kernels *kernels = step->kernels;
    size_t slot = t % STEP_DEPTH;
    if (rows != NULL) {
        kernels->event_wait(step->copies, step->taken[slot]);
        kernels->upload(step->copies, step->d_rows[slot], rows, step->batch * step->row_bytes);
    }
    kernels->event_record(step->copies, step->filled[slot]);
    kernels->event_wait(step->queue, step->filled[slot]);
    kernels->load_rows(step->queue, step->d_x, step->d_rows[slot], step->wire, step->columns,
                       step->sources, step->batch, step->width);
    kernels->event_record(step->queue, step->taken[slot]);
}

static void step_download(struct step *step, uint64_t t)
{
    const struct kernels *kernels = step->kernels;
    struct step_report *report = &step->reports[t % STEP_DEPTH];
    kernels->download(step->queue, report->recon, step->d_recon,
                      (step->sources + 1) * sizeof *report->recon);
    kernels->download(step->queue, report->l1, step->d_l1, sizeof *report->l1);
    kernels->download(step->queue, report->clip, step->dictionary.d_clip, 2 * sizeof *report->clip);
    kernels->download(step->queue, report->counts, step->d_counts,
                      step->latents * sizeof *report->counts);
    kernels->event_record(step->queue, report->done);
}

void step_run(struct step *step, const uint8_t *rows, uint64_t t,
              const struct schedule_rates *rates, double clip)
{
    step_load(step, rows, t);
    step->method->forward(step);
    step->method->backward(step, rates);
    dictionary_update(&step->dictionary, step->queue, &step->decoder, &rates->adam, clip);
    step_download(step, t);
}

int step_rows_taken(struct step *step, uint64_t t)
{
    return step->kernels->event_sync(step->filled[t % STEP_DEPTH]);
}

int step_report(struct step *step, uint64_t t, const struct step_report **report)
{
    *report = &step->reports[t % STEP_DEPTH];
    return step->kernels->event_sync((*report)->done);
}
