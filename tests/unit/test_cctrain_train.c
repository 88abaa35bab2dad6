/* test_cctrain_train.c - whole runs on streams that only a program can make: with an unknown number
 * of rows, with numbers that begin late, of each type of rows, in several parts.
 */
#include "scratch.h"

#include <stdlib.h>

#include "common/checkpoint.h"
#include "common/crosscoder.h"
#include "common/io.h"
#include "common/log.h"
#include "common/stream.h"
#include "tools/cctrain/state.h"
#include "tools/cctrain/train.h"

enum { BATCH = 8, WIDTH_A = 5, WIDTH_B = 3, WIDTH = WIDTH_A + WIDTH_B };

static const char *run, *other, *rows, *more; /* paths; the runs are new for each test */

/* ---- streams */

struct stream_setup {
    uint64_t first, count; /* row numbers */
    bool known;            /* BEGIN says how many */
    enum dtype dtype;
    bool append; /* to what the file holds: `cat` */
    enum stream_codec codec;
};

/* Row r holds quanta times integers, so that all types of rows can say the same values. */
static void put_row(struct stream_writer *writer, uint64_t r, enum dtype dtype)
{
    static const float quantum[] = {0.03125f, 0.0625f};
    uint8_t tag[STREAM_TAG_BYTES], bytes[sizeof(float) * WIDTH];
    float values[WIDTH];
    int8_t integers[WIDTH];
    for (size_t c = 0; c < WIDTH; c++) {
        uint64_t mixed = (r * WIDTH + c + 1) * UINT64_C(0x9e3779b97f4a7c15);
        integers[c] = (int8_t)((int)((mixed >> 40) % 61) - 30);
        values[c] = quantum[c >= WIDTH_A] * (float)integers[c];
    }
    stream_tag_put(tag, (struct stream_tag){.sequence = r, .position = 1, .token = 2});
    if (dtype == DTYPE_I8) {
        memcpy(bytes, quantum, sizeof quantum);
        memcpy(bytes + sizeof quantum, integers, sizeof integers);
    } else {
        dtype_from_f32(bytes, dtype, values, WIDTH);
    }
    assert_int_equal(stream_writer_rows(writer, tag, bytes, 1), 0);
}

