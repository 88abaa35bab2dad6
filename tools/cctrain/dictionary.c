/* dictionary.c - memory for the trained tensors, their start, and their way to and from files.
 *
 * Weights pass through a struct crosscoder in host memory, as the checkpoint's writer wants them
 * whole. Moments are twice as large and nobody but us reads them, so they go through a chunk of
 * fixed size, piece by piece.
 *
 * Invariants. d_copy is d_w rounded, always: whoever changes d_w (upload, Adam) renews it. Of the
 * gradients nothing is assumed between steps: each is written whole by one product or sum. What a
 * loss adds at the decoder's norms is not in them: that is added as they are read.
 *
 * The initial weights are drawn by counter, element by element, so they depend on the seed and on
 * the place in the matrix alone, not on who draws them or in which order. A generator with a state
 * was rejected: a run on another backend, or by more threads, would begin elsewhere.
 */
#include "dictionary.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/rng.h"

#define DICTIONARY_CHUNK (4u << 20) /* bytes */
#define DICTIONARY_STREAM 0         /* of the seed's random numbers */

static const char *const dictionary_names[DICTIONARY_COUNT] = {"W_enc", "W_dec", "b_enc", "b_dec"};
static const char *const dictionary_moments[2][DICTIONARY_COUNT] = {
    {"m.W_enc", "m.W_dec", "m.b_enc", "m.b_dec"},
    {"v.W_enc", "v.W_dec", "v.b_enc", "v.b_dec"},
};

/* Products read matrices; biases are added in f32. */
static bool dictionary_has_copy(size_t tensor, enum dtype type)
{
    return type != DTYPE_F32 && (tensor == DICTIONARY_W_ENC || tensor == DICTIONARY_W_DEC);
}

uint64_t dictionary_bytes(uint64_t latents, uint64_t width, enum dtype type)
{
    uint64_t matrices = 2 * latents * width, all = matrices + latents + width;
    return 4 * sizeof(float) * all + (type != DTYPE_F32 ? matrices * dtype_size(type) : 0);
}

static int dictionary_alloc(struct dictionary *dictionary, void *d_memory, size_t count,
                            size_t size)
{
    return kernels_alloc(dictionary->kernels, dictionary->device, d_memory, count, size,
                         "the dictionary");
}

static int dictionary_alloc_tensor(struct dictionary *dictionary, size_t tensor)
{
    struct dictionary_tensor *t = &dictionary->tensors[tensor];
    float **floats[] = {&t->d_w, &t->d_m, &t->d_v, &t->d_g};
    int status = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats && status == 0; i++)
        status = dictionary_alloc(dictionary, floats[i], t->count, sizeof(float));
    if (status == 0 && dictionary_has_copy(tensor, dictionary->type))
        status = dictionary_alloc(dictionary, &t->d_copy, t->count, dtype_size(dictionary->type));
    return status;
}

int dictionary_create(struct dictionary *dictionary, const struct kernels *kernels,
                      struct kernels_device *device, struct kernels_queue *queue, enum dtype type,
                      uint64_t latents, uint64_t width)
{
    *dictionary = (struct dictionary){.kernels = kernels,
                                      .device = device,
                                      .queue = queue,
                                      .type = type,
                                      .latents = latents,
                                      .width = width};
    const struct dictionary_tensor shapes[DICTIONARY_COUNT] = {
        [DICTIONARY_W_ENC] = {.rank = 2, .shape = {width, latents}, .count = width * latents},
        [DICTIONARY_W_DEC] = {.rank = 2, .shape = {latents, width}, .count = width * latents},
        [DICTIONARY_B_ENC] = {.rank = 1, .shape = {latents}, .count = latents},
        [DICTIONARY_B_DEC] = {.rank = 1, .shape = {width}, .count = width},
    };
    int status = 0;
    for (size_t i = 0; i < DICTIONARY_COUNT && status == 0; i++) {
        dictionary->tensors[i] = shapes[i];
        dictionary->tensors[i].name = dictionary_names[i];
        status = dictionary_alloc_tensor(dictionary, i);
    }
    if (status == 0)
        status =
            dictionary_alloc(dictionary, &dictionary->d_squares, DICTIONARY_COUNT, sizeof(double));
    if (status == 0)
        status = dictionary_alloc(dictionary, &dictionary->d_clip, 2, sizeof(float));
    if (status == 0 && (dictionary->chunk = mem_alloc(DICTIONARY_CHUNK, 1)) == NULL)
        status = mem_fail("the dictionary", DICTIONARY_CHUNK, 1);
    return status;
}

