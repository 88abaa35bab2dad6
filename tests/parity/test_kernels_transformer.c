/* The forward pass but for products and attention. r is the rounding of a result in T. */
#include "tests/parity/parity.h"

#include <float.h>

/* Sizes (rows, columns): single ones, primes, beside a tile, enough for several threads. */
static const size_t sizes[][2] = {{1, 1},    {1, 2},    {3, 7},    {0, 16},   {17, 61},
                                  {5, 1024}, {3, 2051}, {7, 1028}, {67, 1009}};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* Smallest steps of f32 and bf16: what a result near zero may be off by. */
static double tiny(enum dtype type)
{
    return type == DTYPE_F32 ? 0x1p-149 : 0x1p-133;
}

/* Makes some rows extreme, one zero: sizes of which a square overflows or vanishes in f32. */
static void make_extreme(float *x, size_t rows, size_t d)
{
    static const float factors[] = {1.0f, 0.0f, 1e-30f, 1e30f, 1e-3f};
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < d; i++)
            x[row * d + i] *= factors[row % 5];
}

static double rms_of(const float *x, size_t d, float eps)
{
    double sum = 0;
    for (size_t i = 0; i < d; i++)
        sum += (double)x[i] * (double)x[i];
    return 1 / sqrt(sum / (double)d + (double)eps);
}

/* A product of two f32 is rounded once: the result is known to the bit. Ids repeat, the last one of
 * the table is there. */
static void check_embed(struct parity *parity)
{
    enum { VOCABULARY = 53 };
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t i = 0; i < 2 * SIZES; i++) {
        enum dtype type = types[i % 2];
        size_t n = sizes[i / 2][0], d = sizes[i / 2][1];
        float *table, *x = parity_host(n * d, sizeof *x);
        void *d_table = parity_random(parity, &table, type, VOCABULARY * d, 1.0f);
        uint32_t *ids = parity_host(n, sizeof *ids);
        for (size_t row = 0; row < n; row++)
            ids[row] = row == 0 ? VOCABULARY - 1 : (uint32_t)(parity_bits(parity) % VOCABULARY);
        uint32_t *d_ids = parity_upload(parity, ids, n * sizeof *ids);
        float *d_x = parity_alloc(parity, n * d * sizeof *d_x);
        parity->kernels->embed(parity->queue, d_x, d_ids, d_table, type, 11.3f, n, d);
        parity_get(parity, x, d_x, DTYPE_F32, n * d);
        for (size_t j = 0; j < n * d; j++)
            parity_near((double)x[j],
                        (double)(float)((double)11.3f * (double)table[ids[j / d] * d + j % d]), 0,
                        "x", j);
        free(table);
        free(x);
        free(ids);
        parity_free(parity, d_table);
        parity_free(parity, d_ids);
        parity_free(parity, d_x);
    }
}

/* A table in f16: 1.5, -0.5, the smallest subnormal and the largest value. */
static void check_embed_f16(struct parity *parity)
{
    static const uint16_t table[] = {0x3e00, 0xb800, 0x0001, 0x7bff};
    static const float want[] = {0x1p-23f, 131008.0f, 3.0f, -1.0f};
    static const uint32_t ids[] = {1, 0};
    float *d_x = parity_alloc(parity, sizeof want);
    void *d_table = parity_upload(parity, table, sizeof table);
    void *d_ids = parity_upload(parity, ids, sizeof ids);
    parity->kernels->embed(parity->queue, d_x, d_ids, d_table, DTYPE_F16, 2.0f, 2, 2);
    float *x = parity_download(parity, d_x, sizeof want);
    assert_memory_equal(x, want, sizeof want);
    free(x);
    parity_free(parity, d_x);
    parity_free(parity, d_table);
    parity_free(parity, d_ids);
}

/* h = x * factor * (1 + w): the factor is rounded once, 1 + w once, two products. */
static void check_normed(const float *h, const float *x, const float *w, float eps, size_t n,
                         size_t d, enum dtype type)
{
    for (size_t j = 0; j < n * d; j++) {
        double want = (double)x[j] * rms_of(x + j / d * d, d, eps) * (1 + (double)w[j % d]);
        parity_near((double)h[j], want,
                    (4.01 * PARITY_U + parity_rounding(type)) * fabs(want) + tiny(type), "h", j);
    }
}

