/* method_relu.c - ReLU latents under an L1 penalty that is weighed by the decoder's norms.
 *
 *     loss = 1/B Σ_b ‖x - x̂‖² + λ/B Σ_b Σ_j f_bj w_j,    w_j = Σ_s ‖W_dec[j, s, :]‖
 *
 * The penalty pulls at both of its factors. At f: dL/df_bj has λ w_j / B in every row, which is the
 * bias of the product g W_decᵀ; where f is 0, ReLU has no slope and nothing comes through. At the
 * norms: dL/dW_dec[j, s, :] has λ/B Σ_b f_bj times the unit vector of W_dec[j, s, :], the pull that
 * the update of W_dec adds as it reads it. So of the whole L1 term what costs is the sums of the
 * columns of f.
 */
#include "method.h"

#include "step.h"

static void relu_forward(struct step *step)
{
    const struct kernels *kernels = step->kernels;
    step_encode(step);
    kernels->latent_sums(step->queue, step->d_latent_sums, step->d_counts, step->d_f, step->batch,
                         step->latents);
    kernels->dot(step->queue, step->d_l1, step->d_latent_sums, step->decoder.d_weight,
                 step->latents);
    step_reconstruct(step);
}

static void relu_backward(struct step *step, const struct schedule_rates *rates)
{
    const struct kernels *kernels = step->kernels;
    const struct dictionary_tensor *tensors = step->dictionary.tensors;
    step->decoder.factor = (float)(rates->l1 / (double)step->batch);
    step_decoder_gradient(step);
    kernels->scale(step->queue, step->d_bias, step->decoder.d_weight, step->decoder.factor,
                   step->latents);
    step_latent_gradient(step, step->d_bias);
    kernels->relu_backward(step->queue, step->d_dpre, tensors[DICTIONARY_B_ENC].d_g, step->d_f,
                           step->batch, step->latents);
    step_encoder_gradient(step);
}

const struct method method_relu = {"relu", relu_forward, relu_backward};
