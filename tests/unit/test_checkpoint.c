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
#include "common/log.h"

static char scratch[64];

static const char *in_scratch(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    int length = snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    assert_true(length > 0 && (size_t)length < sizeof paths[0]);
    return path;
}

static void write_file(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_scratch(name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* A step folder of two files, sealed. */
static void make_step(const char *folder, const char *weights)
{
    static const char *const files[] = {"cc.safetensors", "state.json"};
    char name[128];
    assert_int_equal(mkdir(in_scratch(folder), 0700), 0);
    snprintf(name, sizeof name, "%s/cc.safetensors", folder);
    write_file(name, weights, strlen(weights));
    snprintf(name, sizeof name, "%s/state.json", folder);
    write_file(name, "{}", 2);
    assert_int_equal(checkpoint_seal(in_scratch(folder), files, 2), 0);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(scratch, "/tmp/test_checkpoint.XXXXXX");
    return mkdtemp(scratch) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
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
    assert_string_equal(folder, in_scratch("step-10"));
    free(folder);
    write_file("step-10/cc.safetensors", "tex", 3);
    assert_int_equal(checkpoint_verify(in_scratch("step-10"), true), ERR_DATA);
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), 0);
    assert_int_equal(step, 9);
    free(folder);
    write_file("step-9/state.json", "{", 1);
    assert_int_equal(checkpoint_verify(in_scratch("step-9"), true), ERR_TRUNCATED);
    assert_int_equal(checkpoint_newest(scratch, &step, &folder, false), ERR_DATA);
    assert_null(folder);
    assert_int_equal(checkpoint_remove(in_scratch("step-9")), 0);
    assert_int_equal(checkpoint_remove(in_scratch("step-9")), 0);
    assert_int_equal(access(in_scratch("step-9"), F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_newest_passes_over_what_does_not_verify, set_up,
                                        tear_down),
    };
    log_init("test_checkpoint", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
