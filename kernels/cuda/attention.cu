/* attention.cu - causal attention with a soft cap, a sliding window and grouped heads.
 *
 * flash, for bf16: a block has one tile of queries of one sequence for one key head, with all query
 * heads that share that key head, so that keys and values are read once for the whole group. The
 * tile has ROWS rows, (head in group, query), 16 to a warp. It streams over the visible keys in
 * tiles of KEYS and keeps the running maximum and sum of each row (online softmax):
 *
 *   S (16, KEYS) = Q Kᵀ                   a warp's scores, in registers
 *   P = exp(cap tanh(S / cap) - max)      in registers, rounded to bf16; invisible keys exactly 0
 *   O (16, hd) = O * correction + P V     in registers
 *
 * Both products are on the tensor cores; the accumulator of the first is the left side of the
 * second without leaving its registers. Values are on their way to shared memory during the first
 * product, the next keys during the second. A row's sum is over the rounded weights, so that the
 * weights that multiply add up to 1. Exponentials are powers of 2: scores are scaled by log2 e
 * beforehand.
 *
 * Shared rows are 16 bytes longer than hd, an odd number of 16-byte chunks, so that the eight rows
 * of a matrix lie in different banks. At hd 256: Q 66 KB, K and V 33 KB each (an A100 has 163), one
 * block of 8 warps on a multiprocessor; O takes 128 registers a thread, S 32.
 *
 * plain, for f32 (and for shapes that flash does not take, or devices with less shared memory: 99
 * KB at compute capability 8.6): a warp has one query of one head and streams over the visible keys
 * 32 at a time, a key a lane.
 *
 * Tiles begin at the sequence's first row, so what is computed for a sequence does not depend on
 * where it stands or beside what. Spans travel as the kernel's argument, MOST_SPANS to a launch, as
 * host memory would have to be copied and kept. A span's blocks with the most keys come first.
 *
 * A value that is not finite makes rows of its own sequence not finite, earlier ones of its tile
 * too: a weight of 0 times it is NaN.
 *
 * Limit: 4 heads head_dim flops for each visible (query, key) on the tensor cores, beside an exp
 * and a tanh; (2 H + 2 Hkv) head_dim elements a token to be moved.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/reduce.cuh"

#include <math.h>

enum {
    MOST_SPANS = 256, /* 3 of the 4 KB that a kernel's arguments may have */
    ROWS = 128,       /* of a tile */
    KEYS = 64,
    WARPS = ROWS / 16,
    THREADS = WARPS * WARP,
    FLASH_HEAD_MOST = 256, /* head_dim */
    CHUNK = 8,             /* elements of a copy of 16 bytes */
    PLAIN_WARPS = 4,
    PLAIN_THREADS = PLAIN_WARPS * WARP,
};

#define LOG2_E 1.4426950408889634

struct shape {
    size_t hd, stride; /* of the matrix of q | k | v */
    size_t heads, key_heads, group;
    size_t queries;   /* in a tile */
    float scale, cap; /* s = scale q·k, or cap * tanh(scale q·k) if cap > 0 */
    uint32_t window;  /* UINT32_MAX: none */
};

struct span_list {
    uint32_t count, tiles;
    struct kernels_span spans[MOST_SPANS];
    uint32_t tiles_before[MOST_SPANS];
};

/* One tile of queries: the sequence begins at row `start`, the tile at `position` in it. */
struct tile {
    size_t start;
    uint32_t position, count;
};

/* Tile `number` of all, of the last span that does not begin behind it, so of none that is empty;
 * within a span the last tile, which sees most, comes first. */
static __device__ struct tile find_tile(const struct span_list &list, size_t queries,
                                        uint32_t number)
{
    uint32_t low = 0, high = list.count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (list.tiles_before[middle] <= number)
            low = middle;
        else
            high = middle;
    }
    const uint32_t length = list.spans[low].length, width = (uint32_t)queries;
    const uint32_t last = (length - 1) / width;
    struct tile tile;
    tile.start = list.spans[low].first;
    tile.position = (last - (number - list.tiles_before[low])) * width;
    tile.count = length - tile.position < width ? length - tile.position : width;
    return tile;
}

