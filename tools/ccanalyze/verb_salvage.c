/* verb_salvage.c - `ccanalyze salvage`: the whole part of a cut or damaged cache. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "salvage.h"
#include "verb.h"

struct salvage_options {
    struct opt_common common;
    const char *output;
    int codec;
};

#define S struct salvage_options
static const struct opt salvage_table[] = {
    OPT_STRING("output", 'o', S, output, "OUT", NULL, OPT_WRITES,
               "where to write; - is standard output"),
    STREAM_CODEC_OPTION(S),
    OPT_COMMON(S),
    OPT_END,
};
#undef S

static const struct opt_tool salvage_tool = {
    .name = "ccanalyze salvage",
    .section = "ccanalyze",
    .summary = "the whole part of a cut or damaged cache, ended properly",
    .synopsis = "ccanalyze salvage FILE -o OUT",
    .details =
        "Copies every record of FILE that passes all checks to OUT, with a BEGIN that says how "
        "many "
        "rows there are, an END with their true count and sum, and a new index; also records "
        "behind a damaged place. FILE is only read, and OUT must be another file. What was cut at "
        "its end remains the same stream, only shorter, and a training run can be resumed on it as "
        "far as its rows suffice for --steps; "
        "where rows are missing in between, BEGIN names them and the stream is another one. "
        "How many rows were saved and lost is said on standard error.",
    .examples =
        "  ccanalyze salvage acts.lz4 -o whole.lz4 && shufbuf whole.lz4 | cctrain --out run",
    .options = salvage_table,
};

static void salvage_tell(const char *input, const char *output, struct salvage_figures figures)
{
    char lost[64];
    if (figures.lost_known || figures.lost > 0)
        snprintf(lost, sizeof lost, "%s%" PRIu64 " lost", figures.lost_known ? "" : "at least ",
                 figures.lost);
    else
        snprintf(lost, sizeof lost, "how many are lost is not known");
    log_note("'%s': %" PRIu64 " rows in %" PRIu64 " records saved to '%s', %s", input, figures.rows,
             figures.records, output, lost);
}

/* --plan: the first pass tells all. The output is taken to be as large as the input. */
static int salvage_plan(const char *input, struct salvage_figures figures)
{
    struct stat found;
    if (stat(input, &found) != 0)
        return log_fail_errno("cannot look at '%s'", input);
    printf("disk\t%lld\nrows\t%" PRIu64 "\n", (long long)found.st_size, figures.rows);
    return 0; /* tool_finish() flushes standard output and sees whether that worked */
}

static int salvage_run(const void *values)
{
    const struct salvage_options *options = values;
    const struct opt_common *common = &options->common;
    if (common->operand_count != 1)
        return log_fail(ERR_USAGE, "one file is expected, %zu are named", common->operand_count);
    if (options->output == NULL && !common->plan)
        return log_fail(ERR_USAGE, "-o OUT says where to write what is whole");
    const char *input = common->operands[0];
    struct salvage *salvage = NULL;
    int status = salvage_open(&salvage, input);
    if (status != 0)
        return status;
    struct salvage_figures figures = salvage_count(salvage);
    if (common->plan)
        status = salvage_plan(input, figures);
    else
        status = salvage_write(salvage, options->output, (enum stream_codec)options->codec,
                               opt_threads(common), common->metrics);
    if (status == 0 && !common->plan)
        salvage_tell(input, options->output, figures);
    salvage_free(salvage);
    return status;
}

const struct verb verb_salvage = {&salvage_tool, sizeof(struct salvage_options), salvage_run};
