/* opt.c - from argv, the environment and a JSON file to a tool's struct, by its table.
 *
 * The command line is read first, because it may name the file; then each option that it did not
 * give is looked up in the environment, then those still missing in the file. `given` remembers
 * where a value came from and so decides which source wins. Defaults are set before all of
 * them, through the same checks.
 */
#define _GNU_SOURCE /* sched_getaffinity() */
#include "opt.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "log.h"
#include "mem.h"
#include "opt_help.h"
#include "opt_value.h"

#define OPT_MAX_FILE (1 << 20)
#define OPT_MAX_PLACE 256 /* "'conf.json', cctrain.l1-warmup" */

static const char *const opt_programs[] = {"tokstream", "actgen", "shufbuf", "cctrain",
                                           "ccanalyze"};

struct opt_parser {
    const struct opt_tool *tool;
    void *values;
    struct opt_common *common; /* the beginning of values */
};

static const struct opt *opt_find(const struct opt_tool *tool, const char *name, size_t length)
{
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        if (strlen(opt->name) == length && memcmp(opt->name, name, length) == 0)
            return opt;
    return NULL;
}

static const struct opt *opt_find_letter(const struct opt_tool *tool, char letter)
{
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        if (opt->letter == letter)
            return opt;
    return NULL;
}

/* Takes a value from `source`; `from` is how messages call the place. */
static int opt_take(struct opt_parser *parser, const struct opt *opt, const char *text,
                    const char *source, const char *from)
{
    if ((opt->flags & OPT_NOT_BUILT) != 0)
        return log_fail(ERR_USAGE, "%s: this option is not built", from);
    int status = opt_value_set(opt, parser->values, text, from);
    if (status != 0)
        return status;
    if (json_object_set_new(parser->common->given, opt->name, json_string(source)) != 0)
        return mem_fail("options", 1, strlen(opt->name));
    return 0;
}

/* ---- the command line */

static int opt_unknown(const struct opt_tool *tool, const char *shown, const char *name,
                       size_t length)
{
    const char *near = opt_help_nearest(tool, name, length);
    if (near != NULL)
        return log_fail(ERR_USAGE, "unknown option '%s' (is '--%s' meant?); try '%s --help'", shown,
                        near, tool->name);
    return log_fail(ERR_USAGE, "unknown option '%s'; try '%s --help'", shown, tool->name);
}

/* "--name", "--name=value" or "--name" "value"; *at is moved on over what was used. */
static int opt_parse_long(struct opt_parser *parser, int argc, char **argv, int *at)
{
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    if (value == NULL) {
        int answered = opt_help_answer(parser->tool, name, length);
        if (answered != 0)
            return answered;
    }
    char shown[OPT_MAX_PLACE];
    snprintf(shown, sizeof shown, "--%.*s", (int)(length < 200 ? length : 200), name);
    const struct opt *opt = opt_find(parser->tool, name, length);
    if (opt == NULL)
        return opt_unknown(parser->tool, shown, name, length);
    if (opt->type == OPT_TYPE_FLAG) {
        if (value != NULL)
            return log_fail(ERR_USAGE, "'%s' takes no value", shown);
        value = "true";
    } else if (value == NULL) {
        if (*at + 1 >= argc)
            return log_fail(ERR_USAGE, "'%s' needs a value; try '%s --help'", shown,
                            parser->tool->name);
        value = argv[++*at];
    }
    return opt_take(parser, opt, value, "flag", shown);
}

/* "-q", "-qv", "-o" "FILE" or "-oFILE". */
static int opt_parse_short(struct opt_parser *parser, int argc, char **argv, int *at)
{
    for (const char *c = argv[*at] + 1; *c != '\0'; c++) {
        char shown[] = {'-', *c, '\0'};
        const struct opt *opt = opt_find_letter(parser->tool, *c);
        if (opt == NULL)
            return opt_unknown(parser->tool, shown, "", 0);
        const char *value = c + 1;
        if (opt->type != OPT_TYPE_FLAG && *value == '\0') {
            if (*at + 1 >= argc)
                return log_fail(ERR_USAGE, "'%s' needs a value; try '%s --help'", shown,
                                parser->tool->name);
            value = argv[++*at];
        }
        bool flag = opt->type == OPT_TYPE_FLAG;
        int status = opt_take(parser, opt, flag ? "true" : value, "flag", shown);
        if (status != 0 || !flag)
            return status;
    }
    return 0;
}

