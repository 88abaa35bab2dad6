/* engine.h - the models on one device: a pass of tokens in, rows and norms out.
 *
 * The models run one after the other over the same tokens and share their buffers. Each chunk of a
 * source's values is scaled, converted and put in its place in the rows while it is in the cache;
 * the residual stream of a whole pass is never copied.
 *
 * On a device that works beside the host engine_depth() passes may be under way: the host collects
 * one and writes the rows of another while the device computes.
 */
#ifndef CCPIPE_ENGINE_H
#define CCPIPE_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gemma2.h"
#include "modeldir.h"
#include "pass.h"
#include "sources.h"

struct engine;

struct engine_setup {
    const char *device; /* for kernels_open() */
    unsigned threads;
    enum dtype type;     /* of computation */
    enum dtype row_type; /* of what is written */
    uint32_t buffers;    /* of a window on the device in which rows stay; 0: they come back */
    const struct sources *sources;
    const struct modeldir *dirs; /* (sources->model_count) */
};

/* Bytes: on the device `staging` while weights are read, and afterwards `work` and `rows`, beside
 * the weights and the embedding; and page-locked ones on the host. */
struct engine_memory {
    uint64_t weights, embedding, staging, work, rows, host;
};

/* Opens the device and sets up the models; weights are not read. The setup's pointers must outlive
 * the engine. Before the program has threads (kernels_open()). */
int engine_open(struct engine **engine, const struct engine_setup *setup) MUST_CHECK;
void engine_free(struct engine *engine);

/* What weights and passes of at most `tokens` tokens, `length` in a sequence, take. Also checks
 * that all tensors are there. */
int engine_measure(const struct engine *engine, size_t tokens, uint32_t length,
                   struct engine_memory *memory) MUST_CHECK;

/* On the device, at most. */
uint64_t engine_device_bytes(const struct engine_memory *memory);

/* 0, or ERR_MEMORY with what is asked and free, where the device does not have that, or the host
 * not its part and `host_bytes` more. On the CPU both are of one memory. */
int engine_require(const struct engine *engine, const struct engine_memory *memory,
                   uint64_t host_bytes, const char *what) MUST_CHECK;

/* A note of what of the device's memory is taken for what; with -v alone on the CPU. */
void engine_tell_memory(const struct engine *engine, const struct engine_memory *memory);

/* hashes: (models) what gemma2_load() says. */
int engine_load(struct engine *engine, char (*hashes)[33]) MUST_CHECK;

/* Where the models are. */
const struct gemma2_device *engine_device(const struct engine *engine);

/* Passes that may be under way, at most ENGINE_DEPTH. */
enum { ENGINE_DEPTH = 2 };
unsigned engine_depth(const struct engine *engine);

/* Tokens of a chunk on this device. */
size_t engine_chunk(const struct engine *engine);

/* Makes room, in place of what was there; no pass is under way. */
int engine_reserve(struct engine *engine, size_t tokens, uint32_t length) MUST_CHECK;

/* Starts a pass that pass_close() has finished, within what was reserved and with fewer than
 * engine_depth() under way. factors (source count): what rows are multiplied with; NULL: no rows,
 * norms alone. buffer: of the window, where there is one and rows are wanted, in which they stay.
 * The pass is not read after the return. ERR_INTERRUPTED, or a device's failure: then it is not
 * under way. */
int engine_start(struct engine *engine, const struct pass *pass, size_t chunks,
                 const double *factors, uint32_t buffer) MUST_CHECK;

/* Waits for the oldest pass under way. A device's failure, which may be that of a later pass. */
int engine_finish(struct engine *engine) MUST_CHECK;

/* Of the pass finished last, until the next is started: its kept rows (kept, row bytes), and a
 * source's f32 norms before scaling, by token of the pass. Where there is a window, their hashes
 * (kept, 2) as hash_rows() gives them, instead of rows. */
const uint8_t *engine_rows(const struct engine *engine);
const uint64_t *engine_hashes(const struct engine *engine);
const float *engine_norms(const struct engine *engine, size_t source);

/* The window (buffers, capacity, row bytes) in device memory, and what a buffer has room for. Valid
 * until engine_reserve(). */
void *engine_window(const struct engine *engine);
size_t engine_capacity(const struct engine *engine);

size_t engine_row_bytes(const struct engine *engine);

#endif
