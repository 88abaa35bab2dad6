/* step.h - one training step on the device, and the blocks that a method composes it of.
 *
 *     f = act(x W_enc + b_enc)    x̂ = f W_dec + b_dec    g = 2 (x̂ - x) / B
 *     dW_dec = fᵀ g    db_dec = Σ_b g    dpre = act'(g W_decᵀ + ...)    dW_enc = xᵀ dpre
 *
 * A step is enqueued and never waited for; what it computed is downloaded into one of two reports,
 * which the host looks at while the next step runs. Rows come through a queue of copies of their
 * own, two batches deep.
 *
 * Letters: S sources, B rows in a batch, D = Σ widths, F latents. T is the type of the products.
 */
#ifndef CCTRAIN_STEP_H
#define CCTRAIN_STEP_H

#include "common/begin.h"
#include "dictionary.h"
#include "kernels/kernels.h"
#include "method.h"
#include "schedule.h"

enum { STEP_DEPTH = 2 };

/* What a step computed, in host memory; valid after step_report(). */
struct step_report {
    struct kernels_recon_sums *recon; /* (S + 1) */
    double *l1;                       /* Σ_b Σ_j f_j w_j: the method's sparsity, times B */
    float *clip;                      /* (2) factor and norm of the gradient */
    uint32_t *counts;                 /* (F) rows in which each latent was above 0 */
    struct kernels_event *done;
};

struct step {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue, *copies;
    const struct method *method;
    struct dictionary dictionary;
    size_t sources, batch, latents, width; /* S B F D */
    size_t row_bytes;
    enum dtype type, wire;           /* T; of rows as they come */
    struct kernels_columns *columns; /* (S) */
    struct kernels_decoder
        decoder; /* norms of W_dec as it is; what pulls at them is the method's */

    uint8_t *d_rows[STEP_DEPTH]; /* (B, row_bytes) */
    struct kernels_event *filled[STEP_DEPTH], *taken[STEP_DEPTH];
    void *d_x;                          /* (B, D) T */
    void *d_f;                          /* (B, F) T */
    void *d_dpre;                       /* (B, F) T: gradient of the pre-activations */
    void *d_g;                          /* (B, D) T: gradient of x̂ */
    float *d_xhat;                      /* (B, D) */
    float *d_means;                     /* (D) */
    float *d_bias;                      /* (F) what is added to every row of dpre */
    float *d_latent_sums;               /* (F) Σ_b f */
    uint32_t *d_counts;                 /* (F) */
    double *d_l1;                       /* (1) */
    struct kernels_recon_sums *d_recon; /* (S + 1) */
    void *d_packed;                     /* the right side of the product at hand; or NULL */
    struct kernels_gemm *encode, *decode, *latent_gradient, *encoder_gradient, *decoder_gradient;
    struct step_report reports[STEP_DEPTH];
};

struct step_setup {
    const struct kernels *kernels;
    struct kernels_device *device; /* opened with the type of the products */
    enum dtype type;
    const struct method *method;
    const struct begin *begin; /* of the rows */
    uint64_t latents, batch;
};

/* Device bytes that step_create() takes, but for what products and queues want for themselves (on
 * CUDA 32 MiB for a product at most, and once 384 bytes for each latent and 4096 rows of a batch).
 */
struct step_memory {
    uint64_t weights;   /* with their copies and gradients */
    uint64_t adam;      /* moments */
    uint64_t workspace; /* what a step computes */
    uint64_t buffer;    /* rows as they came */
};

void step_memory(struct step_memory *memory, const struct step_setup *setup);
uint64_t step_memory_all(const struct step_memory *memory);

/* Takes all memory. On failure step_free() is still to be called. */
int step_create(struct step *step, const struct step_setup *setup) MUST_CHECK;
void step_free(struct step *step);

/* Weights from host memory; waits until they are there. */
int step_upload(struct step *step, const struct crosscoder *cc) MUST_CHECK;

/* Rows first .. first + rows - 1 of batch t are those of d_from at d_index (device memory);
 * enqueued on `copies`. */
void step_gather(struct step *step, uint64_t t, size_t first, const uint8_t *d_from,
                 const uint32_t *d_index, size_t rows);

/* Enqueues step t on B rows as they came. `rows` must stay as it is until step_rows_taken(); NULL
 * where all of them have been gathered. */
void step_run(struct step *step, const uint8_t *rows, uint64_t t,
              const struct schedule_rates *rates, double clip);

/* Waits until the rows of the step that has been run for t's buffer last have left host memory, or
 * have been gathered. */
int step_rows_taken(struct step *step, uint64_t t) MUST_CHECK;

/* Waits for step t, one of the last STEP_DEPTH, and gives its report. */
int step_report(struct step *step, uint64_t t, const struct step_report **report) MUST_CHECK;

/* ---- blocks for methods; all enqueue */

/* f = relu(x W_enc + b_enc) */
void step_encode(struct step *step);
/* x̂, its error sums, g, and db_dec */
void step_reconstruct(struct step *step);
/* dW_dec = fᵀ g */
void step_decoder_gradient(struct step *step);
/* dpre = g W_decᵀ; the method goes on to the pre-activations */
void step_latent_gradient(struct step *step);
/* dW_enc = xᵀ dpre */
void step_encoder_gradient(struct step *step);

#endif
