/* engine.c - device, models, buffers; and where in a row each source lies.
 *
 * Three queues. Tokens go to the device by `copies`, are computed on by `queue`, and norms and rows
 * come back by `results`; events stand between them, and the host waits for nothing but a pass's
 * last event. So copies of one pass run while another is computed, and the host has the time of a
 * pass to write rows and collect tokens.
 *
 * A pass under way has a slot of its own for what crosses: tokens, norms and rows, on both sides.
 * The host starts no pass in a slot before it has waited for the last one there, which is why no
 * queue has to wait before it fills one. Weights and the buffers of the forward pass are shared:
 * passes are in order on `queue`. Where operations are done when they return there is one slot.
 *
 * With a window the rows stay where they are made, and hashes of them come back in their place.
 */
#include "engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/stream.h"

/* Where a source's values, and for int8 its quantum, lie in a row. */
struct place {
    size_t at, quantum_at;
};

/* What crosses between host and device in one pass. */
struct slot {
    void *tokens; /* (3, tokens) u32: ids, positions, index; page-locked */
    void *norms;  /* (S, tokens) f32; page-locked */
    void *rows;   /* (tokens, row_bytes), with a window (tokens, 2) u64 hashes; page-locked */
    void *tags;   /* (tokens, 16) with a window; page-locked */
    void *d_tokens, *d_norms, *d_rows, *d_tags;
    struct kernels_event *filled, *computed, *done; /* of copies, queue, results */
};

/* The parts of a slot's tokens. */
enum { TOKENS_IDS, TOKENS_POSITIONS, TOKENS_INDEX, TOKENS_PARTS };

struct engine {
    struct engine_setup setup;
    struct gemma2_device on;
    struct gemma2 **models;
    struct place *places; /* (sources) */
    size_t row_bytes;

    struct kernels_queue *copies, *results;

    size_t tokens; /* that are reserved */
    struct gemma2_work work;
    struct slot slots[ENGINE_DEPTH];
    void *d_window;             /* (buffers, tokens, row_bytes) */
    uint64_t started, finished; /* passes; each takes the next slot in turn */

    /* the pass that is being started */
    const struct pass *pass;
    const double *factors;
    struct slot *slot;
    uint8_t *d_rows; /* (tokens, row_bytes), the slot's or a buffer */
};

static uint32_t source_width(const struct engine *engine, size_t source)
{
    return engine->setup.dirs[engine->setup.sources->items[source].model].config.width;
}

/* int8: the quanta of all sources come first. */
static int place_sources(struct engine *engine)
{
    size_t count = engine->setup.sources->count;
    bool quantised = engine->setup.row_type == DTYPE_I8;
    size_t at = quantised ? count * sizeof(float) : 0;
    engine->places = mem_alloc(count, sizeof *engine->places);
    if (engine->places == NULL)
        return mem_fail("sources", count, sizeof *engine->places);
    for (size_t i = 0; i < count; i++) {
        engine->places[i] = (struct place){at, i * sizeof(float)};
        at += source_width(engine, i) * dtype_size(engine->setup.row_type);
    }
    engine->row_bytes = at;
    return 0;
}

static int create_queues(struct engine *engine)
{
    const struct kernels *kernels = engine->on.kernels;
    struct kernels_device *device = engine->on.device;
    struct kernels_queue **queues[] = {&engine->on.queue, &engine->copies, &engine->results};
    int status = 0;
    for (size_t i = 0; i < sizeof queues / sizeof *queues && status == 0; i++)
        status = kernels->queue_create(device, queues[i]);
    for (size_t i = 0; i < engine_depth(engine); i++) {
        struct slot *slot = &engine->slots[i];
        struct kernels_event **events[] = {&slot->filled, &slot->computed, &slot->done};
        for (size_t k = 0; k < sizeof events / sizeof *events && status == 0; k++)
            status = kernels->event_create(device, events[k]);
    }
    return status;
}