/* The lowest key that a query sees. */
static __device__ __forceinline__ uint32_t lowest_key(uint32_t position, uint32_t window)
{
    return position >= window ? position - window + 1 : 0;
}

/* What exp(s - maximum) is taken from: 0 where no score is a number yet. */
static __device__ __forceinline__ float finite_base(float maximum)
{
    return maximum == -INFINITY ? 0.0f : maximum;
}

/* ---- flash. HD is hd rounded up to what there are kernels for; columns between are zeros. */

template <int HD> struct flash {
    enum {
        LENGTH = HD + CHUNK, /* of a row in shared memory */
        TILES = HD / 8,      /* 8 columns wide */
        Q_ELEMENTS = ROWS * LENGTH,
        KEY_ELEMENTS = KEYS * LENGTH,
        SHARED_BYTES = (Q_ELEMENTS + 2 * KEY_ELEMENTS) * 2,
    };
};

/* A warp's running result. Rows are g and g + 8; lanes 4g .. 4g + 3 share them. */
template <int HD> struct flash_state {
    float o[flash<HD>::TILES][4];
    float maximum[2], sum[2]; /* sum: this lane's columns only */
};

/* The block's queries; rows that stand for none are zeros. */
template <int HD>
static __device__ void load_queries(__nv_bfloat16 *q, const __nv_bfloat16 *d_qkv,
                                    const struct shape &shape, const struct tile &tile,
                                    size_t key_head)
{
    for (uint32_t c = threadIdx.x; c < ROWS * (HD / CHUNK); c += THREADS) {
        const uint32_t r = c / (HD / CHUNK), column = c % (HD / CHUNK) * CHUNK;
        const uint32_t g = r / (uint32_t)shape.queries, i = r % (uint32_t)shape.queries;
        const bool valid = g < shape.group && i < tile.count && column < shape.hd;
        const size_t row = (tile.start + tile.position + i) * shape.stride;
        const size_t at = row + (key_head * shape.group + g) * shape.hd + column;
        copy_begin(q + r * flash<HD>::LENGTH + column, d_qkv + (valid ? at : 0), valid);
    }
}

/* Keys first .. first + KEYS - 1 of the sequence, or their values, zeros from `end` on; d_first: of
 * the sequence's first row. */
template <int HD>
static __device__ void load_keys(__nv_bfloat16 *to, const __nv_bfloat16 *d_first,
                                 const struct shape &shape, uint32_t first, uint32_t end)
{
    for (uint32_t c = threadIdx.x; c < KEYS * (HD / CHUNK); c += THREADS) {
        const uint32_t j = c / (HD / CHUNK), column = c % (HD / CHUNK) * CHUNK;
        const bool valid = first + j < end && column < shape.hd;
        copy_begin(to + j * flash<HD>::LENGTH + column,
                   d_first + (valid ? (first + j) * shape.stride + column : 0), valid);
    }
}

/* s[n] = the warp's rows times keys 8n .. 8n + 7. q: the warp's first row. */
template <int HD>
static __device__ __forceinline__ void flash_scores(float (&s)[KEYS / 8][4], const __nv_bfloat16 *q,
                                                    const __nv_bfloat16 *k)
{
    const uint32_t lane = threadIdx.x % WARP;
    q += lane % 16 * flash<HD>::LENGTH + lane / 16 * 8;
    k += (lane / 16 * 8 + lane % 8) * flash<HD>::LENGTH + lane / 8 % 2 * 8;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
#pragma unroll 4
    for (int depth = 0; depth < HD; depth += 16) {
        uint32_t a[4], b[4];
        load_matrices(a, q + depth);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
            load_matrices(b, k + n * 8 * flash<HD>::LENGTH + depth);
            const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            mma_bf16_m16n8k16(s[n], a, left, s[n]);
            mma_bf16_m16n8k16(s[n + 1], a, right, s[n + 1]);
        }
    }
}

/* Products of queries and keys to scores in units of log2 e. */
static __device__ __forceinline__ void flash_cap(float (&s)[KEYS / 8][4], float scale, float cap)
{
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] *= scale;
    if (cap <= 0)
        return;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = cap * tanhf(s[n][e]);
}

