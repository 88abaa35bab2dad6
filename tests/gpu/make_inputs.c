/* make_inputs.c - what tests/gpu/check measures speed with: two models with random weights, random
 * tokens, random rows.
 *
 *   make_inputs [--tiny] FOLDER
 *
 * Writes FOLDER/base and FOLDER/chat (config.json, model.safetensors), FOLDER/tokens.npy (u32) and
 * FOLDER/rows.ccps (bf16). The models have the shapes of Gemma-2 2b and weights of its first 14
 * layers, 3.4 GB each; the rows are 25 batches of 4096 of two such models, 0.9 GB. --tiny is for
 * an emulated device.
 */
#include "tests/bench/actgen/random_model.h"

#include "common/io.h"
#include "common/log.h"
#include "common/npy.h"
#include "common/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

struct inputs {
    struct gemma2_config config;
    uint32_t written_layers;
    uint64_t sequences, length, rows;
};

static const struct inputs real = {.config = {.vocab = 256000,
                                              .width = 2304,
                                              .inner = 9216,
                                              .layers = 26,
                                              .heads = 8,
                                              .key_heads = 4,
                                              .head_dim = 256,
                                              .window = 4096},
                                   .written_layers = 14,
                                   .sequences = 1024,
                                   .length = 1024,
                                   .rows = 25 * 4096};
static const struct inputs tiny = {.config = {.vocab = 512,
                                              .width = 64,
                                              .inner = 128,
                                              .layers = 3,
                                              .heads = 4,
                                              .key_heads = 2,
                                              .head_dim = 16,
                                              .window = 16},
                                   .written_layers = 2,
                                   .sequences = 8,
                                   .length = 32,
                                   .rows = 128};

static int write_config(const struct gemma2_config *config, const char *path)
{
    char text[1024];
    int length = snprintf(
        text, sizeof text,
        "{\"model_type\": \"gemma2\", \"architectures\": [\"Gemma2ForCausalLM\"],\n"
        " \"vocab_size\": %u, \"hidden_size\": %u, \"intermediate_size\": %u,\n"
        " \"num_hidden_layers\": %u, \"num_attention_heads\": %u, \"num_key_value_heads\": %u,\n"
        " \"head_dim\": %u, \"query_pre_attn_scalar\": %u, \"sliding_window\": %u,\n"
        " \"rms_norm_eps\": 1e-06, \"rope_theta\": 10000.0, \"attn_logit_softcapping\": 50.0,\n"
        " \"final_logit_softcapping\": 30.0, \"hidden_activation\": \"gelu_pytorch_tanh\"}\n",
        (unsigned)config->vocab, (unsigned)config->width, (unsigned)config->inner,
        (unsigned)config->layers, (unsigned)config->heads, (unsigned)config->key_heads,
        (unsigned)config->head_dim, (unsigned)config->head_dim, (unsigned)config->window);
    struct io_file file;
    int status = io_open_output(&file, path, false);
    if (status < 0)
        return status;
    status = io_write(&file, text, (size_t)length);
    int closed = io_close(&file);
    return status != 0 ? status : closed;
}

static int write_model(const struct inputs *inputs, const char *folder, const char *name,
                       uint64_t seed)
{
    char *model = io_join(folder, name), *config = NULL, *weights = NULL;
    int status = ERR_MEMORY;
    if (model != NULL && (config = io_join(model, "config.json")) != NULL &&
        (weights = io_join(model, "model.safetensors")) != NULL)
        status = mkdir(model, 0755) == 0 ? 0 : log_fail_errno("cannot make '%s'", model);
    if (status == 0)
        status = write_config(&inputs->config, config);
    if (status == 0)
        status = random_model_write(weights, &inputs->config, inputs->written_layers, seed);
    free(weights);
    free(config);
    free(model);
    return status;
}

