/* kernels.h - the operations that compute, one table per device.
 *
 * The only place of the project that computes on matrices. A backend is a shared object that is
 * loaded when it is asked for (kernels_open), so that tools that do not compute start at once and
 * run where no driver is installed. Everything above this header is the same code for all devices.
 *
 * Memory. d_ pointers are device memory from alloc(); host memory is never passed for them. Copies
 * between host and device happen in upload() and download() and nowhere else; only with host memory
 * from host_alloc() do they leave the host free to go on. Buffers are allocated at set-up, never
 * per step. On the CPU device memory is 64-byte aligned host memory.
 *
 * Order. Operations on one queue run in order and may return before they are done; wait() waits for
 * the queue. Errors of a queue are kept and come back from wait(), and from event_sync() of an
 * event recorded there, as ERR_DEVICE or ERR_MEMORY. Operations check nothing at run time that
 * their caller fixed at set-up (shapes, alignment): a wrong one is a bug and is asserted. Spans and
 * columns are host memory, read before the call returns; so is what upload() reads on the CPU,
 * elsewhere it must live until the queue has passed.
 *
 * Determinism. For the same build, kind of processor and number of threads the same input gives the
 * same bytes. Reductions run over fixed chunks in index order, so that all operations but the
 * matrix products (of which a library divides the work) do not even depend on the number of
 * threads. A row of an output depends on that row's input alone: not on its place, nor on what else
 * is in the batch; of a product, for one m.
 *
 * Letters: S sources, B rows in a batch, D sum of the widths, F latents, N tokens in a forward
 * pass, d model width, I inner width, H query heads, Hkv key heads. All matrices are row-major and
 * dense. `T` in a comment is the compute type of the device handle: F32, or BF16 (storage; sums are
 * f32).
 */
#ifndef CCPIPE_KERNELS_H
#define CCPIPE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/dtype.h"
#include "common/err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KERNELS_ABI 2

struct kernels_device; /* one open device */
struct kernels_queue;  /* an ordered stream of operations */
struct kernels_event;  /* a place in a queue */
struct kernels_gemm;   /* a matrix product of one shape, set up once */
struct kernels_link;   /* a way between the devices of two processes */

/* C (m, n) = act(op(A) (m, k) * op(B) (k, n) + bias (n)), sums in f32.
 * trans_a: A is stored (k, m); trans_b: B is stored (n, k). Where C is BF16 the bias may be taken
 * as the sum of two BF16, off by 2^-16 of itself. */
struct kernels_gemm_shape {
    int64_t m, n, k;
    bool trans_a, trans_b;
    bool packed_b;      /* B is given as gemm_pack() left it */
    bool bias;          /* add a f32 row */
    bool relu;          /* max(0, .) at the end */
    enum dtype a, b, c; /* F32 or BF16; a == b */
};

/* Attention of one or more sequences inside a (N, (H + 2 Hkv) head_dim) matrix of q | k | v. */
struct kernels_attention {
    uint32_t heads, key_heads, head_dim;
    float scale;     /* query_pre_attn_scalar^-1/2 */
    float cap;       /* s = cap tanh(s / cap); 0: none */
    uint32_t window; /* key visible iff q - k < window; 0: all before */
};

/* Rows first .. first + length - 1 are one sequence. */
struct kernels_span {
    uint32_t first, length;
};

/* Where a source's values lie in a row of D columns. */
struct kernels_columns {
    uint32_t first, width;
};

/* The decoder W_dec (F, D) and its norms, at which an L1 term pulls: the gradient of W_dec is what
 * the products gave and the pull, factor * sums[j] * W_dec[j, s, :] / norms[j][s] (0 where the norm
 * is).
 */
struct kernels_decoder {
    const struct kernels_columns *columns; /* (S) */
    size_t sources, latents, width;        /* S F D */
    float *d_norms;                        /* (F, S): ‖W_dec[j, source s]‖ */
    float *d_weight;                       /* (F): Σ_s norms[j][s]; may be NULL */
    const float *d_sums;                   /* (F) */
    float factor;
};

