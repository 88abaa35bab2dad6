/* What a training step does beside the products and Adam. Sums are f64 inside and rounded once: a
 * sum of n terms is off by n 2^-53 of their magnitudes and u of itself. r is T's rounding.
 */
#include "tests/parity/parity.h"

/* Unequal sources, each with its own odd width; the third list is not in the order of columns. Then
 * widths that a backend may take in fours, and rows that it may so take but not their sources. */
static const struct kernels_columns one[] = {{0, 37}};
static const struct kernels_columns three[] = {{0, 5}, {5, 1025}, {1030, 1}};
static const struct kernels_columns swapped[] = {{67, 61}, {0, 67}};
static const struct kernels_columns fours[] = {{1028, 4}, {0, 1028}};
static const struct kernels_columns odd_within[] = {{0, 6}, {6, 14}};
static const struct layout {
    const struct kernels_columns *columns;
    size_t sources, width;
} layouts[] = {
    {one, 1, 37}, {three, 3, 1031}, {swapped, 2, 128}, {fours, 2, 1032}, {odd_within, 2, 20}};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

/* On both sides of what the backends take for one part of a sum: 256 on CUDA, 64 on the CPU. */
static const size_t row_counts[] = {1, 2, 63, 259, 64, 65, 131};

static size_t row_count_most(const struct parity *parity)
{
    return parity_is_emulated(parity) ? 4 : sizeof row_counts / sizeof *row_counts;
}

static const size_t matrix_sizes[][2] = {{1, 1},    {1, 17},  {0, 8},     {131, 1},
                                         {5, 511},  {3, 513}, {67, 1031}, {256, 31},
                                         {257, 33}, {600, 3}, {67, 132},  {300, 8}};
enum { MATRIX_SIZES = sizeof matrix_sizes / sizeof *matrix_sizes };

static double summed(double sum, double magnitude, size_t n)
{
    return PARITY_U * fabs(sum) + (double)n * 0x1p-52 * magnitude;
}

/* Values as they come over the wire, at an odd address where the type allows that. */
static void check_load_rows_of(struct parity *parity, enum dtype wire, const struct layout *l,
                               size_t rows)
{
    size_t n = rows * l->width, row_bytes = l->width * dtype_size(wire);
    size_t shift = wire == DTYPE_I8 ? 1 : 0; /* quanta need not be aligned */
    if (wire == DTYPE_I8)
        row_bytes += 4 * l->sources;
    uint8_t *bytes = parity_host(rows * row_bytes + 1, 1);
    float *want = parity_host(n, sizeof *want), *got = parity_host(n, sizeof *got);
    for (size_t r = 0; r < rows; r++) {
        for (size_t s = 0; s < l->sources; s++) {
            uint8_t *row = bytes + shift + r * row_bytes;
            float quantum = r % 7 == 3 ? 0 : fabsf(parity_uniform(parity)) * 0.3f;
            if (wire == DTYPE_I8)
                memcpy(row + 4 * s, &quantum, sizeof quantum);
            for (size_t c = 0; c < l->columns[s].width; c++) {
                size_t column = l->columns[s].first + c;
                float value = parity_uniform(parity) * 30;
                uint16_t half = dtype_f32_to_bf16(value);
                int8_t step = (int8_t)(127 * parity_uniform(parity));
                if (wire == DTYPE_F32)
                    memcpy(row + 4 * column, &value, sizeof value);
                else if (wire == DTYPE_BF16)
                    memcpy(row + 2 * column, &half, sizeof half);
                else
                    memcpy(row + 4 * l->sources + column, &step, 1);
                if (wire == DTYPE_BF16)
                    value = dtype_bf16_to_f32(half);
                if (wire == DTYPE_I8)
                    value = (float)((double)quantum * step);
                want[r * l->width + column] = value;
            }
        }
    }
    uint8_t *d_rows = parity_upload(parity, bytes, rows * row_bytes + 1);
    void *d_x = parity_alloc(parity, n * dtype_size(parity->type));
    parity->kernels->load_rows(parity->queue, d_x, d_rows + shift, wire, l->columns, l->sources,
                               rows, l->width);
    parity_get(parity, got, d_x, parity->type, n);
    for (size_t i = 0; i < n; i++) {
        if (parity->type == DTYPE_BF16)
            want[i] = dtype_bf16_to_f32(dtype_f32_to_bf16(want[i]));
        parity_near((double)got[i], (double)want[i], 0, "x", i);
    }
    free(bytes);
    free(want);
    free(got);
    parity_free(parity, d_rows);
    parity_free(parity, d_x);
}

