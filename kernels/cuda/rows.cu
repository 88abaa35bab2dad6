/* rows.cu - rows of bytes, as a data plane hands them on: moved by index, and hashed.
 *
 * move_rows reads and writes each byte once: 2 rows row_bytes bytes. A warp takes a row, its lanes
 * neighbouring packs of 16 bytes, four of them in flight per lane; where a row's length is not a
 * multiple of 16 the packs are of 4 bytes, or of 1.
 *
 * hash_rows reads each byte once, 16 of the tag and row_bytes, and writes 16. It is XXH3-128 with
 * seed 0 and the default secret, written from the specification of xxHash (doc/xxhash_spec.md in
 * its repository), for lengths from 17 on; so it is the number that common/rowsum.h adds up. Above
 * 240 bytes the algorithm keeps eight sums of 64 bits, each over every eighth word. Eight lanes
 * take a row, one sum each: they read a stripe of 64 bytes together, and need each other's words
 * only because sum i gets the product of its own word and the plain word of i ^ 1. Plain words are
 * added up apart, and are exchanged once per block of 1024 bytes, where the sums are scrambled. A
 * lane's sixteen words of the secret stay in registers. A dozen instructions go with a word of 8
 * bytes, so memory is the limit. Up to 240 bytes one thread takes a row: no model has such rows.
 *
 * The stream is the tag, then the row; a word of it may lie across the two, so it is put together
 * from units that do not. Words are little-endian, as the device is. All lanes of a warp run the
 * same loops, since all rows have one length; those behind the last row do that one again.
 */
#include "kernels/cuda/cuda.h"

enum { THREADS = 256, TAG = 16, MOVE_UNROLL = 4 };

static __device__ __forceinline__ size_t row_at(const uint32_t *d_index, size_t i)
{
    return d_index != NULL ? d_index[i] : i;
}

/* ---- moving */

template <class U>
static __global__ void move_kernel(U *__restrict__ d_to, const uint32_t *__restrict__ d_to_index,
                                   const U *__restrict__ d_from,
                                   const uint32_t *__restrict__ d_from_index, size_t rows,
                                   size_t units)
{
    size_t warps = grid_threads() / WARP;
    for (size_t i = grid_thread() / WARP; i < rows; i += warps) {
        U *to = d_to + row_at(d_to_index, i) * units;
        const U *from = d_from + row_at(d_from_index, i) * units;
#pragma unroll MOVE_UNROLL
        for (size_t j = threadIdx.x % WARP; j < units; j += WARP)
            to[j] = from[j];
    }
}

/* statement with U = the unit of `bytes` (Wide, 4 bytes or 1) of which rows are whole numbers. */
#define BY_UNIT(bytes, Wide, U, ...)       \
    do {                                   \
        if ((bytes) % sizeof(Wide) == 0) { \
            using U = Wide;                \
            __VA_ARGS__;                   \
        } else if ((bytes) % 4 == 0) {     \
            using U = uint32_t;            \
            __VA_ARGS__;                   \
        } else {                           \
            using U = uint8_t;             \
            __VA_ARGS__;                   \
        }                                  \
    } while (0)

void cuda_move_rows(struct kernels_queue *queue, uint8_t *d_to, const uint32_t *d_to_index,
                    const uint8_t *d_from, const uint32_t *d_from_index, size_t rows,
                    size_t row_bytes)
{
    unsigned grid = grid_for(queue, rows * WARP, THREADS);
    BY_UNIT(row_bytes, uint4, U,
            LAUNCH(queue, move_kernel<U>, grid, THREADS, 0, reinterpret_cast<U *>(d_to), d_to_index,
                   reinterpret_cast<const U *>(d_from), d_from_index, rows, row_bytes / sizeof(U)));
}

/* ---- hashing: what all lengths share */

static constexpr uint64_t PRIME32_1 = 0x9e3779b1u, PRIME32_2 = 0x85ebca77u, PRIME32_3 = 0xc2b2ae3du,
                          PRIME64_1 = 0x9e3779b185ebca87u, PRIME64_2 = 0xc2b2ae3d27d4eb4fu,
                          PRIME64_3 = 0x165667b19e3779f9u, PRIME64_4 = 0x85ebca77c2b2ae63u,
                          PRIME64_5 = 0x27d4eb2f165667c5u, PRIME_MIX = 0x165667919e3779f9u;

enum { SECRET_BYTES = 192 };

/* The default secret. */
static __device__ const uint64_t secret_words[SECRET_BYTES / 8] = {
    0xbe4ba423396cfeb8u, 0x1cad21f72c81017cu, 0xdb979083e96dd4deu, 0x1f67b3b7a4a44072u,
    0x78e5c0cc4ee679cbu, 0x2172ffcc7dd05a82u, 0x8e2443f7744608b8u, 0x4c263a81e69035e0u,
    0xcb00c391bb52283cu, 0xa32e531b8b65d088u, 0x4ef90da297486471u, 0xd8acdea946ef1938u,
    0x3f349ce33f76faa8u, 0x1d4f0bc7c7bbdcf9u, 0x3159b4cd4be0518au, 0x647378d9c97e9fc8u,
    0xc3ebd33483acc5eau, 0xeb6313faffa081c5u, 0x49daf0b751dd0d17u, 0x9e68d429265516d3u,
    0xfca1477d58be162bu, 0xce31d07ad1b8f88fu, 0x280416958f3acb45u, 0x7e404bbbcafbd7afu,
};

