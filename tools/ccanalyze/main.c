/* main.c - ccanalyze: finds the verb, parses its options, runs it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/opt.h"
#include "common/tool.h"
#include "verb.h"

static const struct verb *const verbs[] = {
    &verb_info,     &verb_verify, &verb_salvage, &verb_pack, &verb_dump, &verb_norms,
    &verb_clusters, &verb_cosine, &verb_freq,    &verb_eval, &verb_top,  &verb_report,
};

/* Documented, and refused by name. */
static const char *const verbs_not_built[] = {"ce",     "scaling",   "match", "export",
                                              "import", "intervene", "twins"};

#define MAIN_COUNT(array) (sizeof(array) / sizeof *(array))

static const char *verb_word(const struct verb *verb)
{
    return strchr(verb->tool->name, ' ') + 1;
}

/* Their words, each between spaces; the caller frees it. */
static char *verb_join_words(void)
{
    size_t size = 2;
    for (size_t i = 0; i < MAIN_COUNT(verbs); i++)
        size += strlen(verb_word(verbs[i])) + 1;
    char *text = mem_alloc_zero(size, 1);
    size_t used = 0;
    for (size_t i = 0; text != NULL && i < MAIN_COUNT(verbs); i++)
        used += (size_t)snprintf(text + used, size - used, " %s", verb_word(verbs[i]));
    if (text != NULL)
        text[used] = ' ';
    return text;
}

/* ---- ccanalyze without a verb: --help, --man, --version */

struct main_options {
    struct opt_common common;
};

static const struct opt main_table[] = {OPT_END};

/* The verbs with their summaries; the caller frees it. */
static char *main_list_verbs(void)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return NULL;
    fputs(
        "The verbs; each has its own options, help and man page (ccanalyze VERB --help, --man):\n",
        out);
    for (size_t i = 0; i < MAIN_COUNT(verbs); i++)
        fprintf(out, "%s: %s\n", verb_word(verbs[i]), verbs[i]->tool->summary);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* What the program says of itself; a word that is no verb is refused. */
static int main_overview(int argc, char **argv)
{
    struct main_options options = {0};
    char *details = main_list_verbs(), *words = verb_join_words();
    struct opt_tool tool = {
        .name = "ccanalyze",
        .section = "ccanalyze",
        .summary = "look into crosscoders, streams and caches",
        .synopsis = "ccanalyze VERB [OPTION...] [FILE...]",
        .details = details,
        .examples = "  ccanalyze info acts.lz4\n"
                    "  ccanalyze norms run\n"
                    "  ccanalyze top run acts.lz4 --model models/chat --min-relative-norm 0.9",
        .options = main_table,
        .verbs = words,
    };
    int status = details == NULL || words == NULL ? mem_fail("the verbs", MAIN_COUNT(verbs), 1)
                                                  : opt_parse(&tool, &options, argc, argv);
    if (status == 0)
        status = log_fail(ERR_USAGE, "which verb? try 'ccanalyze --help'");
    opt_free(&tool, &options);
    free(details);
    free(words);
    return status;
}

/* ---- with a verb */

static int main_run_verb(const struct verb *verb, int argc, char **argv)
{
    struct opt_tool tool = *verb->tool;
    char *words = verb_join_words();
    void *options = mem_alloc_zero(1, verb->options_size);
    int status = 0;
    tool.verbs = words;
    if (options == NULL || words == NULL)
        status = mem_fail("options", 1, verb->options_size);
    if (status == 0)
        status = opt_parse(&tool, options, argc, argv);
    if (status == 0)
        status = verb->run(options);
    if (options != NULL)
        opt_free(&tool, options);
    free(options);
    free(words);
    return status;
}

static int main_dispatch(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "-";
    if (word[0] == '-')
        return main_overview(argc, argv);
    for (size_t i = 0; i < MAIN_COUNT(verbs); i++)
        if (strcmp(word, verb_word(verbs[i])) == 0)
            return main_run_verb(verbs[i], argc - 1, argv + 1);
    for (size_t i = 0; i < MAIN_COUNT(verbs_not_built); i++)
        if (strcmp(word, verbs_not_built[i]) == 0)
            return log_fail(ERR_USAGE, "'%s' is not built", word);
    return log_fail(ERR_USAGE, "'%s' is no verb; try 'ccanalyze --help'", word);
}

int main(int argc, char **argv)
{
    int status = tool_start("ccanalyze");
    if (status == 0)
        status = main_dispatch(argc, argv);
    return tool_finish(status);
}
