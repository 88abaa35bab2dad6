/* cpu.h - what the files of the CPU backend share.
 *
 * The backend is a shared object that exports kernels_entry and links with oneDNN, libgomp and libm
 * only. It is compiled three times, for x86-64-v2, -v3 and -v4; there are no intrinsics: loops are
 * plain C that the compiler vectorises for each level.
 *
 * Types. Most operations take T = F32 or BF16. Their loops are written once, in f32, over tiles of
 * TILE elements: tile_in() gives a pointer to f32 values (the memory itself where it is f32, else a
 * converted copy in the L1 cache), tile_out() the place to put results, tile_done() stores them.
 *
 * Determinism. A sum goes over elements in index order inside a fixed chunk, and chunks are added
 * in index order; which thread takes which chunk changes nothing.
 */
#ifndef CCPIPE_KERNELS_CPU_H
#define CCPIPE_KERNELS_CPU_H

#include "kernels/kernels.h"

#include <assert.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

enum { TILE = 1024 };

struct kernels_device {
    const struct kernels_host *host;
    dnnl_engine_t engine;
    unsigned threads;
    enum dtype type;  /* T */
    bool avx512;      /* oneDNN may use AVX-512 */
    bool native_bf16; /* the processor multiplies bf16 */
    char description[200];
};

struct kernels_queue {
    struct kernels_device *device;
    dnnl_stream_t stream;
    int error;       /* the first failure, 0: none; comes back from wait() */
    void *workspace; /* grows to what an operation asks for, then stays */
    size_t workspace_bytes;
};

