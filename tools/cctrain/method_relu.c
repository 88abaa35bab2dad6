/* method_relu.c - ReLU latents under an L1 penalty that is weighed by the decoder's norms.
 *
 *     loss = 1/B Σ_b ‖x - x̂‖² + λ/B Σ_b Σ_j f_bj w_j,    w_j = Σ_s ‖W_dec[j, s, :]‖
 *
 * The penalty pulls at both of its factors. At f: dL/df_bj has λ w_j / B in every row, which is
 * added to the product g W_decᵀ where f is above 0; elsewhere ReLU has no slope and nothing comes
 * through. It is added by the pass over f and dpre that has to be anyway, which takes all sums down
 * the latents as well: one reading of (B, F) for the bias, the mask, db_enc, Σ_b f and the counts.
 * At the norms: dL/dW_dec[j, s, :] has λ/B Σ_b f_bj times the unit vector of W_dec[j, s, :], the
 * pull that the update of W_dec adds as it reads it.
 *
 * In BF16 the product is rounded before the bias is added: off by 2^-8 of the product, as g and
 * W_dec are by 2^-8 of themselves. A bias within the product would cost 4 bytes for each of B F.
 */
#include "method.h"

#include "step.h"

static void relu_forward(struct step *step)
{
    step_encode(step);
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
    step_latent_gradient(step);
    kernels->relu_backward(step->queue, step->d_dpre, tensors[DICTIONARY_B_ENC].d_g,
                           step->d_latent_sums, step->d_counts, step->d_f, step->d_bias,
                           step->batch, step->latents);
    kernels->dot(step->queue, step->d_l1, step->d_latent_sums, step->decoder.d_weight,
                 step->latents);
    step_encoder_gradient(step);
}

const struct method method_relu = {"relu", relu_forward, relu_backward};
