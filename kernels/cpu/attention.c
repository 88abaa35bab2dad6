/* attention.c - causal attention with a soft cap, a sliding window and grouped heads.
 *
 * A task is one tile of queries of one sequence for one key head, with all query heads that share
 * that key head: the rows of the tile are (head in group, query). It streams over the visible keys
 * in tiles of KEYS, keeping the running maximum and sum of each row (online softmax), so that
 * memory is a few tiles a thread, whatever the length.
 *
 *   S (rows, KEYS) = Q (rows, hd) Kᵀ      scores, Q scaled beforehand
 *   P = exp(cap tanh(S / cap) - max)      invisible keys exactly 0
 *   O (rows, hd) = O * correction + P V
 *
 * Both products go through one micro-kernel of BLOCK rows by PANEL columns held in registers; Kᵀ
 * and V are packed in panels of PANEL columns when their tile is read, in f32 whatever T is. A
 * block of rows skips the panels and keys that none of its rows sees.
 *
 * Tiles begin at the sequence's first row, so what is computed for a sequence does not depend on
 * where it stands or beside what. Tasks are taken from a shared counter, the longest first; each
 * writes only its own rows of the output.
 *
 * Limit: 4 heads head_dim flops for each visible (query, key), beside 1 exp and 1 tanh.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

#include <math.h>

#if defined(__AVX512F__)
enum { LANES = 16, BLOCK = 8 };
#elif defined(__AVX2__)
enum { LANES = 8, BLOCK = 4 };
#else
enum { LANES = 4, BLOCK = 4 };
#endif
enum {
    PANEL = 2 * LANES,
    KEYS = 64,
    ROWS = 128, /* rows of a tile, at least one query of each head in the group */
};

typedef float lanes __attribute__((vector_size(4 * LANES)));

/* A thread's tiles; sizes in floats are multiples of 16. */
struct tiles {
    float *q;       /* (rows, hd) */
    float *o;       /* (rows, hd_padded) */
    float *s;       /* (rows, KEYS) */
    float *k;       /* (KEYS / PANEL, hd, PANEL) */
    float *v;       /* (hd_padded / PANEL, KEYS, PANEL) */
    float *maximum; /* (rows) */
    float *sum;     /* (rows) */
};

struct shape {
    size_t hd, hd_padded;
    size_t group;   /* query heads of a key head */
    size_t queries; /* in a tile */
    size_t rows;    /* group * queries, rounded up to whole blocks */
    size_t stride;  /* of the matrix of q | k | v */
    size_t heads, key_heads;
    float scale, cap;
    size_t window; /* SIZE_MAX: none */
    enum dtype type;
};

/* One tile of queries: rows first .. first + count - 1 of the matrix, at `position` in the sequence
 * that begins at row `start`. */
struct task {
    size_t start, position, count, key_head;
};

static size_t round_up(size_t n, size_t step)
{
    return (n + step - 1) / step * step;
}

static struct shape make_shape(const struct kernels_attention *attention, enum dtype type)
{
    struct shape shape = {.hd = attention->head_dim,
                          .hd_padded = round_up(attention->head_dim, PANEL),
                          .group = attention->heads / attention->key_heads,
                          .heads = attention->heads,
                          .key_heads = attention->key_heads,
                          .scale = attention->scale,
                          .cap = attention->cap,
                          .window = attention->window == 0 ? SIZE_MAX : attention->window,
                          .type = type};
    shape.queries = shape.group < ROWS ? ROWS / shape.group : 1;
    shape.rows = round_up(shape.group * shape.queries, BLOCK);
    shape.stride = (shape.heads + 2 * shape.key_heads) * shape.hd;
    return shape;
}

static size_t tiles_floats(const struct shape *shape)
{
    size_t rows = round_up(shape->rows, 16);
    return round_up(rows * shape->hd, 16) + rows * shape->hd_padded + rows * KEYS +
           round_up(KEYS * shape->hd, 16) + KEYS * shape->hd_padded + 2 * rows;
}

static struct tiles place_tiles(float *memory, const struct shape *shape)
{
    size_t rows = round_up(shape->rows, 16);
    struct tiles tiles;
    tiles.q = memory;
    tiles.o = tiles.q + round_up(rows * shape->hd, 16);
    tiles.s = tiles.o + rows * shape->hd_padded;
    tiles.k = tiles.s + rows * KEYS;
    tiles.v = tiles.k + round_up(KEYS * shape->hd, 16);
    tiles.maximum = tiles.v + KEYS * shape->hd_padded;
    tiles.sum = tiles.maximum + rows;
    return tiles;
}

