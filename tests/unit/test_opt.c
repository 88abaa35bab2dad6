/* test_opt.c - one table with an option of each type, and what each source of values makes of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/log.h"
#include "common/opt.h"
#include "common/opt_value.h"

struct values {
    struct opt_common common;
    bool fast;
    const char *output;
    struct opt_list model;
    uint64_t batch, trainers, rows;
    double lr, shift;
    int codec;
    const char *later;
};

#define S struct values
static const struct opt table[] = {
    OPT_FLAG("fast", 'f', S, fast, OPT_RECIPE, "be quick"),
    OPT_STRING("output", 'o', S, output, "FILE", NULL, 0, "write to FILE"),
    OPT_LIST("model", 'm', S, model, "NAME=DIR", OPT_RECIPE, "a model"),
    OPT_COUNT("batch", 0, S, batch, "N", 1, 4096, "8", OPT_RECIPE, "sequences per pass"),
    OPT_COUNT("trainers", 0, S, trainers, "N", 1, 64, NULL, 0, "how many trainers"),
    OPT_COUNT("rows", 0, S, rows, "N", 0, 9007199254740992.0, "2k", 0, "slots"),
    OPT_REAL("lr", 0, S, lr, "X", 0, 1, "5e-5", OPT_RECIPE, "learning rate"),
    OPT_REAL("shift", 0, S, shift, "X", -1e300, 1e300, NULL, 0, "any number"),
    OPT_CHOICE("codec", 0, S, codec, "auto|none|lz4|zstd", "lz4", 0, "compression"),
    OPT_STRING("later-on", 0, S, later, "NAME", NULL, OPT_NOT_BUILT, "not there yet"),
    OPT_COMMON(S),
    OPT_END,
};
static const struct opt_tool tool = {
    .name = "actgen",
    .section = "actgen",
    .summary = "a tool for tests",
    .synopsis = "actgen [FILE...]",
    .details = "First paragraph.\n'Second' paragraph with a \\ in it.",
    .examples = "  actgen x",
    .options = table,
};

/* A verb of a program of verbs, with the same options. */
static const struct opt_tool verb = {
    .name = "ccanalyze norms",
    .section = "ccanalyze",
    .summary = "a verb",
    .synopsis = "ccanalyze norms",
    .options = table,
};

/* Parses the words, which end with NULL. */
#define PARSE(values, ...) parse_with(&tool, values, (char *[]){"actgen", __VA_ARGS__, NULL})

static int parse_with(const struct opt_tool *with, struct values *values, char **argv)
{
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    memset(values, 0, sizeof *values);
    int status = opt_parse(with, values, argc, argv);
    log_init("test", LOG_SILENT);
    return status;
}

/* The words must be refused. */
#define REFUSED(...)                                               \
    do {                                                           \
        struct values refused;                                     \
        assert_int_equal(PARSE(&refused, __VA_ARGS__), ERR_USAGE); \
        opt_free(&tool, &refused);                                 \
    } while (0)

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static char config_path[] = "/tmp/test_opt.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    log_init("test", LOG_SILENT);
    int fd = mkstemp(config_path);
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(config_path);
}

/* ---- the command line */

static void defaults_are_parsed_like_values(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(parse_with(&tool, &v, (char *[]){"actgen", NULL}), 0);
    assert_int_equal(v.batch, 8);
    assert_int_equal(v.rows, 2000);
    assert_int_equal(v.trainers, 0);
    assert_true(v.lr == 5e-5);
    assert_int_equal(v.codec, 2);
    assert_null(v.output);
    assert_false(v.fast);
    assert_int_equal(v.model.count, 0);
    assert_int_equal(v.common.operand_count, 0);
    assert_null(v.common.operands[0]);
    assert_false(opt_given(&v.common, "batch"));
    assert_false(opt_given(&v.common, "trainers"));
    opt_free(&tool, &v);
}