static void check_load_rows(struct parity *parity)
{
    static const enum dtype wires[] = {DTYPE_F32, DTYPE_BF16, DTYPE_I8};
    for (size_t i = 0; i < LAYOUTS * row_count_most(parity) * 3; i++)
        check_load_rows_of(parity, wires[i % 3], &layouts[i / 3 % LAYOUTS],
                           row_counts[i / 3 / LAYOUTS]);
}

/* Latents as ReLU leaves them: zeros, some of them negative. */
static void make_sparse(struct parity *parity, float *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (f[i] < 0 || parity_bits(parity) % 3 == 0)
            f[i] = i % 2 ? 0.0f : -0.0f;
}

static void check_sums(struct parity *parity)
{
    const struct kernels *k = parity->kernels;
    for (size_t i = 0; i < MATRIX_SIZES; i++) {
        size_t rows = matrix_sizes[i][0], columns = matrix_sizes[i][1], n = rows * columns;
        float *f;
        void *d_f = parity_random(parity, &f, parity->type, n, 100.0f);
        float *d_sums = parity_alloc(parity, 2 * columns * sizeof *d_sums);
        k->column_sums(parity->queue, d_sums, d_f, rows, columns);
        k->column_means(parity->queue, d_sums + columns, d_f, rows, columns);
        float *sums = parity_download(parity, d_sums, 2 * columns * sizeof *sums);
        for (size_t c = 0; c < columns; c++) {
            double sum = 0, magnitude = 0;
            for (size_t r = 0; r < rows; r++) {
                sum += (double)f[r * columns + c];
                magnitude += fabs((double)f[r * columns + c]);
            }
            double tolerance = summed(sum, magnitude, rows);
            parity_near((double)sums[c], sum, tolerance, "sum", c);
            if (rows > 0)
                parity_near((double)sums[columns + c], sum / (double)rows, tolerance / (double)rows,
                            "mean", c);
        }
        free(f);
        free(sums);
        parity_free(parity, d_f);
        parity_free(parity, d_sums);
    }
}

/* dpre + bias is rounded to f32 and then to T, as it is here. */
static void check_relu_column(const struct parity *parity, const float *const outputs[3],
                              uint32_t count, const float *f, const float *g, float bias,
                              size_t rows, size_t columns, size_t c)
{
    double sum = 0, magnitude = 0, latents = 0;
    uint32_t positive = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * columns + c;
        float want = f[at] > 0 ? g[at] + bias : 0;
        if (parity->type == DTYPE_BF16)
            want = dtype_bf16_to_f32(dtype_f32_to_bf16(want));
        parity_near((double)outputs[0][at], (double)want, 0, "dpre", at);
        sum += (double)want;
        magnitude += fabs((double)want);
        latents += (double)f[at];
        positive += f[at] > 0;
    }
    parity_near((double)outputs[1][c], sum, summed(sum, magnitude, rows), "sum", c);
    parity_near((double)outputs[2][c], latents, summed(latents, latents, rows), "latents", c);
    assert_int_equal(count, positive);
}

