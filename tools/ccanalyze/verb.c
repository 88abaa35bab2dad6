/* verb.c - what the verbs that work on a checkpoint have in common. */
#include "verb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"

int verb_read(struct crosscoder *cc, const struct opt_common *common, bool rows, bool weights)
{
    if (common->operand_count == 0)
        return log_fail(ERR_USAGE, "which checkpoint? name a run folder, a step folder or a "
                                   "safetensors file");
    if (common->operand_count > 1 && !rows)
        return log_fail(ERR_USAGE, "one checkpoint is expected, and '%s' follows it",
                        common->operands[1]);
    const char *path = common->operands[0];
    int status = weights ? crosscoder_read(cc, path) : crosscoder_read_shape(cc, path);
    const char *activation = status == 0 && rows ? crosscoder_get(cc, "activation") : NULL;
    if (activation == NULL || strcmp(activation, "relu") == 0)
        return status;
    status = log_fail(ERR_USAGE, "'%s': its activation is '%s', which is not built", cc->path,
                      activation);
    crosscoder_free(cc);
    return status;
}

struct scan_setup verb_scan_setup(const struct crosscoder *cc, const struct opt_common *common,
                                  const struct verb_compute *compute)
{
    return (struct scan_setup){
        .cc = cc,
        .paths = common->operands + 1,
        .path_count = common->operand_count - 1,
        .device = compute->device,
        .dtype = (enum dtype)compute->dtype,
        .threads = opt_threads(common),
        .metrics = common->metrics,
    };
}

static uint64_t verb_checkpoint_bytes(const struct crosscoder *cc)
{
    return (2 * cc->latents * cc->width + cc->latents + cc->width) * sizeof(float);
}

static int verb_print_plan(uint64_t memory, const struct begin *begin)
{
    printf("memory\t%" PRIu64 "\n", memory);
    if (begin != NULL && begin->has_rows)
        printf("rows\t%" PRIu64 "\n", begin->rows);
    return 0; /* tool_finish() flushes standard output and sees whether that worked */
}

int verb_plan(const struct crosscoder *cc, uint64_t more)
{
    return verb_print_plan(verb_checkpoint_bytes(cc) + more, NULL);
}

int verb_run_norms(const void *options, const char *pair,
                   int (*work)(const void *options, const struct norms *norms))
{
    const struct opt_common *common = options;
    struct crosscoder cc = {0};
    struct norms norms = {0};
    int status = verb_read(&cc, common, false, !common->plan);
    if (status == 0 && common->plan)
        status = verb_plan(&cc, norms_bytes(&cc));
    else if (status == 0 && (status = norms_compute(&norms, &cc, pair)) == 0)
        status = work(options, &norms);
    norms_free(&norms);
    crosscoder_free(&cc);
    return status;
}

int verb_plan_scan(const struct scan_setup *setup, uint64_t more)
{
    struct stream_reader *reader = NULL;
    int status = 0;
    if (setup->path_count > 0)
        status = stream_reader_open(&reader, setup->paths, setup->path_count, BEGIN_ACTIVATIONS, 1);
    if (status == 0)
        status = verb_print_plan(verb_checkpoint_bytes(setup->cc) + scan_bytes(setup) + more,
                                 reader == NULL ? NULL : stream_reader_begin(reader));
    stream_reader_free(reader);
    return status;
}

int verb_open_tokenizer(struct tokenizer **tokenizer, const char *folder)
{
    if (folder == NULL)
        return 0;
    int status = tokenizer_open_folder(tokenizer, folder);
    if (status == 0 && *tokenizer == NULL)
        status = log_fail(ERR_USAGE, "'%s' has no tokenizer.json", folder);
    return status;
}

int verb_check_tokenizer(const struct tokenizer *tokenizer, const struct begin *begin,
                         const char *folder)
{
    char hash[33];
    if (tokenizer == NULL || begin->tokenizer_hash[0] == '\0')
        return 0;
    tokenizer_hash(tokenizer, hash);
    if (strcmp(hash, begin->tokenizer_hash) == 0)
        return 0;
    return log_fail(ERR_USAGE,
                    "the rows were made with another tokenizer (%s) than that of '%s' (%s); give "
                    "the folder of a model that made them",
                    begin->tokenizer_hash, folder, hash);
}