static int opt_parse_arguments(struct opt_parser *parser, int argc, char **argv)
{
    struct opt_common *common = parser->common;
    bool options = true;
    for (int at = 1; at < argc; at++) {
        char *word = argv[at];
        int status = 0;
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && strncmp(word, "--", 2) == 0)
            status = opt_parse_long(parser, argc, argv, &at);
        else if (options && word[0] == '-' && word[1] != '\0')
            status = opt_parse_short(parser, argc, argv, &at);
        else
            common->operands[common->operand_count++] = word;
        if (status != 0)
            return status;
    }
    return 0;
}

/* ---- the environment */

static json_t *opt_keep(struct opt_parser *parser, const char *text, size_t length)
{
    json_t *string = json_stringn_nocheck(text, length);
    if (json_array_append_new(parser->common->kept, string) != 0)
        return NULL;
    return string;
}

/* The items of a list, separated by commas. */
static int opt_take_items(struct opt_parser *parser, const struct opt *opt, const char *text,
                          const char *from)
{
    for (;;) {
        size_t length = strcspn(text, ",");
        json_t *item = opt_keep(parser, text, length);
        if (item == NULL)
            return mem_fail(from, length, 1);
        int status = opt_take(parser, opt, json_string_value(item), "environment", from);
        if (status != 0 || text[length] == '\0')
            return status;
        text += length + 1;
    }
}

static int opt_parse_environment(struct opt_parser *parser)
{
    for (const struct opt *opt = parser->tool->options; opt->type != OPT_TYPE_END; opt++) {
        char name[OPT_MAX_PLACE];
        snprintf(name, sizeof name, "CCPIPE_%s", opt->name);
        for (char *c = name; *c != '\0'; c++)
            *c = (char)(*c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
        const char *text = getenv(name);
        if (text == NULL || text[0] == '\0' || opt_given(parser->common, opt->name))
            continue;
        int status = opt->type == OPT_TYPE_LIST ? opt_take_items(parser, opt, text, name)
                                                : opt_take(parser, opt, text, "environment", name);
        if (status != 0)
            return status;
    }
    return 0;
}

/* ---- the file */

/* The text of a JSON value that may stand for `opt`, or NULL. Numbers are kept as text. */
static const char *opt_file_text(struct opt_parser *parser, const struct opt *opt,
                                 const json_t *value)
{
    char number[64];
    if (opt->type == OPT_TYPE_FLAG)
        return json_is_boolean(value) ? (json_is_true(value) ? "true" : "false") : NULL;
    if (json_is_string(value))
        return json_string_value(value);
    if (json_is_integer(value) && (opt->type == OPT_TYPE_COUNT || opt->type == OPT_TYPE_REAL))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value) && opt->type == OPT_TYPE_REAL)
        snprintf(number, sizeof number, "%.17g", json_real_value(value));
    else
        return NULL;
    return json_string_value(opt_keep(parser, number, strlen(number)));
}

static const char *opt_file_needs(enum opt_type type)
{
    switch (type) {
    case OPT_TYPE_FLAG:
        return "true or false";
    case OPT_TYPE_LIST:
        return "an array of strings";
    case OPT_TYPE_COUNT:
        return "an integer";
    case OPT_TYPE_REAL:
        return "a number";
    default:
        return "a string";
    }
}

static int opt_take_member(struct opt_parser *parser, const char *path, const char *key,
                           const json_t *value)
{
    char from[OPT_MAX_PLACE];
    snprintf(from, sizeof from, "'%s', %s.%s", path, parser->tool->section, key);
    const struct opt *opt = opt_find(parser->tool, key, strlen(key));
    if (opt == NULL || strcmp(key, "config") == 0)
        return log_fail(ERR_USAGE, "%s: '%s' has no such option", from, parser->tool->name);
    if (opt_given(parser->common, key))
        return 0;
    bool array = opt->type == OPT_TYPE_LIST && json_is_array(value);
    size_t count = array ? json_array_size(value) : 1;
    for (size_t i = 0; i < count; i++) {
        const json_t *item = array ? json_array_get(value, i) : value;
        const char *text = opt_file_text(parser, opt, item);
        if (text == NULL)
            return log_fail(ERR_USAGE, "%s: needs %s", from, opt_file_needs(opt->type));
        int status = opt_take(parser, opt, text, "file", from);
        if (status != 0)
            return status;
    }
    return 0;
}