static void check_relu_backward(struct parity *parity)
{
    for (size_t i = 0; i < MATRIX_SIZES; i++) {
        size_t rows = matrix_sizes[i][0], columns = matrix_sizes[i][1], n = rows * columns;
        float *f, *g, *bias, *got = parity_host(n, sizeof *got);
        void *d_f = parity_random(parity, &f, parity->type, n, 1.0f);
        void *d_g = parity_random(parity, &g, parity->type, n, 10.0f);
        float *d_bias = parity_random(parity, &bias, DTYPE_F32, columns, 10.0f);
        make_sparse(parity, f, n);
        parity_put(parity, d_f, f, parity->type, n);
        float *d_sums = parity_alloc(parity, 2 * columns * sizeof *d_sums);
        uint32_t *d_counts = parity_alloc(parity, columns * sizeof *d_counts);
        parity->kernels->relu_backward(parity->queue, d_g, d_sums, d_sums + columns, d_counts, d_f,
                                       d_bias, rows, columns);
        parity_get(parity, got, d_g, parity->type, n);
        float *sums = parity_download(parity, d_sums, 2 * columns * sizeof *sums);
        uint32_t *counts = parity_download(parity, d_counts, columns * sizeof *counts);
        const float *outputs[3] = {got, sums, sums + columns};
        for (size_t c = 0; c < columns; c++)
            check_relu_column(parity, outputs, counts[c], f, g, bias[c], rows, columns, c);
        float *host[] = {f, g, bias, got, sums};
        for (size_t j = 0; j < sizeof host / sizeof *host; j++)
            free(host[j]);
        free(counts);
        void *d_memory[] = {d_f, d_g, d_bias, d_sums, d_counts};
        for (size_t j = 0; j < sizeof d_memory / sizeof *d_memory; j++)
            parity_free(parity, d_memory[j]);
    }
}

struct reconstruction {
    const struct layout *l;
    size_t rows;
    float *x, *xhat, *means;
};

/* Row 1 is the means in every source, row 2 in the first; row 3 is reconstructed exactly. */
static void make_special_rows(struct reconstruction *r)
{
    size_t width = r->l->width;
    for (size_t c = 0; c < width; c++) {
        size_t in_first = c - r->l->columns[0].first;
        if (r->rows > 1)
            r->x[width + c] = r->means[c];
        if (r->rows > 2 && in_first < r->l->columns[0].width)
            r->x[2 * width + c] = r->means[c];
        if (r->rows > 3)
            r->xhat[3 * width + c] = r->x[3 * width + c];
    }
}

/* e and x - mean are rounded, so each square is off by 2 u of itself, and an error and a variance
 * as well; 1 - e²/v by 4 u of e²/v. */
static void check_recon_sums(const struct kernels_recon_sums *sums, const struct reconstruction *r)
{
    size_t sources = r->l->sources;
    for (size_t s = 0; s <= sources; s++) {
        double error = 0, variance = 0, explained = 0, ratios = 0;
        for (size_t row = 0; row < r->rows; row++) {
            double row_error = 0, row_variance = 0;
            for (size_t t = 0; t < sources; t++)
                for (size_t i = 0; (t == s || s == sources) && i < r->l->columns[t].width; i++) {
                    size_t c = r->l->columns[t].first + i, at = row * r->l->width + c;
                    double e = (double)r->xhat[at] - (double)r->x[at];
                    double spread = (double)r->x[at] - (double)r->means[c];
                    row_error += e * e;
                    row_variance += spread * spread;
                }
            error += row_error;
            variance += row_variance;
            explained += row_variance > 0 ? 1 - row_error / row_variance : 0;
            ratios += row_variance > 0 ? 1 + row_error / row_variance : 0;
        }
        parity_near(sums[s].error, error, 2.01 * PARITY_U * error, "error", s);
        parity_near(sums[s].variance, variance, 2.01 * PARITY_U * variance, "variance", s);
        parity_near(sums[s].explained, explained, 4.02 * PARITY_U * ratios, "explained", s);
    }
}