/* Doubles, as torch has them: 1 - 0.999f is off by 1e-5. */
struct kernels_adam {
    double lr, beta1, beta2, eps;
    double correction1, correction2; /* 1 - beta^t, t from 1 */
};

/* What a backend needs of the program that loads it: it links with nothing of the project. */
struct kernels_host {
    int (*fail)(int code, const char *message); /* logs an error, returns code */
    void (*note)(const char *message);          /* logs a note */
    uint64_t (*memory_free)(void);              /* bytes of host memory that may still be taken */
};

/* Sums over a batch that the loss and the metrics need, f64, one per source and one for all
 * (index S): Σ_b ‖e‖², Σ_b ‖x − x̄‖², Σ_b (1 − ‖e‖²/‖x − x̄‖²) (a row with ‖x − x̄‖ = 0 adds 0 there).
 */
struct kernels_recon_sums {
    double error, variance, explained;
};

struct kernels {
    uint32_t abi;     /* KERNELS_ABI */
    const char *name; /* "cpu" */
    bool at_once;     /* operations are done when they return: to have two things under way takes
                       * memory and gains nothing */
    uint32_t
        chunk_tokens; /* tokens that a forward pass gives to one product: enough to hide reading
                       * weights, and on the CPU few enough to stay in the cache. One number for
                       * all devices of a kind, as rows may depend on it (m, below) */
    bool packs;       /* products by a packed B are faster; else packing is a mere copy */

    /* ---- device. type: what T is. description says what was found, for -v and `auto`. Callers use
     * kernels_open() and kernels_close(). A function here that returns a code has logged the reason
     * of a failure; its caller passes the code on. */
    int (*open)(struct kernels_device **device, unsigned index, unsigned threads, enum dtype type,
                const struct kernels_host *host);
    void (*close)(struct kernels_device *device);
    const char *(*description)(const struct kernels_device *device);
    uint64_t (*memory_free)(const struct kernels_device *device);

    int (*alloc)(struct kernels_device *device, void **d_memory, size_t bytes); /* zeroed */
    void (*free)(struct kernels_device *device, void *d_memory);
    /* Host memory, 64-byte aligned, not initialised: page-locked where the device is apart, so that
     * copies to and from it run beside what else is queued. Freeing may be given NULL. */
    int (*host_alloc)(struct kernels_device *device, void **memory, size_t bytes);
    void (*host_free)(struct kernels_device *device, void *memory);

    int (*queue_create)(struct kernels_device *device, struct kernels_queue **queue);
    void (*queue_free)(struct kernels_queue *queue);
    int (*event_create)(struct kernels_device *device, struct kernels_event **event);
    void (*event_free)(struct kernels_event *event);
    void (*event_record)(struct kernels_queue *queue, struct kernels_event *event);
    void (*event_wait)(struct kernels_queue *queue, struct kernels_event *event); /* queue waits */
    int (*event_sync)(struct kernels_event *event);                               /* host waits */
    int (*event_poll)(
        struct kernels_event *event); /* 1 done, 0 not yet, or a code; waits for none */
    int (*wait)(struct kernels_queue *queue);

    void (*upload)(struct kernels_queue *queue, void *d_to, const void *from, size_t bytes);
    void (*download)(struct kernels_queue *queue, void *to, const void *d_from, size_t bytes);
    void (*copy)(struct kernels_queue *queue, void *d_to, const void *d_from, size_t bytes);
    void (*clear)(struct kernels_queue *queue, void *d_to, size_t bytes);

