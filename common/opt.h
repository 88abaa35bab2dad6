/* opt.h - one option table per tool: parsing, ranges, help, man page and completion.
 *
 * A tool fills a struct of its own that begins with `struct opt_common`, and describes its members
 * in a const table; where a member lies is given by offsetof, so that the table is read-only data:
 *
 *     struct actgen_options { struct opt_common common; uint64_t batch; ... };
 *     static const struct opt table[] = {
 *         OPT_COUNT("batch", 0, struct actgen_options, batch, "N", 1, 4096, "8", "sequences ..."),
 *         OPT_COMMON(struct actgen_options),
 *         OPT_END,
 *     };
 *
 * A value comes from the command line, else from the environment (CCPIPE_SEQ_LEN for --seq-len),
 * else from --config FILE.json (a section per tool, keys are the long names), else from the
 * default, and each is checked the same way. Numbers are strict: decimal digits with an optional
 * suffix k, M or G (powers of 1000) for counts, which are at most 2^63 - 1; strtod's syntax for
 * reals, finite; nothing may follow. A list replaces the list of a source behind it; in the
 * environment its items are separated by commas. An empty variable counts as none. Long names are
 * not abbreviated, so that an option added later breaks no script.
 *
 * What an option with OPT_WRITES names must be another file than the operands (standard input where
 * there is none) and than what the other such options name: opening it would empty what is to be
 * read. Standard output is held to the same.
 *
 * A program of verbs has a table per verb, named "PROGRAM VERB". In the program's section of a file
 * an object is the section of the verb of that name, and comes before what stands beside it.
 */
#ifndef CCPIPE_OPT_H
#define CCPIPE_OPT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define OPT_VERSION "0.1.0"

enum opt_type {
    OPT_TYPE_END,
    OPT_TYPE_FLAG,   /* bool */
    OPT_TYPE_STRING, /* const char * */
    OPT_TYPE_LIST,   /* struct opt_list: may be repeated */
    OPT_TYPE_COUNT,  /* uint64_t */
    OPT_TYPE_REAL,   /* double */
    OPT_TYPE_CHOICE  /* int, the index of the word in `choices` */
};

/* Flags of an option. */
enum {
    OPT_RECIPE = 1,    /* changes what is written: belongs into BEGIN or the checkpoint */
    OPT_NOT_BUILT = 2, /* documented, refused with ERR_USAGE, "not built" */
    OPT_HIDDEN = 4,    /* not in help */
    OPT_WRITES = 8     /* names a file that is written: never one that is read, nor another's */
};

struct opt_list {
    const char **items;
    size_t count;
};

struct opt {
    enum opt_type type;
    const char *name;     /* long name without "--" */
    char letter;          /* short name, or 0 */
    size_t at;            /* offsetof the member */
    const char *arg;      /* what help calls the value */
    double min, max;      /* inclusive, COUNT and REAL */
    const char *choices;  /* "auto|none|lz4|zstd" */
    const char *fallback; /* the default as text, or NULL: zero, and opt_given() tells */
    unsigned flags;
    const char *help;
};

/* What every tool has. First member of a tool's own struct. */
struct opt_common {
    bool verbose, quiet, plan;
    const char *metrics;
    uint64_t threads; /* 0: as many as the process may run on */
    const char *config;
    json_t *resolved; /* all values after parsing, {name: value}; owned here */
    json_t *recipe;   /* those with OPT_RECIPE alone; owned here */
    json_t *given;    /* name -> "flag", "environment" or "file", for what was not defaulted */
    json_t *kept;     /* opt.c's own: what strings that came out of a file point into */
    char **operands;  /* the arguments that are no options, NULL behind the last */
    size_t operand_count;
};

#define OPT_FLAG(name, letter, type, member, flags, help)                                        \
    {                                                                                            \
        OPT_TYPE_FLAG, name, letter, offsetof(type, member), NULL, 0, 0, NULL, NULL, flags, help \
    }