static void put_stream(const char *path, const struct stream_setup *setup)
{
    struct begin begin;
    struct stream_writer *writer;
    char part[112];
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(begin_init(&begin, BEGIN_ACTIVATIONS, "test"), 0);
    assert_int_equal(begin_add_source(&begin, "a.x", "a", "x", "", WIDTH_A, 1), 0);
    assert_int_equal(begin_add_source(&begin, "b.x", "b", "x", "", WIDTH_B, 1), 0);
    begin.dtype = setup->dtype;
    begin.has_rows = setup->known;
    begin.rows = setup->known ? setup->count : 0;
    begin.first_row = setup->first;
    assert_int_equal(stream_writer_open(&writer, part, setup->codec, 1), 0);
    assert_int_equal(stream_writer_begin(writer, &begin), 0);
    for (uint64_t r = 0; r < setup->count; r++)
        put_row(writer, setup->first + r, setup->dtype);
    assert_int_equal(stream_writer_end(writer, NULL), 0);
    stream_writer_free(writer);
    begin_free(&begin);
    char *bytes;
    size_t size;
    assert_int_equal(io_read_file(&bytes, &size, part, 1 << 24), 0);
    FILE *file = fopen(path, setup->append ? "ab" : "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    free(bytes);
    assert_int_equal(unlink(part), 0);
}

/* Known rows of f32. */
static void put_rows(const char *path, uint64_t first, uint64_t count)
{
    const struct stream_setup setup = {
        .first = first, .count = count, .known = true, .codec = STREAM_CODEC_NONE};
    put_stream(path, &setup);
}

/* ---- runs */

/* Trains in `folder` on the file; steps 0: not given. through: by a pipe, so that END is not looked
 * at before. */
static int train(const char *folder, const char *path, uint64_t steps, bool resume, bool through)
{
    json_t *options = json_pack("{s:i, s:i, s:n, s:n, s:s}", "latents", 12, "batch", BATCH, "steps",
                                "init", "dtype", "f32");
    char *paths[] = {(char *)(uintptr_t)path};
    struct train_setup setup = {
        .out = folder,
        .paths = paths,
        .path_count = through ? 0 : 1,
        .recipe = {.latents = 12,
                   .batch = BATCH,
                   .steps = steps,
                   .seed = 49,
                   .lr = 3e-3,
                   .beta1 = 0.9,
                   .beta2 = 0.999,
                   .eps = 1e-8,
                   .clip = 1,
                   .l1 = 0.2,
                   .l1_warmup = 0.05,
                   .lr_decay = 0.2,
                   .dtype = DTYPE_F32},
        .has_steps = steps > 0,
        .options = options,
        .activation = "relu",
        .device = "cpu",
        .threads = 2,
        .save_every = 1000,
        .keep = 3,
        .log_every = 1,
        .resume = resume,
    };
    int kept = -1, pipe_ends[2];
    if (through) { /* all of it fits into the pipe */
        char *bytes;
        size_t size;
        assert_int_equal(io_read_file(&bytes, &size, path, 1 << 16), 0);
        assert_int_equal(pipe(pipe_ends), 0);
        assert_true(write(pipe_ends[1], bytes, size) == (ssize_t)size);
        close(pipe_ends[1]);
        free(bytes);
        kept = dup(STDIN_FILENO);
        assert_true(dup2(pipe_ends[0], STDIN_FILENO) == STDIN_FILENO);
        close(pipe_ends[0]);
    }
    int status = train_run(&setup);
    if (through) {
        assert_true(dup2(kept, STDIN_FILENO) == STDIN_FILENO);
        close(kept);
    }
    json_decref(options);
    return status;
}

static void read_state(struct state *state, const char *folder)
{
    uint64_t step;
    char *newest;
    assert_int_equal(checkpoint_newest(folder, &step, &newest, false), 0);
    assert_int_equal(state_read(state, newest), 0);
    free(newest);
    state_free(state);
}

static void check_same_weights(const char *a, const char *b)
{
    struct crosscoder left, right;
    assert_int_equal(crosscoder_read(&left, a), 0);
    assert_int_equal(crosscoder_read(&right, b), 0);
    size_t bytes = (size_t)(left.latents * left.width) * sizeof(float);
    assert_memory_equal(left.w_enc, right.w_enc, bytes);
    assert_memory_equal(left.w_dec, right.w_dec, bytes);
    assert_memory_equal(left.b_enc, right.b_enc, (size_t)left.latents * sizeof(float));
    assert_memory_equal(left.b_dec, right.b_dec, (size_t)left.width * sizeof(float));
    crosscoder_free(&left);
    crosscoder_free(&right);
}

/* ---- tests */

static void steps_must_be_given_where_rows_are_not_known(void **state)
{
    (void)state;
    const struct stream_setup unknown = {.count = 100};
    put_stream(rows, &unknown);
    assert_int_equal(train(run, rows, 0, false, true), ERR_USAGE);
    assert_int_not_equal(access(run, F_OK), 0);
    /* of a regular file END tells */
    assert_int_equal(train(run, rows, 0, false, false), ERR_OK);
    struct state found;
    read_state(&found, run);
    assert_int_equal(found.steps, 12);
}

static void an_end_before_the_last_step_can_be_gone_on_from(void **state)
{
    (void)state;
    const struct stream_setup shorter = {.count = 83}, longer = {.count = 163};
    put_stream(rows, &shorter);
    put_stream(more, &longer);
    struct state found;
    assert_int_equal(train(run, rows, 20, false, true), ERR_PEER);
    read_state(&found, run);
    assert_int_equal(found.step, 10);
    assert_int_equal(found.steps, 20);
    assert_int_equal(found.rows_trained, 80);
    assert_int_equal(train(run, rows, 20, true, true), ERR_PEER); /* nothing new */
    assert_int_equal(train(run, more, 20, true, true), ERR_OK);
    assert_int_equal(train(other, more, 20, false, true), ERR_OK);
    check_same_weights(run, other);
}

static void all_types_of_rows_are_the_same_values(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_BF16, DTYPE_I8};
    put_rows(rows, 0, 160);
    assert_int_equal(train(other, rows, 0, false, false), ERR_OK);
    for (size_t i = 0; i < 2; i++) {
        const struct stream_setup typed = {.count = 160, .known = true, .dtype = types[i]};
        char own[96];
        snprintf(own, sizeof own, "%s/run%zu", scratch, i);
        put_stream(more, &typed);
        assert_int_equal(train(own, more, 0, false, false), ERR_OK);
        check_same_weights(own, other);
    }
}

static void a_run_may_begin_at_any_row_and_remembers_it(void **state)
{
    (void)state;
    struct state found;
    put_rows(rows, 5000, 160);
    assert_int_equal(train(other, rows, 20, false, false), ERR_OK);
    const struct stream_setup cut = {.first = 5000, .count = 57, .codec = STREAM_CODEC_NONE};
    put_stream(more, &cut);
    assert_int_equal(train(run, more, 20, false, true), ERR_PEER);
    read_state(&found, run);
    assert_int_equal(found.step, 7);
    assert_int_equal(found.first_row, 5000);
    assert_int_equal(found.next_row, 5056);
    /* a stream that begins before the run did: what the run has not seen is passed over, too */
    put_rows(more, 4990, 170);
    assert_int_equal(train(run, more, 20, true, false), ERR_OK);
    check_same_weights(run, other);
}

static void parts_are_one_stream(void **state)
{
    (void)state;
    /* with an index (lz4), so that the rows of both are known */
    struct stream_setup part = {.count = 80, .known = true, .codec = STREAM_CODEC_LZ4};
    put_stream(more, &part);
    part.append = true;
    put_stream(more, &part);
    assert_int_equal(train(run, more, 0, false, false), ERR_OK);
    struct state found;
    read_state(&found, run);
    assert_int_equal(found.step, 20);
    assert_int_equal(found.rows_trained, 160);
}

static int set_up(void **state)
{
    const char *folder = getenv("BIN");
    assert_int_equal(setenv("CCPIPE_BACKENDS", folder != NULL ? folder : "bin", 0), 0);
    log_init("test", LOG_SILENT);
    int status = scratch_open(state);
    run = scratch_path("run");
    other = scratch_path("other");
    rows = scratch_path("rows");
    more = scratch_path("more");
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(steps_must_be_given_where_rows_are_not_known, set_up,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(an_end_before_the_last_step_can_be_gone_on_from, set_up,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(all_types_of_rows_are_the_same_values, set_up,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(a_run_may_begin_at_any_row_and_remembers_it, set_up,
                                        scratch_close),
        cmocka_unit_test_setup_teardown(parts_are_one_stream, set_up, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
