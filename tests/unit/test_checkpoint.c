/* test_checkpoint.c - step folders: sealed, damaged in every way, and found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/checkpoint.h"
#include "common/io.h"
#include "common/log.h"
#include "scratch.h"

#define GOLDEN "tests/golden/crosscoder/step-7/"

/* A step folder of two files, sealed. */
static void make_step(const char *folder, const char *weights)
{
    static const char *const files[] = {"cc.safetensors", "state.json"};
    char name[128];
    assert_int_equal(mkdir(scratch_path(folder), 0700), 0);
    snprintf(name, sizeof name, "%s/cc.safetensors", folder);
    scratch_write(name, weights, strlen(weights));
    snprintf(name, sizeof name, "%s/state.json", folder);
    scratch_write(name, "{}", 2);
    assert_int_equal(checkpoint_seal(scratch_path(folder), files, 2), 0);
}

static void test_newest_passes_over_what_does_not_verify(void **state)
{
    (void)state;
    uint64_t step = 0;
    char *folder = NULL;
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), 1);
    make_step("step-9", "nine");
    make_step("step-10", "ten");
    make_step("step-11.tmp", "eleven");
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), 0);
    assert_int_equal(step, 10);
    assert_string_equal(folder, scratch_path("step-10"));
    free(folder);
    scratch_write("step-10/cc.safetensors", "tex", 3);
    assert_int_equal(checkpoint_verify(scratch_path("step-10"), true), ERR_DATA);
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), 0);
    assert_int_equal(step, 9);
    free(folder);
    scratch_write("step-9/state.json", "{", 1);
    assert_int_equal(checkpoint_verify(scratch_path("step-9"), true), ERR_TRUNCATED);
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), ERR_DATA);
    assert_null(folder);
    assert_int_equal(checkpoint_remove(scratch_path("step-9")), 0);
    assert_int_equal(checkpoint_remove(scratch_path("step-9")), 0);
    assert_int_equal(access(scratch_path("step-9"), F_OK), -1);
}

/* ---- damage */

static int verify(const char *folder)
{
    return checkpoint_verify(scratch_path(folder), true);
}

/* Copies a file of the step folder that tests/oracle made. */
static void copy_golden(const char *name, const char *to)
{
    char from[128], *bytes;
    size_t size;
    snprintf(from, sizeof from, GOLDEN "%s", name);
    assert_int_equal(io_read_file(&bytes, &size, from, 1u << 20), 0);
    scratch_write(to, bytes, size);
    free(bytes);
}

static void copy_step(void)
{
    assert_int_equal(mkdir(scratch_path("step-7"), 0700), 0);
    copy_golden("cc.safetensors", "step-7/cc.safetensors");
    copy_golden("state.json", "step-7/state.json");
    copy_golden("manifest.json", "step-7/manifest.json");
}

/* Every byte of every file, the manifest's included: what is changed does not verify, unless it is
 * white space of the manifest. */
static void test_every_changed_byte(void **state)
{
    (void)state;
    static const char *const names[] = {"step-7/cc.safetensors", "step-7/state.json",
                                        "step-7/manifest.json"};
    copy_step();
    assert_int_equal(verify("step-7"), 0);
    for (size_t i = 0; i < 3; i++) {
        char *bytes;
        size_t size;
        assert_int_equal(io_read_file(&bytes, &size, scratch_path(names[i]), 1u << 20), 0);
        for (size_t at = 0; at < size; at++) {
            char was = bytes[at];
            bytes[at] = (char)(was ^ 0x24);
            scratch_write(names[i], bytes, size);
            bool space = i == 2 && (was == ' ' || was == '\n');
            assert_true(verify("step-7") != 0 || space);
            bytes[at] = was;
        }
        scratch_write(names[i], bytes, size);
        assert_int_equal(verify("step-7"), 0);
        for (size_t cut = 0; cut < size; cut++) { /* the manifest's last byte closes it */
            scratch_write(names[i], bytes, cut);
            int status = verify("step-7");
            assert_true(status == ERR_TRUNCATED || (i == 2 && status == ERR_DATA));
        }
        scratch_write(names[i], bytes, size);
        free(bytes);
    }
}

static void test_missing_files(void **state)
{
    (void)state;
    copy_step();
    assert_int_equal(unlink(scratch_path("step-7/state.json")), 0);
    assert_int_equal(verify("step-7"), ERR_TRUNCATED);
    copy_golden("state.json", "step-7/state.json");
    assert_int_equal(verify("step-7"), 0);
    scratch_write("step-7/notes.txt", "mine",
                  4); /* what the manifest does not name is not its business */
    assert_int_equal(verify("step-7"), 0);
    assert_int_equal(unlink(scratch_path("step-7/manifest.json")), 0);
    assert_int_equal(verify("step-7"), ERR_TRUNCATED);
}