int engine_open(struct engine **opened, const struct engine_setup *setup)
{
    *opened = NULL;
    struct engine *engine = mem_alloc_zero(1, sizeof *engine);
    if (engine == NULL)
        return mem_fail("models", 1, sizeof *engine);
    engine->setup = *setup;
    size_t count = setup->sources->model_count;
    engine->models = mem_alloc_zero(count, sizeof(struct gemma2 *));
    int status = engine->models == NULL ? mem_fail("models", count, sizeof *engine) : 0;
    if (status == 0)
        status = place_sources(engine);
    if (status == 0)
        status = kernels_open(&engine->on.kernels, &engine->on.device, setup->device,
                              setup->threads, setup->type);
    if (status == 0)
        status = create_queues(engine);
    engine->on.type = setup->type;
    for (size_t i = 0; i < count && status == 0; i++)
        status = gemma2_create(&engine->models[i], &engine->on, &setup->dirs[i].config,
                               setup->sources, i);
    if (status != 0) {
        engine_free(engine);
        return status;
    }
    *opened = engine;
    return 0;
}

/* ---- buffers */

static uint64_t buffer_bytes(const struct engine *engine, enum gemma2_buffer buffer, size_t tokens)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < engine->setup.sources->model_count; i++) {
        uint64_t bytes = gemma2_buffer_bytes(engine->models[i], buffer, tokens);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

unsigned engine_depth(const struct engine *engine)
{
    return engine->on.kernels->at_once ? 1 : ENGINE_DEPTH;
}

size_t engine_chunk(const struct engine *engine)
{
    return engine->on.kernels->chunk_tokens;
}

/* Bytes of what comes back of a row: itself, or its hash. */
static size_t back_bytes(const struct engine *engine)
{
    return engine->setup.buffers > 0 ? 2 * sizeof(uint64_t) : engine->row_bytes;
}

/* Bytes of a token but for its row, in all slots, on each side. */
static uint64_t token_bytes(const struct engine *engine)
{
    return engine_depth(engine) *
           (TOKENS_PARTS * sizeof(uint32_t) + engine->setup.sources->count * sizeof(float) +
            (engine->setup.buffers > 0 ? STREAM_TAG_BYTES : 0));
}

int engine_measure(const struct engine *engine, size_t tokens, uint32_t length,
                   struct engine_memory *memory)
{
    *memory = (struct engine_memory){0};
    tokens = pass_round_up(engine_chunk(engine), tokens);
    memory->work = tokens * token_bytes(engine);
    memory->rows = tokens * engine_depth(engine) * back_bytes(engine);
    memory->host = memory->work + memory->rows;
    memory->rows += tokens * engine->setup.buffers * engine->row_bytes;
    for (size_t i = 0; i < GEMMA2_BUFFERS; i++)
        memory->work += buffer_bytes(engine, (enum gemma2_buffer)i, tokens);
    for (size_t i = 0; i < engine->setup.sources->model_count; i++) {
        struct gemma2_memory model;
        int status = gemma2_measure(engine->models[i], engine->setup.dirs[i].tensors, &model);
        if (status != 0)
            return status;
        memory->weights += model.packed + model.norms;
        memory->embedding += model.embedding;
        memory->staging = model.staging > memory->staging ? model.staging : memory->staging;
        memory->work += gemma2_position_bytes(engine->models[i], length);
    }
    return 0;
}

uint64_t engine_device_bytes(const struct engine_memory *memory)
{
    uint64_t running = memory->work + memory->rows;
    return memory->weights + memory->embedding +
           (running > memory->staging ? running : memory->staging);
}

int engine_require(const struct engine *engine, const struct engine_memory *memory,
                   uint64_t host_bytes, const char *what)
{
    const struct kernels *kernels = engine->on.kernels;
    uint64_t bytes = engine_device_bytes(memory), host = memory->host + host_bytes;
    if (kernels->at_once)
        return mem_require(bytes + host, what);
    uint64_t available = kernels->memory_free(engine->on.device);
    if (bytes > available)
        return log_fail(ERR_MEMORY, "%s needs %s of the device's memory, and %s are free", what,
                        mem_text(bytes).text, mem_text(available).text);
    return mem_require(host, what);
}

void engine_tell_memory(const struct engine *engine, const struct engine_memory *memory)
{
    const struct kernels *kernels = engine->on.kernels;
    (kernels->at_once ? log_verbose : log_note)(
        "device memory: weights %s, embedding %s, workspace %s, rows %s of %s free",
        mem_text(memory->weights).text, mem_text(memory->embedding).text,
        mem_text(memory->work).text, mem_text(memory->rows).text,
        mem_text(kernels->memory_free(engine->on.device)).text);
}

/* Until nothing reads or writes the buffers. A failure comes from engine_finish(). */
static void wait_for_all(const struct engine *engine)
{
    struct kernels_queue *queues[] = {engine->copies, engine->on.queue, engine->results};
    for (size_t i = 0; i < sizeof queues / sizeof *queues; i++)
        if (queues[i] != NULL)
            (void)engine->on.kernels->wait(queues[i]);
}

static void release(struct engine *engine)
{
    const struct kernels *kernels = engine->on.kernels;
    struct kernels_device *device = engine->on.device;
    wait_for_all(engine);
    for (size_t i = 0; i < ENGINE_DEPTH; i++) {
        struct slot *slot = &engine->slots[i];
        void **d_memory[] = {&slot->d_tokens, &slot->d_norms, &slot->d_rows, &slot->d_tags};
        void **memory[] = {&slot->tokens, &slot->norms, &slot->rows, &slot->tags};
        for (size_t k = 0; k < sizeof memory / sizeof *memory; k++) {
            kernels->free(device, *d_memory[k]);
            kernels->host_free(device, *memory[k]);
            *d_memory[k] = *memory[k] = NULL;
        }
    }
    for (size_t i = 0; i < GEMMA2_BUFFERS; i++) {
        kernels->free(device, engine->work.d_buffers[i]);
        engine->work.d_buffers[i] = NULL;
    }
    kernels->free(device, engine->d_window);
    engine->d_window = NULL;
    engine->tokens = 0;
}

static void free_queues(struct engine *engine)
{
    const struct kernels *kernels = engine->on.kernels;
    for (size_t i = 0; i < ENGINE_DEPTH; i++) {
        kernels->event_free(engine->slots[i].filled);
        kernels->event_free(engine->slots[i].computed);
        kernels->event_free(engine->slots[i].done);
    }
    kernels->queue_free(engine->copies);
    kernels->queue_free(engine->results);
    kernels->queue_free(engine->on.queue);
}

void engine_free(struct engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->on.device != NULL) {
        release(engine);
        for (size_t i = 0; i < engine->setup.sources->model_count; i++)
            gemma2_free(engine->models[i]);
        free_queues(engine);
        kernels_close(engine->on.kernels, engine->on.device);
    }
    free(engine->models);
    free(engine->places);
    free(engine);
}