static void all_forms_of_words_are_taken(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(PARSE(&v, "one", "--batch=16", "-ofile", "--model", "a=b", "-f", "--lr", "1",
                           "two", "-m", "c=d", "--codec=none", "-", "--", "--batch", "-x"),
                     0);
    assert_int_equal(v.batch, 16);
    assert_string_equal(v.output, "file");
    assert_true(v.fast);
    assert_true(v.lr == 1.0);
    assert_int_equal(v.codec, 1);
    assert_int_equal(v.model.count, 2);
    assert_string_equal(v.model.items[0], "a=b");
    assert_string_equal(v.model.items[1], "c=d");
    static const char *const operands[] = {"one", "two", "-", "--batch", "-x"};
    assert_int_equal(v.common.operand_count, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(v.common.operands[i], operands[i]);
    assert_null(v.common.operands[5]);
    assert_true(opt_given(&v.common, "batch"));
    opt_free(&tool, &v);
}

static void letters_may_be_joined(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(PARSE(&v, "-qfo", "-", "-o", "--batch"), 0);
    assert_true(v.common.quiet && v.fast);
    assert_string_equal(v.output,
                        "--batch"); /* the last one holds; a value may look like an option */
    assert_int_equal(v.batch, 8);
    opt_free(&tool, &v);
}

static void wrong_words_are_refused(void **state)
{
    (void)state;
    REFUSED("--no-such");
    REFUSED("--bat", "3"); /* not abbreviated */
    REFUSED("--batchx=3");
    REFUSED("--fast=true");
    REFUSED("--fast=");
    REFUSED("--help=1");
    REFUSED("--batch");
    REFUSED("-o");
    REFUSED("-x");
    REFUSED("-fx");
    REFUSED("--=3");
    REFUSED("--later-on", "x");
    REFUSED("--later-on=x");
    REFUSED("--codec", "lz");
    REFUSED("--codec", "lz4|zstd");
    REFUSED("--codec", "");
}

static void counts_are_strict(void **state)
{
    (void)state;
    static char *const bad[] = {"",
                                "-1",
                                "+1",
                                " 1",
                                "1 ",
                                "0x10",
                                "1e3",
                                "1.0",
                                "k",
                                "1kk",
                                "1K",
                                "1m",
                                "0",
                                "4097",
                                "5k",
                                "1kB",
                                "1_000",
                                "18446744073709551616",
                                "18446744073709551615G"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED("--batch", bad[i]);
    struct values v;
    assert_int_equal(PARSE(&v, "--batch", "4k", "--rows", "00012M"), 0);
    assert_int_equal(v.batch, 4000);
    assert_int_equal(v.rows, 12000000);
    opt_free(&tool, &v);
    assert_int_equal(PARSE(&v, "--rows", "9007199254740992"), 0);
    assert_int_equal(v.rows, 9007199254740992);
    opt_free(&tool, &v);
    uint64_t value = 7;
    assert_true(opt_parse_count("18446744073709551615", 0, UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
    assert_true(opt_parse_count("18446744073G", 0, UINT64_MAX, &value));
    assert_true(value == 18446744073000000000u);
    assert_false(opt_parse_count("18446744074G", 0, UINT64_MAX, &value));
    assert_false(opt_parse_count("18446744073709551616", 0, UINT64_MAX, &value));
    assert_true(value == 18446744073000000000u); /* untouched */
}

static void reals_are_strict(void **state)
{
    (void)state;
    static char *const bad[] = {"",     " 1", "1 ", "nan",   "inf", "-inf",     "1.5", "-0.1",
                                "0.1x", "1e", "k",  "1e400", ".",   "infinity", "--"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED("--lr", bad[i]);
    REFUSED("--shift", "1e400");
    REFUSED("--shift", "-1e400");
    REFUSED("--shift", "nan");
    struct values v;
    assert_int_equal(PARSE(&v, "--lr", ".25", "--shift", "-1.5e10"), 0);
    assert_true(v.lr == 0.25 && v.shift == -1.5e10);
    opt_free(&tool, &v);
    assert_int_equal(PARSE(&v, "--lr", "1e-400"), 0); /* rounds to 0, which is allowed */
    assert_true(v.lr < 1e-300);
    opt_free(&tool, &v);
}

/* ---- JSON of what was resolved */

static void resolved_recipe_and_given_are_filled(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(PARSE(&v, "--model", "a", "--model", "b\xff", "--lr", "0.5", "--batch", "9"),
                     0);
    const json_t *all = v.common.resolved, *recipe = v.common.recipe;
    assert_int_equal(json_integer_value(json_object_get(all, "batch")), 9);
    assert_true(json_is_integer(json_object_get(all, "batch")));
    assert_true(json_is_real(json_object_get(all, "lr")));
    assert_true(json_real_value(json_object_get(all, "lr")) == 0.5);
    assert_true(json_is_null(json_object_get(all, "output")));
    assert_true(json_is_null(json_object_get(all, "trainers")));
    assert_true(json_is_false(json_object_get(all, "fast")));
    assert_string_equal(json_string_value(json_object_get(all, "codec")), "lz4");
    const json_t *models = json_object_get(all, "model");
    assert_int_equal(json_array_size(models), 2);
    assert_string_equal(json_string_value(json_array_get(models, 1)), "b?"); /* JSON is UTF-8 */
    assert_string_equal(v.model.items[1], "b\xff");
    assert_int_equal(json_object_size(recipe), 4);
    assert_non_null(json_object_get(recipe, "fast"));
    assert_non_null(json_object_get(recipe, "model"));
    assert_null(json_object_get(recipe, "codec"));
    assert_int_equal(json_object_size(v.common.given), 3);
    assert_string_equal(json_string_value(json_object_get(v.common.given, "lr")), "flag");
    opt_free(&tool, &v);
}

/* ---- environment and file */

static void sources_have_their_order(void **state)
{
    (void)state;
    struct values v;
    write_file(config_path,
               "{\"actgen\": {\"batch\": 100, \"lr\": 1, \"model\": [\"x\", \"y\"], \"fast\": true,"
               " \"rows\": \"3k\", \"output\": \"from-file\", \"codec\": \"zstd\"},"
               " \"cctrain\": {\"no matter\": 1}}");
    setenv("CCPIPE_BATCH", "200", 1);
    setenv("CCPIPE_LR", "0.25", 1);
    setenv("CCPIPE_CODEC", "", 1);
    assert_int_equal(PARSE(&v, "--batch", "300", "--config", config_path), 0);
    assert_int_equal(v.batch, 300);
    assert_true(v.lr == 0.25);
    assert_int_equal(v.rows, 3000);
    assert_true(v.fast);
    assert_string_equal(v.output, "from-file");
    assert_int_equal(v.codec, 3); /* an empty variable is none */
    assert_int_equal(v.model.count, 2);
    assert_string_equal(v.model.items[1], "y");
    assert_string_equal(json_string_value(json_object_get(v.common.given, "lr")), "environment");
    assert_string_equal(json_string_value(json_object_get(v.common.given, "rows")), "file");
    opt_free(&tool, &v);

    setenv("CCPIPE_CONFIG", config_path, 1);
    setenv("CCPIPE_MODEL", "p=q,r=s", 1);
    setenv("CCPIPE_FAST", "0", 1);
    assert_int_equal(PARSE(&v, "x"), 0);
    assert_int_equal(v.batch, 200);
    assert_false(v.fast);
    assert_int_equal(v.model.count, 2); /* and nothing of the file's list */
    assert_string_equal(v.model.items[0], "p=q");
    assert_string_equal(v.model.items[1], "r=s");
    opt_free(&tool, &v);
    assert_int_equal(PARSE(&v, "--model", "only"), 0);
    assert_int_equal(v.model.count, 1);
    opt_free(&tool, &v);

    unsetenv("CCPIPE_BATCH");
    unsetenv("CCPIPE_LR");
    unsetenv("CCPIPE_CODEC");
    unsetenv("CCPIPE_CONFIG");
    unsetenv("CCPIPE_MODEL");
    unsetenv("CCPIPE_FAST");
}

static void environment_is_checked(void **state)
{
    (void)state;
    setenv("CCPIPE_BATCH", "4097", 1);
    REFUSED("x");
    struct values v;
    assert_int_equal(PARSE(&v, "--batch", "5"), 0); /* not looked at */
    opt_free(&tool, &v);
    unsetenv("CCPIPE_BATCH");
    setenv("CCPIPE_LATER_ON", "x", 1);
    REFUSED("x");
    unsetenv("CCPIPE_LATER_ON");
    setenv("CCPIPE_FAST", "yes", 1);
    REFUSED("x");
    unsetenv("CCPIPE_FAST");
}

static void files_are_checked(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "[]",
        "{\"actgen\": []}",
        "{\"no tool\": {}}",
        "{\"actgen\": {\"no option\": 1}}",
        "{\"actgen\": {\"help\": true}}",
        "{\"actgen\": {\"config\": \"x\"}}",
        "{\"actgen\": {\"batch\": 4097}}",
        "{\"actgen\": {\"batch\": 5.0}}",
        "{\"actgen\": {\"batch\": -5}}",
        "{\"actgen\": {\"batch\": true}}",
        "{\"actgen\": {\"batch\": null}}",
        "{\"actgen\": {\"batch\": [5]}}",
        "{\"actgen\": {\"batch\": {}}}",
        "{\"actgen\": {\"fast\": 1}}",
        "{\"actgen\": {\"fast\": \"true\"}}",
        "{\"actgen\": {\"output\": 3}}",
        "{\"actgen\": {\"model\": [\"a\", 3]}}",
        "{\"actgen\": {\"lr\": \"nan\"}}",
        "{\"actgen\": {\"codec\": 2}}",
        "{\"actgen\": {\"codec\": \"gzip\"}}",
        "{\"actgen\": {\"later-on\": \"x\"}}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(config_path, bad[i]);
        REFUSED("--config", config_path);
    }
    REFUSED("--config", "/nonexistent/file");
    struct values v;
    write_file(config_path, "{\"actgen\": ");
    assert_int_equal(PARSE(&v, "--config", config_path), ERR_DATA);
    opt_free(&tool, &v);
    write_file(config_path, "{\"actgen\": {\"lr\": 0.30000000000000004, \"shift\": -3, "
                            "\"model\": \"single\"}}");
    assert_int_equal(PARSE(&v, "--config", config_path), 0);
    assert_true(v.lr == 0.30000000000000004 && v.shift == -3);
    assert_int_equal(v.model.count, 1);
    opt_free(&tool, &v);
}

static void a_verb_has_a_section_of_its_own(void **state)
{
    (void)state;
    struct values v;
    char *argv[] = {"norms", "--config", config_path, NULL};
    write_file(config_path, "{\"ccanalyze\": {\"batch\": 5, \"rows\": 6, \"norms\": {\"batch\": 7},"
                            " \"top\": {\"n\": 3}}}");
    assert_int_equal(parse_with(&verb, &v, argv), 0);
    assert_int_equal(v.batch, 7);
    assert_int_equal(v.rows, 6);
    opt_free(&verb, &v);
    write_file(config_path, "{\"ccanalyze\": {\"n\": 5}}");
    assert_int_equal(parse_with(&verb, &v, argv), ERR_USAGE);
    opt_free(&verb, &v);
    write_file(config_path, "{\"ccanalyze\": {\"norms\": {\"n\": 5}}}");
    assert_int_equal(parse_with(&verb, &v, argv), ERR_USAGE);
    opt_free(&verb, &v);
}

/* ---- what is printed */

/* Standard output of a parse that answers, as a string; free() it. */
static char *answer(const char *word)
{
    fflush(stdout);
    int kept = dup(STDOUT_FILENO);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_true(dup2(fileno(file), STDOUT_FILENO) >= 0);
    struct values v;
    char *argv[] = {"actgen", "--batch", "3", (char *)(uintptr_t)word, "--no-such", NULL};
    int status = parse_with(&tool, &v, argv);
    opt_free(&tool, &v);
    fflush(stdout);
    assert_true(dup2(kept, STDOUT_FILENO) >= 0);
    close(kept);
    assert_int_equal(status, 1);
    char *text = calloc(1, 65536);
    assert_non_null(text);
    rewind(file);
    assert_true(fread(text, 1, 65535, file) > 0);
    fclose(file);
    return text;
}

static void help_names_every_option(void **state)
{
    (void)state;
    char *text = answer("--help");
    for (const struct opt *opt = table; opt->type != OPT_TYPE_END; opt++) {
        char name[64];
        snprintf(name, sizeof name, "--%s", opt->name);
        assert_non_null(strstr(text, name));
    }
    assert_non_null(strstr(text, "usage: actgen [FILE...]"));
    assert_non_null(strstr(text, "-o, --output FILE"));
    assert_non_null(strstr(text, "1 to 4096, default 8"));
    assert_non_null(strstr(text, "auto, none, lz4, zstd, default lz4"));
    assert_non_null(strstr(text, "not built"));
    assert_non_null(strstr(text, "  actgen x"));
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1)
        assert_true(strcspn(line, "\n") <= 80);
    free(text);
}

static void the_man_page_names_every_option(void **state)
{
    (void)state;
    char *text = answer("--man");
    assert_non_null(strstr(text, ".TH \"actgen\" 1"));
    assert_non_null(strstr(text, "\\fB\\-\\-later\\-on\\fR \\fINAME\\fR"));
    assert_non_null(strstr(text, "\n\\&'Second' paragraph with a \\e in it.\n"));
    assert_non_null(strstr(text, "\n.TP\n66\n"));
    free(text);
}

static void the_version_is_printed(void **state)
{
    (void)state;
    char *text = answer("--version");
    assert_string_equal(text, "actgen " OPT_VERSION " (ccpipe)\n");
    free(text);
}

static void ranges_are_printed_exactly(void **state)
{
    (void)state;
    char range[64];
    struct opt opt = {.type = OPT_TYPE_REAL, .name = "x", .min = 1e-30, .max = 0.9999999};
    opt_value_range(&opt, range, sizeof range);
    assert_string_equal(range, "1e-30 to 0.9999999");
}

static void completion_knows_the_words(void **state)
{
    (void)state;
    char *text = answer("--completion");
    assert_non_null(strstr(text, "complete -o default -F _ccpipe_actgen actgen\n"));
    assert_non_null(strstr(text, "--codec) "));
    assert_non_null(strstr(text, "--later-on "));
    free(text);
}

static void threads_follow_the_processors(void **state)
{
    (void)state;
    struct opt_common common = {.threads = 3};
    assert_int_equal(opt_threads(&common), 3);
    common.threads = 0;
    assert_true(opt_threads(&common) >= 1);
    assert_true(opt_threads(&common) <= (unsigned)sysconf(_SC_NPROCESSORS_CONF));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_parsed_like_values),
        cmocka_unit_test(all_forms_of_words_are_taken),
        cmocka_unit_test(letters_may_be_joined),
        cmocka_unit_test(wrong_words_are_refused),
        cmocka_unit_test(counts_are_strict),
        cmocka_unit_test(reals_are_strict),
        cmocka_unit_test(resolved_recipe_and_given_are_filled),
        cmocka_unit_test(sources_have_their_order),
        cmocka_unit_test(environment_is_checked),
        cmocka_unit_test(files_are_checked),
        cmocka_unit_test(a_verb_has_a_section_of_its_own),
        cmocka_unit_test(help_names_every_option),
        cmocka_unit_test(the_man_page_names_every_option),
        cmocka_unit_test(the_version_is_printed),
        cmocka_unit_test(ranges_are_printed_exactly),
        cmocka_unit_test(completion_knows_the_words),
        cmocka_unit_test(threads_follow_the_processors),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