/* c (BLOCK, PANEL) = a (BLOCK, depth) b (depth, PANEL), added to c if `add`. */
static inline __attribute__((always_inline)) void
multiply_block(float *restrict c, size_t c_stride, const float *restrict a, size_t a_stride,
               const float *restrict b, size_t depth, bool add)
{
    lanes sum[BLOCK][2];
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK; r++) {
        memset(sum[r], 0, sizeof sum[r]);
        if (add)
            memcpy(sum[r], c + (size_t)r * c_stride, sizeof sum[r]);
    }
    for (size_t i = 0; i < depth; i++) {
        lanes left, right;
        memcpy(&left, b + i * PANEL, sizeof left);
        memcpy(&right, b + i * PANEL + LANES, sizeof right);
#pragma GCC unroll 8
        for (int r = 0; r < BLOCK; r++) {
            sum[r][0] += a[(size_t)r * a_stride + i] * left;
            sum[r][1] += a[(size_t)r * a_stride + i] * right;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < BLOCK; r++)
        memcpy(c + (size_t)r * c_stride, sum[r], sizeof sum[r]);
}

/* The queries of a task, scaled; rows that stand for none are 0. */
static void load_queries(struct tiles *tiles, const struct shape *shape, const struct task *task,
                         const void *d_qkv)
{
    memset(tiles->q, 0, shape->rows * shape->hd * sizeof *tiles->q);
    for (size_t g = 0; g < shape->group; g++) {
        for (size_t i = 0; i < task->count; i++) {
            size_t head = task->key_head * shape->group + g;
            size_t at = (task->start + task->position + i) * shape->stride + head * shape->hd;
            float tile[TILE];
            const float *from = tile_in(tile, d_qkv, shape->type, at, shape->hd);
            float *to = tiles->q + (g * shape->queries + i) * shape->hd;
            for (size_t d = 0; d < shape->hd; d++)
                to[d] = shape->scale * from[d];
        }
    }
    memset(tiles->o, 0, shape->rows * shape->hd_padded * sizeof *tiles->o);
    for (size_t r = 0; r < shape->rows; r++) {
        tiles->maximum[r] = -INFINITY;
        tiles->sum[r] = 0;
    }
}

/* Keys and values `first` .. `first + count - 1` of the sequence into panels, 0 behind them. */
static void load_keys(struct tiles *tiles, const struct shape *shape, const struct task *task,
                      const void *d_qkv, size_t first, size_t count)
{
    size_t hd = shape->hd;
    float tile[TILE];
    for (size_t j = 0; j < KEYS; j++) {
        size_t row = (task->start + first + j) * shape->stride;
        size_t at = row + (shape->heads + task->key_head) * hd;
        float *k = tiles->k + j / PANEL * hd * PANEL + j % PANEL;
        if (j < count) {
            const float *from = tile_in(tile, d_qkv, shape->type, at, hd);
            for (size_t d = 0; d < hd; d++)
                k[d * PANEL] = from[d];
            from = tile_in(tile, d_qkv, shape->type, at + shape->key_heads * hd, hd);
            for (size_t d = 0; d < hd; d++)
                tiles->v[(d / PANEL * KEYS + j) * PANEL + d % PANEL] = from[d];
        } else {
            for (size_t d = 0; d < hd; d++)
                k[d * PANEL] = 0;
        }
        for (size_t d = j < count ? hd : 0; d < shape->hd_padded; d++)
            tiles->v[(d / PANEL * KEYS + j) * PANEL + d % PANEL] = 0;
    }
}

/* The keys of the tile at `first` that the query at `position` sees: [*from, *to). */
static void visible(size_t *from, size_t *to, const struct shape *shape, size_t position,
                    size_t first)
{
    size_t lowest = position >= shape->window ? position - shape->window + 1 : 0;
    *from = lowest > first ? size_min(lowest - first, KEYS) : 0;
    *to = position < first ? 0 : size_min(position - first + 1, KEYS);
}

/* One row of scores into weights; *maximum and *sum go on, and the row of O is corrected. */
static void softmax_row(float *s, float *o, float *maximum, float *sum, const struct shape *shape,
                        size_t from, size_t to)
{
    float largest = *maximum;
    if (shape->cap > 0) {
        float inverse = 1.0f / shape->cap;
#pragma omp simd
        for (size_t j = 0; j < KEYS; j++)
            s[j] = shape->cap * vmath_tanh(s[j] * inverse);
    }
    for (size_t j = from; j < to; j++)
        largest = s[j] > largest ? s[j] : largest;
    float total = 0;
#pragma omp simd reduction(+ : total)
    for (size_t j = 0; j < KEYS; j++) {
        float p = vmath_exp(s[j] - largest);
        p = j >= from && j < to ? p : 0.0f;
        s[j] = p;
        total += p;
    }
    float correction = vmath_exp(*maximum - largest);
    *sum = *sum * correction + total;
    *maximum = largest;
    if (correction == 1.0f)
        return;
#pragma omp simd
    for (size_t d = 0; d < shape->hd_padded; d++)
        o[d] *= correction;
}

