/* norms.c - one pass over W_dec (F, D), whose rows are the latents' vectors, and one over W_enc
 * (D, F), which is read row by row and added to F sums at once, so that both are read in the order
 * in which they lie in memory.
 */
#include "norms.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

/* ---- names */

/* "base" of "base.blocks.14.hook_resid_pre". */
static size_t norms_model_length(const char *name)
{
    const char *hook = strstr(name, ".blocks.");
    return hook == NULL ? strlen(name) : (size_t)(hook - name);
}

/* Whether two sources have one name, as far as `length` goes. */
static bool norms_names_repeat(const struct crosscoder *cc, size_t (*length)(const char *name))
{
    for (size_t i = 0; i < cc->source_count; i++)
        for (size_t j = 0; j < i; j++) {
            const char *a = cc->sources[i].name, *b = cc->sources[j].name;
            if (length(a) == length(b) && memcmp(a, b, length(a)) == 0)
                return true;
        }
    return false;
}

/* Labels become columns and keys, so no two may be the same. */
static int norms_make_labels(struct norms *norms, const struct crosscoder *cc)
{
    bool whole = norms_names_repeat(cc, norms_model_length);
    bool numbered = whole && norms_names_repeat(cc, strlen);
    norms->labels = mem_alloc_zero(cc->source_count, sizeof *norms->labels);
    for (size_t s = 0; s < cc->source_count && norms->labels != NULL; s++) {
        const char *name = cc->sources[s].name;
        char number[32];
        snprintf(number, sizeof number, "source%zu", s);
        norms->labels[s] = numbered ? strdup(number)
                           : whole  ? strdup(name)
                                    : strndup(name, norms_model_length(name));
        if (norms->labels[s] == NULL)
            return mem_fail("names", cc->source_count, 1);
    }
    return norms->labels == NULL ? mem_fail("names", cc->source_count, 1) : 0;
}

static bool norms_is(const char *word, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(word, name, length) == 0;
}

/* The source that `length` characters at `word` name, or source_count. */
static size_t norms_find_source(const struct norms *norms, const struct crosscoder *cc,
                                const char *word, size_t length)
{
    size_t number = 0, digits = 0;
    while (digits < length && word[digits] >= '0' && word[digits] <= '9' && number < 1000)
        number = number * 10 + (size_t)(word[digits++] - '0');
    for (size_t s = 0; s < norms->source_count; s++)
        if (norms_is(word, length, norms->labels[s]) || norms_is(word, length, cc->sources[s].name))
            return s;
    return digits > 0 && digits == length && number < norms->source_count ? number
                                                                          : norms->source_count;
}

static int norms_choose_pair(struct norms *norms, const struct crosscoder *cc, const char *pair)
{
    norms->paired = pair != NULL || norms->source_count == 2;
    norms->a = 0;
    norms->b = 1;
    if (pair == NULL)
        return 0;
    size_t length = strcspn(pair, ",");
    norms->a = norms_find_source(norms, cc, pair, length);
    norms->b = pair[length] == '\0'
                   ? norms->source_count
                   : norms_find_source(norms, cc, pair + length + 1, strlen(pair + length + 1));
    if (norms->a < norms->source_count && norms->b < norms->source_count && norms->a != norms->b)
        return 0;
    return log_fail(ERR_USAGE,
                    "--pair '%s' does not name two of the %zu sources, of which the "
                    "first is '%s'; give their names or numbers from 0",
                    pair, norms->source_count, norms->labels[0]);
}

int norms_require_pair(const struct norms *norms, const char *what)
{
    if (norms->paired)
        return 0;
    return log_fail(ERR_USAGE, "%s compares two sources, and this crosscoder has %zu%s", what,
                    norms->source_count,
                    norms->source_count > 2 ? "; name two with --pair A,B" : "");
}

/* ---- sums */

