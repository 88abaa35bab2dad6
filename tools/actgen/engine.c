/* engine.c - device, models, buffers; and where in a row each source lies. */
#include "engine.h"

#include <assert.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"

/* Where a source's values, and for int8 its quantum, lie in a row. */
struct place {
    size_t at, quantum_at;
};

struct engine {
    struct engine_setup setup;
    struct gemma2_device on;
    struct gemma2 **models;
    struct place *places; /* (sources) */
    size_t row_bytes;

    size_t tokens; /* that are reserved */
    struct gemma2_work work;
    void *d_ids, *d_positions, *d_index; /* (tokens) u32 */
    void *d_norms;                       /* (S, tokens) f32 */
    void *d_rows;                        /* (tokens, row_bytes) */
    float *norms;                        /* host */
    uint8_t *rows;                       /* host */

    /* the pass that is running */
    const struct pass *pass;
    const double *factors;
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
        status = engine->on.kernels->queue_create(engine->on.device, &engine->on.queue);
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

/* ids, positions and index; norms and rows, on both sides. */
static uint64_t token_bytes(const struct engine *engine)
{
    return 3 * sizeof(uint32_t) +
           2 * (engine->setup.sources->count * sizeof(float) + engine->row_bytes);
}

int engine_measure(const struct engine *engine, size_t tokens, uint32_t length,
                   struct engine_memory *memory)
{
    *memory = (struct engine_memory){0};
    tokens = pass_round_up(tokens);
    memory->work = tokens * token_bytes(engine);
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

static void release(struct engine *engine)
{
    const struct kernels *kernels = engine->on.kernels;
    void **d_memory[] = {&engine->d_ids, &engine->d_positions, &engine->d_index, &engine->d_norms,
                         &engine->d_rows};
    for (size_t i = 0; i < sizeof d_memory / sizeof *d_memory; i++) {
        kernels->free(engine->on.device, *d_memory[i]);
        *d_memory[i] = NULL;
    }
    for (size_t i = 0; i < GEMMA2_BUFFERS; i++) {
        kernels->free(engine->on.device, engine->work.d_buffers[i]);
        engine->work.d_buffers[i] = NULL;
    }
    free(engine->norms);
    free(engine->rows);
    engine->norms = NULL;
    engine->rows = NULL;
    engine->tokens = 0;
}

void engine_free(struct engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->on.device != NULL) {
        release(engine);
        for (size_t i = 0; i < engine->setup.sources->model_count; i++)
            gemma2_free(engine->models[i]);
        engine->on.kernels->queue_free(engine->on.queue);
        kernels_close(engine->on.kernels, engine->on.device);
    }
    free(engine->models);
    free(engine->places);
    free(engine);
}

int engine_reserve(struct engine *engine, size_t tokens, uint32_t length)
{
    release(engine);
    size_t n = pass_round_up(tokens), sources = engine->setup.sources->count;
    const struct {
        void **d_memory;
        size_t token_bytes;
    } buffers[] = {
        {&engine->d_ids, sizeof(uint32_t)},   {&engine->d_positions, sizeof(uint32_t)},
        {&engine->d_index, sizeof(uint32_t)}, {&engine->d_norms, sources * sizeof(float)},
        {&engine->d_rows, engine->row_bytes},
    };
    int status = 0;
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers && status == 0; i++) {
        size_t bytes;
        status = mem_mul(&bytes, n, buffers[i].token_bytes)
                     ? engine->on.kernels->alloc(engine->on.device, buffers[i].d_memory, bytes)
                     : mem_fail("a pass", n, buffers[i].token_bytes);
    }
    for (size_t i = 0; i < GEMMA2_BUFFERS && status == 0; i++)
        status = engine->on.kernels->alloc(engine->on.device, &engine->work.d_buffers[i],
                                           (size_t)buffer_bytes(engine, (enum gemma2_buffer)i, n));
    for (size_t i = 0; i < engine->setup.sources->model_count && status == 0; i++)
        status = gemma2_reserve_positions(engine->models[i], length);
    if (status != 0)
        return status;
    engine->norms = mem_alloc(n, sources * sizeof(float));
    engine->rows = mem_alloc(n, engine->row_bytes);
    if (engine->norms == NULL || engine->rows == NULL)
        return mem_fail("the rows of a pass", n, engine->row_bytes);
    engine->tokens = n;
    return 0;
}

/* ---- a pass */

static void tap(void *context, size_t source, size_t chunk, const float *d_values)
{
    const struct engine *engine = context;
    const struct kernels *kernels = engine->on.kernels;
    const struct place *place = &engine->places[source];
    size_t width = source_width(engine, source);
    float *d_norms = (float *)engine->d_norms + source * engine->tokens + chunk * PASS_CHUNK;
    kernels->row_norms(engine->on.queue, d_norms, d_values, PASS_CHUNK, width);
    size_t first = engine->pass->chunk_first[chunk];
    size_t count = engine->pass->chunk_first[chunk + 1] - first;
    if (engine->factors == NULL || count == 0)
        return;
    kernels->emit_rows(engine->on.queue, (uint8_t *)engine->d_rows + first * engine->row_bytes,
                       d_values, (const uint32_t *)engine->d_index + first,
                       (float)engine->factors[source], engine->setup.row_type, count,
                       engine->row_bytes, place->at, place->quantum_at, width);
}

int engine_run(struct engine *engine, const struct pass *pass, size_t chunks, const double *factors)
{
    const struct gemma2_device *on = &engine->on;
    size_t tokens = chunks * PASS_CHUNK;
    assert(tokens <= engine->tokens);
    engine->pass = pass;
    engine->factors = factors;
    on->kernels->upload(on->queue, engine->d_ids, pass->ids, tokens * sizeof *pass->ids);
    on->kernels->upload(on->queue, engine->d_positions, pass->positions,
                        tokens * sizeof *pass->positions);
    on->kernels->upload(on->queue, engine->d_index, pass->in_chunk,
                        pass->kept * sizeof *pass->in_chunk);
    struct gemma2_pass on_device = {engine->d_ids, engine->d_positions, pass->spans,
                                    pass->span_count, chunks};
    int status = 0;
    for (size_t i = 0; i < engine->setup.sources->model_count && status == 0; i++)
        status = gemma2_forward(engine->models[i], &engine->work, &on_device, tap, engine);
    for (size_t i = 0; i < engine->setup.sources->count && status == 0; i++)
        on->kernels->download(on->queue, engine->norms + i * engine->tokens,
                              (float *)engine->d_norms + i * engine->tokens,
                              tokens * sizeof(float));
    if (factors != NULL && status == 0)
        on->kernels->download(on->queue, engine->rows, engine->d_rows,
                              pass->kept * engine->row_bytes);
    /* After an interruption, too: the queue reads the pass, and its owner may free it. */
    int waited = on->kernels->wait(on->queue);
    return status != 0 ? status : waited;
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
    return engine->rows;
}

const float *engine_norms(const struct engine *engine, size_t source)
{
    return engine->norms + source * engine->tokens;
}

size_t engine_row_bytes(const struct engine *engine)
{
    return engine->row_bytes;
}
