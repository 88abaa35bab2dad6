/* Scaling, dot products, the clip and Adam. */
#include "tests/parity/parity.h"

static const size_t sizes[] = {0, 1, 3, 8, 17, 1023, 1025, 16384, 16385, 16388, 70000, 70001};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* The product of two f32 is exact in f64, so the one rounding is known. */
static void check_scale(struct parity *parity)
{
    for (size_t i = 0; i < SIZES; i++) {
        size_t n = sizes[i];
        float *x, *y = parity_host(n, sizeof *y);
        float *d_x = parity_random(parity, &x, DTYPE_F32, n, 1e3f);
        parity->kernels->scale(parity->queue, d_x, d_x, -0.3f, n);
        parity_get(parity, y, d_x, DTYPE_F32, n);
        for (size_t j = 0; j < n; j++)
            parity_near((double)y[j], (double)(float)((double)-0.3f * (double)x[j]), 0, "y", j);
        free(x);
        free(y);
        parity_free(parity, d_x);
    }
}

/* Products exact, n additions in f64 here and there: 2 n 2^-53 Σ|a b|. The last size gives a
 * backend more parts than it may add at a time. */
static void check_dot(struct parity *parity)
{
    double *d_sum = parity_alloc(parity, sizeof *d_sum), want = 0, magnitude = 0;
    for (size_t i = 0; i <= SIZES; i++) {
        size_t n = i < SIZES ? sizes[i] : 4300000;
        float *a, *b;
        float *d_a = parity_random(parity, &a, DTYPE_F32, n, 1e18f);
        float *d_b = parity_random(parity, &b, DTYPE_F32, n, 1e20f);
        want = magnitude = 0;
        for (size_t j = 0; j < n; j++) {
            want += (double)a[j] * (double)b[j];
            magnitude += fabs((double)a[j] * (double)b[j]);
        }
        parity->kernels->dot(parity->queue, d_sum, d_a, d_b, n);
        double *got = parity_download(parity, d_sum, sizeof *got);
        parity_near(*got, want, (double)n * 0x1p-52 * magnitude, "dot", n);
        free(got);
        parity->kernels->dot(parity->queue, d_sum, d_b, d_b, n);
        got = parity_download(parity, d_sum, sizeof *got);
        want = 0;
        for (size_t j = 0; j < n; j++)
            want += (double)b[j] * (double)b[j];
        parity_near(*got, want, (double)n * 0x1p-52 * want, "square", n);
        free(got);
        free(a);
        free(b);
        parity_free(parity, d_a);
        parity_free(parity, d_b);
    }
    parity_free(parity, d_sum);
}

/* The norm is rounded once; the factor has the norm's, 1e-6's, the sum's and the division's
 * rounding. */
static void check_clip(struct parity *parity)
{
    static const struct {
        double parts[4];
        size_t count;
        float most;
    } cases[] = {
        {{0.04, 0.05}, 2, 1.0f},          /* below */
        {{9.0, 7.0}, 2, 1.0f},            /* above: 1/4 */
        {{1.0}, 1, 1.0f},                 /* at it: just below 1 */
        {{0.9999989}, 1, 1.0f},           /* 1e-6 decides */
        {{1e-14}, 1, 1e-6f},              /* and here it counts for most */
        {{0.0, 0.0, 0.0}, 3, 1.0f},       /* no gradient */
        {{0}, 0, 1.0f},                   /* no parts */
        {{25.0}, 1, 0.0f},                /* not clipped */
        {{1e60, 1e60, 1e60, 1e60}, 4, 2}, /* squares beyond f32 */
        {{NAN}, 1, 1.0f},
        {{INFINITY}, 1, 1.0f},
    };
    float *d_out = parity_alloc(parity, 2 * sizeof *d_out);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double *d_parts = parity_upload(parity, cases[i].parts, sizeof cases[i].parts), sum = 0;
        for (size_t j = 0; j < cases[i].count; j++)
            sum += cases[i].parts[j];
        double norm = sqrt(sum), most = (double)cases[i].most;
        double factor = most > 0 ? most / (norm + 1e-6) : 1;
        if (factor > 1)
            factor = 1;
        parity->kernels->clip_factor(parity->queue, d_out, d_parts, cases[i].count, cases[i].most);
        float *got = parity_download(parity, d_out, 2 * sizeof *got);
        parity_near((double)got[0], factor, 4 * PARITY_U * factor, "factor", i);
        parity_near((double)got[1], norm, PARITY_U * norm, "norm", i);
        free(got);
        parity_free(parity, d_parts);
    }
    parity_free(parity, d_out);
}

