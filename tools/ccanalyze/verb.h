/* verb.h - the verbs of ccanalyze: each is an option table, the size of its options, and a
 * function.
 *
 * main.c finds the verb by its word, parses, and runs it; so a verb sees its options alone and
 * returns 0 or a code of err.h.
 */
#ifndef CCANALYZE_VERB_H
#define CCANALYZE_VERB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/crosscoder.h"
#include "common/err.h"
#include "common/opt.h"
#include "common/stream.h"
#include "common/tokenizer.h"
#include "norms.h"
#include "scan.h"
#include "table.h"

struct verb {
    const struct opt_tool *tool; /* .name is "ccanalyze WORD" */
    size_t options_size;         /* of a struct that begins with struct opt_common */
    int (*run)(const void *options);
};

extern const struct verb verb_info, verb_verify, verb_salvage, verb_pack, verb_dump, verb_norms,
    verb_clusters, verb_cosine, verb_freq, verb_eval, verb_top, verb_report;

/* ---- parts that verbs share */

/* Of verbs that print a table; `S` has a member `struct table_form form`. */
#define VERB_TABLE_OPTIONS(S)                                           \
    OPT_STRING("output", 'o', S, form.output, "FILE", NULL, OPT_WRITES, \
               "write to FILE, not standard output"),                   \
        OPT_FLAG("json", 0, S, form.json, 0, "JSON instead of tab-separated values")

/* Of verbs that compute latents of rows. */
struct verb_compute {
    const char *device;
    int dtype;
};
/* The words of --dtype are in the order of enum dtype. */
#define VERB_COMPUTE_OPTIONS(S)                                                \
    OPT_STRING("device", 0, S, compute.device, "auto|cpu|cuda[:N]", "auto", 0, \
               "where to compute"),                                            \
        OPT_CHOICE("dtype", 0, S, compute.dtype, "f32|bf16", "f32", 0, "what to compute in")

#define VERB_MOST 9007199254740992.0 /* counts are exact in doubles and in JSON up to 2^53 */

/* Reads the checkpoint that the first operand names, for --plan its shape alone (`weights` false).
 * ERR_USAGE (logged) where there is no operand, where there is more than one and `rows` is false
 * (what follows are files of rows), and for latents of rows where the activation is not ReLU. */
int verb_read(struct crosscoder *cc, const struct opt_common *common, bool rows,
              bool weights) MUST_CHECK;

/* The run of a verb that needs the weights alone: reads the checkpoint, answers
 * --plan, computes the norms with `pair`, and hands them with the options, which begin with struct
 * opt_common, to `work`. */
int verb_run_norms(const void *options, const char *pair,
                   int (*work)(const void *options, const struct norms *norms)) MUST_CHECK;

/* What a pass over the rows of the other operands, else standard input, needs. */
struct scan_setup verb_scan_setup(const struct crosscoder *cc, const struct opt_common *common,
                                  const struct verb_compute *compute);

/* --plan: prints the memory that the checkpoint as it was read and `more` bytes take. */
int verb_plan(const struct crosscoder *cc, uint64_t more) MUST_CHECK;

/* The same with a pass over rows: prints the memory that the checkpoint as it was read, the pass
 * and `more` bytes take, and the number of rows where files are named and it is known. */
int verb_plan_scan(const struct scan_setup *setup, uint64_t more) MUST_CHECK;

/* The tokenizer of --model DIR, NULL where folder is NULL. ERR_USAGE (logged) where it has none. */
int verb_open_tokenizer(struct tokenizer **tokenizer, const char *folder) MUST_CHECK;

/* ERR_USAGE (logged) where the rows say that they were made with another one: the pieces would be
 * of other tokens, and nothing would show it. tokenizer may be NULL. */
int verb_check_tokenizer(const struct tokenizer *tokenizer, const struct begin *begin,
                         const char *folder) MUST_CHECK;

#endif