void dictionary_free(struct dictionary *dictionary)
{
    if (dictionary->kernels == NULL)
        return;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        struct dictionary_tensor *t = &dictionary->tensors[i];
        void *memory[] = {t->d_w, t->d_m, t->d_v, t->d_g, t->d_copy};
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++)
            dictionary->kernels->free(dictionary->device, memory[k]);
    }
    dictionary->kernels->free(dictionary->device, dictionary->d_squares);
    dictionary->kernels->free(dictionary->device, dictionary->d_clip);
    free(dictionary->chunk);
    memset(dictionary, 0, sizeof *dictionary);
}

const void *dictionary_weights(const struct dictionary *dictionary, size_t tensor)
{
    const struct dictionary_tensor *t = &dictionary->tensors[tensor];
    return t->d_copy != NULL ? t->d_copy : t->d_w;
}

/* ---- the start */

/* One latent in one source: normal deviates brought to DICTIONARY_NORM, in f64 up to the end. */
static void dictionary_init_piece(float *w, uint64_t seed, uint64_t index, size_t width)
{
    double squares = 0;
    for (size_t i = 0; i < width; i++) {
        double z = rng_normal(seed, DICTIONARY_STREAM, index + i);
        squares += z * z;
        w[i] = (float)z;
    }
    double factor = DICTIONARY_NORM / sqrt(squares);
    for (size_t i = 0; i < width; i++)
        w[i] = (float)(factor * (double)w[i]);
}

void dictionary_init(struct crosscoder *cc, uint64_t seed)
{
    size_t latents = (size_t)cc->latents, width = (size_t)cc->width;
    for (size_t j = 0; j < latents; j++) {
        size_t column = 0;
        for (size_t s = 0; s < cc->source_count; s++) {
            size_t at = j * width + column;
            dictionary_init_piece(cc->w_dec + at, seed, at, cc->sources[s].width);
            column += cc->sources[s].width;
        }
    }
    /* By bands of a cache line of W_enc: whole columns at once would fetch each line F times. */
    enum { BAND = 16 };
    for (size_t first = 0; first < latents; first += BAND) {
        size_t end = first + BAND < latents ? first + BAND : latents;
        for (size_t c = 0; c < width; c++)
            for (size_t j = first; j < end; j++)
                cc->w_enc[c * latents + j] = cc->w_dec[j * width + c];
    }
    memset(cc->b_enc, 0, latents * sizeof *cc->b_enc);
    memset(cc->b_dec, 0, width * sizeof *cc->b_dec);
}

/* ---- weights */

/* The host's array of a tensor; in the order of the enum. */
static float *dictionary_host(const struct crosscoder *cc, size_t tensor)
{
    float *const arrays[DICTIONARY_COUNT] = {cc->w_enc, cc->w_dec, cc->b_enc, cc->b_dec};
    return arrays[tensor];
}

int dictionary_upload(struct dictionary *dictionary, const struct crosscoder *cc)
{
    const struct kernels *kernels = dictionary->kernels;
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        struct dictionary_tensor *t = &dictionary->tensors[i];
        kernels->upload(dictionary->queue, t->d_w, dictionary_host(cc, i),
                        t->count * sizeof *t->d_w);
        if (t->d_copy != NULL)
            kernels->cast(dictionary->queue, t->d_copy, dictionary->type, t->d_w, DTYPE_F32,
                          t->count);
    }
    return kernels->wait(dictionary->queue);
}

int dictionary_download(struct dictionary *dictionary, struct crosscoder *cc)
{
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        struct dictionary_tensor *t = &dictionary->tensors[i];
        dictionary->kernels->download(dictionary->queue, dictionary_host(cc, i), t->d_w,
                                      t->count * sizeof *t->d_w);
    }
    return dictionary->kernels->wait(dictionary->queue);
}

/* ---- a step's end */

