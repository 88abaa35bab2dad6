/* bench_forward.c - where the time of a forward pass goes, at the shapes of Gemma-2 2b.
 *
 *   make bench-forward BENCH_FLAGS='[--threads N | --processor-time] [--dtype f32] [--layers N]
 * [--batch N]'
 *
 * Makes a model of N layers with random weights in a folder of its own, loads it and runs sequences
 * of 1024 tokens through it as actgen does, with a clock around every operation. Beside the time in
 * products stands that of the same products alone, as long as a pass (m = its tokens) and again and
 * again with the same weights: what is lost to chunks of 512 tokens and to weights that come from
 * memory. A table of name, seconds, part, then lines of name, tab, number. --processor-time takes
 * one thread and counts what that thread got, where the machine has other things to do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/io.h"
#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/safetensors.h"
#include "tests/bench/actgen/random_model.h"
#include "tools/actgen/gemma2_model.h"
#include "tools/actgen/pass.h"

enum { LENGTH = 1024, VOCAB = 1024, REPEATS = 3 };

static const struct gemma2_config shape = {.vocab = VOCAB,
                                           .width = 2304,
                                           .inner = 9216,
                                           .heads = 8,
                                           .key_heads = 4,
                                           .head_dim = 256,
                                           .window = 4096,
                                           .rms_eps = 1e-6,
                                           .rope_theta = 10000,
                                           .query_scalar = 256,
                                           .attention_cap = 50};

struct bench {
    bool processor_time;
    unsigned threads;
    enum dtype type;
    uint32_t layers;
    size_t batch;
    struct gemma2_device on;
    const struct kernels *plain; /* the table without clocks */
};

static struct bench bench = {.threads = 2, .type = DTYPE_BF16, .layers = 2, .batch = 4};