static void test_manifests_that_say_something_else(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"format\":\"ccpipe checkpoint 1\",\"files\":{}}",
        "{\"format\":\"ccpipe checkpoint 1\",\"files\":[\"cc.safetensors\"]}",
        "{\"format\":\"ccpipe checkpoint 1\",\"files\":{\"cc.safetensors\":7}}",
        "{\"format\":\"ccpipe checkpoint 1\",\"files\":{\"cc.safetensors\":{\"bytes\":-1,"
        "\"xxh3_128\":\"\"}}}",
        "{\"format\":\"ccpipe checkpoint 2\",\"files\":{}}",
    };
    copy_step();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        scratch_write("step-7/manifest.json", texts[i], strlen(texts[i]));
        assert_int_equal(verify("step-7"), ERR_DATA);
    }
    /* A name that leaves the folder is not followed, though what it names has that size and sum. */
    char text[512];
    scratch_write("outside", "", 0);
    int length = snprintf(text, sizeof text,
                          "{\"format\":\"ccpipe checkpoint 1\",\"files\":{\"cc.safetensors\":{"
                          "\"bytes\":0,\"xxh3_128\":\"99aa06d3014798d86001c324468d497f\"},"
                          "\"%s\":{\"bytes\":0,"
                          "\"xxh3_128\":\"99aa06d3014798d86001c324468d497f\"}}}",
                          "state.json");
    scratch_write("step-7/cc.safetensors", "", 0);
    scratch_write("step-7/state.json", "", 0);
    scratch_write("step-7/manifest.json", text, (size_t)length);
    assert_int_equal(verify("step-7"), 0); /* XXH3-128 of nothing */
    char *name = strstr(text, "state.json");
    memcpy(name, "../outside", 10);
    scratch_write("step-7/manifest.json", text, (size_t)length);
    assert_int_equal(verify("step-7"), ERR_DATA);
}

static void test_what_is_no_regular_file(void **state)
{
    (void)state;
    copy_step();
    assert_int_equal(unlink(scratch_path("step-7/state.json")), 0);
    assert_int_equal(mkfifo(scratch_path("step-7/state.json"), 0600),
                     0); /* must not be waited for */
    assert_int_equal(verify("step-7"), ERR_DATA);
    assert_int_equal(unlink(scratch_path("step-7/state.json")), 0);
    assert_int_equal(mkdir(scratch_path("step-7/state.json"), 0700), 0);
    assert_int_equal(verify("step-7"), ERR_DATA);
    assert_int_equal(rmdir(scratch_path("step-7/state.json")), 0);
    copy_golden("state.json", "elsewhere");
    assert_int_equal(symlink("../elsewhere", scratch_path("step-7/state.json")), 0);
    assert_int_equal(verify("step-7"), 0); /* a link to the right bytes is as good */
}

/* ---- names of steps */

static void test_names_of_steps(void **state)
{
    (void)state;
    static const char *const others[] = {"step-",   "step-01",    "step-+1",
                                         "step- 1", "step-1.tmp", "step-1 ",
                                         "step-x",  "Step-1",     "step-18446744073709551616",
                                         "step--1"};
    uint64_t *steps;
    size_t count;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_int_equal(mkdir(scratch_path(others[i]), 0700), 0);
    assert_int_equal(checkpoint_list(scratch, &steps, &count), 0);
    assert_int_equal(count, 0);
    free(steps);
    assert_int_equal(mkdir(scratch_path("step-2"), 0700), 0);
    assert_int_equal(mkdir(scratch_path("step-10"), 0700), 0);
    assert_int_equal(mkdir(scratch_path("step-0"), 0700), 0);
    assert_int_equal(checkpoint_list(scratch, &steps, &count), 0);
    assert_int_equal(count, 3);
    assert_int_equal(steps[0], 10);
    assert_int_equal(steps[1], 2);
    assert_int_equal(steps[2], 0);
    free(steps);
    assert_int_equal(checkpoint_list(scratch_path("no-such"), &steps, &count), ERR_USAGE);
}

/* ---- removal */

static void test_removal_stays_inside(void **state)
{
    (void)state;
    copy_step();
    scratch_write("precious", "x", 1);
    assert_int_equal(symlink("../precious", scratch_path("step-7/link")), 0);
    assert_int_equal(symlink("step-7", scratch_path("step-8")), 0);
    assert_int_equal(checkpoint_remove(scratch_path("step-8")), 0); /* the link, not the folder */
    assert_int_equal(verify("step-7"), 0);
    assert_int_equal(mkdir(scratch_path("step-7/sub"), 0700), 0);
    assert_int_equal(checkpoint_remove(scratch_path("step-7")),
                     ERR_IO); /* nothing is descended into */
    assert_int_equal(rmdir(scratch_path("step-7/sub")), 0);
    assert_int_equal(checkpoint_remove(scratch_path("step-7")), 0);
    assert_int_equal(access(scratch_path("step-7"), F_OK), -1);
    assert_int_equal(access(scratch_path("precious"), F_OK), 0);
    assert_int_equal(checkpoint_remove(scratch_path("precious")), ERR_IO); /* not a folder */
}

static void test_sealing_what_is_not_there(void **state)
{
    (void)state;
    static const char *const files[] = {"cc.safetensors", "state.json"};
    assert_int_equal(mkdir(scratch_path("step-1.tmp"), 0700), 0);
    scratch_write("step-1.tmp/cc.safetensors", "x", 1);
    assert_true(checkpoint_seal(scratch_path("step-1.tmp"), files, 2) < 0);
    assert_int_equal(access(scratch_path("step-1.tmp/manifest.json"), F_OK), -1);
    assert_int_equal(checkpoint_seal(scratch_path("step-1.tmp"), files, 1), 0);
    assert_int_equal(verify("step-1.tmp"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, scratch_open, scratch_close)
        TEST(test_newest_passes_over_what_does_not_verify),
        TEST(test_every_changed_byte),
        TEST(test_missing_files),
        TEST(test_manifests_that_say_something_else),
        TEST(test_what_is_no_regular_file),
        TEST(test_names_of_steps),
        TEST(test_removal_stays_inside),
        TEST(test_sealing_what_is_not_there),
    };
    log_init("test_checkpoint", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