/* The 8 bytes of the secret from `at` on. */
static __device__ __forceinline__ uint64_t secret_at(unsigned at)
{
    unsigned word = at / 8, shift = at % 8 * 8;
    return shift == 0 ? secret_words[word]
                      : secret_words[word] >> shift | secret_words[word + 1] << (64 - shift);
}

/* The 8 bytes of tag and row from `at` on, by units that both are made of. */
template <class U>
static __device__ __forceinline__ uint64_t stream_at(const uint8_t *tag, const uint8_t *row,
                                                     size_t at)
{
    uint64_t word = 0;
#pragma unroll
    for (unsigned i = 0; i < 8; i += (unsigned)sizeof(U)) {
        const uint8_t *from = at + i < TAG ? tag + at + i : row + (at + i - TAG);
        word |= (uint64_t) * reinterpret_cast<const U *>(from) << (8 * i);
    }
    return word;
}

/* The low and the high half of a * b, one over the other. */
static __device__ __forceinline__ uint64_t fold_product(uint64_t a, uint64_t b)
{
    return a * b ^ __umul64hi(a, b);
}

static __device__ __forceinline__ uint64_t avalanche(uint64_t hash)
{
    hash ^= hash >> 37;
    hash *= PRIME_MIX;
    return hash ^ hash >> 32;
}

/* ---- 17 to 240 bytes */

struct hash128 {
    uint64_t low, high;
};

/* One step: 16 bytes from `first` on and 16 from `second` on, with 32 of the secret. */
template <class U>
static __device__ void hash_mix(struct hash128 *sums, const uint8_t *tag, const uint8_t *row,
                                size_t first, size_t second, unsigned secret)
{
    uint64_t a = stream_at<U>(tag, row, first), b = stream_at<U>(tag, row, first + 8);
    uint64_t c = stream_at<U>(tag, row, second), d = stream_at<U>(tag, row, second + 8);
    sums->low += fold_product(a ^ secret_at(secret), b ^ secret_at(secret + 8));
    sums->low ^= c + d;
    sums->high += fold_product(c ^ secret_at(secret + 16), d ^ secret_at(secret + 24));
    sums->high ^= a + b;
}

/* Up to 128 bytes pairs of 16 go from both ends to the middle, innermost first; above, steps of 32
 * from the start, after four of them with the secret from its byte 3 on, and then the last 32. */
template <class U>
static __device__ struct hash128 hash_short(const uint8_t *tag, const uint8_t *row, size_t length)
{
    struct hash128 sums = {length * PRIME64_1, 0};
    if (length <= 128) {
        for (unsigned i = (unsigned)(length - 1) / 32 + 1; i-- > 0;)
            hash_mix<U>(&sums, tag, row, 16 * i, length - 16 * (i + 1), 32 * i);
    } else {
        for (unsigned i = 0; i < 4; i++)
            hash_mix<U>(&sums, tag, row, 32 * i, 32 * i + 16, 32 * i);
        sums.low = avalanche(sums.low);
        sums.high = avalanche(sums.high);
        for (unsigned i = 4; i < length / 32; i++)
            hash_mix<U>(&sums, tag, row, 32 * i, 32 * i + 16, 3 + 32 * (i - 4));
        hash_mix<U>(&sums, tag, row, length - 16, length - 32, 103);
    }
    uint64_t high = sums.low * PRIME64_1 + sums.high * PRIME64_4 + length * PRIME64_2;
    return {avalanche(sums.low + sums.high), 0 - avalanche(high)};
}

template <class U>
static __global__ void hash_short_kernel(uint64_t *d_hashes, const uint8_t *d_tags,
                                         const uint8_t *d_rows, const uint32_t *d_index,
                                         size_t rows, size_t row_bytes)
{
    for (size_t i = grid_thread(); i < rows; i += grid_threads()) {
        struct hash128 hash = hash_short<U>(
            d_tags + i * TAG, d_rows + row_at(d_index, i) * row_bytes, TAG + row_bytes);
        d_hashes[2 * i] = hash.low;
        d_hashes[2 * i + 1] = hash.high;
    }
}

/* ---- above 240 bytes */

enum {
    LANES = 8,
    STRIPE = 8 * LANES,
    STRIPES =
        (SECRET_BYTES - STRIPE) / 8, /* of a block: each begins a word further in the secret */
    BLOCK = STRIPES * STRIPE,
    SECRET_LAST = SECRET_BYTES - STRIPE - 7,
    SECRET_LOW = 11,
    SECRET_HIGH = SECRET_BYTES - STRIPE - 11
};