    /* ---- rows of bytes. Memory of one call does not overlap; indices are device memory, and one
     * that is NULL is i. */
    /* Row to_index[i] of d_to = row from_index[i] of d_from, i < rows; to_index has no row twice.
     */
    void (*move_rows)(struct kernels_queue *queue, uint8_t *d_to, const uint32_t *d_to_index,
                      const uint8_t *d_from, const uint32_t *d_from_index, size_t rows,
                      size_t row_bytes);
    /* d_hashes (rows, 2): the low and the high half of XXH3-128 of 16-byte tag i of d_tags followed
     * by row index[i] of d_rows; row_bytes > 0. The sums of either are common/rowsum.h's. */
    void (*hash_rows)(struct kernels_queue *queue, uint64_t *d_hashes, const uint8_t *d_tags,
                      const uint8_t *d_rows, const uint32_t *d_index, size_t rows,
                      size_t row_bytes);

    /* ---- between processes. What a backend does not have is NULL: the CPU has identity() alone.
     */
    /* What tells this device from all others of the machine, in every process; zeros: the CPU. */
    void (*identity)(const struct kernels_device *device, uint8_t uuid[16]);
    /* A handle by which another process on the same device maps memory that alloc() gave. The owner
     * frees it only when the others have unmapped it; unmap() waits for the device, NULL is fine.
     */
    int (*share)(struct kernels_device *device, void *d_memory, uint8_t handle[64]);
    int (*map)(struct kernels_device *device, void **d_memory, const uint8_t handle[64]);
    void (*unmap)(struct kernels_device *device, void *d_memory);
    /* NCCL's version, e.g. 23000, and whether its user lets two ranks be on one device, which it
     * can from 2.30 on; ERR_USAGE with the reason where NCCL is not to be had. */
    int (*link_version)(struct kernels_device *device, uint32_t *version, bool *one_device);
    int (*link_id)(struct kernels_device *device, uint8_t id[128]);
    /* Links the two processes, of rank 0 and 1, that have one id from link_id(); each waits for the
     * other for as long as go_on(context) returns 0, and then returns its code. The link keeps
     * go_on: sends and receives may wait for the other side too, and ask it as well. From
     * then on the link is lost, and its queue fails with that code. */
    int (*link_open)(struct kernels_device *device, struct kernels_link **link,
                     const uint8_t id[128], unsigned rank, int (*go_on)(void *context),
                     void *context);
    /* What one sends the other receives, in order and of the same sizes. The queue must be passed
     * before its memory is used again, and never passes where the peer is lost: link_poll() tells,
     * and only link_close() with `lost` then ends it. */
    void (*link_send)(struct kernels_queue *queue, struct kernels_link *link, const void *d_from,
                      size_t bytes);
    void (*link_receive)(struct kernels_queue *queue, struct kernels_link *link, void *d_to,
                         size_t bytes);
    /* 0; the code of a failure, logged; or go_on()'s, where that knows why the peer has gone. */
    int (*link_poll)(struct kernels_link *link);
    /* Both sides close, and wait some seconds for each other; lost: this one waits for nobody. NULL
     * is fine. */
    void (*link_close)(struct kernels_link *link, bool lost);

    /* ---- matrix products. A plan owns its workspace; it is used by one queue at a time. */
    int (*gemm_create)(struct kernels_device *device, struct kernels_gemm **gemm,
                       const struct kernels_gemm_shape *shape);
    void (*gemm_free)(struct kernels_gemm *gemm);
    size_t (*gemm_packed_bytes)(const struct kernels_gemm *gemm);
    /* d_b as stored -> d_packed (gemm_packed_bytes). Another product of the same shape may use it.
     */
    void (*gemm_pack)(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_packed,
                      const void *d_b);
    void (*gemm)(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
                 const void *d_b, const float *d_bias);

    /* ---- elements. n of F32, BF16 or F16 -> F32 or BF16. */
    void (*cast)(struct kernels_queue *queue, void *d_to, enum dtype to, const void *d_from,
                 enum dtype from, size_t n);