static void require(int status)
{
    if (status != 0)
        exit(EXIT_FAILURE);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(bench.processor_time ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- the operations with a clock around them */

enum { EMBED, RMS_NORM, POST_NORM, ROPE, ATTENTION, GEGLU, PRODUCTS, ROW_NORMS, EMIT, OPERATIONS };
static const char *const names[OPERATIONS] = {"embed",    "rms_norm",  "post_norm",
                                              "rope",     "attention", "geglu",
                                              "products", "row_norms", "emit_rows"};
static double spent[OPERATIONS];

#define TIMED(operation, name, parameters, ...)    \
    static void timed_##name parameters            \
    {                                              \
        double start = seconds_now();              \
        bench.plain->name(__VA_ARGS__);            \
        spent[operation] += seconds_now() - start; \
    }

TIMED(EMBED, embed,
      (struct kernels_queue * queue, float *d_x, const uint32_t *d_ids, const void *d_table,
       enum dtype type, float factor, size_t n, size_t d),
      queue, d_x, d_ids, d_table, type, factor, n, d)
TIMED(RMS_NORM, rms_norm,
      (struct kernels_queue * queue, void *d_h, const float *d_x, const float *d_w, float eps,
       size_t n, size_t d),
      queue, d_h, d_x, d_w, eps, n, d)
TIMED(POST_NORM, post_norm,
      (struct kernels_queue * queue, float *d_x, float *d_branch, void *d_h, const float *d_y,
       const float *d_w_post, const float *d_w_next, float eps, size_t n, size_t d),
      queue, d_x, d_branch, d_h, d_y, d_w_post, d_w_next, eps, n, d)
TIMED(ROPE, rope,
      (struct kernels_queue * queue, void *d_qkv, const uint32_t *d_positions,
       const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride),
      queue, d_qkv, d_positions, d_angles, n, heads, head_dim, stride)
TIMED(ATTENTION, attention,
      (struct kernels_queue * queue, void *d_out, const void *d_qkv,
       const struct kernels_attention *attention, const struct kernels_span *spans,
       size_t span_count),
      queue, d_out, d_qkv, attention, spans, span_count)
TIMED(GEGLU, geglu,
      (struct kernels_queue * queue, void *d_out, const void *d_gate_up, size_t n, size_t inner),
      queue, d_out, d_gate_up, n, inner)
TIMED(PRODUCTS, gemm,
      (struct kernels_queue * queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
       const void *d_b, const float *d_bias),
      queue, gemm, d_c, d_a, d_b, d_bias)

static const struct kernels *timed_table(void)
{
    static struct kernels table;
    table = *bench.plain;
    table.embed = timed_embed;
    table.rms_norm = timed_rms_norm;
    table.post_norm = timed_post_norm;
    table.rope = timed_rope;
    table.attention = timed_attention;
    table.geglu = timed_geglu;
    table.gemm = timed_gemm;
    return &table;
}

/* ---- the pass */

struct taken {
    void *d_norms, *d_rows, *d_index;
};

/* What the engine does with a source's values. */
static void take(void *context, size_t source, size_t chunk, const float *d_values)
{
    const struct taken *taken = context;
    (void)source;
    (void)chunk;
    double start = seconds_now();
    bench.plain->row_norms(bench.on.queue, taken->d_norms, d_values, bench.plain->chunk_tokens,
                           shape.width);
    spent[ROW_NORMS] += seconds_now() - start;
    start = seconds_now();
    bench.plain->emit_rows(bench.on.queue, taken->d_rows, d_values, taken->d_index, 0.25f,
                           DTYPE_BF16, bench.plain->chunk_tokens, 2 * shape.width, 0, 0,
                           shape.width);
    spent[EMIT] += seconds_now() - start;
}

static void *device_memory(size_t bytes)
{
    void *d_memory = NULL;
    require(bench.plain->alloc(bench.on.device, &d_memory, bytes));
    return d_memory;
}

static void *device_numbers(size_t n, uint32_t modulus)
{
    uint32_t *numbers = mem_alloc(n, sizeof *numbers);
    if (numbers == NULL)
        require(mem_fail("numbers", n, sizeof *numbers));
    for (size_t i = 0; i < n; i++)
        numbers[i] = (uint32_t)i % modulus;
    void *d_numbers = device_memory(n * sizeof *numbers);
    bench.plain->upload(bench.on.queue, d_numbers, numbers, n * sizeof *numbers);
    require(bench.plain->wait(bench.on.queue));
    free(numbers);
    return d_numbers;
}

/* Seconds of the fastest of REPEATS passes; `spent` is of that one. */
static double run_passes(const struct gemma2 *model, size_t tokens)
{
    struct taken taken = {device_memory(bench.plain->chunk_tokens * sizeof(float)),
                          device_memory(2 * (size_t)bench.plain->chunk_tokens * shape.width),
                          device_numbers(bench.plain->chunk_tokens, bench.plain->chunk_tokens)};
    struct gemma2_work work;
    for (size_t i = 0; i < GEMMA2_BUFFERS; i++)
        work.d_buffers[i] =
            device_memory((size_t)gemma2_buffer_bytes(model, (enum gemma2_buffer)i, tokens));
    struct kernels_span *spans = mem_alloc(bench.batch, sizeof *spans);
    if (spans == NULL)
        require(mem_fail("spans", bench.batch, sizeof *spans));
    for (size_t i = 0; i < bench.batch; i++)
        spans[i] = (struct kernels_span){(uint32_t)i * LENGTH, LENGTH};
    struct gemma2_pass pass = {device_numbers(tokens, VOCAB), device_numbers(tokens, LENGTH), spans,
                               bench.batch, tokens / bench.plain->chunk_tokens};
    double best = 0, best_spent[OPERATIONS] = {0};
    for (int i = 0; i <= REPEATS; i++) {
        memset(spent, 0, sizeof spent);
        double start = seconds_now();
        require(gemma2_forward(model, &work, &pass, take, &taken));
        require(bench.plain->wait(bench.on.queue));
        double took = seconds_now() - start;
        if (i == 1 || (i > 1 && took < best)) {
            best = took;
            memcpy(best_spent, spent, sizeof spent);
        }
    }
    memcpy(spent, best_spent, sizeof spent);
    free(spans);
    return best;
}

/* Seconds of the products of one layer over `tokens` tokens, each alone. */
static double run_products(const struct gemma2 *model, size_t tokens)
{
    double all = 0;
    for (size_t i = 0; i < GEMMA2_PRODUCTS; i++) {
        size_t rows, columns;
        struct kernels_gemm *gemm;
        gemma2_product_shape(&shape, (enum gemma2_product)i, &rows, &columns);
        bool residual = i == GEMMA2_PRODUCT_O || i == GEMMA2_PRODUCT_DOWN;
        struct kernels_gemm_shape product = {.m = (int64_t)tokens,
                                             .n = (int64_t)rows,
                                             .k = (int64_t)columns,
                                             .trans_b = true,
                                             .packed_b = true,
                                             .a = bench.type,
                                             .b = bench.type,
                                             .c = residual ? DTYPE_F32 : bench.type};
        size_t a_bytes = tokens * columns * dtype_size(bench.type);
        void *d_a = device_memory(a_bytes), *d_c = device_memory(tokens * rows * sizeof(float));
        memset(d_a, 0x3f, a_bytes); /* the CPU's memory is the host's; not zeros */
        require(bench.plain->gemm_create(bench.on.device, &gemm, &product));
        double best = 0;
        for (int repeat = 0; repeat <= REPEATS; repeat++) {
            double start = seconds_now();
            bench.plain->gemm(bench.on.queue, gemm, d_c, d_a,
                              *gemma2_packed(model, 0, (enum gemma2_product)i), NULL);
            double took = seconds_now() - start;
            best = repeat <= 1 || took < best ? took : best;
        }
        all += best;
        bench.plain->gemm_free(gemm);
        bench.plain->free(bench.on.device, d_a);
        bench.plain->free(bench.on.device, d_c);
    }
    return all;
}

static void report(const struct gemma2 *model)
{
    size_t tokens = bench.batch * LENGTH;
    double all = run_passes(model, tokens), operations = 0;
    for (size_t i = 0; i < OPERATIONS; i++)
        printf("%-10s %8.3f %5.1f %%\n", names[i], spent[i], 100 * spent[i] / all);
    for (size_t i = 0; i < GEMMA2_PRODUCTS; i++) {
        size_t rows, columns;
        gemma2_product_shape(&shape, (enum gemma2_product)i, &rows, &columns);
        operations += 2.0 * (double)rows * (double)columns;
    }
    double products = spent[PRODUCTS], each = operations * (double)tokens * bench.layers;
    double alone = bench.layers * run_products(model, tokens);
    printf("layer_tokens_per_s\t%.1f\nproducts_gflops\t%.1f\nproducts_alone_gflops\t%.1f\n"
           "products_of_alone\t%.3f\nproducts_of_all\t%.3f\n",
           (double)tokens * bench.layers / all, each / products * 1e-9, each / alone * 1e-9,
           alone / products, products / all);
    /* The reference job: 14 layers of two models. */
    printf("tokens_per_s_of_two_models_to_layer_14\t%.1f\n",
           (double)tokens * bench.layers / all / 28);
}

static void parse(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        long number = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--processor-time") == 0) {
            bench.processor_time = true;
            bench.threads = 1;
            continue;
        }
        if (strcmp(argv[i], "--dtype") == 0 && strcmp(value, "f32") == 0)
            bench.type = DTYPE_F32;
        else if (strcmp(argv[i], "--threads") == 0 && number > 0)
            bench.threads = (unsigned)number;
        else if (strcmp(argv[i], "--layers") == 0 && number > 0 && number <= 26)
            bench.layers = (uint32_t)number;
        else if (strcmp(argv[i], "--batch") == 0 && number > 0 && number <= 64)
            bench.batch = (size_t)number;
        else
            require(log_fail(ERR_USAGE, "unknown option '%s'", argv[i]));
        i++;
    }
}