/* That a section is of a verb that there is. */
static int opt_check_verb(const struct opt_tool *tool, const char *path, const char *key)
{
    char word[OPT_MAX_PLACE];
    snprintf(word, sizeof word, " %s ", key);
    if (tool->verbs == NULL || strstr(tool->verbs, word) != NULL)
        return 0;
    return log_fail(ERR_USAGE, "'%s', %s.%s: there is no such verb", path, tool->section, key);
}

/* Members of a section. In that of a program of verbs, objects are the sections of its verbs, whose
 * members are looked at by the verb. */
static int opt_take_section(struct opt_parser *parser, const char *path, json_t *section,
                            bool has_verbs)
{
    const char *key;
    json_t *value;
    json_object_foreach(section, key, value)
    {
        int status = has_verbs && json_is_object(value) ? opt_check_verb(parser->tool, path, key)
                                                        : opt_take_member(parser, path, key, value);
        if (status != 0)
            return status;
    }
    return 0;
}

static int opt_check_sections(const char *path, json_t *root)
{
    const char *key;
    json_t *value;
    if (!json_is_object(root))
        return log_fail(ERR_USAGE, "'%s' is no JSON object with a section per tool", path);
    json_object_foreach(root, key, value)
    {
        size_t i = 0, count = sizeof opt_programs / sizeof *opt_programs;
        while (i < count && strcmp(key, opt_programs[i]) != 0)
            i++;
        if (i == count)
            return log_fail(ERR_USAGE,
                            "'%s': section '%s' is of no tool (tokstream, actgen, shufbuf, "
                            "cctrain, ccanalyze)",
                            path, key);
        if (!json_is_object(value))
            return log_fail(ERR_USAGE, "'%s': section '%s' is no object", path, key);
    }
    return 0;
}

static int opt_parse_file(struct opt_parser *parser)
{
    const char *path = parser->common->config;
    json_t *root;
    if (path == NULL)
        return 0;
    int status = json_read_file(&root, path, OPT_MAX_FILE);
    if (status != 0)
        return status;
    if (json_array_append_new(parser->common->kept, root) != 0)
        return mem_fail(path, 1, OPT_MAX_FILE);
    status = opt_check_sections(path, root);
    if (status != 0)
        return status;
    json_t *section = json_object_get(root, parser->tool->section);
    const char *verb = strchr(parser->tool->name, ' ');
    json_t *own = verb == NULL ? NULL : json_object_get(section, verb + 1);
    if (json_is_object(own))
        status = opt_take_section(parser, path, own, false);
    return status != 0 ? status : opt_take_section(parser, path, section, verb != NULL);
}

/* ---- all together */

static int opt_set_up(struct opt_parser *parser, int argc)
{
    struct opt_common *common = parser->common;
    common->resolved = json_object();
    common->recipe = json_object();
    common->given = json_object();
    common->kept = json_array();
    common->operands = mem_alloc_zero((size_t)argc + 1, sizeof *common->operands);
    if (common->resolved == NULL || common->recipe == NULL || common->given == NULL ||
        common->kept == NULL || common->operands == NULL)
        return mem_fail("options", (size_t)argc + 1, sizeof *common->operands);
    for (const struct opt *opt = parser->tool->options; opt->type != OPT_TYPE_END; opt++)
        if (opt->fallback != NULL) {
            int status = opt_value_set(opt, parser->values, opt->fallback, opt->name);
            if (status != 0)
                return status;
        }
    return 0;
}

/* What the values came to, as JSON. */
static int opt_resolve(struct opt_parser *parser)
{
    struct opt_common *common = parser->common;
    for (const struct opt *opt = parser->tool->options; opt->type != OPT_TYPE_END; opt++) {
        bool known = opt->fallback != NULL || opt_given(common, opt->name);
        json_t *value = opt_value_json(opt, parser->values, known);
        int failed = json_object_set(common->resolved, opt->name, value);
        if ((opt->flags & OPT_RECIPE) != 0)
            failed |= json_object_set(common->recipe, opt->name, value);
        json_decref(value);
        if (failed != 0)
            return mem_fail("options", 1, strlen(opt->name));
    }
    return 0;
}