/* One block of rows against the loaded keys. */
static void attend_block(struct tiles *tiles, const struct shape *shape, const struct task *task,
                         size_t block, size_t first)
{
    size_t from = KEYS, to = 0, row_from[BLOCK], row_to[BLOCK];
    for (size_t r = 0; r < BLOCK; r++) {
        size_t i = (block + r) % shape->queries;
        row_from[r] = row_to[r] = 0;
        if (block + r < shape->group * shape->queries && i < task->count)
            visible(&row_from[r], &row_to[r], shape, task->position + i, first);
        if (row_from[r] < row_to[r]) {
            from = size_min(from, row_from[r]);
            to = row_to[r] > to ? row_to[r] : to;
        }
    }
    if (from >= to)
        return;
    float *s = tiles->s + block * KEYS;
    for (size_t j = from / PANEL * PANEL; j < to; j += PANEL)
        multiply_block(s + j, KEYS, tiles->q + block * shape->hd, shape->hd,
                       tiles->k + j * shape->hd, shape->hd, false);
    for (size_t r = 0; r < BLOCK; r++) {
        if (row_from[r] < row_to[r])
            softmax_row(s + r * KEYS, tiles->o + (block + r) * shape->hd_padded,
                        tiles->maximum + block + r, tiles->sum + block + r, shape, row_from[r],
                        row_to[r]);
        else
            memset(s + r * KEYS, 0, KEYS * sizeof *s);
    }
    for (size_t d = 0; d < shape->hd_padded; d += PANEL)
        multiply_block(tiles->o + block * shape->hd_padded + d, shape->hd_padded, s + from, KEYS,
                       tiles->v + (d / PANEL * KEYS + from) * PANEL, to - from, true);
}

static void store_rows(const struct tiles *tiles, const struct shape *shape,
                       const struct task *task, void *d_out)
{
    for (size_t g = 0; g < shape->group; g++) {
        for (size_t i = 0; i < task->count; i++) {
            float tile[TILE];
            size_t head = task->key_head * shape->group + g, r = g * shape->queries + i;
            size_t row = task->start + task->position + i;
            size_t at = (row * shape->heads + head) * shape->hd;
            float *out = tile_out(tile, d_out, shape->type, at);
            const float *o = tiles->o + r * shape->hd_padded;
            float inverse = 1.0f / tiles->sum[r];
            for (size_t d = 0; d < shape->hd; d++)
                out[d] = o[d] * inverse;
            tile_done(out, d_out, shape->type, at, shape->hd);
        }
    }
}

static void attend(struct tiles *tiles, const struct shape *shape, const struct task *task,
                   void *d_out, const void *d_qkv)
{
    load_queries(tiles, shape, task, d_qkv);
    size_t lowest = task->position >= shape->window ? task->position - shape->window + 1 : 0;
    size_t end = task->position + task->count;
    for (size_t first = lowest / KEYS * KEYS; first < end; first += KEYS) {
        load_keys(tiles, shape, task, d_qkv, first, size_min(KEYS, end - first));
        for (size_t block = 0; block < shape->rows; block += BLOCK)
            attend_block(tiles, shape, task, block, first);
    }
    store_rows(tiles, shape, task, d_out);
}

/* Task `number` counted from *base, the number of the first task of span *span: moves both on to
 * the span that has it. Numbers only rise, so a thread walks the spans once. */
static bool find_task(struct task *task, size_t *span, size_t *base, size_t number,
                      const struct shape *shape, const struct kernels_span *spans,
                      size_t span_count)
{
    for (; *span < span_count; (*span)++) {
        size_t length = spans[*span].length;
        size_t query_tiles = chunk_count(length, shape->queries);
        size_t tasks = query_tiles * shape->key_heads;
        if (number - *base < tasks) {
            size_t in_span = number - *base;
            size_t tile = query_tiles - 1 - in_span / shape->key_heads;
            task->start = spans[*span].first;
            task->position = tile * shape->queries;
            task->count = size_min(shape->queries, length - task->position);
            task->key_head = in_span % shape->key_heads;
            return true;
        }
        *base += tasks;
    }
    return false;
}

void cpu_attention(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                   const struct kernels_attention *attention, const struct kernels_span *spans,
                   size_t span_count)
{
    struct shape shape = make_shape(attention, queue->device->type);
    assert(shape.hd <= TILE && attention->heads % attention->key_heads == 0);
    size_t floats = round_up(tiles_floats(&shape), 16), tokens = 0;
    for (size_t i = 0; i < span_count; i++)
        tokens += spans[i].length;
    int threads = device_threads(queue->device, tokens * shape.stride);
    float *memory = queue_workspace(queue, (size_t)threads * floats * sizeof *memory);
    if (memory == NULL)
        return;
    size_t next = 0;
#pragma omp parallel num_threads(threads)
    {
        struct tiles tiles = place_tiles(memory + (size_t)omp_get_thread_num() * floats, &shape);
        struct task task;
        size_t span = 0, base = 0, number;
#pragma omp atomic capture
        number = next++;
        while (find_task(&task, &span, &base, number, &shape, spans, span_count)) {
            attend(&tiles, &shape, &task, d_out, d_qkv);
#pragma omp atomic capture
            number = next++;
        }
    }
}