/* -INFINITY where a row does not see the key. position[i]: of row g + 8i. */
static __device__ __forceinline__ void
flash_mask(float (&s)[KEYS / 8][4], const uint32_t (&position)[2], uint32_t first, uint32_t window)
{
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const uint32_t key = first + n * 8 + 2 * t + e % 2, query = position[e / 2];
            if (key > query || query - key >= window)
                s[n][e] = -INFINITY;
        }
    }
}

/* Scores to weights, and what is there so far to their common base. */
template <int HD>
static __device__ __forceinline__ void flash_softmax(struct flash_state<HD> &state,
                                                     float (&s)[KEYS / 8][4])
{
    float correction[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float largest = state.maximum[i];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
            largest = fmaxf(largest, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        const float base = finite_base(largest);
        correction[i] = exp2f(state.maximum[i] - base);
        state.maximum[i] = largest;
        state.sum[i] *= correction[i];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int e = 2 * i; e < 2 * i + 2; e++) {
                s[n][e] = to_f32(from_f32<__nv_bfloat16>(exp2f(s[n][e] - base)));
                state.sum[i] += s[n][e];
            }
        }
    }
    if (!__any_sync(0xffffffffu, correction[0] != 1.0f || correction[1] != 1.0f))
        return;
#pragma unroll
    for (int n = 0; n < flash<HD>::TILES; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            state.o[n][e] *= correction[e / 2];
}

/* o += weights times values. */
template <int HD>
static __device__ __forceinline__ void
flash_add(struct flash_state<HD> &state, const float (&p)[KEYS / 8][4], const __nv_bfloat16 *v)
{
    const uint32_t lane = threadIdx.x % WARP;
    v += lane % 16 * flash<HD>::LENGTH + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
        const uint32_t a[4] = {mma_pair(p[n][0], p[n][1]), mma_pair(p[n][2], p[n][3]),
                               mma_pair(p[n + 1][0], p[n + 1][1]),
                               mma_pair(p[n + 1][2], p[n + 1][3])};
#pragma unroll
        for (int column = 0; column < flash<HD>::TILES; column += 2) {
            uint32_t b[4];
            load_matrices_transposed(b, v + n * 8 * flash<HD>::LENGTH + column * 8);
            const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
            mma_bf16_m16n8k16(state.o[column], a, left, state.o[column]);
            mma_bf16_m16n8k16(state.o[column + 1], a, right, state.o[column + 1]);
        }
    }
}

template <int HD>
static __device__ __forceinline__ void
flash_store(__nv_bfloat16 *d_out, const struct flash_state<HD> &state, const struct shape &shape,
            const struct tile &tile, size_t key_head)
{
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sum = state.sum[i];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const float inverse = 1.0f / sum;
        const uint32_t r = threadIdx.x / WARP * 16 + lane / 4 + i * 8;
        const uint32_t g = r / (uint32_t)shape.queries, query = r % (uint32_t)shape.queries;
        if (g >= shape.group || query >= tile.count)
            continue;
        const size_t row = tile.start + tile.position + query;
        __nv_bfloat16 *out = d_out + (row * shape.heads + key_head * shape.group + g) * shape.hd;
#pragma unroll
        for (int n = 0; n < flash<HD>::TILES; n++) {
            const uint32_t column = n * 8 + lane % 4 * 2;
            const uint32_t pair =
                mma_pair(state.o[n][2 * i] * inverse, state.o[n][2 * i + 1] * inverse);
            if (column < shape.hd)
                *reinterpret_cast<uint32_t *>(out + column) = pair;
        }
    }
}

