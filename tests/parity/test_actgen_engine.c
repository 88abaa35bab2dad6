/* test_actgen_engine.c - what passes take of a device's memory: what was planned, and nothing after
 * the first; and that passes under way at once leave each other's rows alone.
 *
 * The emulated device counts to the byte. The CPU's memory is everybody's, so there only rows are
 * looked at.
 */
#include "parity.h"

#include "common/le.h"
#include "tools/actgen/engine.h"

enum { LENGTH = 40, SEQUENCES = 2, PASSES = 4 };

struct job {
    struct sources sources;
    struct modeldir dirs[2];
    struct engine *engine;
};

static void open_job(struct job *job, uint32_t buffers)
{
    static const char *models[] = {"base=demo/tiny-gemma2/base", "chat=demo/tiny-gemma2/chat"};
    static const char *hooks[] = {"blocks.0.hook_resid_post", "blocks.0.hook_mlp_out"};
    const char *named = getenv("PARITY_DEVICE");
    *job = (struct job){0};
    assert_int_equal(setenv("CCPIPE_BACKENDS", getenv("BIN") != NULL ? getenv("BIN") : "bin", 0),
                     0);
    assert_int_equal(
        sources_parse(&job->sources, &(struct opt_list){models, 2}, &(struct opt_list){hooks, 2}),
        0);
    for (size_t i = 0; i < 2; i++) {
        const struct sources_model *model = &job->sources.models[i];
        assert_int_equal(modeldir_open(&job->dirs[i], model->name, model->folder,
                                       sources_depth(&job->sources, i)),
                         0);
    }
    struct engine_setup setup = {.device = named != NULL ? named : "cpu",
                                 .threads = 2,
                                 .type = DTYPE_BF16,
                                 .row_type = DTYPE_BF16,
                                 .buffers = buffers,
                                 .sources = &job->sources,
                                 .dirs = job->dirs};
    assert_int_equal(engine_open(&job->engine, &setup), 0);
}

static void close_job(struct job *job)
{
    engine_free(job->engine);
    for (size_t i = 0; i < 2; i++)
        modeldir_close(&job->dirs[i]);
    sources_free(&job->sources);
}

/* Sequences of which the first token alone says which pass it is: 3 * number. */
static void fill_pass(const struct job *job, struct pass *pass, unsigned number)
{
    struct pass_rule rule = {.first = 1};
    struct pass_skipped skipped = {0};
    uint8_t ids[LENGTH * 4];
    for (uint32_t i = 0; i < LENGTH; i++)
        le_put32(ids + (size_t)4 * i, i == 0 ? 3 * number : i);
    if (pass->capacity == 0)
        assert_int_equal(
            pass_reserve(pass, engine_chunk(job->engine), LENGTH * SEQUENCES, SEQUENCES), 0);
    pass_clear(pass);
    for (unsigned i = 0; i < SEQUENCES; i++)
        pass_add(pass, &rule, &skipped, i, ids, LENGTH);
}

/* Rows of a pass, or hashes, at `got`. */
static void take(const struct job *job, const struct pass *pass, bool window, uint8_t *got)
{
    size_t bytes = window ? 2 * sizeof(uint64_t) : engine_row_bytes(job->engine);
    assert_int_equal(pass->kept, SEQUENCES * (LENGTH - 1));
    assert_int_equal(engine_finish(job->engine), 0);
    memcpy(got, window ? (const void *)engine_hashes(job->engine) : engine_rows(job->engine),
           pass->kept * bytes);
}

/* All passes, `depth` under way at most. */
static void run_passes(const struct job *job, unsigned depth, bool window, uint8_t *got,
                       size_t pass_bytes_, uint64_t *least_free, uint64_t *first_free)
{
    const struct gemma2_device *on = engine_device(job->engine);
    const double factors[] = {0.5, 0.25, 2, 1};
    struct pass passes[ENGINE_DEPTH] = {0};
    *least_free = UINT64_MAX;
    for (unsigned n = 0; n < PASSES + depth - 1; n++) {
        if (n < PASSES) {
            struct pass *pass = &passes[n % depth];
            fill_pass(job, pass, n);
            assert_int_equal(engine_start(job->engine, pass, pass_close(pass), factors, n % 3), 0);
        }
        if (n + 1 < depth)
            continue;
        unsigned oldest = n + 1 - depth;
        take(job, &passes[oldest % depth], window, got + oldest * pass_bytes_);
        uint64_t left = on->kernels->memory_free(on->device);
        if (oldest == 0)
            *first_free = left;
        *least_free = left < *least_free ? left : *least_free;
    }
    for (unsigned i = 0; i < depth; i++)
        pass_free(&passes[i]);
}

static void check(uint32_t buffers)
{
    struct job job;
    struct engine_memory memory;
    char hashes[2][33];
    open_job(&job, buffers);
    const struct gemma2_device *on = engine_device(job.engine);
    size_t bytes = SEQUENCES * (LENGTH - 1) * engine_row_bytes(job.engine);
    uint8_t *one = calloc(PASSES, bytes), *both = calloc(PASSES, bytes);
    assert_true(one != NULL && both != NULL);
    uint64_t before = on->kernels->memory_free(on->device), first, least;
    assert_int_equal(engine_measure(job.engine, LENGTH * SEQUENCES, LENGTH, &memory), 0);
    assert_int_equal(engine_load(job.engine, hashes), 0);
    assert_int_equal(engine_reserve(job.engine, LENGTH * SEQUENCES, LENGTH), 0);
    uint64_t reserved = on->kernels->memory_free(on->device);
    run_passes(&job, 1, buffers > 0, one, bytes, &least, &first);
    if (!on->kernels->at_once) {
        assert_int_equal(before - reserved,
                         memory.weights + memory.embedding + memory.work + memory.rows);
        assert_int_equal(least, first);
    }
    run_passes(&job, engine_depth(job.engine), buffers > 0, both, bytes, &least, &first);
    assert_memory_equal(one, both, PASSES * bytes);
    for (unsigned n = 1; n < PASSES; n++)
        assert_memory_not_equal(one, one + n * bytes, bytes);
    free(one);
    free(both);
    close_job(&job);
}

static void rows_come_back(void **state)
{
    (void)state;
    check(0);
}

static void rows_stay_in_a_window(void **state)
{
    (void)state;
    check(3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_come_back),
                                       cmocka_unit_test(rows_stay_in_a_window)};
    log_init("test_actgen_engine", LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
