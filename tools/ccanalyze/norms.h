/* norms.h - what the weights alone say of each latent: norms, relative norm, Δ, cosines.
 *
 * For a pair of sources A, B with decoder norms n^A, n^B of latent j
 *     R = n^B / (n^A + n^B)
 *     Δ = ½ ((n^B − n^A) / max(n^A, n^B) + 1)
 * both 0 for a latent of A alone and 1 for one of B alone. A latent whose norms are both 0 has
 * neither, nor has a zero vector a cosine: NaN here. All sums are f64.
 */
#ifndef CCANALYZE_NORMS_H
#define CCANALYZE_NORMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/crosscoder.h"
#include "common/err.h"

struct norms {
    size_t source_count, latents; /* S, F */
    char **labels;       /* (S) the model's name; the source's whole name where models repeat;
                            "source0" ... where these repeat, too */
    double *decoder;     /* (F, S) */
    double *encoder;     /* (F, S) */
    double *code_weight; /* (F) Σ_s n^s: the L1 weight, and the scale of comparable activations */
    double *delta; /* (F, S) ½((2 n_s − Σn) / max(n_s, Σn − n_s) + 1), the form for any S */
    bool paired;   /* two sources are compared; else what follows is empty */
    size_t a, b;   /* which ones */
    double *relative;                        /* (F) R */
    double *pair_delta;                      /* (F) Δ */
    double *decoder_cosine, *encoder_cosine; /* (F) between a and b */
};

/* `pair` is "A,B" (labels, names or numbers of sources) or NULL: the two sources of a crosscoder
 * that has two, none else. ERR_USAGE (logged) where it does not name two sources. */
int norms_compute(struct norms *norms, const struct crosscoder *cc, const char *pair) MUST_CHECK;
void norms_free(struct norms *norms);

/* Bytes that norms_compute() takes. */
uint64_t norms_bytes(const struct crosscoder *cc);

/* ERR_USAGE (logged) where no two sources are compared: `what` needs them. */
int norms_require_pair(const struct norms *norms, const char *what) MUST_CHECK;

enum norms_class { NORMS_A_ONLY, NORMS_SHARED, NORMS_B_ONLY, NORMS_OTHER, NORMS_CLASS_COUNT };

/* The class of a latent: by R < 0.1, 0.3 < R < 0.7, R > 0.9, and by Δ < 0.1, 0.4 < Δ < 0.6,
 * Δ > 0.9. All strict; NaN is OTHER. */
enum norms_class norms_class_by_relative(double relative);
enum norms_class norms_class_by_delta(double delta);

#endif