template <int HD>
static __global__ void __launch_bounds__(THREADS, HD <= 128 ? 2 : 1)
    flash_kernel(__nv_bfloat16 *__restrict__ d_out, const __nv_bfloat16 *__restrict__ d_qkv,
                 const __grid_constant__ struct shape shape,
                 const __grid_constant__ struct span_list list)
{
    DYNAMIC_SHARED(__nv_bfloat16, q);
    __nv_bfloat16 *const k = q + flash<HD>::Q_ELEMENTS, *const v = k + flash<HD>::KEY_ELEMENTS;
    const struct tile tile = find_tile(list, shape.queries, blockIdx.x);
    const size_t key_head = blockIdx.y;
    const __nv_bfloat16 *const d_keys =
        d_qkv + tile.start * shape.stride + (shape.heads + key_head) * shape.hd;
    const __nv_bfloat16 *const d_values = d_keys + shape.key_heads * shape.hd;
    const uint32_t warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4;
    const uint32_t end = tile.position + tile.count, queries = (uint32_t)shape.queries;
    const uint32_t position[2] = {tile.position + (warp * 16 + g) % queries,
                                  tile.position + (warp * 16 + g + 8) % queries};
    struct flash_state<HD> state = {
        {}, {-INFINITY, -INFINITY},
        {
            0, 0
        }
    };
    uint32_t first = lowest_key(tile.position, shape.window) / KEYS * KEYS;
    load_queries<HD>(q, d_qkv, shape, tile, key_head);
    load_keys<HD>(k, d_keys, shape, first, end);
    for (; first < end; first += KEYS) {
        copy_wait();
        __syncthreads(); /* the keys are there; the last values are used */
        load_keys<HD>(v, d_values, shape, first, end);
        float s[KEYS / 8][4];
        flash_scores<HD>(s, q + warp * 16 * flash<HD>::LENGTH, k);
        copy_wait();
        __syncthreads(); /* the values are there; the keys are used */
        if (first + KEYS < end)
            load_keys<HD>(k, d_keys, shape, first + KEYS, end);
        const bool all_visible =
            first + KEYS - 1 <= tile.position && tile.position + queries - 1 - first < shape.window;
        flash_cap(s, shape.scale, shape.cap);
        if (!all_visible)
            flash_mask(s, position, first, shape.window);
        flash_softmax<HD>(state, s);
        flash_add<HD>(state, s, v);
    }
    flash_store<HD>(d_out, state, shape, tile, key_head);
}

/* ---- plain */

/* Shared memory of a warp: its query (hd), its result (hd), the weights of 32 keys. */
template <class T>
static __global__ void __launch_bounds__(PLAIN_THREADS)
    plain_kernel(T *__restrict__ d_out, const T *__restrict__ d_qkv,
                 const __grid_constant__ struct shape shape,
                 const __grid_constant__ struct span_list list)
{
    DYNAMIC_SHARED(float, shared);
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const size_t head = (size_t)blockIdx.y * PLAIN_WARPS + warp, hd = shape.hd;
    if (head >= shape.heads)
        return;
    float *const q = shared + warp * (2 * hd + WARP), *const o = q + hd, *const weights = o + hd;
    const struct tile tile = find_tile(list, 1, blockIdx.x);
    const size_t row = tile.start + tile.position;
    const T *const keys = d_qkv + (shape.heads + head / shape.group) * hd;
    for (size_t i = lane; i < hd; i += WARP) {
        q[i] = shape.scale * to_f32(d_qkv[row * shape.stride + head * hd + i]);
        o[i] = 0;
    }
    float maximum = -INFINITY, sum = 0; /* sum: of this lane's keys */
    for (uint32_t first = lowest_key(tile.position, shape.window); first <= tile.position;
         first += WARP) {
        const uint32_t left = tile.position - first + 1, count = left < 32 ? left : 32;
        const T *const k = keys + (tile.start + first) * shape.stride;
        const T *const v = k + shape.key_heads * hd;
        __syncwarp(); /* the query is there, the last weights are used */
        float score = 0;
        for (size_t i = 0; lane < count && i < hd; i++)
            score += q[i] * to_f32(k[lane * shape.stride + i]);
        if (shape.cap > 0)
            score = shape.cap * tanhf(score);
        float largest = warp_reduce(lane < count ? score : -INFINITY,
                                    [](float a, float b) { return fmaxf(a, b); });
        largest = fmaxf(largest, maximum);
        const float weight = lane < count ? expf(score - finite_base(largest)) : 0.0f;
        const float correction = expf(maximum - finite_base(largest));
        maximum = largest;
        sum = sum * correction + weight;
        weights[lane] = weight;
        __syncwarp();
        for (size_t i = lane; i < hd; i += WARP) {
            float value = o[i] * correction;
            for (uint32_t j = 0; j < count; j++)
                value += weights[j] * to_f32(v[j * shape.stride + i]);
            o[i] = value;
        }
    }
    sum = warp_reduce(sum, [](float a, float b) { return a + b; });
    for (size_t i = lane; i < hd; i += WARP)
        d_out[(row * shape.heads + head) * hd + i] = from_f32<T>(o[i] / sum);
}

