/* Attention against the plain formula in f64, one (query, head) after the other. */
#include "tests/parity/parity.h"

struct setting {
    struct kernels_attention attention;
    const struct kernels_span *spans;
    size_t span_count;
    size_t rows; /* of the matrix; some may belong to no span */
    float size;  /* of the values */
    enum dtype type;
    bool rounds_weights; /* to T, before they multiply */
    const float *qkv, *out;
};

struct scores {
    double s[1024]; /* of the visible keys, lowest first */
    double error;   /* of any of them */
    size_t first, count;
};

/* s = cap tanh(scale q·k / cap). A product of head_dim terms is off by (head_dim + 2) u Σ|q k|
 * scale; the cap never enlarges that and adds 5 u of itself. */
static void score_row(struct scores *scores, const struct setting *t,
                      const struct kernels_span *span, size_t position, size_t head)
{
    const struct kernels_attention *a = &t->attention;
    size_t hd = a->head_dim, stride = (a->heads + 2 * a->key_heads) * hd;
    size_t key_head = head / (a->heads / a->key_heads);
    const float *q = t->qkv + (span->first + position) * stride + head * hd;
    scores->first = a->window == 0 || position < a->window ? 0 : position - a->window + 1;
    scores->count = position + 1 - scores->first;
    scores->error = 0;
    for (size_t j = 0; j < scores->count; j++) {
        const float *k =
            t->qkv + (span->first + scores->first + j) * stride + (a->heads + key_head) * hd;
        double sum = 0, magnitude = 0;
        for (size_t i = 0; i < hd; i++) {
            sum += (double)q[i] * (double)k[i];
            magnitude += fabs((double)q[i] * (double)k[i]);
        }
        double s = (double)a->scale * sum, cap = (double)a->cap;
        double error = (double)(hd + 2) * PARITY_U * (double)a->scale * magnitude;
        if (a->cap > 0) {
            s = cap * tanh(s / cap);
            error += 5 * PARITY_U * fabs(s);
        }
        scores->s[j] = s;
        scores->error = fmax(scores->error, error);
    }
}

/* A weight exp(s - max) / Σ is off, relatively, by 2 errors of a score, the rounding of s - max in
 * numerator and sum, 4 u of each exp, and the additions: one for each key, and 6 u for each tile of
 * keys whose maximum rose. Weights times |v| bound what that does to the output. Weights for a
 * tensor core are rounded to bf16; as the sum is over the rounded ones, w (1 + e) / Σ w (1 + e)
 * moves the output by Σ w e (v - out) / Σ w (1 + e). */
static void check_row(const struct setting *t, const struct kernels_span *span, size_t position,
                      size_t head)
{
    const struct kernels_attention *a = &t->attention;
    size_t hd = a->head_dim, stride = (a->heads + 2 * a->key_heads) * hd;
    size_t key_head = head / (a->heads / a->key_heads);
    struct scores scores;
    score_row(&scores, t, span, position, head);
    double largest = -INFINITY, least = INFINITY, sum = 0;
    for (size_t j = 0; j < scores.count; j++) {
        largest = fmax(largest, scores.s[j]);
        least = fmin(least, scores.s[j]);
    }
    for (size_t j = 0; j < scores.count; j++)
        sum += exp(scores.s[j] - largest);
    double relative = 2 * scores.error +
                      PARITY_U * (2 * fmin(largest - least, 90) + 2 * (double)scores.count + 16);
    const float *out = t->out + (span->first + position) * a->heads * hd + head * hd;
    for (size_t i = 0; i < hd; i++) {
        double want = 0, magnitude = 0, spread = 0;
        const float *v = t->qkv + (span->first + scores.first) * stride +
                         (a->heads + a->key_heads + key_head) * hd + i;
        for (size_t j = 0; j < scores.count; j++) {
            double term = exp(scores.s[j] - largest) / sum * (double)v[j * stride];
            want += term;
            magnitude += fabs(term);
        }
        for (size_t j = 0; t->rounds_weights && j < scores.count; j++)
            spread += exp(scores.s[j] - largest) / sum * fabs((double)v[j * stride] - want);
        double tolerance = relative * magnitude;
        if (t->rounds_weights)
            tolerance += PARITY_U_BF16 / (1 - PARITY_U_BF16) * spread;
        tolerance += parity_rounding(t->type) * (fabs(want) + tolerance);
        if (!(fabs((double)out[i] - want) <= tolerance)) /* nor a NaN */
            fail_msg("heads %u/%u of %zu, cap %g, window %u: row %u + %zu, head %zu, place %zu is "
                     "%.9g, not %.9g within %.3g",
                     a->heads, a->key_heads, hd, (double)a->cap, a->window, span->first, position,
                     head, i, (double)out[i], want, tolerance);
    }
}