void dictionary_update(struct dictionary *dictionary, struct kernels_queue *queue,
                       const struct kernels_decoder *decoder, const struct kernels_adam *adam,
                       double clip)
{
    const struct kernels *kernels = dictionary->kernels;
    double *d_squares = dictionary->d_squares;
    const float *d_clip = dictionary->d_clip;
    /* The norm is that of all gradients together, and exact: the reference recipe's clip binds in
     * almost every step, so an estimate would be another recipe. */
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        const struct dictionary_tensor *t = &dictionary->tensors[i];
        if (i == DICTIONARY_W_DEC)
            kernels->decoder_square(queue, d_squares + i, t->d_g, t->d_w, decoder);
        else
            kernels->dot(queue, d_squares + i, t->d_g, t->d_g, t->count);
    }
    kernels->clip_factor(queue, dictionary->d_clip, d_squares, DICTIONARY_COUNT, (float)clip);
    for (size_t i = 0; i < DICTIONARY_COUNT; i++) {
        struct dictionary_tensor *t = &dictionary->tensors[i];
        if (i == DICTIONARY_W_DEC)
            kernels->decoder_adam(queue, t->d_w, t->d_m, t->d_v, t->d_copy, t->d_g, d_clip, adam,
                                  decoder);
        else
            kernels->adam(queue, t->d_w, t->d_m, t->d_v, t->d_copy, t->d_g, d_clip, adam, t->count);
    }
}

/* ---- moments */

static const float *dictionary_moment(const struct dictionary *dictionary, size_t entry)
{
    const struct dictionary_tensor *t = &dictionary->tensors[entry % DICTIONARY_COUNT];
    return entry < DICTIONARY_COUNT ? t->d_m : t->d_v;
}

int dictionary_fetch_moment(void *context, size_t index, void *to, uint64_t offset, uint64_t bytes)
{
    struct dictionary *dictionary = context;
    const uint8_t *d_from = (const uint8_t *)dictionary_moment(dictionary, index);
    dictionary->kernels->download(dictionary->queue, to, d_from + offset, (size_t)bytes);
    return dictionary->kernels->wait(dictionary->queue);
}

void dictionary_describe_moments(const struct dictionary *dictionary,
                                 struct safetensors_entry entries[DICTIONARY_MOMENTS])
{
    for (size_t i = 0; i < DICTIONARY_MOMENTS; i++) {
        const struct dictionary_tensor *t = &dictionary->tensors[i % DICTIONARY_COUNT];
        entries[i] = (struct safetensors_entry){
            .name = dictionary_moments[i / DICTIONARY_COUNT][i % DICTIONARY_COUNT],
            .type = SAFETENSORS_F32,
            .rank = t->rank,
            .shape = {t->shape[0], t->shape[1]},
        };
    }
}

static int dictionary_read_moment(struct dictionary *dictionary, const struct safetensors *file,
                                  size_t entry)
{
    const struct dictionary_tensor *t = &dictionary->tensors[entry % DICTIONARY_COUNT];
    const char *name = dictionary_moments[entry / DICTIONARY_COUNT][entry % DICTIONARY_COUNT];
    const struct safetensors_tensor *stored = safetensors_find(file, name);
    if (stored == NULL || stored->type != SAFETENSORS_F32 || stored->elements != t->count)
        return log_fail(ERR_DATA, "'%s' has no tensor '%s' of %zu f32",
                        safetensors_path(file, safetensors_at(file, 0)), name, t->count);
    float *d_to = entry < DICTIONARY_COUNT ? t->d_m : t->d_v;
    size_t most = DICTIONARY_CHUNK / sizeof *d_to;
    int status = 0;
    for (size_t at = 0; at < t->count && status == 0; at += most) {
        size_t count = t->count - at < most ? t->count - at : most;
        status = safetensors_read_f32(file, stored, dictionary->chunk, at, count);
        if (status != 0)
            break;
        dictionary->kernels->upload(dictionary->queue, d_to + at, dictionary->chunk,
                                    count * sizeof *d_to);
        status = dictionary->kernels->wait(dictionary->queue);
    }
    return status;
}

int dictionary_read_moments(struct dictionary *dictionary, const struct safetensors *file)
{
    int status = 0;
    for (size_t i = 0; i < DICTIONARY_MOMENTS && status == 0; i++)
        status = dictionary_read_moment(dictionary, file, i);
    return status;
}
