/* Matrix products: every layout, type and epilogue against f64; a row does not depend on its place.
 */
#include "tests/parity/parity.h"

/* LeakSanitizer reads this. Its own tracer crashes on the thread-local memory of libraries that
 * were loaded late, as oneDNN is. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "use_tls=0";
}

struct product {
    struct kernels_gemm_shape shape;
    float *a, *b, *bias; /* as the device has them */
    void *d_a, *d_b, *d_packed, *d_c;
    float *d_bias;
    struct kernels_gemm *gemm;
};

static void product_make(struct product *p, struct parity *parity,
                         const struct kernels_gemm_shape *shape)
{
    const struct kernels *k = parity->kernels;
    size_t m = (size_t)shape->m, n = (size_t)shape->n, depth = (size_t)shape->k;
    memset(p, 0, sizeof *p);
    p->shape = *shape;
    p->d_a = parity_random(parity, &p->a, shape->a, m * depth, 1.0f);
    p->d_b = parity_random(parity, &p->b, shape->b, depth * n, 1.0f);
    p->d_bias = parity_random(parity, &p->bias, DTYPE_F32, n, 3.0f);
    p->d_c = parity_alloc(parity, m * n * dtype_size(shape->c));
    assert_int_equal(k->gemm_create(parity->device, &p->gemm, shape), 0);
    if (shape->packed_b) {
        p->d_packed = parity_alloc(parity, k->gemm_packed_bytes(p->gemm));
        k->gemm_pack(parity->queue, p->gemm, p->d_packed, p->d_b);
    }
}

static void product_run(struct product *p, struct parity *parity)
{
    const void *d_b = p->shape.packed_b ? p->d_packed : p->d_b;
    parity->kernels->gemm(parity->queue, p->gemm, p->d_c, p->d_a, d_b,
                          p->shape.bias ? p->d_bias : NULL);
    assert_int_equal(parity->kernels->wait(parity->queue), 0);
}

static void product_free(struct product *p, struct parity *parity)
{
    parity->kernels->gemm_free(p->gemm);
    free(p->a);
    free(p->b);
    free(p->bias);
    parity_free(parity, p->d_a);
    parity_free(parity, p->d_b);
    parity_free(parity, p->d_bias);
    parity_free(parity, p->d_packed);
    parity_free(parity, p->d_c);
}

/* A sum of k products and a bias, added in f32 in any order: off by at most (k + 2) u (Σ|a b| +
 * |bias|); a result in bf16 by 2^-8 of itself more, and its bias by 2^-16. Where the processor's
 * bf16 products flush subnormal parts, k 2^-126 more. */
static void product_check(const struct product *p, struct parity *parity)
{
    const struct kernels_gemm_shape *s = &p->shape;
    size_t m = (size_t)s->m, n = (size_t)s->n, depth = (size_t)s->k;
    float *c = parity_host(m * n, sizeof *c);
    parity_get(parity, c, p->d_c, s->c, m * n);
    for (size_t i = 0; i < m; i++) {
        for (size_t j = 0; j < n; j++) {
            double sum = s->bias ? (double)p->bias[j] : 0, bias = fabs(sum), size = bias;
            for (size_t l = 0; l < depth; l++) {
                double product = (double)p->a[s->trans_a ? l * m + i : i * depth + l] *
                                 (double)p->b[s->trans_b ? j * depth + l : l * n + j];
                sum += product;
                size += fabs(product);
            }
            if (s->relu && sum < 0)
                sum = 0;
            double tolerance = (double)(depth + 2) * (PARITY_U * size + 0x1p-126);
            if (s->c == DTYPE_BF16)
                tolerance =
                    (1 + PARITY_U_BF16) * (tolerance + bias * 0x1p-16) + PARITY_U_BF16 * fabs(sum);
            parity_near((double)c[i * n + j], sum, tolerance, "c", i * n + j);
        }
    }
    free(c);
}

/* One product of random matrices against f64. */
static void product_matches(struct parity *parity, const struct kernels_gemm_shape *shape)
{
    struct product p;
    product_make(&p, parity, shape);
    product_run(&p, parity);
    product_check(&p, parity);
    product_free(&p, parity);
}

static const int64_t odd_sizes[][3] = {{1, 1, 1},     {1, 5, 3},    {2, 1, 17},    {7, 13, 5},
                                       {16, 16, 16},  {33, 65, 31}, {64, 48, 129}, {65, 31, 200},
                                       {130, 96, 64}, {257, 33, 96}};