static void check_rms_norm(struct parity *parity)
{
    static const float eps[] = {1e-6f, 0.5f};
    for (size_t i = 0; i < 2 * SIZES; i++) {
        size_t n = sizes[i / 2][0], d = sizes[i / 2][1];
        float *x, *w, *h = parity_host(n * d, sizeof *h);
        float *d_x = parity_random(parity, &x, DTYPE_F32, n * d, 3.0f);
        float *d_w = parity_random(parity, &w, DTYPE_F32, d, 2.0f);
        void *d_h = parity_alloc(parity, n * d * dtype_size(parity->type));
        make_extreme(x, n, d);
        parity_put(parity, d_x, x, DTYPE_F32, n * d);
        parity->kernels->rms_norm(parity->queue, d_h, d_x, d_w, eps[i % 2], n, d);
        parity_get(parity, h, d_h, parity->type, n * d);
        check_normed(h, x, w, eps[i % 2], n, d, parity->type);
        free(x);
        free(w);
        free(h);
        parity_free(parity, d_x);
        parity_free(parity, d_w);
        parity_free(parity, d_h);
    }
}

/* The sum x is judged with the branch's four roundings and its own, h from the x that the device
 * has. `bits`: which of branch and h are wanted. */
static void check_post_norm_of(struct parity *parity, size_t n, size_t d, unsigned bits)
{
    float *x, *y, *post, *next, *got = parity_host(n * d, sizeof *got);
    float *d_x = parity_random(parity, &x, DTYPE_F32, n * d, 3.0f);
    float *d_y = parity_random(parity, &y, DTYPE_F32, n * d, 3.0f);
    float *d_post = parity_random(parity, &post, DTYPE_F32, d, 2.0f);
    float *d_next = parity_random(parity, &next, DTYPE_F32, d, 2.0f);
    float *d_branch = bits & 1 ? parity_alloc(parity, n * d * sizeof *d_branch) : NULL;
    void *d_h = bits & 2 ? parity_alloc(parity, n * d * dtype_size(parity->type)) : NULL;
    make_extreme(y, n, d);
    parity_put(parity, d_y, y, DTYPE_F32, n * d);
    parity->kernels->post_norm(parity->queue, d_x, d_branch, d_h, d_y, d_post,
                               d_h != NULL ? d_next : NULL, 1e-6f, n, d);
    parity_get(parity, got, d_x, DTYPE_F32, n * d);
    for (size_t j = 0; j < n * d; j++) {
        double branch = (double)y[j] * rms_of(y + j / d * d, d, 1e-6f) * (1 + (double)post[j % d]);
        double want = (double)x[j] + branch;
        parity_near((double)got[j], want, PARITY_U * (4.01 * fabs(branch) + 1.01 * fabs(want)), "x",
                    j);
    }
    if (d_branch != NULL) {
        float *branch = parity_download(parity, d_branch, n * d * sizeof *branch);
        check_normed(branch, y, post, 1e-6f, n, d, DTYPE_F32);
        free(branch);
    }
    if (d_h != NULL) {
        float *h = parity_host(n * d, sizeof *h);
        parity_get(parity, h, d_h, parity->type, n * d);
        check_normed(h, got, next, 1e-6f, n, d, parity->type);
        free(h);
    }
    free(x);
    free(y);
    free(post);
    free(next);
    free(got);
    parity_free(parity, d_x);
    parity_free(parity, d_y);
    parity_free(parity, d_post);
    parity_free(parity, d_next);
    parity_free(parity, d_branch);
    parity_free(parity, d_h);
}

static void check_post_norm(struct parity *parity)
{
    for (size_t i = 0; i < SIZES; i++)
        for (unsigned bits = 0; bits < 4; bits++)
            check_post_norm_of(parity, sizes[i][0], sizes[i][1], bits);
}

/* Two products and a sum: 3 u of both magnitudes. Heads that are not to be turned stay as they are.
 */