/* Rows outside of the spans must be left as they are: 7 everywhere before. */
static void check(struct parity *parity, struct setting *t)
{
    const struct kernels_attention *a = &t->attention;
    size_t in = t->rows * (a->heads + 2 * a->key_heads) * a->head_dim;
    size_t out = t->rows * a->heads * a->head_dim;
    float *qkv, *got = parity_host(out, sizeof *got);
    uint8_t *covered = parity_host(t->rows, 1);
    t->type = parity->type;
    t->rounds_weights = t->type == DTYPE_BF16 && strcmp(parity->kernels->name, "cuda") == 0;
    void *d_qkv = parity_random(parity, &qkv, t->type, in, t->size);
    void *d_out = parity_alloc(parity, out * dtype_size(t->type));
    for (size_t i = 0; i < out; i++)
        got[i] = 7;
    parity_put(parity, d_out, got, t->type, out);
    parity->kernels->attention(parity->queue, d_out, d_qkv, a, t->spans, t->span_count);
    parity_get(parity, got, d_out, t->type, out);
    t->qkv = qkv;
    t->out = got;
    for (size_t i = 0; i < t->span_count; i++)
        for (size_t p = 0; p < t->spans[i].length; p++) {
            covered[t->spans[i].first + p] = 1;
            for (size_t head = 0; head < a->heads; head++)
                check_row(t, &t->spans[i], p, head);
        }
    for (size_t i = 0; i < out; i++)
        if (!covered[i / (a->heads * a->head_dim)])
            parity_near((double)got[i], 7, 0, "outside of spans", i);
    free(qkv);
    free(got);
    free(covered);
    parity_free(parity, d_qkv);
    parity_free(parity, d_out);
}

/* Lengths around a tile of 64 keys, of one token and of none; gaps, and not in order. */
static const struct kernels_span mixed_spans[] = {{200, 65}, {1, 1},   {3, 63},  {66, 64},
                                                  {130, 0},  {131, 2}, {140, 37}};
enum { MIXED_SPANS = 7, MIXED_ROWS = 267 };

static const struct kernels_attention shapes[] = {
    {1, 1, 2, 0.7f, 0, 0},        {2, 1, 6, 0.4f, 0, 0},    {3, 3, 10, 0.3f, 0, 0},
    {4, 2, 34, 0.2f, 0, 0},       {6, 2, 64, 0.125f, 0, 0}, {5, 1, 8, 0.4f, 0, 0},
    {2, 1, 256, 1.0f / 16, 0, 0}, {130, 1, 8, 0.5f, 0, 0},  {7, 7, 14, 0.25f, 0, 0},
    {2, 2, 72, 0.1f, 0, 0},       {65, 1, 16, 0.3f, 0, 0},  {1, 1, 264, 0.05f, 0, 0}};

static void check_shapes(struct parity *parity)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (unsigned bits = 0; bits < 4; bits++) {
            /* Emulated: neither and both, or the one and the other. */
            if (parity_is_emulated(parity) && (bits == 0 || bits == 3) != (i % 2 == 0))
                continue;
            struct setting t = {.attention = shapes[i],
                                .spans = mixed_spans,
                                .span_count = MIXED_SPANS,
                                .rows = MIXED_ROWS,
                                .size = 2.0f};
            t.attention.cap = bits & 1 ? 2.0f : 0.0f;
            t.attention.window = bits & 2 ? 17 : 0;
            check(parity, &t);
        }
    }
}

/* Emulated, each type takes one head_dim: f32 one that is no multiple of 8, bf16 one that is, as
 * the CUDA backend has a kernel for each. */
static bool passed_over(const struct parity *parity, bool narrow)
{
    return parity_is_emulated(parity) && narrow != (parity->type == DTYPE_F32);
}

/* Scores of one size, so that every visible key weighs: an edge that is off by one shows. */
static void check_windows(struct parity *parity)
{
    static const uint32_t windows[] = {1, 2, 5, 31, 63, 64, 65, 127, 128, 129, 200, 299, 300, 4096};
    static const struct kernels_span spans[] = {{5, 300}};
    for (size_t i = 0; i < 2 * sizeof windows / sizeof *windows; i++) {
        bool narrow = i % 2 == 0;
        if (passed_over(parity, narrow))
            continue;
        struct setting t = {.attention = {4, 2, narrow ? 18 : 24, 0.1f, 50.0f, windows[i / 2]},
                            .spans = spans,
                            .span_count = 1,
                            .rows = 311,
                            .size = 1.0f};
        check(parity, &t);
    }
}

/* Scores of thousands: with a cap they saturate, so that many keys weigh the same; without, one key
 * takes all and the others' weights vanish. Values near nothing give the mean of v. */