/* The table's entries; kernels.h says what they do. */
int device_fail(const struct kernels_device *device, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int cpu_alloc(struct kernels_device *device, void **d_memory, size_t bytes);
void cpu_free(struct kernels_device *device, void *d_memory);

/* `bytes` of the queue's own memory, 64-byte aligned, valid until the next operation; NULL with the
 * error kept. */
void *queue_workspace(struct kernels_queue *queue, size_t bytes);
void queue_fail(struct kernels_queue *queue, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

int cpu_gemm_create(struct kernels_device *device, struct kernels_gemm **gemm,
                    const struct kernels_gemm_shape *shape);
void cpu_gemm_free(struct kernels_gemm *gemm);
size_t cpu_gemm_packed_bytes(const struct kernels_gemm *gemm);
void cpu_gemm_pack(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_packed,
                   const void *d_b);
void cpu_gemm(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
              const void *d_b, const float *d_bias);

/* cpu_gemm() by blocks of rows; a packed d_b is f32, in the order in which B is stored. */
void gemm_rows(struct kernels_queue *queue, const struct kernels_gemm_shape *shape, int threads,
               void *d_c, const void *d_a, const void *d_b, const float *d_bias);

void cpu_cast(struct kernels_queue *queue, void *d_to, enum dtype to, const void *d_from,
              enum dtype from, size_t n);

void cpu_embed(struct kernels_queue *queue, float *d_x, const uint32_t *d_ids, const void *d_table,
               enum dtype type, float factor, size_t n, size_t d);
void cpu_rms_norm(struct kernels_queue *queue, void *d_h, const float *d_x, const float *d_w,
                  float eps, size_t n, size_t d);
void cpu_post_norm(struct kernels_queue *queue, float *d_x, float *d_branch, void *d_h,
                   const float *d_y, const float *d_w_post, const float *d_w_next, float eps,
                   size_t n, size_t d);
void cpu_rope(struct kernels_queue *queue, void *d_qkv, const uint32_t *d_positions,
              const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride);
void cpu_attention(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                   const struct kernels_attention *attention, const struct kernels_span *spans,
                   size_t span_count);
void cpu_geglu(struct kernels_queue *queue, void *d_out, const void *d_gate_up, size_t n,
               size_t inner);
void cpu_row_norms(struct kernels_queue *queue, float *d_norms, const float *d_x, size_t n,
                   size_t d);
void cpu_emit_rows(struct kernels_queue *queue, uint8_t *d_rows, const float *d_x,
                   const uint32_t *d_index, float scale, enum dtype type, size_t rows,
                   size_t row_bytes, size_t at, size_t quantum_at, size_t d);

void cpu_load_rows(struct kernels_queue *queue, void *d_x, const uint8_t *d_rows, enum dtype type,
                   const struct kernels_columns *columns, size_t sources, size_t rows,
                   size_t width);
void cpu_column_means(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                      size_t width);
void cpu_recon(struct kernels_queue *queue, void *d_g, struct kernels_recon_sums *d_sums,
               const float *d_xhat, const void *d_x, const float *d_means,
               const struct kernels_columns *columns, size_t sources, float factor, size_t rows,
               size_t width);
void cpu_relu_backward(struct kernels_queue *queue, void *d_dpre, float *d_sums,
                       float *d_latent_sums, uint32_t *d_counts, const void *d_f,
                       const float *d_bias, size_t rows, size_t latents);
void cpu_column_sums(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                     size_t width);
void cpu_decoder_norms(struct kernels_queue *queue, float *d_norms, float *d_weight,
                       const float *d_w_dec, const struct kernels_columns *columns, size_t sources,
                       size_t latents, size_t width);
void cpu_decoder_square(struct kernels_queue *queue, double *d_sum, const float *d_g,
                        const float *d_w_dec, const struct kernels_decoder *decoder);
void cpu_decoder_adam(struct kernels_queue *queue, float *d_w_dec, float *d_m, float *d_v,
                      void *d_copy, const float *d_g, const float *d_clip,
                      const struct kernels_adam *adam, const struct kernels_decoder *decoder);
void cpu_scale(struct kernels_queue *queue, float *d_y, const float *d_x, float alpha, size_t n);
void cpu_dot(struct kernels_queue *queue, double *d_sum, const float *d_a, const float *d_b,
             size_t n);
void cpu_clip_factor(struct kernels_queue *queue, float *d_out, const double *d_parts, size_t parts,
                     float max_norm);
void cpu_adam(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
              const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n);

void cpu_move_rows(struct kernels_queue *queue, uint8_t *d_to, const uint32_t *d_to_index,
                   const uint8_t *d_from, const uint32_t *d_from_index, size_t rows,
                   size_t row_bytes);
void cpu_hash_rows(struct kernels_queue *queue, uint64_t *d_hashes, const uint8_t *d_tags,
                   const uint8_t *d_rows, const uint32_t *d_index, size_t rows, size_t row_bytes);

/* n stored floats (F32, BF16, F16) to f32. */
void tile_from_stored(float *tile, const void *from, enum dtype type, size_t n);

/* Threads worth waking for a pass over `elements`: a wake-up costs about 10 us. */
static inline int device_threads(const struct kernels_device *device, size_t elements)
{
    return elements < 32768 ? 1 : (int)device->threads;
}

static inline size_t size_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t chunk_count(size_t n, size_t chunk)
{
    return (n + chunk - 1) / chunk;
}

static inline size_t element_size(enum dtype type)
{
    return type == DTYPE_F32 ? 4 : type == DTYPE_I8 ? 1 : 2;
}

/* The address of element `index`. */
static inline void *element(void *base, enum dtype type, size_t index)
{
    return (uint8_t *)base + index * element_size(type);
}

static inline const void *element_const(const void *base, enum dtype type, size_t index)
{
    return (const uint8_t *)base + index * element_size(type);
}

/* n <= TILE values from element `index`, as f32. */
static inline const float *tile_in(float tile[TILE], const void *base, enum dtype type,
                                   size_t index, size_t n)
{
    const void *from = element_const(base, type, index);
    if (type == DTYPE_F32)
        return from;
    const uint16_t *halves = from;
    for (size_t i = 0; i < n; i++)
        tile[i] = dtype_bf16_to_f32(halves[i]);
    return tile;
}

/* Where to put the values of elements `index` and on: follow with tile_done(). */
static inline float *tile_out(float tile[TILE], void *base, enum dtype type, size_t index)
{
    return type == DTYPE_F32 ? element(base, type, index) : tile;
}

static inline void tile_done(const float *tile, void *base, enum dtype type, size_t index, size_t n)
{
    if (type == DTYPE_F32)
        return;
    uint16_t *halves = element(base, type, index);
    for (size_t i = 0; i < n; i++)
        halves[i] = dtype_f32_to_bf16(tile[i]);
}

#endif
