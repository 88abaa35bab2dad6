/* The same bytes for 1, 2 and 3 threads, and for a row wherever it stands.
 *
 * Every operation that sums or that divides its work is run on sizes that wake several threads (at
 * least 32768 elements), with sources and rows that do not fill the last chunk.
 */
#include "tests/parity/parity.h"

enum { ROWS = 131, WIDTH = 523, N = ROWS * WIDTH, MOST = 12 };

static const struct kernels_columns columns[] = {{0, 200}, {200, 323}};

/* What a run left in device memory. */
struct results {
    uint8_t *bytes[MOST];
    size_t sizes[MOST], count;
};

static void *output(struct parity *parity, struct results *results, size_t bytes)
{
    void *d_memory = parity_alloc(parity, bytes);
    assert_true(results->count < MOST);
    results->bytes[results->count] = d_memory;
    results->sizes[results->count++] = bytes;
    return d_memory;
}

static void *input(struct parity *parity, enum dtype type, size_t n, float scale)
{
    float *values;
    void *d_memory = parity_random(parity, &values, type, n, scale);
    free(values);
    return d_memory;
}

static void run_sums(struct parity *p, struct results *out)
{
    const struct kernels *k = p->kernels;
    void *d_f = input(p, p->type, N, 1), *d_x = input(p, p->type, N, 1);
    float *d_means = output(p, out, WIDTH * 4), *d_xhat = input(p, DTYPE_F32, N, 1);
    k->column_means(p->queue, d_means, d_x, ROWS, WIDTH);
    k->column_sums(p->queue, output(p, out, WIDTH * 4), d_f, ROWS, WIDTH);
    k->recon(p->queue, output(p, out, N * dtype_size(p->type)),
             output(p, out, 3 * sizeof(struct kernels_recon_sums)), d_xhat, d_x, d_means, columns,
             2, 0.1f, ROWS, WIDTH);
    void *d_g = output(p, out, N * dtype_size(p->type));
    k->copy(p->queue, d_g, d_x, N * dtype_size(p->type));
    k->relu_backward(p->queue, d_g, output(p, out, WIDTH * 4), output(p, out, WIDTH * 4),
                     output(p, out, WIDTH * 4), d_f, d_means, ROWS, WIDTH);
    parity_free(p, d_f);
    parity_free(p, d_x);
    parity_free(p, d_xhat);
}

static void run_optimiser(struct parity *p, struct results *out)
{
    const struct kernels *k = p->kernels;
    const struct kernels_adam adam = {1e-3, 0.9, 0.999, 1e-8, 0.1, 0.001};
    float *d_w = output(p, out, N * 4), *d_g = input(p, DTYPE_F32, N, 1);
    float *d_norms = output(p, out, ROWS * 2 * 4), *d_weight = output(p, out, ROWS * 4);
    float *d_m = output(p, out, N * 4), *d_v = output(p, out, N * 4), *d_clip = output(p, out, 8);
    double *d_sum = output(p, out, 2 * sizeof *d_sum);
    void *d_from = input(p, DTYPE_F32, N, 1);
    k->scale(p->queue, d_w, d_from, 0.3f, N);
    k->decoder_norms(p->queue, d_norms, d_weight, d_w, columns, 2, ROWS, WIDTH);
    const struct kernels_decoder decoder = {columns, 2,        ROWS,     WIDTH,
                                            d_norms, d_weight, d_weight, 0.7f};
    k->dot(p->queue, d_sum, d_g, d_g, N);
    k->decoder_square(p->queue, d_sum + 1, d_g, d_w, &decoder);
    k->clip_factor(p->queue, d_clip, d_sum, 2, 1.0f);
    k->adam(p->queue, d_w, d_m, d_v, output(p, out, N * dtype_size(p->type)), d_g, d_clip, &adam,
            N);
    k->decoder_adam(p->queue, d_w, d_m, d_v, output(p, out, N * dtype_size(p->type)), d_g, d_clip,
                    &adam, &decoder);
    parity_free(p, d_g);
    parity_free(p, d_from);
}

