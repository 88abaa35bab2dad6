/* bench_products.c - the products of actgen and cctrain; on the CPU ours and oneDNN's own in turn.
 *
 * oneDNN is called here as one would without the backend: the same shape, types and layouts, B in
 * the layout that it asks for where ours is packed, bias and relu as in ours, memory of the
 * library.
 */
#include "tests/bench/bench.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

struct product {
    struct kernels_gemm_shape shape;
    struct kernels_gemm *gemm;
    void *d_a, *d_b, *d_c, *d_packed;
    float *d_bias;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_memory_t memory[4]; /* A, B, C, bias */
};

static void require(dnnl_status_t status)
{
    if (status != dnnl_success)
        bench_fail("oneDNN refused the product to compare with");
}

static dnnl_data_type_t data_type(enum dtype type)
{
    return type == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

static dnnl_memory_desc_t matrix(int64_t rows, int64_t columns, enum dtype type, bool trans)
{
    dnnl_memory_desc_t description;
    dnnl_dims_t sizes = {rows, columns};
    require(dnnl_memory_desc_init_by_tag(&description, 2, sizes, data_type(type),
                                         trans ? dnnl_ba : dnnl_ab));
    return description;
}

static void pack_theirs(struct product *p, const dnnl_memory_desc_t *plain,
                        const dnnl_memory_desc_t *packed)
{
    dnnl_primitive_desc_t description;
    dnnl_primitive_t reorder;
    dnnl_memory_t from;
    require(dnnl_memory_create(&from, plain, p->engine, p->d_b));
    require(dnnl_memory_create(&p->memory[1], packed, p->engine, DNNL_MEMORY_ALLOCATE));
    require(dnnl_reorder_primitive_desc_create(&description, plain, p->engine, packed, p->engine,
                                               NULL));
    require(dnnl_primitive_create(&reorder, description));
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, p->memory[1]}};
    require(dnnl_primitive_execute(reorder, p->stream, 2, arguments));
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(description);
    dnnl_memory_destroy(from);
}

static void create_theirs(struct product *p, const struct bench *bench)
{
    const struct kernels_gemm_shape *s = &p->shape;
    omp_set_num_threads((int)bench->threads);
    require(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
    require(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_default_flags));
    dnnl_memory_desc_t a = matrix(s->m, s->k, s->a, s->trans_a), bias, any;
    dnnl_memory_desc_t b = matrix(s->k, s->n, s->b, s->trans_b);
    dnnl_memory_desc_t c = matrix(s->m, s->n, s->c, false);
    dnnl_dims_t b_sizes = {s->k, s->n}, bias_sizes = {1, s->n};
    require(dnnl_memory_desc_init_by_tag(&any, 2, b_sizes, data_type(s->b), dnnl_format_tag_any));
    require(dnnl_memory_desc_init_by_tag(&bias, 2, bias_sizes, dnnl_f32, dnnl_ab));
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t after;
    dnnl_primitive_desc_t description;
    require(
        dnnl_matmul_desc_init(&matmul, &a, s->packed_b ? &any : &b, s->bias ? &bias : NULL, &c));
    require(dnnl_primitive_attr_create(&attributes));
    require(dnnl_post_ops_create(&after));
    if (s->relu)
        require(dnnl_post_ops_append_eltwise(after, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f));
    require(dnnl_primitive_attr_set_post_ops(attributes, after));
    require(dnnl_primitive_desc_create(&description, &matmul, attributes, p->engine, NULL));
    require(dnnl_primitive_create(&p->primitive, description));
    require(dnnl_memory_create(&p->memory[0], &a, p->engine, p->d_a));
    require(dnnl_memory_create(&p->memory[2], &c, p->engine, p->d_c));
    require(dnnl_memory_create(&p->memory[3], &bias, p->engine, p->d_bias));
    if (s->packed_b)
        pack_theirs(p, &b, dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));
    else
        require(dnnl_memory_create(&p->memory[1], &b, p->engine, p->d_b));
    dnnl_primitive_desc_destroy(description);
    dnnl_post_ops_destroy(after);
    dnnl_primitive_attr_destroy(attributes);
}

