/* verb_top.c - `ccanalyze top`: where latents fire most, with the tokens around. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/tokenizer.h"
#include "norms.h"
#include "top.h"
#include "verb.h"

struct top_options {
    struct opt_common common;
    struct table_form form;
    struct verb_compute compute;
    const char *model, *latents, *pair, *quantiles;
    uint64_t n, context;
    double min_relative, max_relative;
};

#define S struct top_options
static const struct opt top_table[] = {
    OPT_STRING("latents", 0, S, latents, "12,45", NULL, 0,
               "these latents; default: all that the bounds below let through"),
    OPT_REAL("min-relative-norm", 0, S, min_relative, "X", 0, 1, NULL, 0,
             "only latents whose relative norm is at least X"),
    OPT_REAL("max-relative-norm", 0, S, max_relative, "X", 0, 1, NULL, 0,
             "only latents whose relative norm is at most X"),
    OPT_STRING(
        "pair", 0, S, pair, "A,B", NULL, 0,
        "the sources of the relative norm, by name or number; default: both, if there are two"),
    OPT_COUNT("n", 'n', S, n, "N", 1, 1e6, "20", 0, "sequences for each latent"),
    OPT_COUNT("context", 0, S, context, "N", 0, 1e5, "10", 0, "tokens before, and after"),
    OPT_STRING("quantiles", 0, S, quantiles, "Q,...", NULL, OPT_NOT_BUILT,
               "sequences of weaker activations, too, by quantiles of the maximum"),
    OPT_STRING("model", 0, S, model, "DIR", NULL, 0,
               "model folder whose tokenizer.json turns ids into text"),
    VERB_COMPUTE_OPTIONS(S),
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool top_tool = {
    .name = "ccanalyze top",
    .section = "ccanalyze",
    .summary = "the rows that latents answer to most, with their contexts",
    .synopsis = "ccanalyze top CC [ROWS...]",
    .details =
        "CC is a run folder (its newest step), a step folder or a safetensors file; ROWS is a "
        "stream of activations in sequence order, else standard input; a stream that was shuffled "
        "is refused. Each sequence counts once for a latent, with its largest activation; of "
        "sequences with the same tokens the first is taken. context is the ids around the row, "
        "separated by spaces, or with --model their text, in which the row's own token stands "
        "between « and ». --json has the activation at each token of the context. Latents that "
        "never fire have no lines.",
    .examples = "  ccanalyze top run acts.lz4 --model models/chat --min-relative-norm 0.9 -n 3\n"
                "  ccanalyze top run acts.lz4 --latents 12,45 --json",
    .options = top_table,
};

/* ---- which latents */

/* The numbers of "12,45,7". */
static int top_parse_latents(const char *text, uint64_t latents, uint64_t *chosen, size_t *count)
{
    uint8_t *seen = mem_alloc_zero((size_t)latents, 1);
    int status = seen == NULL ? mem_fail("latents", (size_t)latents, 1) : 0;
    *count = 0;
    while (status == 0) {
        char word[24] = "";
        size_t length = strcspn(text, ",");
        if (length < sizeof word)
            memcpy(word, text, length);
        uint64_t j;
        if (!opt_parse_count(word, 0, latents - 1, &j))
            status =
                log_fail(ERR_USAGE,
                         "--latents: '%.*s' is not a latent: numbers from 0 to %llu, "
                         "separated by commas",
                         (int)(length < 200 ? length : 200), text, (unsigned long long)latents - 1);
        else if (seen[j]++ == 0)
            chosen[(*count)++] = j;
        if (text[length] == '\0')
            break;
        text += length + 1;
    }
    free(seen);
    return status;
}

/* Leaves those whose relative norm lies within the bounds that were given. */
static int top_keep_within(const struct top_options *options, const struct norms *norms,
                           uint64_t *chosen, size_t *count)
{
    bool least = opt_given(&options->common, "min-relative-norm");
    bool most = opt_given(&options->common, "max-relative-norm");
    if (!least && !most)
        return 0;
    int status = norms_require_pair(norms, "a relative norm");
    size_t kept = 0;
    for (size_t i = 0; status == 0 && i < *count; i++) {
        double relative = norms->relative[chosen[i]];
        bool outside = isnan(relative) || (least && relative < options->min_relative) ||
                       (most && relative > options->max_relative);
        if (!outside)
            chosen[kept++] = chosen[i];
    }
    if (status == 0 && kept == 0)
        log_note("no latent has a relative norm within the bounds");
    *count = kept;
    return status;
}