static void check_recon_of(struct parity *parity, const struct layout *l, size_t rows)
{
    const float factor = -0.0371f;
    size_t n = rows * l->width;
    struct reconstruction r = {.l = l, .rows = rows};
    float *g = parity_host(n, sizeof *g);
    float *d_xhat = parity_random(parity, &r.xhat, DTYPE_F32, n, 3.0f);
    void *d_x = parity_random(parity, &r.x, parity->type, n, 3.0f);
    float *d_means = parity_random(parity, &r.means, DTYPE_F32, l->width, 1.0f);
    void *d_g = parity_alloc(parity, n * dtype_size(parity->type));
    size_t bytes = (l->sources + 1) * sizeof(struct kernels_recon_sums);
    struct kernels_recon_sums *d_sums = parity_alloc(parity, bytes);
    if (parity->type == DTYPE_BF16) /* so that a row can be the means */
        for (size_t c = 0; c < l->width; c++)
            r.means[c] = dtype_bf16_to_f32(dtype_f32_to_bf16(r.means[c]));
    make_special_rows(&r);
    parity_put(parity, d_x, r.x, parity->type, n);
    parity_put(parity, d_means, r.means, DTYPE_F32, l->width);
    parity_put(parity, d_xhat, r.xhat, DTYPE_F32, n);
    for (unsigned with_g = 0; with_g < 2; with_g++) {
        const float garbage[6] = {1, 2, 3, 4, 5, 6}; /* sums are set, not added to */
        parity->kernels->upload(parity->queue, d_sums, garbage, sizeof garbage);
        parity->kernels->recon(parity->queue, with_g ? d_g : NULL, d_sums, d_xhat, d_x, d_means,
                               l->columns, l->sources, factor, rows, l->width);
        struct kernels_recon_sums *sums = parity_download(parity, d_sums, bytes);
        check_recon_sums(sums, &r);
        free(sums);
    }
    parity_get(parity, g, d_g, parity->type, n);
    for (size_t i = 0; i < n; i++) {
        double want = (double)factor * ((double)r.xhat[i] - (double)r.x[i]);
        parity_near((double)g[i], want,
                    (2.01 * PARITY_U + parity_rounding(parity->type)) * fabs(want), "g", i);
    }
    free(r.x);
    free(r.xhat);
    free(r.means);
    free(g);
    parity_free(parity, d_xhat);
    parity_free(parity, d_x);
    parity_free(parity, d_means);
    parity_free(parity, d_g);
    parity_free(parity, d_sums);
}

static void check_recon(struct parity *parity)
{
    for (size_t i = 0; i < LAYOUTS; i++) {
        check_recon_of(parity, &layouts[i], 0);
        for (size_t j = 0; j < row_count_most(parity); j++)
            check_recon_of(parity, &layouts[i], row_counts[j]);
    }
}

/* A decoder with its norms, and Adam's state; what the device has is in host memory too. */
struct decoder {
    const struct layout *l;
    size_t latents, n;
    float *w, *g, *m, *v, *sums, *norms;
    float *d_w, *d_g, *d_m, *d_v, *d_sums, *d_clip;
    void *d_copy;
    double *lengths; /* (latents, sources) */
    struct kernels_decoder of;
};

/* Latent 1 has decoders of zeros, latent 2 one; latent 3's squares are beyond f32. */
static void decoder_make(struct decoder *d, struct parity *parity, const struct layout *l,
                         size_t latents)
{
    size_t n = latents * l->width;
    memset(d, 0, sizeof *d);
    d->l = l, d->latents = latents, d->n = n;
    d->d_w = parity_random(parity, &d->w, DTYPE_F32, n, 0.1f);
    d->d_g = parity_random(parity, &d->g, DTYPE_F32, n, 0.01f);
    d->d_m = parity_random(parity, &d->m, DTYPE_F32, n, 0.01f);
    d->d_v = parity_random(parity, &d->v, DTYPE_F32, n, 0.0001f);
    d->d_sums = parity_random(parity, &d->sums, DTYPE_F32, latents, 50.0f);
    d->d_clip = parity_alloc(parity, sizeof *d->d_clip);
    d->lengths = parity_host(latents * l->sources, sizeof *d->lengths);
    d->d_copy = parity_alloc(parity, n * dtype_size(parity->type));
    for (size_t i = 0; i < n; i++) {
        size_t j = i / l->width, in_first = i % l->width - l->columns[0].first;
        if (j == 1 || (j == 2 && in_first < l->columns[0].width))
            d->w[i] = 0;
        if (j == 3)
            d->w[i] *= 1e25f;
        d->v[i] = fabsf(d->v[i]);
    }
    parity_put(parity, d->d_w, d->w, DTYPE_F32, n);
    parity_put(parity, d->d_v, d->v, DTYPE_F32, n);
    d->of = (struct kernels_decoder){
        .columns = l->columns,
        .sources = l->sources,
        .latents = latents,
        .width = l->width,
        .d_norms = parity_alloc(parity, latents * l->sources * sizeof(float)),
        .d_weight = parity_alloc(parity, latents * sizeof(float)),
        .d_sums = d->d_sums,
        .factor = 0.0123f,
    };
}