    /* ---- transformer forward. x is the residual stream in f32; h and y are T. */
    /* x (N, d) = table[ids] * factor; table (V, d) of `type` (F32, BF16 or F16), ids < V. */
    void (*embed)(struct kernels_queue *queue, float *d_x, const uint32_t *d_ids,
                  const void *d_table, enum dtype type, float factor, size_t n, size_t d);
    /* h (N, d) T = x * rsqrt(mean(x^2) + eps) * (1 + w). */
    void (*rms_norm)(struct kernels_queue *queue, void *d_h, const float *d_x, const float *d_w,
                     float eps, size_t n, size_t d);
    /* branch = rms(y, w_post); x += branch; h = rms(x, w_next). d_branch (N, d) f32 and d_h may be
     * NULL, the latter with d_w_next. y (N, d) f32. */
    void (*post_norm)(struct kernels_queue *queue, float *d_x, float *d_branch, void *d_h,
                      const float *d_y, const float *d_w_post, const float *d_w_next, float eps,
                      size_t n, size_t d);
    /* Rotates the first `heads` heads of each row (stride columns) in place, halves (i, i + hd/2):
     * d_angles (positions, head_dim) f32: cos for i < hd/2, then sin. */
    void (*rope)(struct kernels_queue *queue, void *d_qkv, const uint32_t *d_positions,
                 const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride);
    /* out (N, H head_dim) T from qkv (N, (H + 2 Hkv) head_dim) T; causal within each span. Rows
     * that belong to no span are left as they are. */
    void (*attention)(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                      const struct kernels_attention *attention, const struct kernels_span *spans,
                      size_t span_count);
    /* out (N, I) T = gelu_tanh(gate) * up, gate_up (N, 2 I) T, gate in the first I columns. */
    void (*geglu)(struct kernels_queue *queue, void *d_out, const void *d_gate_up, size_t n,
                  size_t inner);
    /* norm[i] = ‖x[i]‖ f64 sums, f32 result (the largest of f32 where that is exceeded); not finite
     * iff the row has a value that is not. */
    void (*row_norms)(struct kernels_queue *queue, float *d_norms, const float *d_x, size_t n,
                      size_t d);
    /* Row r of d_rows (row_bytes apart) gets scale * x[index[r]] at byte `at`, as `type`: F32,
     * BF16, or I8: then the f32 quantum max|v|/127 is written at byte quantum_at and the values are
     * v/quantum, rounded to nearest even (a row of zeros has quantum 0; rows with values that are
     * not finite are for the caller to leave out, by row_norms). */
    void (*emit_rows)(struct kernels_queue *queue, uint8_t *d_rows, const float *d_x,
                      const uint32_t *d_index, float scale, enum dtype type, size_t rows,
                      size_t row_bytes, size_t at, size_t quantum_at, size_t d);