static double norms_dot(const float *x, const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* Of equal vectors the quotient may round to more than 1, and would lie outside of every histogram.
 */
static double norms_cosine(double dot, double norm_a, double norm_b)
{
    if (!(norm_a > 0 && norm_b > 0))
        return (double)NAN;
    return fmax(-1, fmin(1, dot / (norm_a * norm_b)));
}

static void norms_decoders(struct norms *norms, const struct crosscoder *cc)
{
    for (size_t j = 0; j < norms->latents; j++) {
        const float *row = cc->w_dec + j * cc->width;
        double *n = norms->decoder + j * norms->source_count;
        for (size_t s = 0; s < norms->source_count; s++) {
            const float *d = row + crosscoder_column(cc, s);
            n[s] = sqrt(norms_dot(d, d, cc->sources[s].width));
            norms->code_weight[j] += n[s];
        }
        /* Vectors of different widths have no angle between them. */
        uint32_t width = cc->sources[norms->a].width;
        if (norms->paired && width == cc->sources[norms->b].width)
            norms->decoder_cosine[j] =
                norms_cosine(norms_dot(row + crosscoder_column(cc, norms->a),
                                       row + crosscoder_column(cc, norms->b), width),
                             n[norms->a], n[norms->b]);
    }
}

static void norms_encoders(struct norms *norms, const struct crosscoder *cc)
{
    size_t latents = norms->latents, sources = norms->source_count;
    for (size_t s = 0; s < sources; s++)
        for (size_t i = 0; i < cc->sources[s].width; i++) {
            const float *row = cc->w_enc + (crosscoder_column(cc, s) + i) * latents;
            for (size_t j = 0; j < latents; j++)
                norms->encoder[j * sources + s] += (double)row[j] * (double)row[j];
        }
    for (size_t i = 0; i < latents * sources; i++)
        norms->encoder[i] = sqrt(norms->encoder[i]);
    uint32_t width = norms->paired ? cc->sources[norms->a].width : 0;
    if (!norms->paired || width != cc->sources[norms->b].width)
        return;
    double *dot = norms->encoder_cosine; /* NaN so far */
    for (size_t j = 0; j < latents; j++)
        dot[j] = 0;
    for (size_t i = 0; i < width; i++) {
        const float *a = cc->w_enc + (crosscoder_column(cc, norms->a) + i) * latents;
        const float *b = cc->w_enc + (crosscoder_column(cc, norms->b) + i) * latents;
        for (size_t j = 0; j < latents; j++)
            dot[j] += (double)a[j] * (double)b[j];
    }
    for (size_t j = 0; j < latents; j++)
        dot[j] = norms_cosine(dot[j], norms->encoder[j * sources + norms->a],
                              norms->encoder[j * sources + norms->b]);
}

/* ½ ((n − rest) / max(n, rest) + 1), in the form that rounds least: a Δ that is exactly on a bound
 * of the classes then is so here, too. */
static double norms_delta(double n, double rest)
{
    if (!(n > 0 || rest > 0))
        return (double)NAN;
    return n < rest ? n / (2 * rest) : 1 - rest / (2 * n);
}

static void norms_relations(struct norms *norms)
{
    for (size_t j = 0; j < norms->latents; j++) {
        const double *n = norms->decoder + j * norms->source_count;
        for (size_t s = 0; s < norms->source_count; s++) {
            double rest = 0; /* added up, not subtracted: exact where the others are 0 */
            for (size_t t = 0; t < norms->source_count; t++)
                rest += t == s ? 0 : n[t];
            norms->delta[j * norms->source_count + s] = norms_delta(n[s], rest);
        }
        if (!norms->paired)
            continue;
        double a = n[norms->a], b = n[norms->b];
        norms->relative[j] = a + b > 0 ? b / (a + b) : (double)NAN;
        norms->pair_delta[j] = norms_delta(b, a);
    }
}

static int norms_allocate(struct norms *norms)
{
    size_t f = norms->latents, s = norms->source_count;
    size_t pair = norms->paired ? f : 0;
    norms->decoder = mem_alloc_zero(f * s, sizeof(double));
    norms->encoder = mem_alloc_zero(f * s, sizeof(double));
    norms->delta = mem_alloc_zero(f * s, sizeof(double));
    norms->code_weight = mem_alloc_zero(f, sizeof(double));
    norms->relative = mem_alloc_zero(pair, sizeof(double));
    norms->pair_delta = mem_alloc_zero(pair, sizeof(double));
    norms->decoder_cosine = mem_alloc_zero(pair, sizeof(double));
    norms->encoder_cosine = mem_alloc_zero(pair, sizeof(double));
    if (norms->decoder == NULL || norms->encoder == NULL || norms->delta == NULL ||
        norms->code_weight == NULL || norms->relative == NULL || norms->pair_delta == NULL ||
        norms->decoder_cosine == NULL || norms->encoder_cosine == NULL)
        return mem_fail("norms", f, (3 * s + 5) * sizeof(double));
    for (size_t j = 0; j < pair; j++)
        norms->decoder_cosine[j] = norms->encoder_cosine[j] = (double)NAN;
    return 0;
}

uint64_t norms_bytes(const struct crosscoder *cc)
{
    return cc->latents * (3 * cc->source_count + 5) * sizeof(double);
}

int norms_compute(struct norms *norms, const struct crosscoder *cc, const char *pair)
{
    *norms = (struct norms){.source_count = cc->source_count, .latents = cc->latents};
    int status = norms_make_labels(norms, cc);
    if (status == 0)
        status = norms_choose_pair(norms, cc, pair);
    if (status == 0)
        status = norms_allocate(norms);
    if (status != 0) {
        norms_free(norms);
        return status;
    }
    norms_decoders(norms, cc);
    norms_encoders(norms, cc);
    norms_relations(norms);
    return 0;
}

void norms_free(struct norms *norms)
{
    for (size_t s = 0; s < norms->source_count && norms->labels != NULL; s++)
        free(norms->labels[s]);
    free(norms->labels);
    free(norms->decoder);
    free(norms->encoder);
    free(norms->delta);
    free(norms->code_weight);
    free(norms->relative);
    free(norms->pair_delta);
    free(norms->decoder_cosine);
    free(norms->encoder_cosine);
    *norms = (struct norms){0};
}

/* ---- classes */

enum norms_class norms_class_by_relative(double relative)
{
    return relative < 0.1                     ? NORMS_A_ONLY
           : relative > 0.3 && relative < 0.7 ? NORMS_SHARED
           : relative > 0.9                   ? NORMS_B_ONLY
                                              : NORMS_OTHER;
}

enum norms_class norms_class_by_delta(double delta)
{
    return delta < 0.1                  ? NORMS_A_ONLY
           : delta > 0.4 && delta < 0.6 ? NORMS_SHARED
           : delta > 0.9                ? NORMS_B_ONLY
                                        : NORMS_OTHER;
}
