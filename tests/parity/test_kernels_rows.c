/* test_kernels_rows.c - rows moved and hashed, and asking for an event.
 *
 * The hash is compared with libxxhash's over tag and row as one piece of memory: at every length
 * from 17 to 300 bytes, and around the multiples of a stripe (64), of a block (1024) and of both;
 * moving with memcpy(). Bytes that no index names must stay.
 */
#include "parity.h"

#include <xxhash.h>

enum { TAG = 16 };

static uint8_t *random_bytes(struct parity *parity, size_t bytes)
{
    uint8_t *memory = parity_host(bytes, 1);
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)parity_bits(parity);
    return memory;
}

/* A random choice of `count` of `of` rows, none twice. */
static uint32_t *random_index(struct parity *parity, size_t count, size_t of)
{
    uint32_t *index = parity_host(of, sizeof *index);
    for (size_t i = 0; i < of; i++)
        index[i] = (uint32_t)i;
    for (size_t i = 0; i < count; i++) {
        size_t j = i + (size_t)(parity_bits(parity) % (of - i));
        uint32_t kept = index[i];
        index[i] = index[j];
        index[j] = kept;
    }
    return index;
}

/* ---- hashing */

static void check_hashes(struct parity *parity, size_t rows, size_t row_bytes, bool indexed)
{
    size_t stored = indexed ? rows + 3 : rows, length = TAG + row_bytes;
    uint8_t *tags = random_bytes(parity, rows * TAG);
    uint8_t *bytes = random_bytes(parity, stored * row_bytes);
    uint32_t *index = random_index(parity, rows, stored);
    void *d_tags = parity_upload(parity, tags, rows * TAG);
    void *d_rows = parity_upload(parity, bytes, stored * row_bytes);
    void *d_index = parity_upload(parity, index, stored * sizeof *index);
    size_t hash_bytes = rows * 2 * sizeof(uint64_t);
    uint64_t *d_hashes = parity_alloc(parity, hash_bytes);
    parity->kernels->hash_rows(parity->queue, d_hashes, d_tags, d_rows, indexed ? d_index : NULL,
                               rows, row_bytes);
    uint64_t *hashes = parity_download(parity, d_hashes, hash_bytes);
    uint8_t *joined = parity_host(length, 1);
    for (size_t i = 0; i < rows; i++) {
        memcpy(joined, tags + i * TAG, TAG);
        memcpy(joined + TAG, bytes + (indexed ? index[i] : i) * row_bytes, row_bytes);
        XXH128_hash_t want = XXH3_128bits(joined, length);
        if (hashes[2 * i] != want.low64 || hashes[2 * i + 1] != want.high64)
            fail_msg("row %zu of %zu, %zu bytes with the tag: %016llx%016llx, not %016llx%016llx",
                     i, rows, length, (unsigned long long)hashes[2 * i + 1],
                     (unsigned long long)hashes[2 * i], (unsigned long long)want.high64,
                     (unsigned long long)want.low64);
    }
    free(joined);
    free(hashes);
    void *device[] = {d_tags, d_rows, d_index, d_hashes};
    for (size_t i = 0; i < 4; i++)
        parity_free(parity, device[i]);
    free(index);
    free(bytes);
    free(tags);
}

static void hashes_are_those_of_libxxhash(void **state)
{
    (void)state;
    struct parity parity;
    parity_open(&parity, 2, DTYPE_F32);
    for (size_t length = TAG + 1; length <= 300; length++)
        check_hashes(&parity, 2, length - TAG, length % 2 == 0);
    static const size_t around[] = {320, 512, 1024, 1088, 2048, 2112, 3072, 4096, 9232, 9248};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++)
        for (size_t length = around[i] - 2; length <= around[i] + 2; length++)
            check_hashes(&parity, 3, length - TAG, length % 2 == 1);
    parity_close(&parity);
}

/* More rows than a block has, than the grid has at once, and one alone; each width of access. */
static void any_number_of_rows_is_hashed(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 4, 5, 33, 300}, sizes[] = {40, 257, 1100, 1104};
    struct parity parity;
    parity_open(&parity, 2, DTYPE_F32);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++)
            check_hashes(&parity, counts[i], sizes[j], (i + j) % 2 == 0);
    check_hashes(&parity, 20000, 1, false); /* the emulated grid has 16384 threads */
    check_hashes(&parity, 2100, 232, true); /* and of eight lanes to a row 2048 rows */
    parity_close(&parity);
}

/* ---- moving */

