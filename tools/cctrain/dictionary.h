/* dictionary.h - the trained tensors on the device: weights, Adam's moments, gradients.
 *
 * Everything that goes over "all parameters" (clip, Adam, checkpoint) is a loop over the table of
 * tensors, so that a method with a parameter of its own adds a line there. W_enc is (D, F) and
 * W_dec (F, D), the sources side by side.
 */
#ifndef CCTRAIN_DICTIONARY_H
#define CCTRAIN_DICTIONARY_H

#include <stdint.h>

#include "common/crosscoder.h"
#include "common/safetensors.h"
#include "kernels/kernels.h"

#define DICTIONARY_NORM 0.08 /* of a latent's decoder in each source, at the start */

enum { DICTIONARY_W_ENC, DICTIONARY_W_DEC, DICTIONARY_B_ENC, DICTIONARY_B_DEC, DICTIONARY_COUNT };

struct dictionary_tensor {
    const char *name;
    unsigned rank;
    uint64_t shape[2];
    size_t count;           /* elements */
    float *d_w, *d_m, *d_v; /* master weights, Adam's first and second moments */
    float *d_g;             /* gradient */
    void *d_copy;           /* the weights as BF16 where products are in BF16, else NULL */
};

struct dictionary {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue; /* of copies to and from the host; borrowed */
    enum dtype type;
    uint64_t latents, width;
    struct dictionary_tensor tensors[DICTIONARY_COUNT];
    double *d_squares; /* (DICTIONARY_COUNT) sum of squares of each gradient */
    float *d_clip;     /* (2) clip factor, norm of the gradient */
    void *chunk;       /* host memory that moments pass through */
};

/* Device bytes that dictionary_create() takes. */
uint64_t dictionary_bytes(uint64_t latents, uint64_t width, enum dtype type);

/* All zero. On failure dictionary_free() is still to be called. */
int dictionary_create(struct dictionary *dictionary, const struct kernels *kernels,
                      struct kernels_device *device, struct kernels_queue *queue, enum dtype type,
                      uint64_t latents, uint64_t width) MUST_CHECK;
void dictionary_free(struct dictionary *dictionary);

/* The weights that products take: T. */
const void *dictionary_weights(const struct dictionary *dictionary, size_t tensor);

/* Initial weights of a seed into cc's W_dec and W_enc (host): W_dec[j, s, :] normal, scaled to
 * DICTIONARY_NORM; W_enc its transpose; biases 0. */
void dictionary_init(struct crosscoder *cc, uint64_t seed);

/* Weights from and to host memory; both wait for the queue. */
int dictionary_upload(struct dictionary *dictionary, const struct crosscoder *cc) MUST_CHECK;
int dictionary_download(struct dictionary *dictionary, struct crosscoder *cc) MUST_CHECK;

/* Enqueues clipping and Adam on `queue`, after the gradients. The decoder's norms, which are those
 * of W_dec before, are those of W_dec afterwards. */
void dictionary_update(struct dictionary *dictionary, struct kernels_queue *queue,
                       const struct kernels_decoder *decoder, const struct kernels_adam *adam,
                       double clip);

/* Adam's moments as the first entries of a safetensors file, "m.W_enc" ... "v.b_dec", without data:
 * dictionary_fetch_moment() is the writer's safetensors_fetch, the dictionary its context. */
#define DICTIONARY_MOMENTS ((size_t)2 * DICTIONARY_COUNT)
void dictionary_describe_moments(const struct dictionary *dictionary,
                                 struct safetensors_entry entries[DICTIONARY_MOMENTS]);
int dictionary_fetch_moment(void *dictionary, size_t index, void *to, uint64_t offset,
                            uint64_t bytes) MUST_CHECK;
int dictionary_read_moments(struct dictionary *dictionary,
                            const struct safetensors *file) MUST_CHECK;

#endif