/* The same size on both sides. */
static int reserve_both(const struct engine *engine, void **memory, void **d_memory, size_t tokens,
                        size_t token_bytes)
{
    const struct gemma2_device *on = &engine->on;
    int status = kernels_alloc(on->kernels, on->device, d_memory, tokens, token_bytes, "a pass");
    if (status == 0)
        status = kernels_host_alloc(on->kernels, on->device, memory, tokens, token_bytes, "a pass");
    return status;
}

static int reserve_slot(const struct engine *engine, struct slot *slot, size_t tokens)
{
    int status = reserve_both(engine, &slot->tokens, &slot->d_tokens, tokens,
                              TOKENS_PARTS * sizeof(uint32_t));
    if (status == 0)
        status = reserve_both(engine, &slot->norms, &slot->d_norms, tokens,
                              engine->setup.sources->count * sizeof(float));
    if (status == 0)
        status = reserve_both(engine, &slot->rows, &slot->d_rows, tokens, back_bytes(engine));
    if (status == 0 && engine->setup.buffers > 0)
        status = reserve_both(engine, &slot->tags, &slot->d_tags, tokens, STREAM_TAG_BYTES);
    return status;
}

static int reserve_window(struct engine *engine, size_t tokens)
{
    size_t buffers = engine->setup.buffers;
    if (buffers == 0)
        return 0;
    return kernels_alloc(engine->on.kernels, engine->on.device, &engine->d_window, tokens * buffers,
                         engine->row_bytes, "the window");
}

