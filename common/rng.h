/* rng.h - counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as
 * easy as 1, 2, 3", SC 2011). A number is a function of (key, counter) alone, so that nothing has
 * to be saved for a restart and any order or thread gives the same.
 */
#ifndef CCPIPE_RNG_H
#define CCPIPE_RNG_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* out[0..3] = Philox4x32-10 of the 128-bit counter (low, high) under the 64-bit key. */
void rng_philox(uint32_t out[4], uint64_t key, uint64_t low, uint64_t high);

/* The index-th number of a stream, uniform over 64 bits. */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index);

/* The index-th standard normal deviate of a stream (Box and Muller on 32-bit uniforms, f64). */
double rng_normal(uint64_t seed, uint64_t stream, uint64_t index);

#ifdef __cplusplus
}
#endif
#endif