static void run_forward(struct parity *p, struct results *out)
{
    const struct kernels *k = p->kernels;
    static const uint32_t positions[ROWS] = {3, 1, 4, 1, 5};
    uint32_t index[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        index[i] = ROWS - 1 - i;
    size_t t = dtype_size(p->type), row_bytes = 4 + WIDTH;
    uint32_t *d_index = parity_upload(p, index, sizeof index);
    uint32_t *d_positions = parity_upload(p, positions, sizeof positions);
    float *d_x = output(p, out, N * 4), *d_y = input(p, DTYPE_F32, N, 1);
    float *d_w = input(p, DTYPE_F32, WIDTH, 1), *d_angles = input(p, DTYPE_F32, 6 * 52, 1);
    void *d_table = input(p, p->type, N, 1), *d_gate_up = input(p, p->type, 2 * N, 2);
    void *d_qkv = output(p, out, N * t), *d_h = output(p, out, N * t);
    k->embed(p->queue, d_x, d_index, d_table, p->type, 3.1f, ROWS, WIDTH);
    k->rms_norm(p->queue, d_qkv, d_x, d_w, 1e-6f, ROWS, WIDTH);
    k->rope(p->queue, d_qkv, d_positions, d_angles, ROWS, 10, 52, WIDTH);
    k->post_norm(p->queue, d_x, output(p, out, N * 4), d_h, d_y, d_w, d_w, 1e-6f, ROWS, WIDTH);
    k->geglu(p->queue, output(p, out, N * t), d_gate_up, ROWS, WIDTH);
    k->row_norms(p->queue, output(p, out, ROWS * 4), d_x, ROWS, WIDTH);
    uint8_t *d_rows = output(p, out, ROWS * row_bytes);
    k->emit_rows(p->queue, d_rows, d_x, d_index, 0.3f, DTYPE_I8, ROWS, row_bytes, 4, 0, WIDTH);
    static const struct kernels_columns whole[] = {{0, WIDTH}};
    k->load_rows(p->queue, output(p, out, N * t), d_rows, DTYPE_I8, whole, 1, ROWS, WIDTH);
    k->cast(p->queue, output(p, out, N * 2), DTYPE_BF16, d_x, DTYPE_F32, N);
    parity_free(p, d_index);
    parity_free(p, d_positions);
    parity_free(p, d_y);
    parity_free(p, d_w);
    parity_free(p, d_angles);
    parity_free(p, d_table);
    parity_free(p, d_gate_up);
}

static void run_attention(struct parity *p, struct results *out)
{
    enum { TOKENS = 500, HD = 24, IN = TOKENS * 8 * HD, OUT = TOKENS * 4 * HD };
    static const struct kernels_span spans[] = {{0, 301}, {301, 1}, {305, 195}};
    static const struct kernels_attention attention = {4, 2, HD, 0.2f, 50, 100};
    void *d_qkv = input(p, p->type, IN, 1);
    p->kernels->attention(p->queue, output(p, out, OUT * dtype_size(p->type)), d_qkv, &attention,
                          spans, 3);
    parity_free(p, d_qkv);
}

typedef void run_function(struct parity *parity, struct results *results);

static struct results run_with(run_function *run, unsigned threads, enum dtype type)
{
    struct parity parity;
    struct results results = {.count = 0};
    parity_open(&parity, threads, type);
    run(&parity, &results);
    for (size_t i = 0; i < results.count; i++) {
        void *d_memory = results.bytes[i];
        results.bytes[i] = parity_download(&parity, d_memory, results.sizes[i]);
        parity_free(&parity, d_memory);
    }
    parity_close(&parity);
    return results;
}

static void compare_threads(run_function *run)
{
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t t = 0; t < 2; t++) {
        struct results first = run_with(run, 1, types[t]);
        for (unsigned threads = 2; threads <= 3; threads++) {
            struct results other = run_with(run, threads, types[t]);
            assert_int_equal(other.count, first.count);
            for (size_t i = 0; i < first.count; i++) {
                if (memcmp(first.bytes[i], other.bytes[i], first.sizes[i]) != 0)
                    fail_msg("output %zu differs between 1 and %u threads", i, threads);
                free(other.bytes[i]);
            }
        }
        for (size_t i = 0; i < first.count; i++)
            free(first.bytes[i]);
    }
}

static void sums_do_not_depend_on_threads(void **state)
{
    (void)state;
    compare_threads(run_sums);
}

static void the_optimiser_does_not_depend_on_threads(void **state)
{
    (void)state;
    compare_threads(run_optimiser);
}

static void the_forward_pass_does_not_depend_on_threads(void **state)
{
    (void)state;
    compare_threads(run_forward);
}

static void attention_does_not_depend_on_threads(void **state)
{
    (void)state;
    compare_threads(run_attention);
}

/* Row 0 everywhere. */
static void *same_rows(struct parity *parity, enum dtype type, size_t width)
{
    float *values = parity_host(ROWS * width, sizeof *values);
    for (size_t i = 0; i < width; i++)
        values[i] = parity_uniform(parity);
    for (size_t i = width; i < ROWS * width; i++)
        values[i] = values[i - width];
    void *d_memory = parity_alloc(parity, ROWS * width * dtype_size(type));
    parity_put(parity, d_memory, values, type, ROWS * width);
    free(values);
    return d_memory;
}

static void rows_are_equal(struct parity *parity, void *d_memory, size_t row_bytes,
                           const char *what)
{
    uint8_t *rows = parity_download(parity, d_memory, ROWS * row_bytes);
    for (size_t row = 1; row < ROWS; row++)
        if (memcmp(rows, rows + row * row_bytes, row_bytes) != 0)
            fail_msg("%s: row %zu differs from row 0", what, row);
    free(rows);
    parity_free(parity, d_memory);
}