int main(int argc, char **argv)
{
    char folder[] = "/tmp/ccpipe-bench-XXXXXX", hash[33];
    log_init("bench_forward", LOG_NOTE);
    parse(argc, argv);
    if (mkdtemp(folder) == NULL)
        require(log_fail_errno("cannot make a folder"));
    char *path = io_join(folder, "model.safetensors");
    require(random_model_write(path, &shape, bench.layers, 49));
    require(kernels_open(&bench.plain, &bench.on.device, "cpu", bench.threads, bench.type));
    require(bench.plain->queue_create(bench.on.device, &bench.on.queue));
    bench.on.kernels = timed_table();
    bench.on.type = bench.type;

    struct gemma2_config config = shape;
    config.layers = bench.layers;
    config.sliding = mem_alloc_zero(bench.layers, 1); /* nothing slides out of 4096 */
    struct source source = {.layer = bench.layers - 1, .kind = SOURCES_RESID_POST};
    struct sources_model named = {.name = (char *)"a", .folder = folder, .count = 1};
    struct sources sources = {.models = &named, .model_count = 1, .items = &source, .count = 1};
    struct safetensors *tensors;
    struct gemma2_memory memory;
    struct gemma2 *model;
    require(safetensors_open(&tensors, path));
    require(gemma2_create(&model, &bench.on, &config, &sources, 0));
    require(gemma2_measure(model, tensors, &memory));
    double start = seconds_now();
    require(gemma2_load(model, hash, tensors, ""));
    printf("load_gb_per_s\t%.2f\n",
           (double)(memory.packed + memory.embedding) * 1e-9 / (seconds_now() - start));
    safetensors_free(tensors);
    unlink(path);
    rmdir(folder);
    free(path);
    require(gemma2_reserve_positions(model, LENGTH));
    report(model);
    return 0;
}