static void check_rope_of(struct parity *parity, size_t n, size_t heads, size_t hd, size_t stride)
{
    enum { POSITIONS = 29 };
    enum dtype type = parity->type;
    size_t half = hd / 2;
    float *x, *angles, *got = parity_host(n * stride, sizeof *got);
    void *d_x = parity_random(parity, &x, type, n * stride, 5.0f);
    float *d_angles = parity_random(parity, &angles, DTYPE_F32, POSITIONS * hd, 1.0f);
    uint32_t *positions = parity_host(n, sizeof *positions);
    for (size_t row = 0; row < n; row++)
        positions[row] = row == 0 ? POSITIONS - 1 : (uint32_t)(parity_bits(parity) % POSITIONS);
    uint32_t *d_positions = parity_upload(parity, positions, n * sizeof *positions);
    parity->kernels->rope(parity->queue, d_x, d_positions, d_angles, n, heads, hd, stride);
    parity_get(parity, got, d_x, type, n * stride);
    for (size_t j = 0; j < n * stride; j++) {
        size_t row = j / stride, column = j % stride, i = column % hd;
        double want = (double)x[j], magnitude = 0;
        if (column < heads * hd) {
            const float *turn = angles + positions[row] * hd;
            double cosine = (double)turn[i % half], sine = (double)turn[half + i % half];
            double other = i < half ? -(double)x[j + half] : (double)x[j - half];
            magnitude = fabs(want * cosine) + fabs(other * sine);
            want = want * cosine + other * sine;
        }
        double tolerance = magnitude > 0 ? 3 * PARITY_U * magnitude : 0;
        if (magnitude > 0)
            tolerance += parity_rounding(type) * (fabs(want) + tolerance) + tiny(type);
        parity_near((double)got[j], want, tolerance, "turned", j);
    }
    free(x);
    free(angles);
    free(got);
    free(positions);
    parity_free(parity, d_x);
    parity_free(parity, d_angles);
    parity_free(parity, d_positions);
}

static void check_rope(struct parity *parity)
{
    check_rope_of(parity, 1, 1, 2, 2);
    check_rope_of(parity, 7, 2, 6, 19);
    check_rope_of(parity, 0, 2, 6, 19);
    check_rope_of(parity, 31, 3, 34, 5 * 34);
    check_rope_of(parity, 13, 12, 256, 16 * 256);
    check_rope_of(parity, 3, 1, 1022, 1023);
    check_rope_of(parity, 5, 2, 16, 35);
}

/* gelu(x) = x / (1 + exp(-2 s)), s = sqrt(2 / pi) (x + 0.044715 x^3): the argument 2 s is off by at
 * most 6 u of itself, by which exp multiplies; exp itself has 4 u, a fast division as much, the sum
 * and the product by `up` 2 u. Where exp(-2 s) would pass 2^127 it stays there, and where the
 * divisor passes 2^126 the quotient may be 0: |x up| 2^-126 at most. The f64 reference cancels by
 * |x up| 2^-52. */
static void check_geglu_of(struct parity *parity, size_t n, size_t inner, float scale)
{
    float *x, *got = parity_host(n * inner, sizeof *got);
    void *d_x = parity_random(parity, &x, parity->type, 2 * n * inner, scale);
    void *d_out = parity_alloc(parity, n * inner * dtype_size(parity->type));
    parity->kernels->geglu(parity->queue, d_out, d_x, n, inner);
    parity_get(parity, got, d_out, parity->type, n * inner);
    for (size_t j = 0; j < n * inner; j++) {
        double gate = (double)x[j / inner * 2 * inner + j % inner];
        double up = (double)x[j / inner * 2 * inner + inner + j % inner];
        double s = sqrt(2 / acos(-1)) * (gate + 0.044715 * gate * gate * gate);
        double want = 0.5 * gate * (1 + tanh(s)) * up;
        double tolerance = (12 * fabs(s) + 10) * PARITY_U * fabs(want) + 0x1p-52 * fabs(gate * up);
        tolerance += parity_rounding(parity->type) * (fabs(want) + tolerance) + tiny(parity->type);
        parity_near((double)got[j], want, tolerance, "gated", j);
    }
    free(x);
    free(got);
    parity_free(parity, d_x);
    parity_free(parity, d_out);
}