static int top_choose(const struct top_options *options, const struct crosscoder *cc,
                      const struct norms *norms, uint64_t **chosen, size_t *count)
{
    int status = 0;
    *chosen = mem_alloc((size_t)cc->latents, sizeof **chosen);
    if (*chosen == NULL)
        return mem_fail("latents", (size_t)cc->latents, sizeof **chosen);
    *count = (size_t)cc->latents;
    for (size_t j = 0; j < *count; j++)
        (*chosen)[j] = j;
    if (options->latents != NULL)
        status = top_parse_latents(options->latents, cc->latents, *chosen, count);
    return status != 0 ? status : top_keep_within(options, norms, *chosen, count);
}

/* ---- printing */

static int top_text_ids(const struct top_example *example, char **text)
{
    size_t size = example->length * 11 + 1, used = 0;
    *text = mem_alloc(size, 1);
    if (*text == NULL)
        return mem_fail("a context", example->length, 11);
    (*text)[0] = '\0';
    for (size_t i = 0; i < example->length; i++)
        used += (size_t)snprintf(*text + used, size - used, "%s%lu", i > 0 ? " " : "",
                                 (unsigned long)example->ids[i]);
    return 0;
}

/* Before, «the token», after: each part decoded on its own. */
static int top_text_pieces(const struct tokenizer *tokenizer, const struct top_example *example,
                           char **text)
{
    char *before = tokenizer_text(tokenizer, example->ids, example->at);
    char *here = tokenizer_text(tokenizer, example->ids + example->at, 1);
    char *after = tokenizer_text(tokenizer, example->ids + example->at + 1,
                                 example->length - example->at - 1);
    int status = 0;
    if (before == NULL || here == NULL || after == NULL) {
        status = mem_fail("a context", example->length, 1);
    } else {
        size_t size = strlen(before) + strlen(here) + strlen(after) + sizeof "«»";
        *text = mem_alloc(size, 1);
        if (*text == NULL)
            status = mem_fail("a context", size, 1);
        else
            snprintf(*text, size, "%s«%s»%s", before, here, after);
    }
    free(before);
    free(here);
    free(after);
    return status;
}

static int top_print_example(struct table *table, uint64_t latent, size_t rank,
                             const struct top_example *example, const struct tokenizer *tokenizer)
{
    char *text = NULL;
    int status = tokenizer == NULL ? top_text_ids(example, &text)
                                   : top_text_pieces(tokenizer, example, &text);
    if (status == 0) {
        table_count(table, latent);
        table_count(table, rank + 1);
        table_real(table, (double)example->activation);
        table_count(table, example->sequence);
        table_count(table, example->position);
        table_count(table, example->token);
        table_text(table, text);
        status = table_row(table);
    }
    free(text);
    return status;
}

/* Adds one token of a context to the lists of its example. */
static int top_json_token(json_t *tokens, json_t *activations, json_t *pieces,
                          const struct top_example *example, size_t i,
                          const struct tokenizer *tokenizer)
{
    int failed = json_array_append_new(tokens, json_integer((json_int_t)example->ids[i]));
    failed |= json_array_append_new(activations, json_real((double)example->activations[i]));
    if (tokenizer != NULL) {
        char *text = tokenizer_text(tokenizer, example->ids + i, 1);
        failed |= json_array_append_new(pieces, text == NULL ? NULL : json_string(text));
        free(text);
    }
    return failed;
}