static void check_moved(struct parity *parity, size_t rows, size_t row_bytes, bool to_indexed,
                        bool from_indexed)
{
    size_t stored = rows + 5, bytes = stored * row_bytes;
    uint8_t *from = random_bytes(parity, bytes), *want = random_bytes(parity, bytes);
    uint32_t *to_index = random_index(parity, rows, stored);
    uint32_t *from_index = random_index(parity, rows, stored);
    if (rows > 1)
        from_index[1] = from_index[0]; /* a row may be read twice */
    uint8_t *d_from = parity_upload(parity, from, bytes),
            *d_to = parity_upload(parity, want, bytes);
    uint32_t *d_to_index = parity_upload(parity, to_index, stored * sizeof *to_index);
    uint32_t *d_from_index = parity_upload(parity, from_index, stored * sizeof *from_index);
    parity->kernels->move_rows(parity->queue, d_to, to_indexed ? d_to_index : NULL, d_from,
                               from_indexed ? d_from_index : NULL, rows, row_bytes);
    uint8_t *got = parity_download(parity, d_to, bytes);
    for (size_t i = 0; i < rows; i++)
        memcpy(want + (to_indexed ? to_index[i] : i) * row_bytes,
               from + (from_indexed ? from_index[i] : i) * row_bytes, row_bytes);
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != want[i])
            fail_msg("%zu rows of %zu: byte %zu of row %zu is %02x, not %02x", rows, row_bytes,
                     i % row_bytes, i / row_bytes, got[i], want[i]);
    void *host[] = {got, from, want, to_index, from_index};
    void *device[] = {d_from, d_to, d_to_index, d_from_index};
    for (size_t i = 0; i < 5; i++)
        free(host[i]);
    for (size_t i = 0; i < 4; i++)
        parity_free(parity, device[i]);
}

static void rows_are_moved(void **state)
{
    (void)state;
    static const size_t sizes[] = {1,  2,   3,   4,   12,   15,   16,   17,   31,
                                   32, 508, 512, 513, 1000, 2048, 2064, 9216, 9232};
    struct parity parity;
    parity_open(&parity, 2, DTYPE_F32);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned indexed = 0; indexed < 4; indexed++)
            check_moved(&parity, 1 + (i + indexed) % 9, sizes[i], indexed & 1, indexed & 2);
    check_moved(&parity, 0, 16, true, true);
    check_moved(&parity, 700, 48, true, true); /* the emulated grid has 512 warps */
    parity_close(&parity);
}

/* ---- an event that is asked and not waited for */

static void an_event_is_polled(void **state)
{
    (void)state;
    enum { COUNT = 1000, STEPS = 20 };
    struct parity parity;
    struct kernels_event *event = NULL;
    float *values;
    parity_open(&parity, 1, DTYPE_F32);
    const struct kernels *kernels = parity.kernels;
    assert_int_equal(kernels->event_create(parity.device, &event), 0);
    assert_int_equal(kernels->event_poll(event), 1); /* never recorded: nothing to come */
    float *d_values = parity_random(&parity, &values, DTYPE_F32, COUNT, 1.0f);
    for (int i = 0; i < STEPS; i++)
        kernels->scale(parity.queue, d_values, d_values, 2.0f, COUNT);
    kernels->event_record(parity.queue, event);
    int polled = kernels->event_poll(event);
    /* The emulated device runs nothing before it is asked, and then a step: it cannot be done. */
    assert_true(polled == 1 || polled == 0);
    if (strstr(kernels->description(parity.device), "emulated device") != NULL)
        assert_int_equal(polled, 0);
    /* "Not yet" is no failure of what comes next. */
    kernels->scale(parity.queue, d_values, d_values, 0.5f, COUNT);
    while ((polled = kernels->event_poll(event)) == 0)
        continue;
    assert_int_equal(polled, 1);
    float *got = parity_download(&parity, d_values, COUNT * sizeof *got);
    for (int i = 0; i < COUNT; i++) /* powers of two: exact */
        assert_true(got[i] == values[i] * (float)(1 << (STEPS - 1)));
    free(got);
    free(values);
    kernels->event_free(event);
    parity_free(&parity, d_values);
    parity_close(&parity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_those_of_libxxhash),
        cmocka_unit_test(any_number_of_rows_is_hashed),
        cmocka_unit_test(rows_are_moved),
        cmocka_unit_test(an_event_is_polled),
    };
    log_init("test_kernels_rows", LOG_WARNING);
    return cmocka_run_group_tests_name("kernels rows", tests, NULL, NULL);
}
