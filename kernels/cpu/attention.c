/* attention.c - causal attention with a soft cap, a sliding window and grouped heads.
 *
 * A task is one tile of queries of one sequence for one key head, with all query heads that share
 * that key head: the rows of the tile are (head in group, query). It streams over the visible keys
 * in tiles of KEYS, keeping the running maximum and sum of each row (online softmax), so that
 * memory is a few tiles a thread, whatever the length.
 *
 *   S (KEYS, rows) = K Qᵀ                 scores, transposed; Q scaled beforehand
 *   P = exp(cap tanh(S / cap) - max)      invisible keys exactly 0
 *   O (rows, hd) = O * correction + Pᵀ V
 *
 * Scores are transposed so that a row of the tile is a lane: maximum and sum of a row need no
 * reduction across lanes, and what must be packed across the grain, Q, is packed once a task and
 * not once a tile of keys. Both products go through one micro-kernel of BLOCK by PANEL results held
 * in registers, in f32 whatever T is, and skip what no row of the block sees.
 *
 * Tiles begin at the sequence's first row, so what is computed for a sequence does not depend on
 * where it stands or beside what. Tasks are taken from a shared counter, the longest first; each
 * writes only its own rows of the output.
 *
 * Limit: 4 heads head_dim flops for each visible (query, key), beside 1 exp and 1 tanh.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

#include <float.h>
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
    GRAIN = 32, /* rows are rounded up to it: a multiple of PANEL and BLOCK */
};

typedef float lanes __attribute__((vector_size(4 * LANES)));

/* A thread's tiles. */
struct tiles {
    float *q;           /* (rows / PANEL, hd, PANEL) */
    float *o;           /* (rows, hd_padded) */
    float *s;           /* (KEYS, rows) */
    float *k;           /* (KEYS, hd) */
    float *v;           /* (KEYS, hd_padded) */
    float *maximum;     /* (rows) */
    float *sum;         /* (rows) */
    float *correction;  /* (rows), of O since the last tile */
    int32_t *from, *to; /* (rows): the keys of the tile that each sees, from >= to: none */
};

struct shape {
    size_t hd, hd_padded;
    size_t group;   /* query heads of a key head */
    size_t queries; /* in a tile */
    size_t rows;    /* group * queries, rounded up */
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
    shape.rows = round_up(shape.group * shape.queries, GRAIN);
    shape.stride = (shape.heads + 2 * shape.key_heads) * shape.hd;
    return shape;
}

static size_t tiles_floats(const struct shape *shape)
{
    return shape->rows * (shape->hd + shape->hd_padded + KEYS + 5) +
           KEYS * (shape->hd + shape->hd_padded);
}

static struct tiles place_tiles(float *memory, const struct shape *shape)
{
    struct tiles tiles;
    tiles.q = memory;
    tiles.o = tiles.q + shape->rows * shape->hd;
    tiles.s = tiles.o + shape->rows * shape->hd_padded;
    tiles.k = tiles.s + shape->rows * KEYS;
    tiles.v = tiles.k + KEYS * shape->hd;
    tiles.maximum = tiles.v + KEYS * shape->hd_padded;
    tiles.sum = tiles.maximum + shape->rows;
    tiles.correction = tiles.sum + shape->rows;
    tiles.from = (int32_t *)(tiles.correction + shape->rows);
    tiles.to = tiles.from + shape->rows;
    return tiles;
}

/* c (BLOCK, PANEL) = a (BLOCK, depth) b (depth, PANEL), added to c if `add`; a (r, i) is at
 * r * a_stride + i * a_step. */
static inline __attribute__((always_inline)) void
multiply_block(float *restrict c, size_t c_stride, const float *restrict a, size_t a_stride,
               size_t a_step, const float *restrict b, size_t b_stride, size_t depth, bool add)
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
        memcpy(&left, b + i * b_stride, sizeof left);
        memcpy(&right, b + i * b_stride + LANES, sizeof right);
#pragma GCC unroll 8
        for (int r = 0; r < BLOCK; r++) {
            float value = a[(size_t)r * a_stride + i * a_step];
            sum[r][0] += value * left;
            sum[r][1] += value * right;
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
            size_t head = task->key_head * shape->group + g, r = g * shape->queries + i;
            size_t at = (task->start + task->position + i) * shape->stride + head * shape->hd;
            float tile[TILE];
            const float *from = tile_in(tile, d_qkv, shape->type, at, shape->hd);
            float *to = tiles->q + r / PANEL * shape->hd * PANEL + r % PANEL;
            for (size_t d = 0; d < shape->hd; d++)
                to[d * PANEL] = shape->scale * from[d];
        }
    }
    memset(tiles->o, 0, shape->rows * shape->hd_padded * sizeof *tiles->o);
    for (size_t r = 0; r < shape->rows; r++) {
        tiles->maximum[r] = -FLT_MAX; /* finite, so that its difference from itself is 0 */
        tiles->sum[r] = 0;
    }
}

