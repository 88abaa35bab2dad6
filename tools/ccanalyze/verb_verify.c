/* verb_verify.c - `ccanalyze verify`: a line for each FILE that is whole. */
#include <stdio.h>

#include "verb.h"
#include "verify.h"

/* What one record of about 1 MiB takes: as stored, as decoded, and with its planes undone. */
#define VERIFY_RECORD_BYTES (3u << 20)

struct verify_options {
    struct opt_common common;
    struct table_form form;
};

#define S struct verify_options
static const struct opt verify_table[] = {
    VERB_TABLE_OPTIONS(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool verify_tool = {
    .name = "ccanalyze verify",
    .section = "ccanalyze",
    .summary = "check every checksum of streams, caches and checkpoints",
    .synopsis = "ccanalyze verify [FILE...]",
    .details =
        "FILE is a stream or cache (standard input without one), a run folder (all of its steps), "
        "a "
        "step folder or a safetensors file. Of a stream everything is read: the checksums of "
        "frames, "
        "records and rows, their order, the counts and the sum of END, and the index against the "
        "records. Of a checkpoint every file is compared with the manifest. A line is printed for "
        "each FILE that is whole; damage is reported on standard error with its place, the other "
        "FILEs are checked all the same, and the exit status is that of the first damaged one: "
        "65 for damage, 66 for what was cut.",
    .examples = "  ccanalyze verify acts.lz4\n"
                "  ccanalyze verify run || ccanalyze info run",
    .options = verify_table,
};

static int verify_run_all(struct table *table, char *const *paths, size_t count, unsigned threads)
{
    int first = 0;
    for (size_t i = 0; i < count; i++) {
        struct verify_report report;
        int status = verify_path(&report, paths[i], threads);
        if (status == ERR_INTERRUPTED || status == ERR_MEMORY)
            return status;
        first = first != 0 ? first : status;
        if (status != 0)
            continue;
        table_text(table, paths[i]);
        table_text(table, report.type);
        table_text(table, report.text);
        if ((status = table_row(table)) != 0)
            return status;
    }
    return first;
}

static int verify_run_verb(const void *values)
{
    static const char *const columns[] = {"file", "type", "verified"};
    static char *const standard_input[] = {(char *)"-"};
    const struct verify_options *options = values;
    const struct opt_common *common = &options->common;
    bool none = common->operand_count == 0;
    struct table *table;
    if (common->plan) {
        printf("memory\t%llu\n", (opt_threads(common) + 2ull) * VERIFY_RECORD_BYTES);
        return 0; /* tool_finish() flushes standard output and sees whether that worked */
    }
    int status = table_open(&table, &options->form, "files", columns, 3);
    if (status != 0)
        return status;
    status = verify_run_all(table, none ? standard_input : common->operands,
                            none ? 1 : common->operand_count, opt_threads(common));
    int ended = table_end(table, NULL);
    table_free(table);
    return status != 0 ? status : ended;
}

const struct verb verb_verify = {&verify_tool, sizeof(struct verify_options), verify_run_verb};