struct state {
    size_t n;
    float *w, *m, *v, *g;
    float *d_w, *d_m, *d_v, *d_g, *d_clip;
    void *d_copy;
};

static void state_make(struct state *s, struct parity *parity, size_t n)
{
    s->n = n;
    s->d_w = parity_random(parity, &s->w, DTYPE_F32, n, 1.0f);
    s->d_m = parity_random(parity, &s->m, DTYPE_F32, n, 0.0f);
    s->d_v = parity_random(parity, &s->v, DTYPE_F32, n, 0.0f);
    s->d_g = parity_random(parity, &s->g, DTYPE_F32, n, 1.0f);
    s->d_clip = parity_alloc(parity, sizeof(float));
    s->d_copy = parity_alloc(parity, n * dtype_size(parity->type));
}

static void state_free(struct state *s, struct parity *parity)
{
    free(s->w);
    free(s->m);
    free(s->v);
    free(s->g);
    parity_free(parity, s->d_w);
    parity_free(parity, s->d_m);
    parity_free(parity, s->d_v);
    parity_free(parity, s->d_g);
    parity_free(parity, s->d_clip);
    parity_free(parity, s->d_copy);
}

static struct kernels_adam adam_at(int step)
{
    struct kernels_adam adam = {.lr = 5e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    adam.correction1 = 1 - pow(adam.beta1, step);
    adam.correction2 = 1 - pow(adam.beta2, step);
    return adam;
}

/* One step against what the state before it gives in f64, so that only this step is judged. Each
 * constant is rounded to f32 and each operation rounds: m has 4 roundings on its way (1 - beta1,
 * clip g, product, sum), v 6, as clip g enters it twice and there are two products. The update
 * starts from the m and v that the device has: rate, root, eps, square root, *, +, * and division.
 */
static void check_adam_step(struct state *s, struct parity *parity, int step, float clip)
{
    struct kernels_adam adam = adam_at(step);
    float *m = parity_download(parity, s->d_m, s->n * sizeof *m);
    float *v = parity_download(parity, s->d_v, s->n * sizeof *v);
    float *w = parity_download(parity, s->d_w, s->n * sizeof *w);
    parity_put(parity, s->d_g, s->g, DTYPE_F32, s->n);
    parity_put(parity, s->d_clip, &clip, DTYPE_F32, 1);
    parity->kernels->adam(parity->queue, s->d_w, s->d_m, s->d_v, s->d_copy, s->d_g, s->d_clip,
                          &adam, s->n);
    parity_get(parity, s->m, s->d_m, DTYPE_F32, s->n);
    parity_get(parity, s->v, s->d_v, DTYPE_F32, s->n);
    parity_get(parity, s->w, s->d_w, DTYPE_F32, s->n);
    float *copy = parity_host(s->n, sizeof *copy);
    parity_get(parity, copy, s->d_copy, parity->type, s->n);
    for (size_t i = 0; i < s->n; i++) {
        double g = (double)clip * (double)s->g[i];
        double m_old = adam.beta1 * (double)m[i], m_new = (1 - adam.beta1) * g;
        double v_old = adam.beta2 * (double)v[i], v_new = (1 - adam.beta2) * g * g;
        parity_near((double)s->m[i], m_old + m_new, 4 * PARITY_U * (fabs(m_old) + fabs(m_new)), "m",
                    i);
        parity_near((double)s->v[i], v_old + v_new, 6 * PARITY_U * (v_old + v_new) + 0x1p-148, "v",
                    i);
        double update = adam.lr * ((double)s->m[i] / adam.correction1) /
                        (sqrt((double)s->v[i] / adam.correction2) + adam.eps);
        double want = (double)w[i] - update;
        parity_near((double)s->w[i], want, PARITY_U * (8 * fabs(update) + fabs(want)), "w", i);
        float rounded =
            parity->type == DTYPE_F32 ? s->w[i] : dtype_bf16_to_f32(dtype_f32_to_bf16(s->w[i]));
        parity_near((double)copy[i], (double)rounded, 0, "copy", i);
    }
    free(m);
    free(v);
    free(w);
    free(copy);
}

/* Gradients of all sizes, from where eps rules to where the clip does. */
static void check_adam(struct parity *parity)
{
    for (size_t i = 0; i < SIZES; i++) {
        struct state s;
        state_make(&s, parity, sizes[i]);
        for (int step = 1; step <= 4; step++) {
            for (size_t j = 0; j < s.n; j++)
                s.g[j] = parity_uniform(parity) * ldexpf(1, (int)(parity_bits(parity) % 50) - 40);
            check_adam_step(&s, parity, step, step == 2 ? 0.03f : 1.0f);
        }
        state_free(&s, parity);
    }
}

/* Twelve steps beside torch's formula in f64, which shares nothing with the device. With 0.5 <= |g|
 * <= 1 the root is at least 0.5 and |m / c1| at most 1; m is off by at most 4 u t after t steps
 * (|m| <= 1), the root by 3 u t of itself, so an update by lr (8 t + 6 t + 8) u, and w by one
 * rounding of |w| <= 1.1 for each step: over 12 steps lr 1200 u + 14 u. */
static void check_adam_run(struct parity *parity)
{
    enum { N = 1501, STEPS = 12 };
    struct state s;
    state_make(&s, parity, N);
    double *w = parity_host(N, sizeof *w), *m = parity_host(N, sizeof *m);
    double *v = parity_host(N, sizeof *v);
    for (size_t i = 0; i < N; i++)
        w[i] = (double)s.w[i];
    for (int step = 1; step <= STEPS; step++) {
        struct kernels_adam adam = adam_at(step);
        for (size_t i = 0; i < N; i++) {
            float u = parity_uniform(parity);
            s.g[i] = copysignf(0.5f + 0.5f * fabsf(u), u);
            double g = (double)s.g[i];
            m[i] += (1 - adam.beta1) * (g - m[i]);
            v[i] = adam.beta2 * v[i] + (1 - adam.beta2) * g * g;
            w[i] -= adam.lr / adam.correction1 * m[i] /
                    (sqrt(v[i]) / sqrt(adam.correction2) + adam.eps);
        }
        float one = 1;
        parity_put(parity, s.d_g, s.g, DTYPE_F32, N);
        parity_put(parity, s.d_clip, &one, DTYPE_F32, 1);
        parity->kernels->adam(parity->queue, s.d_w, s.d_m, s.d_v, NULL, s.d_g, s.d_clip, &adam, N);
    }
    parity_get(parity, s.w, s.d_w, DTYPE_F32, N);
    for (size_t i = 0; i < N; i++)
        parity_near((double)s.w[i], w[i], (adam_at(1).lr * 1200 + 14) * PARITY_U, "w", i);
    free(w);
    free(m);
    free(v);
    state_free(&s, parity);
}

static void scaling_rounds_once(void **state)
{
    (void)state;
    parity_each_type(check_scale);
}

static void dot_products_match_f64(void **state)
{
    (void)state;
    parity_each_type(check_dot);
}

static void the_clip_matches_its_formula(void **state)
{
    (void)state;
    parity_each_type(check_clip);
}

static void each_step_of_adam_matches_f64(void **state)
{
    (void)state;
    parity_each_type(check_adam);
}

static void many_steps_of_adam_stay_by_torchs_formula(void **state)
{
    (void)state;
    parity_each_type(check_adam_run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scaling_rounds_once),
        cmocka_unit_test(dot_products_match_f64),
        cmocka_unit_test(the_clip_matches_its_formula),
        cmocka_unit_test(each_step_of_adam_matches_f64),
        cmocka_unit_test(many_steps_of_adam_stay_by_torchs_formula),
    };
    log_init("test_kernels_optimiser", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels optimiser", tests, NULL, NULL);
}
