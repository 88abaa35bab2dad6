/* verb_info.c - `ccanalyze info`: what a file or folder is.
 *
 * The description is one JSON object; without --json it is printed as lines "key<TAB>value", the
 * keys of what is nested joined by dots, so that both forms say the same.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "describe.h"
#include "verb.h"

/* What the records that a reader takes in ahead need: three of about 2 MiB. */
#define INFO_RECORD_BYTES (6u << 20)

#define INFO_DIGITS 9 /* of reals, as in --json */

struct info_options {
    struct opt_common common;
    struct table_form form;
};

#define S struct info_options
static const struct opt info_table[] = {
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool info_tool = {
    .name = "ccanalyze info",
    .section = "ccanalyze",
    .summary = "what a stream, cache, checkpoint, model or norm file is",
    .synopsis = "ccanalyze info FILE",
    .details =
        "FILE is a stream of tokens or rows (a cache, a pipe, or - for standard input), a run "
        "folder (its newest step that verifies), a step folder, a safetensors file, a model's "
        "folder, a .npy file or a file of --norm factors. A stream is described from its BEGIN, "
        "its "
        "index and the sizes of its frames, without decoding rows, so that a large cache takes no "
        "longer than a small one. 'complete' says whether every part ends with END; whether what "
        "is "
        "in it is undamaged is for 'ccanalyze verify' to say.",
    .examples = "  ccanalyze info acts.lz4\n"
                "  ccanalyze info --json run | jq .rows_trained\n"
                "  ccanalyze info models/gemma-2-2b",
    .options = info_table,
};

/* Rows of the table: `key` and what is below it. */
static int info_print(struct table *table, const char *key, const json_t *value)
{
    if (!json_is_object(value) && !json_is_array(value)) {
        char *text = json_is_string(value)
                         ? strdup(json_string_value(value))
                         : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(INFO_DIGITS));
        if (text == NULL)
            return mem_fail("a description", strlen(key), 1);
        table_text(table, key);
        table_text(table, json_is_null(value) ? "" : text);
        free(text);
        return table_row(table);
    }
    int status = 0;
    size_t count = json_is_array(value) ? json_array_size(value) : json_object_size(value);
    void *member = json_object_iter((json_t *)value);
    for (size_t i = 0; i < count && status == 0; i++) {
        char number[24];
        snprintf(number, sizeof number, "%zu", i);
        const char *name = member == NULL ? number : json_object_iter_key(member);
        const json_t *below =
            member == NULL ? json_array_get(value, i) : json_object_iter_value(member);
        size_t size = strlen(key) + strlen(name) + 2;
        char *path = mem_alloc(size, 1);
        if (path == NULL)
            return mem_fail("a description", size, 1);
        snprintf(path, size, "%s%s%s", key, *key == '\0' ? "" : ".", name);
        status = info_print(table, path, below);
        free(path);
        if (member != NULL)
            member = json_object_iter_next((json_t *)value, member);
    }
    return status;
}

static int info_print_lines(const struct table_form *form, const json_t *object)
{
    static const char *const columns[] = {"key", "value"};
    struct table *table;
    int status = table_open(&table, form, "members", columns, 2);
    if (status != 0)
        return status;
    status = info_print(table, "", object);
    if (status == 0)
        status = table_end(table, NULL);
    table_free(table);
    return status;
}

static int info_run(const void *values)
{
    const struct info_options *options = values;
    const struct opt_common *common = &options->common;
    if (common->operand_count != 1)
        return log_fail(ERR_USAGE, "one file or folder is expected, %zu are named",
                        common->operand_count);
    if (common->plan) {
        printf("memory\t%u\n", INFO_RECORD_BYTES);
        return 0; /* tool_finish() flushes standard output and sees whether that worked */
    }
    json_t *object;
    int status = describe_path(&object, common->operands[0]);
    if (status != 0)
        return status;
    if (options->form.json)
        return table_json(options->form.output, object);
    status = info_print_lines(&options->form, object);
    json_decref(object);
    return status;
}

const struct verb verb_info = {&info_tool, sizeof(struct info_options), info_run};
