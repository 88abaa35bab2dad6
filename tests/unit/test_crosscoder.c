/* test_crosscoder.c - crosscoders in files put together here from the format, and ours read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/crosscoder.h"
#include "common/log.h"

static char scratch[64];

static const char *in_scratch(const char *name)
{
    static char path[512];
    int length = snprintf(path, sizeof path, "%s/%s", scratch, name);
    assert_true(length > 0 && (size_t)length < sizeof path);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    strcpy(scratch, "/tmp/test_crosscoder.XXXXXX");
    return mkdtemp(scratch) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    return system(command);
}

/* Weights whose every value says where it belongs. */
static void fill(struct crosscoder *cc)
{
    for (uint64_t i = 0; i < cc->width * cc->latents; i++) {
        cc->w_enc[i] = (float)i;
        cc->w_dec[i] = -(float)i;
    }
    for (uint64_t i = 0; i < cc->latents; i++)
        cc->b_enc[i] = 1000 + (float)i;
    for (uint64_t i = 0; i < cc->width; i++)
        cc->b_dec[i] = 2000 + (float)i;
}

static void check_round_trip(const uint32_t widths[2])
{
    char a[] = "base.blocks.1.hook_resid_pre", b[] = "chat.blocks.1.hook_resid_pre";
    struct crosscoder_source sources[] = {{a, widths[0], 0.1}, {b, widths[1], 0.3}};
    struct crosscoder cc, back;
    const char *path = in_scratch("round.safetensors");
    assert_int_equal(crosscoder_init(&cc, sources, 2, 3), 0);
    fill(&cc);
    assert_int_equal(crosscoder_set(&cc, "recipe", "{\"l1\": 0.7, \"steps\": 12}"), 0);
    assert_int_equal(crosscoder_write(&cc, path), 0);
    assert_int_equal(crosscoder_read(&back, path), 0);
    assert_int_equal(back.source_count, 2);
    assert_int_equal(back.latents, 3);
    assert_int_equal(back.width, widths[0] + widths[1]);
    assert_true(back.named);
    for (size_t s = 0; s < 2; s++) {
        assert_string_equal(back.sources[s].name, sources[s].name);
        assert_int_equal(back.sources[s].width, sources[s].width);
        assert_true(back.sources[s].scale == sources[s].scale);
    }
    size_t bytes = (size_t)(cc.width * cc.latents) * sizeof(float);
    assert_memory_equal(back.w_enc, cc.w_enc, bytes);
    assert_memory_equal(back.w_dec, cc.w_dec, bytes);
    assert_memory_equal(back.b_enc, cc.b_enc, 3 * sizeof(float));
    assert_memory_equal(back.b_dec, cc.b_dec, cc.width * sizeof(float));
    double value = 0;
    assert_true(crosscoder_recipe_real(&back, "l1", &value));
    assert_true(value == 0.7);
    assert_false(crosscoder_recipe_real(&back, "l2", &value));
    assert_int_equal(unlink(path), 0);
    crosscoder_free(&cc);
    crosscoder_free(&back);
}

static void test_what_is_written_is_read(void **state)
{
    (void)state;
    check_round_trip((const uint32_t[]){4, 4});
    check_round_trip((const uint32_t[]){2, 5});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_written_is_read, set_up, tear_down),
    };
    log_init("test_crosscoder", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