/* ---- files that must not be one */

/* Status of a file by name; "-" and NULL are the standard descriptor. False where there is none. */
static bool opt_stat(const char *path, int standard, struct stat *found)
{
    bool is_standard = path == NULL || strcmp(path, "-") == 0;
    return (is_standard ? fstat(standard, found) : stat(path, found)) == 0 &&
           S_ISREG(found->st_mode);
}

static int opt_refuse_one_file(const char *in, const char *out)
{
    return log_fail(ERR_USAGE, "'%s' and '%s' are one file; write to another one", in, out);
}

static int opt_check_against_operands(const struct opt_common *common, const char *output)
{
    struct stat in, out;
    if (!opt_stat(output, STDOUT_FILENO, &out))
        return 0;
    for (size_t i = 0; i < common->operand_count || i == 0; i++) {
        const char *operand = common->operand_count > 0 ? common->operands[i] : "-";
        if (opt_stat(operand, STDIN_FILENO, &in) && in.st_dev == out.st_dev &&
            in.st_ino == out.st_ino)
            return opt_refuse_one_file(strcmp(operand, "-") == 0 ? "standard input" : operand,
                                       output == NULL ? "standard output" : output);
    }
    return 0;
}

static const char *opt_output(const struct opt_parser *parser, const struct opt *opt)
{
    if (opt->type != OPT_TYPE_STRING || (opt->flags & OPT_WRITES) == 0)
        return NULL;
    return *(const char *const *)((const char *)parser->values + opt->at);
}

static int opt_check_outputs(const struct opt_parser *parser)
{
    int status = opt_check_against_operands(parser->common, NULL);
    for (const struct opt *a = parser->tool->options; a->type != OPT_TYPE_END && status == 0; a++) {
        const char *path = opt_output(parser, a);
        if (path == NULL)
            continue;
        status = opt_check_against_operands(parser->common, path);
        for (const struct opt *b = parser->tool->options; b < a && status == 0; b++) {
            const char *other = opt_output(parser, b);
            if (other != NULL && strcmp(other, path) == 0)
                status = log_fail(ERR_USAGE, "--%s and --%s are both '%s'; name two files", b->name,
                                  a->name, path);
        }
    }
    return status;
}

static void opt_say(const struct opt_common *common)
{
    log_init(log_program(), common->quiet ? LOG_WARNING : common->verbose ? LOG_VERBOSE : LOG_NOTE);
    if (log_get_level() < LOG_VERBOSE)
        return;
    char *text = json_text(common->resolved);
    if (text != NULL)
        log_verbose("options: %s", text);
    free(text);
}

int opt_parse(const struct opt_tool *tool, void *values, int argc, char **argv)
{
    struct opt_parser parser = {.tool = tool, .values = values, .common = values};
    int status = opt_set_up(&parser, argc);
    if (status == 0)
        status = opt_parse_arguments(&parser, argc, argv);
    if (status == 0)
        status = opt_parse_environment(&parser);
    if (status == 0)
        status = opt_parse_file(&parser);
    if (status == 0)
        status = opt_resolve(&parser);
    if (status == 0 && !parser.common->plan)
        status = opt_check_outputs(&parser);
    if (status == 0)
        opt_say(parser.common);
    return status;
}

void opt_free(const struct opt_tool *tool, void *values)
{
    struct opt_common *common = values;
    for (const struct opt *opt = tool->options; opt->type != OPT_TYPE_END; opt++)
        opt_value_free(opt, values);
    json_decref(common->resolved);
    json_decref(common->recipe);
    json_decref(common->given);
    json_decref(common->kept);
    free(common->operands);
    common->resolved = common->recipe = common->given = common->kept = NULL;
    common->operands = NULL;
    common->operand_count = 0;
}

bool opt_given(const struct opt_common *common, const char *name)
{
    return json_object_get(common->given, name) != NULL;
}

unsigned opt_threads(const struct opt_common *common)
{
    if (common->threads > 0)
        return (unsigned)common->threads;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more processors than a cpu_set_t can say */
    return online > 0 ? (unsigned)online : 1;
}