/* Odd widths, so that rows begin at every alignment. */
static void check_places(struct parity *p)
{
    const struct kernels *k = p->kernels;
    size_t t = dtype_size(p->type), row_bytes = 4 + WIDTH;
    float *d_x = same_rows(p, DTYPE_F32, WIDTH), *d_y = same_rows(p, DTYPE_F32, WIDTH);
    float *d_w = input(p, DTYPE_F32, WIDTH, 1), *d_norms = parity_alloc(p, ROWS * 4);
    void *d_gate_up = same_rows(p, p->type, 2 * WIDTH), *d_h = parity_alloc(p, N * t);
    void *d_gated = parity_alloc(p, N * t), *d_rows = parity_alloc(p, ROWS * row_bytes);
    float *d_branch = parity_alloc(p, N * 4), *d_decoder = parity_alloc(p, ROWS * 8);
    uint32_t index[ROWS];
    for (uint32_t i = 0; i < ROWS; i++)
        index[i] = i;
    uint32_t *d_index = parity_upload(p, index, sizeof index);
    k->geglu(p->queue, d_gated, d_gate_up, ROWS, WIDTH);
    k->post_norm(p->queue, d_x, d_branch, d_h, d_y, d_w, d_w, 1e-6f, ROWS, WIDTH);
    k->row_norms(p->queue, d_norms, d_x, ROWS, WIDTH);
    k->decoder_norms(p->queue, d_decoder, NULL, d_x, columns, 2, ROWS, WIDTH);
    k->emit_rows(p->queue, d_rows, d_x, d_index, 0.3f, DTYPE_I8, ROWS, row_bytes, 4, 0, WIDTH);
    rows_are_equal(p, d_gated, WIDTH * t, "geglu");
    rows_are_equal(p, d_h, WIDTH * t, "post_norm");
    rows_are_equal(p, d_branch, WIDTH * 4, "post_norm's branch");
    rows_are_equal(p, d_norms, 4, "row_norms");
    rows_are_equal(p, d_decoder, 8, "decoder_norms");
    rows_are_equal(p, d_rows, row_bytes, "emit_rows");
    d_h = parity_alloc(p, N * t);
    k->rms_norm(p->queue, d_h, d_x, d_w, 1e-6f, ROWS, WIDTH);
    rows_are_equal(p, d_h, WIDTH * t, "rms_norm");
    rows_are_equal(p, d_x, WIDTH * 4, "the sum of post_norm");
    parity_free(p, d_y);
    parity_free(p, d_w);
    parity_free(p, d_gate_up);
    parity_free(p, d_index);
}

static void a_row_does_not_depend_on_its_place(void **state)
{
    (void)state;
    parity_each_type(check_places);
}

/* One sequence at several places of the matrix, alone and between others. */
static void check_sequences(struct parity *p)
{
    enum { LENGTH = 77, HD = 24, STRIDE = 8 * HD, OUT = 4 * HD, TOKENS = 300 };
    static const struct kernels_attention attention = {4, 2, HD, 0.3f, 50, 50};
    static const struct kernels_span spans[][3] = {{{0, LENGTH}, {0, 0}, {0, 0}},
                                                   {{131, LENGTH}, {0, 0}, {0, 0}},
                                                   {{0, 64}, {65, LENGTH}, {150, 150}}};
    size_t t = dtype_size(p->type);
    float *values;
    uint8_t *d_qkv = parity_random(p, &values, p->type, TOKENS * STRIDE, 1.0f);
    uint8_t *d_out = parity_alloc(p, TOKENS * OUT * t), *sequence = NULL;
    void *d_sequence = input(p, p->type, LENGTH * STRIDE, 2.0f);
    for (size_t i = 0; i < 3; i++) {
        const struct kernels_span *span = &spans[i][i == 2 ? 1 : 0];
        p->kernels->copy(p->queue, d_qkv + span->first * STRIDE * t, d_sequence,
                         LENGTH * STRIDE * t);
        p->kernels->attention(p->queue, d_out, d_qkv, &attention, spans[i], 3);
        uint8_t *got = parity_download(p, d_out + span->first * OUT * t, LENGTH * OUT * t);
        if (sequence != NULL)
            assert_memory_equal(got, sequence, LENGTH * OUT * t);
        free(sequence);
        sequence = got;
    }
    free(values);
    free(sequence);
    parity_free(p, d_qkv);
    parity_free(p, d_out);
    parity_free(p, d_sequence);
}

static void a_sequence_does_not_depend_on_its_place(void **state)
{
    (void)state;
    parity_each_type(check_sequences);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_do_not_depend_on_threads),
        cmocka_unit_test(the_optimiser_does_not_depend_on_threads),
        cmocka_unit_test(the_forward_pass_does_not_depend_on_threads),
        cmocka_unit_test(attention_does_not_depend_on_threads),
        cmocka_unit_test(a_row_does_not_depend_on_its_place),
        cmocka_unit_test(a_sequence_does_not_depend_on_its_place),
    };
    log_init("test_kernels_order", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels order", tests, NULL, NULL);
}