static void run_theirs(struct bench *bench, void *argument)
{
    struct product *p = argument;
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, p->memory[0]},
                                   {DNNL_ARG_WEIGHTS, p->memory[1]},
                                   {DNNL_ARG_DST, p->memory[2]},
                                   {DNNL_ARG_BIAS, p->memory[3]}};
    omp_set_num_threads((int)bench->threads);
    require(dnnl_primitive_execute(p->primitive, p->stream, p->shape.bias ? 4 : 3, arguments));
}

static void run_ours(struct bench *bench, void *argument)
{
    struct product *p = argument;
    bench->kernels->gemm(bench->queue, p->gemm, p->d_c, p->d_a,
                         p->shape.packed_b ? p->d_packed : p->d_b, p->d_bias);
}

static void create(struct product *p, const struct bench *bench)
{
    const struct kernels *k = bench->kernels;
    const struct kernels_gemm_shape *s = &p->shape;
    p->d_a = bench_random(bench, s->a, (size_t)(s->m * s->k));
    p->d_b = bench_random(bench, s->b, (size_t)(s->k * s->n));
    p->d_c = bench_random(bench, s->c, (size_t)(s->m * s->n));
    p->d_bias = bench_random(bench, DTYPE_F32, (size_t)s->n);
    if (k->gemm_create(bench->device, &p->gemm, s) < 0)
        bench_fail("there is no product of that shape");
    if (bench->on_cpu)
        create_theirs(p, bench);
    if (!s->packed_b)
        return;
    if (k->alloc(bench->device, &p->d_packed, k->gemm_packed_bytes(p->gemm)) < 0)
        bench_fail("there is no memory for a packed matrix");
    k->gemm_pack(bench->queue, p->gemm, p->d_packed, p->d_b);
}

static void destroy(struct product *p, const struct bench *bench)
{
    bench->kernels->gemm_free(p->gemm);
    void *d_memory[] = {p->d_a, p->d_b, p->d_c, p->d_packed, p->d_bias};
    for (size_t i = 0; i < sizeof d_memory / sizeof *d_memory; i++)
        bench->kernels->free(bench->device, d_memory[i]);
    if (!bench->on_cpu)
        return;
    for (size_t i = 0; i < 4; i++)
        dnnl_memory_destroy(p->memory[i]);
    dnnl_primitive_destroy(p->primitive);
    dnnl_stream_destroy(p->stream);
    dnnl_engine_destroy(p->engine);
}

static double operations_of(const struct kernels_gemm_shape *shape)
{
    return 2.0 * (double)shape->m * (double)shape->n * (double)shape->k;
}

static void bench_product(struct bench *bench, const char *name,
                          const struct kernels_gemm_shape *shape)
{
    struct product p = {.shape = *shape};
    p.shape.a = p.shape.b = bench->type;
    create(&p, bench);
    bench_call *const calls[2] = {run_ours, bench->on_cpu ? run_theirs : NULL};
    double times[2], operations = operations_of(shape), bound = bench->product_rate;
    bench_times(times, bench, calls, &p);
    char text[96];
    snprintf(text, sizeof text, "%lld x %lld x %lld%s%s%s%s%s", (long long)shape->m,
             (long long)shape->n, (long long)shape->k, shape->trans_a ? ", A^T" : "",
             shape->trans_b ? ", B^T" : "", shape->packed_b ? ", packed" : "",
             shape->bias ? ", bias" : "", shape->relu ? ", relu" : "");
    if (bench->on_cpu) {
        double fastest = operations / (times[0] < times[1] ? times[0] : times[1]);
        bound = operations / times[1];
        if (bench->type == DTYPE_F32 && fastest > bench->product_rate)
            bench->product_rate = fastest;
    }
    bench_result(bench, name, text, times[0], operations / times[0], "GF/s", bound);
    destroy(&p, bench);
}