static void decoder_free(struct decoder *d, struct parity *parity)
{
    float *host[] = {d->w, d->g, d->m, d->v, d->sums, d->norms};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        free(host[i]);
    free(d->lengths);
    void *d_memory[] = {d->d_w,    d->d_g,    d->d_m,        d->d_v,        d->d_sums,
                        d->d_clip, d->d_copy, d->of.d_norms, d->of.d_weight};
    for (size_t i = 0; i < sizeof d_memory / sizeof *d_memory; i++)
        parity_free(parity, d_memory[i]);
}

/* A norm is rounded once, the weight a few times. */
static void check_norms(struct decoder *d, struct parity *parity)
{
    const struct layout *l = d->l;
    size_t bytes = d->latents * l->sources * sizeof(float);
    const struct kernels *k = parity->kernels;
    k->decoder_norms(parity->queue, d->of.d_norms, NULL, d->d_w, l->columns, l->sources, d->latents,
                     l->width);
    d->norms = parity_download(parity, d->of.d_norms, bytes);
    k->clear(parity->queue, d->of.d_norms, bytes);
    k->decoder_norms(parity->queue, d->of.d_norms, d->of.d_weight, d->d_w, l->columns, l->sources,
                     d->latents, l->width);
    float *again = parity_download(parity, d->of.d_norms, bytes);
    float *weight = parity_download(parity, d->of.d_weight, d->latents * sizeof *weight);
    assert_memory_equal(d->norms, again, bytes);
    for (size_t j = 0; j < d->latents; j++) {
        double all = 0;
        for (size_t s = 0; s < l->sources; s++) {
            double squares = 0;
            for (size_t i = 0; i < l->columns[s].width; i++) {
                double value = (double)d->w[j * l->width + l->columns[s].first + i];
                squares += value * value;
            }
            double norm = d->lengths[j * l->sources + s] = sqrt(squares);
            parity_near((double)d->norms[j * l->sources + s], norm, 1.01 * PARITY_U * norm, "norm",
                        j);
            all += norm;
        }
        parity_near((double)weight[j], all, (double)(l->sources + 1) * PARITY_U * all, "weight", j);
    }
    free(again);
    free(weight);
}

/* The gradient of element i with the pull at its norm, in f64. *slack: factor, sum and norm give 3
 * u of what is added, and the product and the addition their own. */
static double pulled(const struct decoder *d, size_t i, double *slack)
{
    size_t j = i / d->l->width, s = 0;
    while (i % d->l->width - d->l->columns[s].first >= d->l->columns[s].width)
        s++;
    double norm = d->lengths[j * d->l->sources + s];
    double pull = (double)d->of.factor * (double)d->sums[j] * (double)d->w[i];
    double added = norm > 0 ? pull / norm : 0, all = (double)d->g[i] + added;
    *slack = PARITY_U * (5 * fabs(added) + fabs(all));
    return all;
}

static void check_square(struct decoder *d, struct parity *parity)
{
    double sum = 0, slack = 0, *d_sum = parity_alloc(parity, sizeof *d_sum);
    parity->kernels->decoder_square(parity->queue, d_sum, d->d_g, d->d_w, &d->of);
    double *got = parity_download(parity, d_sum, sizeof *got);
    for (size_t i = 0; i < d->n; i++) {
        double off, all = pulled(d, i, &off);
        sum += all * all;
        slack += 2 * fabs(all) * off + off * off;
    }
    parity_near(*got, sum, slack + (double)d->n * 0x1p-52 * sum, "square", d->latents);
    free(got);
    parity_free(parity, d_sum);
}