int engine_reserve(struct engine *engine, size_t tokens, uint32_t length)
{
    assert(engine->started == engine->finished);
    release(engine);
    size_t n = pass_round_up(engine_chunk(engine), tokens);
    int status = 0;
    for (size_t i = 0; i < engine_depth(engine) && status == 0; i++)
        status = reserve_slot(engine, &engine->slots[i], n);
    if (status == 0)
        status = reserve_window(engine, n);
    for (size_t i = 0; i < GEMMA2_BUFFERS && status == 0; i++)
        status = engine->on.kernels->alloc(engine->on.device, &engine->work.d_buffers[i],
                                           (size_t)buffer_bytes(engine, (enum gemma2_buffer)i, n));
    for (size_t i = 0; i < engine->setup.sources->model_count && status == 0; i++)
        status = gemma2_reserve_positions(engine->models[i], length);
    if (status == 0)
        engine->tokens = n;
    return status;
}

/* ---- a pass */

/* A part of a slot's tokens, on either side. */
static uint32_t *slot_tokens(const struct engine *engine, void *tokens, size_t part)
{
    return (uint32_t *)tokens + part * engine->tokens;
}

static void tap(void *context, size_t source, size_t chunk, const float *d_values)
{
    const struct engine *engine = context;
    const struct kernels *kernels = engine->on.kernels;
    const struct place *place = &engine->places[source];
    size_t width = source_width(engine, source), size = engine_chunk(engine);
    float *d_norms = (float *)engine->slot->d_norms + source * engine->tokens + chunk * size;
    kernels->row_norms(engine->on.queue, d_norms, d_values, size, width);
    size_t first = engine->pass->chunk_first[chunk];
    size_t count = engine->pass->chunk_first[chunk + 1] - first;
    if (engine->factors == NULL || count == 0)
        return;
    kernels->emit_rows(engine->on.queue, engine->d_rows + first * engine->row_bytes, d_values,
                       slot_tokens(engine, engine->slot->d_tokens, TOKENS_INDEX) + first,
                       (float)engine->factors[source], engine->setup.row_type, count,
                       engine->row_bytes, place->at, place->quantum_at, width);
}

/* The parts that are used of the slot's tokens, padding included. */
static void upload_tokens(struct engine *engine, const struct pass *pass, size_t tokens)
{
    const struct kernels *kernels = engine->on.kernels;
    const struct slot *slot = engine->slot;
    const struct {
        const uint32_t *from;
        size_t count;
    } parts[TOKENS_PARTS] = {
        {pass->ids, tokens}, {pass->positions, tokens}, {pass->in_chunk, pass->kept}};
    for (size_t i = 0; i < TOKENS_PARTS; i++) {
        uint32_t *staged = slot_tokens(engine, slot->tokens, i);
        memcpy(staged, parts[i].from, parts[i].count * sizeof *staged);
        kernels->upload(engine->copies, slot_tokens(engine, slot->d_tokens, i), staged,
                        parts[i].count * sizeof *staged);
    }
    if (engine->setup.buffers > 0) {
        size_t bytes = pass->kept * STREAM_TAG_BYTES;
        memcpy(slot->tags, pass->tags, bytes);
        kernels->upload(engine->copies, slot->d_tags, slot->tags, bytes);
    }
    kernels->event_record(engine->copies, slot->filled);
    kernels->event_wait(engine->on.queue, slot->filled);
}