void bench_peak(struct bench *bench)
{
    static const int64_t sizes[][3] = {
        {8192, 8192, 8192}, {16384, 18432, 2304}, {16384, 2304, 9216}, {4096, 16384, 4608}};
    int64_t divisor = bench->tiny ? 256 : 1;
    double best = 0, best_seconds = 0;
    char text[64] = "";
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct product p = {.shape = {.m = sizes[i][0] / divisor,
                                      .n = sizes[i][1] / divisor,
                                      .k = sizes[i][2] / divisor,
                                      .a = bench->type,
                                      .b = bench->type,
                                      .c = bench->type}};
        create(&p, bench);
        double seconds = bench_time(bench, run_ours, &p);
        double rate = operations_of(&p.shape) / seconds;
        if (rate > best) {
            best = rate, best_seconds = seconds;
            snprintf(text, sizeof text, "%lld x %lld x %lld", (long long)p.shape.m,
                     (long long)p.shape.n, (long long)p.shape.k);
        }
        destroy(&p, bench);
    }
    bench->product_rate = best;
    bench_result(bench, "product (the bound of arithmetic)", text, best_seconds, best, "GF/s",
                 best);
}

/* The five products of a training step (tools/cctrain). */
static void bench_step(struct bench *bench, const char *title, int64_t b, int64_t d, int64_t f)
{
    enum dtype t = bench->type;
    const struct {
        const char *name;
        struct kernels_gemm_shape shape;
    } products[] = {
        {"encode", {.m = b, .n = f, .k = d, .bias = true, .relu = true, .c = t}},
        {"decode", {.m = b, .n = d, .k = f, .bias = true, .c = DTYPE_F32}},
        {"latent gradient", {.m = b, .n = f, .k = d, .trans_b = true, .bias = true, .c = t}},
        {"encoder gradient", {.m = d, .n = f, .k = b, .trans_a = true, .c = DTYPE_F32}},
        {"decoder gradient", {.m = f, .n = d, .k = b, .trans_a = true, .c = DTYPE_F32}},
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct kernels_gemm_shape shape = products[i].shape;
        char name[64];
        shape.packed_b = true;
        snprintf(name, sizeof name, "%s: %s", title, products[i].name);
        bench_product(bench, name, &shape);
    }
}

/* The four products of a layer of Gemma-2 (tools/actgen), m tokens at a time. */
static void bench_layer(struct bench *bench, const char *title, int64_t m, int64_t d, int64_t inner,
                        int64_t heads_width, int64_t qkv_width)
{
    const struct {
        const char *name;
        int64_t n, k;
        enum dtype c;
    } products[] = {{"q, k and v", qkv_width, d, bench->type},
                    {"o", d, heads_width, DTYPE_F32},
                    {"gate and up", 2 * inner, d, bench->type},
                    {"down", d, inner, DTYPE_F32}};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        struct kernels_gemm_shape shape = {.m = m,
                                           .n = products[i].n,
                                           .k = products[i].k,
                                           .trans_b = true,
                                           .packed_b = true,
                                           .c = products[i].c};
        char name[64];
        snprintf(name, sizeof name, "%s: %s", title, products[i].name);
        bench_product(bench, name, &shape);
    }
}

/* Those of the shapes that the operations have. */
static void bench_shapes(struct bench *bench, const char *title, size_t tokens)
{
    const struct bench_sizes *s = &bench->sizes;
    char name[32];
    snprintf(name, sizeof name, "%s layer", title);
    bench_layer(bench, name, (int64_t)tokens, (int64_t)s->width, (int64_t)s->inner,
                (int64_t)(s->heads * s->head_dim),
                (int64_t)((s->heads + 2 * s->key_heads) * s->head_dim));
    snprintf(name, sizeof name, "%s step", title);
    bench_step(bench, name, (int64_t)s->rows, 2 * (int64_t)s->width, (int64_t)s->latents);
}

void bench_products(struct bench *bench)
{
    enum { CHUNK = 512 }; /* of a forward pass, tools/actgen/pass.h */
    if (bench->tiny) {
        bench_shapes(bench, "tiny", bench->sizes.tokens);
        return;
    }
    bench_shapes(bench, "2b", CHUNK);
    if (!bench->on_cpu) {
        bench_shapes(bench, "2b", bench->sizes.tokens);
        return;
    }
    bench_layer(bench, "demo layer", CHUNK, 128, 384, 4 * 32, 8 * 32);
    bench_step(bench, "demo step", 1024, 256, 1024);
    if (!bench->quick)
        bench_step(bench, "2b step", 4096, 4608, 16384);
}
