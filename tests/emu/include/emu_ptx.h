/* emu_ptx.h - the plain versions of what kernels/cuda/mma.cuh writes in PTX, by the documented
 * meaning of mma.m16n8k16, ldmatrix and cp.async.
 *
 * Tensor cores add "with at least single precision"; order and rounding are not documented. As
 * measured (Fasi, Higham, Mikaitis, Pranesh 2021), all terms of a step are aligned to the largest,
 * what hangs over is cut off, and so is the sum. Here no bit beyond f32's 24 survives, where the
 * hardware keeps one or more: whoever passes does not rely on a sum that rounds.
 *
 * A copy lands when it is begun or when it is waited for, whichever: with threads forward the
 * latter, backward the former, in random order either, so that both a missing wait and a buffer
 * that is overwritten too early show. A block that ends with copies nobody waited for is a fault.
 */
#ifndef CCPIPE_EMU_PTX_H
#define CCPIPE_EMU_PTX_H

#include "common/dtype.h"
#include "tests/emu/emu.h"

#include <stdlib.h>

#include <algorithm>
#include <vector>

enum { EMU_TENSOR_TERMS = 20 }; /* of a step at most 17; whole vectors of 4 */

static inline float emu_bf16(uint32_t pair, unsigned half)
{
    return dtype_bf16_to_f32((uint16_t)(pair >> (16 * half)));
}

/* The sum of a step's terms, those that are not there 0. Written so that a compiler makes vectors
 * of its loops: a test adds some hundred million terms. */
static inline float emu_tensor_sum(const float (&terms)[EMU_TENSOR_TERMS])
{
    int32_t bits[EMU_TENSOR_TERMS], largest = 1 << 23, sum = 0;
    memcpy(bits, terms, sizeof bits);
    for (int32_t value : bits)
        largest = std::max(largest, value & 0x7fffffff);
    int exponent = largest >> 23; /* as f32 has it */
    if (exponent == 0xff) {       /* not finite: any order will do */
        float plain = 0;
        for (float term : terms)
            plain += term;
        return plain;
    }
    /* Terms in units of the largest one's last bit; numbers below 1 / 2^95 are raised before. */
    const float raise = exponent < 32 ? 0x1p64f : 1.0f;
    exponent += exponent < 32 ? 64 : 0;
    const float scale = __int_as_float((127 + 150 - exponent) << 23);
    for (float term : terms)
        sum += (int32_t)(term * raise * scale);
    int over = 8 - __clz(abs(sum)); /* bits behind the first 24 */
    if (over > 0)
        sum = sum / (1 << over) * (1 << over);
    return (float)sum / scale / raise;
}

/* Products in f32, which holds them exactly; C and 16 of them are a step. */
static inline void mma_bf16_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                     const float (&c)[4])
{
    struct fragments {
        uint32_t a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const unsigned char *all = emu_warp_exchange(&mine, sizeof mine, 0xffffffffu, "mma");
    const unsigned group = emu_lane() / 4, column = emu_lane() % 4 * 2;
    float terms[4][EMU_TENSOR_TERMS] = {};
    for (unsigned k = 0; k < 16; k++) {
        const unsigned of_quad = k % 8 / 2, high = k / 8;
        struct fragments left, right[2];
        memcpy(&left, all + (group * 4 + of_quad) * EMU_LANE_BYTES, sizeof left);
        for (unsigned n = 0; n < 2; n++)
            memcpy(&right[n], all + ((column + n) * 4 + of_quad) * EMU_LANE_BYTES, sizeof *right);
        for (unsigned i = 0; i < 4; i++)
            terms[i][k] =
                emu_bf16(left.a[2 * high + i / 2], k % 2) * emu_bf16(right[i % 2].b[high], k % 2);
    }
    for (unsigned i = 0; i < 4; i++) {
        terms[i][16] = c[i];
        d[i] = emu_tensor_sum(terms[i]);
    }
}

/* The rows that the lanes gave, lane 8i + r that of row r of matrix i. */
static inline const unsigned char *emu_matrix_row(const unsigned char *all, unsigned matrix,
                                                  unsigned row)
{
    const unsigned char *address;
    memcpy(&address, all + (8 * matrix + row) * EMU_LANE_BYTES, sizeof address);
    return address;
}

static inline const unsigned char *emu_matrix_rows(const void *row)
{
    if ((uintptr_t)row % 16 != 0)
        emu_kernel_fault("ldmatrix of an address that is not on 16 bytes");
    return emu_warp_exchange(&row, sizeof row, 0xffffffffu, "ldmatrix");
}

static inline void load_matrices(uint32_t (&to)[4], const void *row)
{
    const unsigned char *all = emu_matrix_rows(row);
    for (unsigned i = 0; i < 4; i++)
        memcpy(&to[i], emu_matrix_row(all, i, emu_lane() / 4) + emu_lane() % 4 * 4, 4);
}

static inline void load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    const unsigned char *all = emu_matrix_rows(row);
    const unsigned first = emu_lane() % 4 * 2, column = emu_lane() / 4;
    for (unsigned i = 0; i < 4; i++) {
        uint16_t pair[2];
        for (unsigned j = 0; j < 2; j++)
            memcpy(&pair[j], emu_matrix_row(all, i, first + j) + 2 * column, 2);
        to[i] = pair[0] | (uint32_t)pair[1] << 16;
    }
}

/* Begun, and not landed. */
struct emu_copy {
    uint3 block;
    void *to;
    const void *from; /* NULL: zeros */
};

/* Those of the thread that runs. */
std::vector<struct emu_copy> &emu_copies(void);

static inline void emu_land(const struct emu_copy &copy)
{
    if (copy.block.x != blockIdx.x || copy.block.y != blockIdx.y || copy.block.z != blockIdx.z)
        emu_kernel_fault("a block has ended with copies that nobody waited for");
    if (copy.from == nullptr)
        memset(copy.to, 0, 16);
    else
        memcpy(copy.to, copy.from, 16);
}

static inline void copy_begin(void *to, const void *from, bool valid)
{
    if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0)
        emu_kernel_fault("cp.async of an address that is not on 16 bytes");
    const struct emu_copy copy = {blockIdx, to, valid ? from : nullptr};
    if (emu_order() == EMU_BACKWARD || (emu_order() == EMU_RANDOM && emu_random(2) == 0))
        emu_land(copy);
    else
        emu_copies().push_back(copy);
}

static inline void copy_wait(void)
{
    for (const struct emu_copy &copy : emu_copies())
        emu_land(copy);
    emu_copies().clear();
}

#endif