static void check_extremes(struct parity *parity)
{
    static const float sizes[] = {0.0f, 1e-18f, 60.0f};
    for (size_t i = 0; i < 12; i++) {
        bool narrow = i < 6;
        if (passed_over(parity, narrow))
            continue;
        struct setting t = {.attention = {4, 2, narrow ? 12 : 16, 0.5f, i % 2 ? 50.0f : 0.0f, 0},
                            .spans = mixed_spans,
                            .span_count = MIXED_SPANS,
                            .rows = MIXED_ROWS,
                            .size = sizes[i / 2 % 3]};
        check(parity, &t);
    }
}

static void check_nothing(struct parity *parity)
{
    struct setting t = {.attention = {2, 1, 4, 1.0f, 0, 0}, .rows = 3, .size = 1.0f};
    check(parity, &t);
}

/* More spans than a launch takes, some of no rows. */
static void check_many(struct parity *parity)
{
    enum { SPANS = 700 };
    static struct kernels_span spans[SPANS];
    uint32_t rows = 0;
    for (uint32_t i = 0; i < SPANS; i++) {
        spans[i] = (struct kernels_span){rows, i % 3};
        rows += i % 3;
    }
    struct setting t = {.attention = {2, 1, 8, 0.7f, 0, 0},
                        .spans = spans,
                        .span_count = SPANS,
                        .rows = rows,
                        .size = 1.0f};
    check(parity, &t);
}

/* What other spans, or rows of no span, hold does not reach a span, not even a NaN. */
static void check_isolation(struct parity *parity)
{
    enum { ROWS = 150, HEADS = 4, KEY_HEADS = 2, HD = 16, STRIDE = (HEADS + 2 * KEY_HEADS) * HD };
    static const struct kernels_span spans[] = {{0, 40}, {41, 70}, {112, 38}};
    const struct kernels_attention attention = {HEADS, KEY_HEADS, HD, 0.25f, 50, 0};
    size_t in = ROWS * STRIDE, out = ROWS * HEADS * HD;
    float *qkv, *first = parity_host(out, 4), *second = parity_host(out, 4);
    void *d_qkv = parity_random(parity, &qkv, parity->type, in, 1.0f);
    void *d_out = parity_alloc(parity, out * dtype_size(parity->type));
    parity->kernels->attention(parity->queue, d_out, d_qkv, &attention, spans, 3);
    parity_get(parity, first, d_out, parity->type, out);
    for (size_t row = 0; row < ROWS; row++)
        for (size_t i = 0; (row < 41 || row >= 111) && i < STRIDE; i++)
            qkv[row * STRIDE + i] = NAN;
    parity_put(parity, d_qkv, qkv, parity->type, in);
    parity->kernels->attention(parity->queue, d_out, d_qkv, &attention, spans, 3);
    parity_get(parity, second, d_out, parity->type, out);
    assert_memory_equal(first + 41 * HEADS * HD, second + 41 * HEADS * HD,
                        70 * HEADS * HD * sizeof *first);
    assert_true(isnan((double)second[0]));
    free(qkv);
    free(first);
    free(second);
    parity_free(parity, d_qkv);
    parity_free(parity, d_out);
}

/* Heads of 256 take more shared memory than some devices have: those take another way. */
static void a_device_may_have_less_shared_memory(void **state)
{
    (void)state;
    static const struct kernels_span spans[] = {{0, 30}};
    struct setting t = {.attention = {2, 1, 256, 1.0f / 16, 50, 0},
                        .spans = spans,
                        .span_count = 1,
                        .rows = 30,
                        .size = 2.0f};
    struct parity parity;
    assert_int_equal(setenv("EMU_CAPABILITY", "86", 1), 0); /* for an emulated device */
    parity_open(&parity, 2, DTYPE_BF16);
    check(&parity, &t);
    parity_close(&parity);
    assert_int_equal(unsetenv("EMU_CAPABILITY"), 0);
}

#define TESTS(X)                                                \
    X(check_shapes, grouped_heads_and_several_spans_match_f64)  \
    X(check_windows, keys_are_visible_iff_within_the_window)    \
    X(check_extremes, saturated_and_vanishing_scores_match_f64) \
    X(check_nothing, no_spans_change_nothing)                   \
    X(check_many, hundreds_of_spans_match_f64)                  \
    X(check_isolation, spans_do_not_see_each_other)

#define TEST_FUNCTION(function, name) \
    static void name(void **state)    \
    {                                 \
        (void)state;                  \
        parity_each_type(function);   \
    }
TESTS(TEST_FUNCTION)

int main(void)
{
#define TEST_ENTRY(function, name) cmocka_unit_test(name),
    const struct CMUnitTest tests[] = {TESTS(TEST_ENTRY)
                                           cmocka_unit_test(a_device_may_have_less_shared_memory)};
    log_init("test_kernels_attention", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels attention", tests, NULL, NULL);
}
