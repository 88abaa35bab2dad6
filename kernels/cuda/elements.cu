/* elements.cu - conversions.
 *
 * cast reads and writes each element once: n (size of from + size of to) bytes, no arithmetic to
 * speak of. One element a thread and turn, so that a warp reads neighbours: weights are cast once,
 * when they are loaded, and no step asks for more.
 */
#include "kernels/cuda/cuda.h"

enum { CAST_BLOCK = 256 };

template <class To, class From>
static __global__ void cast_kernel(To *d_to, const From *d_from, size_t n)
{
    for (size_t i = grid_thread(); i < n; i += grid_threads())
        d_to[i] = from_f32<To>(to_f32(d_from[i]));
}

void cuda_cast(struct kernels_queue *queue, void *d_to, enum dtype to, const void *d_from,
               enum dtype from, size_t n)
{
    unsigned grid = grid_for(queue, n, CAST_BLOCK);
    BY_TYPE(to, To,
            BY_STORED_TYPE(from, From,
                           LAUNCH(queue, (cast_kernel<To, From>), grid, CAST_BLOCK, 0,
                                  static_cast<To *>(d_to), static_cast<const From *>(d_from), n)));
}