/* As test_kernels_optimiser.c has it for adam(), with the slack of the gradient. */
static void check_update(struct decoder *d, struct parity *parity)
{
    const struct kernels_adam adam = {3e-3, 0.9, 0.999, 1e-8, 0.271, 0.003};
    const size_t n = d->n;
    float clip = 0.07f, *w = parity_host(n, sizeof *w), *m = parity_host(n, sizeof *m);
    float *v = parity_host(n, sizeof *v), *copy = parity_host(n, sizeof *copy);
    parity_put(parity, d->d_clip, &clip, DTYPE_F32, 1);
    parity->kernels->decoder_adam(parity->queue, d->d_w, d->d_m, d->d_v, d->d_copy, d->d_g,
                                  d->d_clip, &adam, &d->of);
    parity_get(parity, w, d->d_w, DTYPE_F32, n);
    parity_get(parity, m, d->d_m, DTYPE_F32, n);
    parity_get(parity, v, d->d_v, DTYPE_F32, n);
    parity_get(parity, copy, d->d_copy, parity->type, n);
    for (size_t i = 0; i < n; i++) {
        double slack, g = (double)clip * pulled(d, i, &slack);
        slack *= (double)clip;
        double m_old = adam.beta1 * (double)d->m[i], m_new = (1 - adam.beta1) * g;
        double v_old = adam.beta2 * (double)d->v[i], v_new = (1 - adam.beta2) * g * g;
        parity_near((double)m[i], m_old + m_new,
                    4 * PARITY_U * (fabs(m_old) + fabs(m_new)) + (1 - adam.beta1) * slack, "m", i);
        parity_near((double)v[i], v_old + v_new,
                    6 * PARITY_U * (v_old + v_new) +
                        (1 - adam.beta2) * (2 * fabs(g) * slack + slack * slack) + 0x1p-148,
                    "v", i);
        double update = adam.lr * ((double)m[i] / adam.correction1) /
                        (sqrt((double)v[i] / adam.correction2) + adam.eps);
        double want = (double)d->w[i] - update;
        parity_near((double)w[i], want, PARITY_U * (8 * fabs(update) + fabs(want)), "w", i);
        float rounded =
            parity->type == DTYPE_F32 ? w[i] : dtype_bf16_to_f32(dtype_f32_to_bf16(w[i]));
        parity_near((double)copy[i], (double)rounded, 0, "copy", i);
    }
    free(w);
    free(m);
    free(v);
    free(copy);
}

/* What decoder_adam() left are the norms of what it left, to the bit. */
static void check_new_norms(struct decoder *d, struct parity *parity)
{
    const struct layout *l = d->l;
    size_t bytes = d->latents * l->sources * sizeof(float), weights = d->latents * sizeof(float);
    float *norms = parity_download(parity, d->of.d_norms, bytes);
    float *weight = parity_download(parity, d->of.d_weight, weights);
    parity->kernels->decoder_norms(parity->queue, d->of.d_norms, d->of.d_weight, d->d_w, l->columns,
                                   l->sources, d->latents, l->width);
    float *norms_of = parity_download(parity, d->of.d_norms, bytes);
    float *weight_of = parity_download(parity, d->of.d_weight, weights);
    assert_memory_equal(norms, norms_of, bytes);
    assert_memory_equal(weight, weight_of, weights);
    assert_memory_not_equal(norms, d->norms, bytes);
    free(norms);
    free(weight);
    free(norms_of);
    free(weight_of);
}

static void check_decoder_of(struct parity *parity, const struct layout *l, size_t latents)
{
    struct decoder d;
    decoder_make(&d, parity, l, latents);
    check_norms(&d, parity);
    check_square(&d, parity);
    check_update(&d, parity);
    check_new_norms(&d, parity);
    decoder_free(&d, parity);
}

static void check_decoder(struct parity *parity)
{
    for (size_t i = 0; i < LAYOUTS; i++)
        for (size_t j = 0; j < row_count_most(parity); j++)
            check_decoder_of(parity, &layouts[i], row_counts[j]);
}

#define TESTS(X)                                       \
    X(check_load_rows, rows_come_off_the_wire_exactly) \
    X(check_sums, sums_match_f64)                      \
    X(check_relu_backward, relu_backward_matches_f64)  \
    X(check_recon, reconstruction_sums_match_f64)      \
    X(check_decoder, the_decoder_and_its_norms_match_f64)

#define TEST_FUNCTION(check, name) \
    static void name(void **state) \
    {                              \
        (void)state;               \
        parity_each_type(check);   \
    }
TESTS(TEST_FUNCTION)

int main(void)
{
#define TEST_ENTRY(check, name) cmocka_unit_test(name),
    const struct CMUnitTest tests[] = {TESTS(TEST_ENTRY)};
    log_init("test_kernels_crosscoder", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels crosscoder", tests, NULL, NULL);
}