#define OPT_STRING(name, letter, type, member, arg, fallback, flags, help)                       \
    {                                                                                            \
        OPT_TYPE_STRING, name, letter, offsetof(type, member), arg, 0, 0, NULL, fallback, flags, \
            help                                                                                 \
    }
#define OPT_LIST(name, letter, type, member, arg, flags, help)                                  \
    {                                                                                           \
        OPT_TYPE_LIST, name, letter, offsetof(type, member), arg, 0, 0, NULL, NULL, flags, help \
    }
#define OPT_COUNT(name, letter, type, member, arg, min, max, fallback, flags, help)          \
    {                                                                                        \
        OPT_TYPE_COUNT, name, letter, offsetof(type, member), arg, min, max, NULL, fallback, \
            flags, help                                                                      \
    }
#define OPT_REAL(name, letter, type, member, arg, min, max, fallback, flags, help)                 \
    {                                                                                              \
        OPT_TYPE_REAL, name, letter, offsetof(type, member), arg, min, max, NULL, fallback, flags, \
            help                                                                                   \
    }
#define OPT_CHOICE(name, letter, type, member, choices, fallback, flags, help)                \
    {                                                                                         \
        OPT_TYPE_CHOICE, name, letter, offsetof(type, member), NULL, 0, 0, choices, fallback, \
            flags, help                                                                       \
    }
#define OPT_COMMON_METRICS(type, metrics_flags, metrics_help)                                      \
    OPT_FLAG("verbose", 'v', type, common.verbose, 0, "say more, and print the resolved options"), \
        OPT_FLAG("quiet", 'q', type, common.quiet, 0, "warnings and errors only"),                 \
        OPT_STRING("metrics", 0, type, common.metrics, "FILE", NULL, metrics_flags, metrics_help), \
        OPT_COUNT("threads", 0, type, common.threads, "N", 0, 4096, "0", 0,                        \
                  "threads to compute with; 0: all that the process may run on"),                  \
        OPT_STRING("config", 0, type, common.config, "FILE.json", NULL, 0,                         \
                   "defaults from FILE, a section per tool; the environment (CCPIPE_THREADS for "  \
                   "--threads) and the command line win"),                                         \
        OPT_FLAG("plan", 0, type, common.plan, 0,                                                  \
                 "say what memory and disk (bytes) and rows this would take, and do nothing else")
#define OPT_COMMON(type) OPT_COMMON_METRICS(type, OPT_WRITES, "write JSON lines of figures to FILE")
#define OPT_END                                                   \
    {                                                             \
        OPT_TYPE_END, NULL, 0, 0, NULL, 0, 0, NULL, NULL, 0, NULL \
    }

struct opt_tool {
    const char *name;     /* "actgen", "ccanalyze norms" */
    const char *section;  /* section of --config; "ccanalyze" */
    const char *summary;  /* one line */
    const char *synopsis; /* "actgen --model NAME=DIR... --hook HOOK... [TOKENS...]" */
    const char *details;  /* paragraphs for help and man page, or NULL */
    const char *examples; /* lines "  command    # what it does" */
    const char *verbs;    /* of a program of verbs, and each of these: " info verify "; else NULL */
    const struct opt *options;
};

/* Parses argv into `values` (zeroed by the caller). Returns 0 to go on; 1 where --help, --version,
 * --man (troff) or --completion (bash) has been printed and the tool ends with 0; or a negative
 * code (logged), ERR_USAGE for what is wrong in argv, the environment or the file. Sets the log
 * level. Strings point into argv, the environment, or memory that opt_free() frees. */
int opt_parse(const struct opt_tool *tool, void *values, int argc, char **argv) MUST_CHECK;
void opt_free(const struct opt_tool *tool, void *values);

/* Whether the option was given (anywhere but by its default). */
bool opt_given(const struct opt_common *common, const char *name);

/* The threads to use: common->threads, or the processors this process may run on. */
unsigned opt_threads(const struct opt_common *common);

/* A strict count with suffix (k, M, G) in [min, max]; false where it is not one. */
bool opt_parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *value) MUST_CHECK;

#endif