static void check_geglu(struct parity *parity)
{
    static const float scales[] = {0.0f, 1e-20f, 0.3f, 3.0f, 15.0f, 1e4f, 1e18f};
    for (size_t i = 0; i < SIZES; i++)
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++)
            check_geglu_of(parity, sizes[i][0], sizes[i][1], scales[s]);
}

/* Sums in f64, one rounding; a norm is finite wherever the row is. */
static void check_row_norms(struct parity *parity)
{
    for (size_t i = 0; i < SIZES; i++) {
        size_t n = sizes[i][0], d = sizes[i][1];
        float *x, *got = parity_host(n, sizeof *got);
        float *d_x = parity_random(parity, &x, DTYPE_F32, n * d, 3.0f);
        float *d_norms = parity_alloc(parity, n * sizeof *d_norms);
        make_extreme(x, n, d);
        for (size_t row = 5; row < n; row += 5) {
            size_t place = row * d + parity_bits(parity) % d;
            if (row % 4 == 0)
                x[place] = NAN;
            else if (row % 4 == 1)
                x[place] = row % 8 == 5 ? INFINITY : -INFINITY;
            else
                for (size_t c = 0; c < d; c++)
                    x[row * d + c] = 3.4e38f;
        }
        parity_put(parity, d_x, x, DTYPE_F32, n * d);
        parity->kernels->row_norms(parity->queue, d_norms, d_x, n, d);
        parity_get(parity, got, d_norms, DTYPE_F32, n);
        for (size_t row = 0; row < n; row++) {
            double sum = 0;
            for (size_t c = 0; c < d; c++)
                sum += (double)x[row * d + c] * (double)x[row * d + c];
            double want = sqrt(sum);
            double largest = (double)FLT_MAX;
            if ((isfinite(want) != 0) != (isfinite((double)got[row]) != 0))
                fail_msg("the norm of a row with norm %g is %g", want, (double)got[row]);
            if (isfinite(want))
                parity_near((double)got[row], fmin(want, largest), 1.01 * PARITY_U * want, "norm",
                            row);
        }
        free(x);
        free(got);
        parity_free(parity, d_x);
        parity_free(parity, d_norms);
    }
}

struct emission {
    size_t rows, d, row_bytes, at, quantum_at;
    float scale;
    enum dtype type;
};

/* int8: the quantum is off by the roundings of scale * x and of the division, a value by half a
 * quantum and the roundings of scale * x and of its division by the quantum, of 127 at most. */
static void check_int8(const uint8_t *row, const float *x, const struct emission *e)
{
    double largest = 0;
    for (size_t i = 0; i < e->d; i++)
        largest = fmax(largest, fabs((double)e->scale * (double)x[i]));
    float quantum;
    memcpy(&quantum, row + e->quantum_at, sizeof quantum);
    parity_near((double)quantum, largest / 127, 2.01 * PARITY_U * largest / 127, "quantum", 0);
    for (size_t i = 0; i < e->d; i++) {
        double steps = (double)((const int8_t *)row)[e->at + i];
        if (quantum == 0)
            parity_near(steps, 0, 0, "of zeros", i);
        else
            parity_near(steps, (double)e->scale * (double)x[i] / (double)quantum,
                        0.5 + 3 * 127 * PARITY_U, "steps", i);
        assert_true(steps >= -127);
    }
}