static void download_results(struct engine *engine, const struct pass *pass, size_t tokens)
{
    const struct kernels *kernels = engine->on.kernels;
    const struct slot *slot = engine->slot;
    if (engine->factors != NULL && engine->setup.buffers > 0)
        kernels->hash_rows(engine->on.queue, slot->d_rows, slot->d_tags, engine->d_rows, NULL,
                           pass->kept, engine->row_bytes);
    kernels->event_record(engine->on.queue, slot->computed);
    kernels->event_wait(engine->results, slot->computed);
    for (size_t i = 0; i < engine->setup.sources->count; i++)
        kernels->download(engine->results, (float *)slot->norms + i * engine->tokens,
                          (float *)slot->d_norms + i * engine->tokens, tokens * sizeof(float));
    if (engine->factors != NULL)
        kernels->download(engine->results, slot->rows, slot->d_rows,
                          pass->kept * back_bytes(engine));
    kernels->event_record(engine->results, slot->done);
}

int engine_start(struct engine *engine, const struct pass *pass, size_t chunks,
                 const double *factors, uint32_t buffer)
{
    size_t tokens = chunks * engine_chunk(engine);
    assert(tokens <= engine->tokens);
    assert(engine->started - engine->finished < engine_depth(engine));
    struct slot *slot = &engine->slots[engine->started % engine_depth(engine)];
    engine->slot = slot;
    engine->pass = pass;
    engine->factors = factors;
    engine->d_rows = slot->d_rows;
    if (engine->setup.buffers > 0)
        engine->d_rows =
            (uint8_t *)engine->d_window + (size_t)buffer * engine->tokens * engine->row_bytes;
    upload_tokens(engine, pass, tokens);
    struct gemma2_pass on_device = {slot_tokens(engine, slot->d_tokens, TOKENS_IDS),
                                    slot_tokens(engine, slot->d_tokens, TOKENS_POSITIONS),
                                    pass->spans, pass->span_count, chunks};
    for (size_t i = 0; i < engine->setup.sources->model_count; i++) {
        int status = gemma2_forward(engine->models[i], &engine->work, &on_device, tap, engine);
        if (status != 0)
            return status;
    }
    download_results(engine, pass, tokens);
    engine->started++;
    return 0;
}

/* Each event tells of its own queue alone. */
int engine_finish(struct engine *engine)
{
    assert(engine->finished < engine->started);
    const struct kernels *kernels = engine->on.kernels;
    engine->slot = &engine->slots[engine->finished++ % engine_depth(engine)];
    struct kernels_event *events[] = {engine->slot->done, engine->slot->filled,
                                      engine->slot->computed};
    int status = 0;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        int waited = kernels->event_sync(events[i]);
        status = status != 0 ? status : waited;
    }
    return status;
}

int engine_load(struct engine *engine, char (*hashes)[33])
{
    for (size_t i = 0; i < engine->setup.sources->model_count; i++) {
        const struct modeldir *dir = &engine->setup.dirs[i];
        log_verbose("reading the weights of '%s'", dir->folder);
        int status = gemma2_load(engine->models[i], hashes[i], dir->tensors, dir->config_hash);
        if (status != 0)
            return status;
    }
    return 0;
}

const uint8_t *engine_rows(const struct engine *engine)
{
    return engine->slot->rows;
}

const uint64_t *engine_hashes(const struct engine *engine)
{
    return engine->slot->rows;
}

const float *engine_norms(const struct engine *engine, size_t source)
{
    return (const float *)engine->slot->norms + source * engine->tokens;
}

void *engine_window(const struct engine *engine)
{
    return engine->d_window;
}

size_t engine_capacity(const struct engine *engine)
{
    return engine->tokens;
}

const struct gemma2_device *engine_device(const struct engine *engine)
{
    return &engine->on;
}

size_t engine_row_bytes(const struct engine *engine)
{
    return engine->row_bytes;
}