/* Each size with every combination of layout, packing, bias and relu. */
static void check_types(enum dtype in, enum dtype out, unsigned threads)
{
    struct parity parity;
    parity_open(&parity, threads, in);
    for (size_t i = 0; i < sizeof odd_sizes / sizeof *odd_sizes; i++) {
        for (unsigned bits = 0; bits < 32; bits++) {
            struct kernels_gemm_shape shape = {.m = odd_sizes[i][0],
                                               .n = odd_sizes[i][1],
                                               .k = odd_sizes[i][2],
                                               .trans_a = bits & 1,
                                               .trans_b = bits & 2,
                                               .packed_b = bits & 4,
                                               .bias = bits & 8,
                                               .relu = bits & 16,
                                               .a = in,
                                               .b = in,
                                               .c = out};
            product_matches(&parity, &shape);
        }
    }
    parity_close(&parity);
}

static void f32_products_match_f64(void **state)
{
    (void)state;
    check_types(DTYPE_F32, DTYPE_F32, 2);
    if (getenv("PARITY_DEVICE") == NULL) /* only the CPU has threads */
        check_types(DTYPE_F32, DTYPE_F32, 3);
}

static void bf16_products_to_f32_match_f64(void **state)
{
    (void)state;
    check_types(DTYPE_BF16, DTYPE_F32, 2);
}

static void bf16_products_to_bf16_match_f64(void **state)
{
    (void)state;
    check_types(DTYPE_BF16, DTYPE_BF16, 2);
}

/* Runs twice, the second time with the rows of A in another order: the rows of C must be the same
 * bytes in that order. */
static void check_places(struct parity *parity, const struct kernels_gemm_shape *shape)
{
    size_t m = (size_t)shape->m, n = (size_t)shape->n, depth = (size_t)shape->k;
    struct product p;
    product_make(&p, parity, shape);
    size_t *order = parity_host(m, sizeof *order);
    float *moved = parity_host(m * depth, sizeof *moved);
    float *first = parity_host(m * n, sizeof *first), *second = parity_host(m * n, sizeof *second);
    for (size_t i = 0; i < m; i++)
        order[i] = i;
    for (size_t i = m - 1; i > 0; i--) {
        size_t j = parity_bits(parity) % (i + 1), keep = order[i];
        order[i] = order[j];
        order[j] = keep;
    }
    for (size_t i = 0; i < m; i++)
        for (size_t l = 0; l < depth; l++)
            moved[shape->trans_a ? l * m + i : i * depth + l] =
                p.a[shape->trans_a ? l * m + order[i] : order[i] * depth + l];
    product_run(&p, parity);
    parity_get(parity, first, p.d_c, shape->c, m * n);
    parity_put(parity, p.d_a, moved, shape->a, m * depth);
    product_run(&p, parity);
    parity_get(parity, second, p.d_c, shape->c, m * n);
    for (size_t i = 0; i < m; i++)
        if (memcmp(second + i * n, first + order[i] * n, n * sizeof *first) != 0)
            fail_msg("m %zu n %zu k %zu trans %d %d packed %d: row %zu differs at place %zu", m, n,
                     depth, shape->trans_a, shape->trans_b, shape->packed_b, order[i], i);
    free(order);
    free(moved);
    free(first);
    free(second);
    product_free(&p, parity);
}

static void a_row_does_not_depend_on_its_place(void **state)
{
    (void)state;
    static const int64_t sizes[][3] = {
        {37, 64, 40},    {64, 96, 64},    {100, 128, 33},  {128, 48, 1000}, {129, 65, 300},
        {250, 192, 512}, {257, 512, 129}, {300, 17, 2048}, {511, 80, 96},   {512, 40, 320},
        {96, 30, 4608},  {1000, 3, 77},   {72, 1, 500}};
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    unsigned most = getenv("PARITY_DEVICE") == NULL ? 3 : 1; /* only the CPU has threads */
    for (unsigned threads = 1; threads <= most; threads++) {
        for (size_t t = 0; t < 2; t++) {
            struct parity parity;
            parity_open(&parity, threads, types[t]);
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                for (unsigned bits = 0; bits < 8; bits++) {
                    struct kernels_gemm_shape shape = {.m = sizes[i][0],
                                                       .n = sizes[i][1],
                                                       .k = sizes[i][2],
                                                       .trans_a = bits & 1,
                                                       .trans_b = bits & 2,
                                                       .packed_b = bits & 4,
                                                       .a = types[t],
                                                       .b = types[t],
                                                       .c = types[t]};
                    check_places(&parity, &shape);
                }
            }
            parity_close(&parity);
        }
    }
}