static void check_emission(struct parity *parity, const struct emission *e)
{
    enum { POOL = 23 };
    float *x;
    float *d_x = parity_random(parity, &x, DTYPE_F32, POOL * e->d, 10.0f);
    make_extreme(x, POOL, e->d);
    parity_put(parity, d_x, x, DTYPE_F32, POOL * e->d);
    uint32_t *index = parity_host(e->rows, sizeof *index);
    for (size_t r = 0; r < e->rows; r++)
        index[r] = r == 0 ? POOL - 1 : (uint32_t)(parity_bits(parity) % POOL);
    uint32_t *d_index = parity_upload(parity, index, e->rows * sizeof *index);
    size_t bytes = e->rows * e->row_bytes + 1;
    uint8_t *fill = parity_host(bytes, 1);
    memset(fill, 0xa7, bytes);
    uint8_t *d_rows = parity_upload(parity, fill, bytes);
    parity->kernels->emit_rows(parity->queue, d_rows, d_x, d_index, e->scale, e->type, e->rows,
                               e->row_bytes, e->at, e->quantum_at, e->d);
    uint8_t *rows = parity_download(parity, d_rows, bytes);
    for (size_t r = 0; r < e->rows; r++) {
        uint8_t *row = rows + r * e->row_bytes;
        const float *from = x + index[r] * e->d;
        if (e->type == DTYPE_I8)
            check_int8(row, from, e);
        for (size_t i = 0; e->type != DTYPE_I8 && i < e->d; i++) {
            float want = (float)((double)e->scale * (double)from[i]);
            uint16_t half = dtype_f32_to_bf16(want);
            if (e->type == DTYPE_F32)
                assert_memory_equal(row + e->at + 4 * i, &want, sizeof want);
            else
                assert_memory_equal(row + e->at + 2 * i, &half, sizeof half);
        }
        /* Then the rest of the row must be as it was. */
        memset(row + e->at, 0xa7, e->d * dtype_size(e->type));
        if (e->type == DTYPE_I8)
            memset(row + e->quantum_at, 0xa7, 4);
    }
    assert_memory_equal(rows, fill, bytes);
    free(x);
    free(index);
    free(fill);
    free(rows);
    parity_free(parity, d_x);
    parity_free(parity, d_index);
    parity_free(parity, d_rows);
}

/* Odd places in the row, so that nothing is aligned, or even ones; an index may repeat. */
static void check_emit_rows(struct parity *parity)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_I8};
    static const float scales[] = {1.0f, 0.037f, -0.5f};
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t t = 0; t < 18; t++) {
            struct emission e = {.rows = sizes[i][0],
                                 .d = sizes[i][1],
                                 .scale = scales[t / 3 % 3],
                                 .type = types[t % 3],
                                 .at = t < 9 ? 9 : 16,
                                 .quantum_at = 3};
            e.row_bytes = e.at + e.d * dtype_size(e.type) + (t < 9 ? 4 : 16);
            check_emission(parity, &e);
        }
    }
}

/* With a largest magnitude of 127 the quantum is 1 and halves are ties: to even. */
static void check_int8_ties(struct parity *parity)
{
    static const float x[] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, 0.0f};
    static const int8_t want[] = {127, 0, 2, 2, 0, -2, -2, 126, -126, 0};
    enum { D = sizeof want };
    static const uint32_t index[] = {0};
    float *d_x = parity_upload(parity, x, sizeof x);
    uint32_t *d_index = parity_upload(parity, index, sizeof index);
    uint8_t *d_rows = parity_alloc(parity, 4 + D);
    parity->kernels->emit_rows(parity->queue, d_rows, d_x, d_index, 1.0f, DTYPE_I8, 1, 4 + D, 4, 0,
                               D);
    uint8_t *row = parity_download(parity, d_rows, 4 + D);
    assert_memory_equal(row + 4, want, D);
    free(row);
    parity_free(parity, d_x);
    parity_free(parity, d_index);
    parity_free(parity, d_rows);
}

#define TESTS(X)                               \
    X(check_embed, embedding_rounds_once)      \
    X(check_embed_f16, tables_may_be_f16)      \
    X(check_rms_norm, rms_norm_matches_f64)    \
    X(check_post_norm, post_norm_matches_f64)  \
    X(check_rope, rope_matches_f64)            \
    X(check_geglu, geglu_matches_f64)          \
    X(check_row_norms, row_norms_match_f64)    \
    X(check_emit_rows, emitted_rows_match_f64) \
    X(check_int8_ties, int8_rounds_to_nearest_even)

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
    log_init("test_kernels_transformer", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels transformer", tests, NULL, NULL);
}