/* Keys and values `first` .. `first + count - 1` of the sequence, 0 behind them. */
static void load_keys(struct tiles *tiles, const struct shape *shape, const struct task *task,
                      const void *d_qkv, size_t first, size_t count)
{
    size_t hd = shape->hd, padded = shape->hd_padded;
    for (size_t j = 0; j < count; j++) {
        size_t row = (task->start + first + j) * shape->stride;
        size_t at = row + (shape->heads + task->key_head) * hd;
        tile_from_stored(tiles->k + j * hd, element_const(d_qkv, shape->type, at), shape->type, hd);
        at += shape->key_heads * hd;
        float *v = tiles->v + j * padded;
        tile_from_stored(v, element_const(d_qkv, shape->type, at), shape->type, hd);
        memset(v + hd, 0, (padded - hd) * sizeof *v);
    }
    memset(tiles->k + count * hd, 0, (KEYS - count) * hd * sizeof *tiles->k);
    memset(tiles->v + count * padded, 0, (KEYS - count) * padded * sizeof *tiles->v);
}

/* The keys of the tile at `first` that each row sees. */
static void find_visible(struct tiles *tiles, const struct shape *shape, const struct task *task,
                         size_t first)
{
    for (size_t r = 0; r < shape->rows; r++) {
        size_t i = r % shape->queries, position = task->position + i;
        size_t lowest = position >= shape->window ? position - shape->window + 1 : 0;
        bool used = r < shape->group * shape->queries && i < task->count && position >= first;
        tiles->from[r] = lowest > first ? (int32_t)size_min(lowest - first, KEYS) : 0;
        tiles->to[r] = used ? (int32_t)size_min(position - first + 1, KEYS) : 0;
    }
}

/* The keys that any of `count` rows sees; none: from = KEYS, to = 0. */
static void range_of_rows(size_t *from, size_t *to, const struct tiles *tiles, size_t row,
                          size_t count)
{
    *from = KEYS;
    *to = 0;
    for (size_t r = row; r < row + count; r++) {
        if (tiles->from[r] >= tiles->to[r])
            continue;
        *from = size_min(*from, (size_t)tiles->from[r]);
        *to = *to > (size_t)tiles->to[r] ? *to : (size_t)tiles->to[r];
    }
}

/* Scores of keys [from, to) and PANEL rows into weights, 0 where a row does not see the key; the
 * rows' maxima and sums go on, and `correction` is what O must be multiplied by. */
static void softmax_panel(struct tiles *tiles, const struct shape *shape, size_t row, size_t from,
                          size_t to)
{
    float *restrict maximum = tiles->maximum + row, *restrict sum = tiles->sum + row;
    float *restrict correction = tiles->correction + row;
    const int32_t *restrict first = tiles->from + row, *restrict end = tiles->to + row;
    float largest[PANEL];
    const float cap = shape->cap, inverse = cap > 0 ? 1.0f / cap : 0;
    memcpy(largest, maximum, sizeof largest);
    for (size_t j = from; j < to; j++) {
        float *restrict s = tiles->s + j * shape->rows + row;
        int32_t key = (int32_t)j;
        if (cap > 0) {
#pragma omp simd
            for (size_t r = 0; r < PANEL; r++)
                s[r] = cap * vmath_tanh(s[r] * inverse);
        }
#pragma omp simd
        for (size_t r = 0; r < PANEL; r++) {
            float seen = key >= first[r] && key < end[r] ? s[r] : -FLT_MAX;
            largest[r] = seen > largest[r] ? seen : largest[r];
        }
    }
#pragma omp simd
    for (size_t r = 0; r < PANEL; r++) {
        correction[r] = vmath_exp(maximum[r] - largest[r]);
        sum[r] *= correction[r];
        maximum[r] = largest[r];
    }
    for (size_t j = from; j < to; j++) {
        float *restrict s = tiles->s + j * shape->rows + row;
        int32_t key = (int32_t)j;
#pragma omp simd
        for (size_t r = 0; r < PANEL; r++) {
            float p = vmath_exp(s[r] - largest[r]);
            p = key >= first[r] && key < end[r] ? p : 0.0f;
            s[r] = p;
            sum[r] += p;
        }
    }
}

/* Weights of PANEL rows for the loaded keys. */
static void weigh_panel(struct tiles *tiles, const struct shape *shape, size_t row)
{
    size_t from, to;
    range_of_rows(&from, &to, tiles, row, PANEL);
    if (from >= to)
        return;
    for (size_t j = from / BLOCK * BLOCK; j < to; j += BLOCK)
        multiply_block(tiles->s + j * shape->rows + row, shape->rows, tiles->k + j * shape->hd,
                       shape->hd, 1, tiles->q + row * shape->hd, PANEL, shape->hd, false);
    softmax_panel(tiles, shape, row, from, to);
}

/* BLOCK rows of O go on by the loaded values. */
static void add_values(struct tiles *tiles, const struct shape *shape, size_t row)
{
    size_t from, to;
    range_of_rows(&from, &to, tiles, row, BLOCK);
    if (from >= to)
        return;
    for (size_t r = row; r < row + BLOCK; r++) {
        float *o = tiles->o + r * shape->hd_padded, correction = tiles->correction[r];
        if (correction == 1.0f)
            continue;
#pragma omp simd
        for (size_t d = 0; d < shape->hd_padded; d++)
            o[d] *= correction;
    }
    for (size_t d = 0; d < shape->hd_padded; d += PANEL)
        multiply_block(tiles->o + row * shape->hd_padded + d, shape->hd_padded,
                       tiles->s + from * shape->rows + row, 1, shape->rows,
                       tiles->v + from * shape->hd_padded + d, shape->hd_padded, to - from, true);
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
        find_visible(tiles, shape, task, first);
        for (size_t row = 0; row < shape->rows; row += PANEL)
            weigh_panel(tiles, shape, row);
        for (size_t row = 0; row < shape->rows; row += BLOCK)
            add_values(tiles, shape, row);
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