/* Where bf16 goes by blocks of rows, their f32 copies are bounded (32 MiB): with such long rows a
 * block is as low as it gets. */
static void products_in_blocks_match_f64(void **state)
{
    (void)state;
    struct parity parity;
    parity_open(&parity, 2, DTYPE_BF16);
    for (unsigned trans_a = 0; trans_a < 2; trans_a++) {
        struct kernels_gemm_shape shape = {.m = 200,
                                           .n = 3,
                                           .k = 100000,
                                           .trans_a = trans_a == 1,
                                           .a = DTYPE_BF16,
                                           .b = DTYPE_BF16,
                                           .c = DTYPE_BF16};
        product_matches(&parity, &shape);
        check_places(&parity, &shape);
    }
    parity_close(&parity);
}

/* More rows than a grid of blocks has in one of its dimensions. */
static void tall_products_match_f64(void **state)
{
    (void)state;
    struct parity parity;
    parity_open(&parity, 2, DTYPE_BF16);
    struct kernels_gemm_shape shape = {.m = 70000,
                                       .n = 2,
                                       .k = 3,
                                       .bias = true,
                                       .relu = true,
                                       .a = DTYPE_BF16,
                                       .b = DTYPE_BF16,
                                       .c = DTYPE_BF16};
    product_matches(&parity, &shape);
    parity_close(&parity);
}

/* A bias that is taken in two terms has none left of an infinity. */
static void a_bias_may_be_infinite(void **state)
{
    (void)state;
    static const float special[] = {INFINITY, -INFINITY, NAN};
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t t = 0; t < 2; t++) {
        struct parity parity;
        struct product p;
        struct kernels_gemm_shape shape = {
            .m = 3, .n = 8, .k = 4, .bias = true, .a = types[t], .b = types[t], .c = types[t]};
        parity_open(&parity, 2, types[t]);
        product_make(&p, &parity, &shape);
        memcpy(p.bias, special, sizeof special);
        parity_put(&parity, p.d_bias, p.bias, DTYPE_F32, 8);
        product_run(&p, &parity);
        float c[3 * 8];
        parity_get(&parity, c, p.d_c, types[t], 3 * 8);
        for (size_t i = 0; i < 3 * 8; i++)
            if (i % 8 < 3)
                parity_near((double)c[i], (double)special[i % 8], 0, "c", i);
            else
                assert_true(isfinite(c[i]));
        product_free(&p, &parity);
        parity_close(&parity);
    }
}

/* One packed matrix serves another product of the same shape, and the same inputs give the same
 * bytes. */
static void products_repeat(void **state)
{
    (void)state;
    struct parity parity;
    parity_open(&parity, 2, DTYPE_F32);
    struct kernels_gemm_shape shape = {
        .m = 70, .n = 90, .k = 110, .packed_b = true, .a = DTYPE_F32, .b = DTYPE_F32};
    struct product p;
    product_make(&p, &parity, &shape);
    float *first = parity_host(70 * 90, 4), *second = parity_host(70 * 90, 4);
    product_run(&p, &parity);
    parity_get(&parity, first, p.d_c, DTYPE_F32, 70 * 90);
    parity.kernels->gemm_free(p.gemm);
    assert_int_equal(parity.kernels->gemm_create(parity.device, &p.gemm, &shape), 0);
    product_run(&p, &parity);
    parity_get(&parity, second, p.d_c, DTYPE_F32, 70 * 90);
    assert_memory_equal(first, second, 70 * 90 * 4);
    free(first);
    free(second);
    product_free(&p, &parity);
    parity_close(&parity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_products_match_f64),
        cmocka_unit_test(bf16_products_to_f32_match_f64),
        cmocka_unit_test(bf16_products_to_bf16_match_f64),
        cmocka_unit_test(a_row_does_not_depend_on_its_place),
        cmocka_unit_test(products_in_blocks_match_f64),
        cmocka_unit_test(tall_products_match_f64),
        cmocka_unit_test(a_bias_may_be_infinite),
        cmocka_unit_test(products_repeat),
    };
    log_init("test_kernels_gemm", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels gemm", tests, NULL, NULL);
}