/* What sum i begins with. */
static __device__ __forceinline__ uint64_t first_sum(unsigned lane)
{
    const uint64_t sums[LANES] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                  PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    return sums[lane];
}

/* A word is taken into this lane's sum, and is kept for its neighbour's. */
static __device__ __forceinline__ void take_word(uint64_t *sum, uint64_t *plain, uint64_t word,
                                                 uint64_t secret)
{
    uint64_t mixed = word ^ secret;
    *sum += (uint64_t)(uint32_t)mixed * (mixed >> 32);
    *plain += word;
}

/* This lane's sum over the whole stream. */
template <class U>
static __device__ __forceinline__ uint64_t sum_stripes(const uint8_t *tag, const uint8_t *row,
                                                       size_t length, unsigned lane,
                                                       const uint64_t (&secret)[STRIPES])
{
    uint64_t sum = first_sum(lane), scramble = secret_at(SECRET_BYTES - STRIPE + 8 * lane);
    size_t at = 0, blocks = (length - 1) / BLOCK;
    for (size_t block = 0; block < blocks; block++, at += BLOCK) {
        uint64_t plain = 0;
#pragma unroll
        for (unsigned i = 0; i < STRIPES; i++)
            take_word(&sum, &plain, stream_at<U>(tag, row, at + STRIPE * i + 8 * lane), secret[i]);
        sum += __shfl_xor_sync(~0u, plain, 1);
        sum = (sum ^ sum >> 47 ^ scramble) * PRIME32_1;
    }
    uint64_t plain = 0;
    unsigned stripes = (unsigned)((length - 1 - at) / STRIPE);
#pragma unroll
    for (unsigned i = 0; i < STRIPES - 1; i++)
        if (i < stripes)
            take_word(&sum, &plain, stream_at<U>(tag, row, at + STRIPE * i + 8 * lane), secret[i]);
    take_word(&sum, &plain, stream_at<U>(tag, row, length - STRIPE + 8 * lane),
              secret_at(SECRET_LAST + 8 * lane));
    return sum + __shfl_xor_sync(~0u, plain, 1);
}

/* The low half of the hash in even lanes, the high half in odd ones: each multiplies its pair of
 * sums with its half's secret, and adds up the four products. */
static __device__ __forceinline__ uint64_t merge_sums(uint64_t sum, size_t length, unsigned lane)
{
    unsigned odd = lane % 2, secret = (odd ? SECRET_HIGH : SECRET_LOW) + 8 * (lane - odd);
    uint64_t other = __shfl_xor_sync(~0u, sum, 1);
    uint64_t product = fold_product((odd ? other : sum) ^ secret_at(secret),
                                    (odd ? sum : other) ^ secret_at(secret + 8));
    product += __shfl_xor_sync(~0u, product, 2);
    product += __shfl_xor_sync(~0u, product, 4);
    return avalanche(product + (odd ? ~(length * PRIME64_2) : length * PRIME64_1));
}

template <class U>
static __global__ void
hash_kernel(uint64_t *__restrict__ d_hashes, const uint8_t *__restrict__ d_tags,
            const uint8_t *__restrict__ d_rows, const uint32_t *__restrict__ d_index, size_t rows,
            size_t row_bytes)
{
    unsigned lane = threadIdx.x % LANES, of_warp = threadIdx.x % WARP / LANES;
    uint64_t secret[STRIPES];
#pragma unroll
    for (unsigned i = 0; i < STRIPES; i++)
        secret[i] = secret_words[i + lane];
    for (size_t first = grid_thread() / WARP * (WARP / LANES); first < rows;
         first += grid_threads() / LANES) {
        size_t i = first + of_warp < rows ? first + of_warp : rows - 1;
        uint64_t sum = sum_stripes<U>(d_tags + i * TAG, d_rows + row_at(d_index, i) * row_bytes,
                                      TAG + row_bytes, lane, secret);
        uint64_t hash = merge_sums(sum, TAG + row_bytes, lane);
        if (lane < 2)
            d_hashes[2 * i + lane] = hash;
    }
}

void cuda_hash_rows(struct kernels_queue *queue, uint64_t *d_hashes, const uint8_t *d_tags,
                    const uint8_t *d_rows, const uint32_t *d_index, size_t rows, size_t row_bytes)
{
    assert(row_bytes > 0);
    bool is_short = TAG + row_bytes <= 240;
    unsigned grid = grid_for(queue, is_short ? rows : rows * LANES, THREADS);
    if (is_short)
        BY_UNIT(row_bytes, uint64_t, U,
                LAUNCH(queue, hash_short_kernel<U>, grid, THREADS, 0, d_hashes, d_tags, d_rows,
                       d_index, rows, row_bytes));
    else
        BY_UNIT(row_bytes, uint64_t, U,
                LAUNCH(queue, hash_kernel<U>, grid, THREADS, 0, d_hashes, d_tags, d_rows, d_index,
                       rows, row_bytes));
}