/* Every id but the first three, which are special ones. */
static int write_tokens(const struct inputs *inputs, const char *path)
{
    uint8_t header[256];
    const uint64_t shape[] = {inputs->sequences, inputs->length};
    size_t count = (size_t)(inputs->sequences * inputs->length);
    struct io_file file;
    uint8_t *ids = mem_alloc(count, 4);
    if (ids == NULL)
        return mem_fail("token ids", count, 4);
    for (size_t i = 0; i < count; i++)
        le_put32(ids + 4 * i, (uint32_t)(3 + random_bits(i) % (inputs->config.vocab - 3)));
    int status = io_open_output(&file, path, true);
    if (status == 0) {
        status = io_write(&file, header, npy_format(header, "<u4", shape, 2));
        if (status == 0)
            status = io_write(&file, ids, 4 * count);
        int closed = io_close(&file);
        status = status != 0 ? status : closed;
    }
    free(ids);
    return status;
}

/* Rows of which each source has the norm that actgen scales to, the root of its width. */
static int fill_rows(const struct inputs *inputs, struct stream_writer *writer)
{
    enum { PIECE = 64 };
    size_t width = 2 * (size_t)inputs->config.width;
    uint8_t tags[PIECE * STREAM_TAG_BYTES], *data = mem_alloc(PIECE * width, 2);
    int status = data == NULL ? mem_fail("rows", PIECE * width, 2) : 0;
    for (uint64_t row = 0; row < inputs->rows && status == 0; row += PIECE) {
        for (uint64_t i = 0; i < PIECE; i++)
            stream_tag_put(tags + i * STREAM_TAG_BYTES,
                           (struct stream_tag){(row + i) / 1024, (uint32_t)((row + i) % 1024), 3});
        random_bf16(data, row * width, PIECE * width, 1.7320508f);
        status = stream_writer_rows(writer, tags, data, PIECE);
    }
    free(data);
    return status;
}

static int write_rows(const struct inputs *inputs, const char *path)
{
    struct begin begin;
    struct stream_writer *writer = NULL;
    int status = begin_init(&begin, BEGIN_ACTIVATIONS, "make_inputs");
    begin.dtype = DTYPE_BF16;
    begin.has_rows = true;
    begin.rows = inputs->rows;
    static const char *const models[] = {"base", "chat"};
    for (size_t i = 0; i < 2 && status == 0; i++) {
        char name[16];
        snprintf(name, sizeof name, "%s.random", models[i]);
        status = begin_add_source(&begin, name, models[i], "random", "", inputs->config.width, 1);
    }
    if (status == 0)
        status = stream_writer_open(&writer, path, STREAM_CODEC_NONE, 2);
    if (status == 0)
        status = stream_writer_begin(writer, &begin);
    if (status == 0)
        status = fill_rows(inputs, writer);
    if (status == 0)
        status = stream_writer_end(writer, NULL);
    stream_writer_free(writer);
    begin_free(&begin);
    return status;
}

static int make(const struct inputs *inputs, const char *folder)
{
    if (mkdir(folder, 0755) != 0 && errno != EEXIST)
        return log_fail_errno("cannot make '%s'", folder);
    char *tokens = io_join(folder, "tokens.npy"), *rows = io_join(folder, "rows.ccps");
    int status = tokens == NULL || rows == NULL ? ERR_MEMORY : 0;
    if (status == 0)
        status = write_model(inputs, folder, "base", 1);
    if (status == 0)
        status = write_model(inputs, folder, "chat", 2);
    if (status == 0)
        status = write_tokens(inputs, tokens);
    if (status == 0)
        status = write_rows(inputs, rows);
    free(rows);
    free(tokens);
    return status;
}

int main(int argc, char **argv)
{
    log_init("make_inputs", LOG_NOTE);
    bool small = argc == 3 && strcmp(argv[1], "--tiny") == 0;
    if (argc != 2 && !small)
        return err_exit_status(log_fail(ERR_USAGE, "usage: make_inputs [--tiny] FOLDER"));
    int status = make(small ? &tiny : &real, argv[argc - 1]);
    return status != 0 ? err_exit_status(status) : EXIT_SUCCESS;
}
