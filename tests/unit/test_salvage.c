/* test_salvage.c - verify and salvage on cut and changed caches: every cut, changed bytes at every
 * place.
 *
 * A cut saves the records that end before it; a changed byte costs the record it is in. DEEP=1
 * tries all 255 other values of each byte, else it is a few.
 */
#include "salvaged.h"

/* ---- cuts */

static void cut_everywhere(const char *path)
{
    static struct sample sample;
    open_sample(&sample, path);
    for (size_t cut = 0; cut < sample.size; cut++) {
        struct salvage_figures figures;
        bool kept[MOST_RECORDS] = {false};
        scratch_write("damaged", sample.bytes, cut);
        bool whole = cut == sample.starts[sample.frames];
        assert_int_equal(verify_status(damaged), whole ? 0 : ERR_TRUNCATED);
        int status = salvage_status(&figures);
        if (cut < sample.starts[1]) {
            assert_int_equal(status, ERR_TRUNCATED);
            continue;
        }
        assert_int_equal(status, 0);
        for (size_t i = 0; i < sample.frames; i++)
            kept[i] = sample.starts[i + 1] <= cut;
        check_saved(&sample, kept, &figures);
    }
    free(sample.bytes);
}

static void test_every_cut_saves_the_records_before_it(void **state)
{
    (void)state;
    cut_everywhere(GOLDEN "rows-bf16.lz4");
    cut_everywhere(GOLDEN "rows-f32.ccps");
    cut_everywhere(GOLDEN "tokens.ccps");
}

/* ---- changed bytes */

static size_t frame_of(const struct sample *sample, size_t at)
{
    size_t i = 0;
    while (i < sample->frames && at >= sample->starts[i + 1])
        i++;
    return i;
}

/* One changed byte: the record that it is in is lost, and no other. */
static void check_change(const struct sample *sample, size_t at)
{
    struct salvage_figures figures;
    bool kept[MOST_RECORDS];
    size_t frame = frame_of(sample, at);
    scratch_write("damaged", sample->bytes, sample->size);
    int verified = verify_status(damaged), status = salvage_status(&figures);
    assert_true(verified == ERR_DATA || verified == ERR_TRUNCATED);
    if (frame == 0) {
        assert_true(status == ERR_DATA || status == ERR_TRUNCATED);
        return;
    }
    assert_int_equal(status, 0);
    for (size_t i = 0; i < sample->frames; i++)
        kept[i] = i != frame;
    check_saved(sample, kept, &figures);
}

static void change_everywhere(const char *path)
{
    static struct sample sample;
    open_sample(&sample, path);
    unsigned step = getenv("DEEP") != NULL ? 1 : 101;
    for (size_t at = 0; at < sample.size; at++) {
        for (unsigned change = 1 + (unsigned)at % step; change < 256; change += step) {
            sample.bytes[at] ^= (uint8_t)change;
            check_change(&sample, at);
            sample.bytes[at] ^= (uint8_t)change;
        }
    }
    free(sample.bytes);
}

static void test_a_changed_byte_costs_its_record_alone(void **state)
{
    (void)state;
    change_everywhere(GOLDEN "rows-bf16.lz4");
    change_everywhere(GOLDEN "rows-f32.ccps");
    change_everywhere(GOLDEN "tokens.ccps");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut_saves_the_records_before_it),
        cmocka_unit_test(test_a_changed_byte_costs_its_record_alone),
    };
    return cmocka_run_group_tests(tests, salvaged_set_up, salvaged_tear_down);
}