/* One example as an object; NULL where memory is short. */
static json_t *top_json_example(size_t rank, const struct top_example *example,
                                const struct tokenizer *tokenizer)
{
    json_t *tokens = json_array(), *activations = json_array(), *pieces = json_array();
    int failed = 0;
    for (size_t i = 0; i < example->length; i++)
        failed |= top_json_token(tokens, activations, pieces, example, i, tokenizer);
    json_t *object = json_pack(
        "{s:I, s:f, s:I, s:I, s:I, s:I, s:O, s:O}", "rank", (json_int_t)rank + 1, "activation",
        (double)example->activation, "sequence", (json_int_t)example->sequence, "position",
        (json_int_t)example->position, "token", (json_int_t)example->token, "at",
        (json_int_t)example->at, "tokens", tokens, "activations", activations);
    if (tokenizer != NULL)
        failed |= json_object_set(object, "pieces", pieces);
    json_decref(tokens);
    json_decref(activations);
    json_decref(pieces);
    if (failed != 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static int top_print_json(struct table *table, const struct top *top, size_t k, uint64_t latent,
                          const struct tokenizer *tokenizer)
{
    json_t *examples = json_array();
    for (size_t rank = 0; rank < top_count(top, k); rank++)
        if (json_array_append_new(
                examples, top_json_example(rank, top_example(top, k, rank), tokenizer)) != 0) {
            json_decref(examples);
            return mem_fail("contexts", top_count(top, k), 1);
        }
    return table_element(
        table, json_pack("{s:I, s:o}", "index", (json_int_t)latent, "examples", examples));
}

static int top_print(struct table *table, bool json, const struct top *top, const uint64_t *chosen,
                     size_t count, const struct tokenizer *tokenizer, uint64_t rows)
{
    int status = 0;
    for (size_t k = 0; status == 0 && k < count; k++) {
        if (json) {
            status = top_print_json(table, top, k, chosen[k], tokenizer);
            continue;
        }
        for (size_t rank = 0; status == 0 && rank < top_count(top, k); rank++)
            status =
                top_print_example(table, chosen[k], rank, top_example(top, k, rank), tokenizer);
    }
    return status != 0 ? status : table_end(table, json_pack("{s:I}", "rows", (json_int_t)rows));
}

/* ---- running */

static int top_scan(const struct scan_setup *setup, struct top *top,
                    const struct tokenizer *tokenizer, const char *folder, uint64_t *rows)
{
    struct scan *scan = NULL;
    struct scan_block block;
    int status = scan_open(&scan, setup);
    if (status == 0)
        status = top_check_begin(scan_begin(scan));
    if (status == 0)
        status = verb_check_tokenizer(tokenizer, scan_begin(scan), folder);
    if (status == 0)
        while ((status = scan_next(scan, &block)) == 1) {
            *rows = block.first_row + block.rows;
            if ((status = top_add(top, &block)) != 0)
                break;
        }
    int closed = scan_close(scan);
    if (status == 0)
        status = top_finish(top);
    return status != 0 ? status : closed;
}

static int top_collect(const struct top_options *options, const struct crosscoder *cc,
                       const uint64_t *chosen, size_t count, const struct tokenizer *tokenizer)
{
    static const char *const columns[] = {"index",    "rank",  "activation", "sequence",
                                          "position", "token", "context"};
    struct scan_setup setup = verb_scan_setup(cc, &options->common, &options->compute);
    struct top_setup wanted = {.latents = chosen,
                               .latent_count = count,
                               .all_latents = (size_t)cc->latents,
                               .n = (size_t)options->n,
                               .context = (size_t)options->context};
    if (options->common.plan)
        return verb_plan_scan(&setup, top_bytes(&wanted) + norms_bytes(cc));
    struct top *top = NULL;
    struct table *table = NULL;
    uint64_t rows = 0;
    int status = top_open(&top, &wanted);
    if (status == 0)
        status = table_open(&table, &options->form, "latents", columns,
                            sizeof columns / sizeof *columns);
    if (status == 0)
        status = top_scan(&setup, top, tokenizer, options->model, &rows);
    if (status == 0)
        status = top_print(table, options->form.json, top, chosen, count, tokenizer, rows);
    table_free(table);
    top_free(top);
    return status;
}

static int top_run(const void *values)
{
    const struct top_options *options = values;
    struct crosscoder cc = {0};
    struct norms norms = {0};
    struct tokenizer *tokenizer = NULL;
    uint64_t *chosen = NULL;
    size_t count = 0;
    int status = verb_read(&cc, &options->common, true, true);
    if (status == 0)
        status = norms_compute(&norms, &cc, options->pair);
    if (status == 0)
        status = verb_open_tokenizer(&tokenizer, options->model);
    if (status == 0)
        status = top_choose(options, &cc, &norms, &chosen, &count);
    if (status == 0)
        status = top_collect(options, &cc, chosen, count, tokenizer);
    free(chosen);
    tokenizer_free(tokenizer);
    norms_free(&norms);
    crosscoder_free(&cc);
    return status;
}

const struct verb verb_top = {&top_tool, sizeof(struct top_options), top_run};