/* ---- launch */

/* Takes spans from *next on until the list is full. */
static void fill_list(struct span_list *list, size_t *next, const struct kernels_span *spans,
                      size_t span_count, size_t queries)
{
    list->count = list->tiles = 0;
    for (; *next < span_count && list->count < MOST_SPANS; (*next)++) {
        list->spans[list->count] = spans[*next];
        list->tiles_before[list->count++] = list->tiles;
        list->tiles += (uint32_t)chunk_count(spans[*next].length, queries);
    }
}

template <int HD>
static void launch_flash(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                         const struct shape &shape, const struct span_list &list)
{
    LAUNCH(queue, flash_kernel<HD>, dim3(list.tiles, (unsigned)shape.key_heads), THREADS,
           flash<HD>::SHARED_BYTES, static_cast<__nv_bfloat16 *>(d_out),
           static_cast<const __nv_bfloat16 *>(d_qkv), shape, list);
}

static size_t flash_shared_bytes(size_t hd)
{
    if (hd <= 64)
        return flash<64>::SHARED_BYTES;
    return hd <= 128 ? (size_t)flash<128>::SHARED_BYTES : (size_t)flash<256>::SHARED_BYTES;
}

static void launch_plain(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                         const struct shape &shape, const struct span_list &list)
{
    size_t shared_bytes = PLAIN_WARPS * (2 * shape.hd + WARP) * sizeof(float);
    dim3 grid(list.tiles, (unsigned)chunk_count(shape.heads, PLAIN_WARPS));
    BY_TYPE(queue->device->type, T,
            LAUNCH(queue, plain_kernel<T>, grid, PLAIN_THREADS, shared_bytes,
                   static_cast<T *>(d_out), static_cast<const T *>(d_qkv), shape, list));
}

static struct shape make_shape(const struct kernels_attention *attention, bool is_flash)
{
    struct shape shape;
    shape.hd = attention->head_dim;
    shape.stride = ((size_t)attention->heads + 2 * attention->key_heads) * shape.hd;
    shape.heads = attention->heads;
    shape.key_heads = attention->key_heads;
    shape.group = shape.heads / shape.key_heads;
    shape.queries = is_flash ? ROWS / shape.group : 1;
    shape.window = attention->window == 0 ? UINT32_MAX : attention->window;
    double unit = is_flash ? LOG2_E : 1, cap = (double)attention->cap;
    shape.scale = (float)((double)attention->scale * (cap > 0 ? 1 / cap : unit));
    shape.cap = (float)(cap * unit);
    return shape;
}

void cuda_attention(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                    const struct kernels_attention *attention, const struct kernels_span *spans,
                    size_t span_count)
{
    assert(attention->heads % attention->key_heads == 0);
    const size_t hd = attention->head_dim;
    const bool is_flash = queue->device->type == DTYPE_BF16 && hd % CHUNK == 0 &&
                          hd <= FLASH_HEAD_MOST &&
                          attention->heads / attention->key_heads <= ROWS &&
                          flash_shared_bytes(hd) <= queue->device->shared_most;
    const struct shape shape = make_shape(attention, is_flash);
    struct span_list list;
    for (size_t next = 0; next < span_count;) {
        fill_list(&list, &next, spans, span_count, shape.queries);
        if (!is_flash)
            launch_plain(queue, d_out, d_qkv, shape, list);
        else if (hd <= 64)
            launch_flash<64>(queue, d_out, d_qkv, shape, list);
        else if (hd <= 128)
            launch_flash<128>(queue, d_out, d_qkv, shape, list);
        else
            launch_flash<256>(queue, d_out, d_qkv, shape, list);
    }
}