    /* ---- crosscoder. x, f, g, dpre are T; weights, norms, gradients and sums are f32 or f64. */
    /* x (B, D) T from rows on the wire: F32, BF16, or I8 with S f32 quanta before D bytes. */
    void (*load_rows)(struct kernels_queue *queue, void *d_x, const uint8_t *d_rows,
                      enum dtype type, const struct kernels_columns *columns, size_t sources,
                      size_t rows, size_t width);
    /* mean (D) of x over the batch. */
    void (*column_means)(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                         size_t width);
    /* e = xhat - x; g (B, D) T = factor * e; d_sums (S + 1) as kernels_recon_sums says. d_g may be
     * NULL. */
    void (*recon)(struct kernels_queue *queue, void *d_g, struct kernels_recon_sums *d_sums,
                  const float *d_xhat, const void *d_x, const float *d_means,
                  const struct kernels_columns *columns, size_t sources, float factor, size_t rows,
                  size_t width);
    /* dpre = (f > 0) ? dpre + bias[j] : 0 in place, sums[j] = Σ_b dpre[b][j] of that as it is
     * stored; latent_sums[j] = Σ_b f[b][j], counts[j] = #{b: f[b][j] > 0}. Sums f64 inside. */
    void (*relu_backward)(struct kernels_queue *queue, void *d_dpre, float *d_sums,
                          float *d_latent_sums, uint32_t *d_counts, const void *d_f,
                          const float *d_bias, size_t rows, size_t latents);
    /* sums[c] = Σ_b g[b][c]. */
    void (*column_sums)(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                        size_t width);
    /* norms (F, S): ‖W_dec[j, source s]‖; weight (F) = Σ_s norms[j][s], may be NULL. */
    void (*decoder_norms)(struct kernels_queue *queue, float *d_norms, float *d_weight,
                          const float *d_w_dec, const struct kernels_columns *columns,
                          size_t sources, size_t latents, size_t width);
    /* *d_sum = Σ (g + pull)² over (F, D), f64. */
    void (*decoder_square)(struct kernels_queue *queue, double *d_sum, const float *d_g,
                           const float *d_w_dec, const struct kernels_decoder *decoder);
    /* adam() of W_dec by g + pull; then the decoder's norms and weight are those of the new W_dec,
     * to the bit as decoder_norms() gives them. */
    void (*decoder_adam)(struct kernels_queue *queue, float *d_w_dec, float *d_m, float *d_v,
                         void *d_copy, const float *d_g, const float *d_clip,
                         const struct kernels_adam *adam, const struct kernels_decoder *decoder);
    /* y[i] = alpha * x[i]. */
    void (*scale)(struct kernels_queue *queue, float *d_y, const float *d_x, float alpha, size_t n);
    /* *d_sum = Σ a[i] * b[i], f64; a may be b. */
    void (*dot)(struct kernels_queue *queue, double *d_sum, const float *d_a, const float *d_b,
                size_t n);
    /* d_out[0] = min(1, max_norm / (‖g‖ + 1e-6)), d_out[1] = ‖g‖ = sqrt(Σ d_parts[i]); max_norm 0:
     * factor 1. */
    void (*clip_factor)(struct kernels_queue *queue, float *d_out, const double *d_parts,
                        size_t parts, float max_norm);
    /* Adam as in torch: m, v of g * *d_clip; w -= lr * (m / c1) / (sqrt(v / c2) + eps). d_copy (T),
     * may be NULL, gets w rounded. */
    void (*adam)(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
                 const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n);
};

/* Loads the backend of a device name: "cpu", "cuda", "cuda:N", or "auto" (a note says what it
 * chose; with -v every device is described), and opens the device. ERR_USAGE for another name,
 * ERR_DEVICE where it is not there, with the reason. threads >= 1. Sets OMP_WAIT_POLICY to passive
 * where it is not set, so call it before the program has threads. The backend is looked for in the
 * folder that CCPIPE_BACKENDS names, else beside the executable, then in ../lib/ccpipe of that. On
 * the CPU CCPIPE_CPU_LEVEL=v2|v3|v4 forces a level of the x86-64 instruction set. */
int kernels_open(const struct kernels **kernels, struct kernels_device **device, const char *name,
                 unsigned threads, enum dtype type) MUST_CHECK;
void kernels_close(const struct kernels *kernels, struct kernels_device *device);

/* alloc() and host_alloc() of count * size bytes. `memory` is the address of a pointer of whatever
 * type; that is NULL on failure. ERR_MEMORY, logged with `what`, where the product overflows. */
int kernels_alloc(const struct kernels *kernels, struct kernels_device *device, void *memory,
                  size_t count, size_t size, const char *what) MUST_CHECK;
int kernels_host_alloc(const struct kernels *kernels, struct kernels_device *device, void *memory,
                       size_t count, size_t size, const char *what) MUST_CHECK;

/* The symbol that a backend's shared object exports. */
typedef const struct kernels *kernels_entry_function(void);
#define KERNELS_ENTRY "kernels_entry"

#ifdef __cplusplus
}
#endif
#endif
