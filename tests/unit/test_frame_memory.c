/* Want of memory inside a codec is ERR_MEMORY, never a damaged record. The codecs' own functions
 * are replaced here by ones that fail as they do without memory; LZ4's code is -allocation_failed.
 */
#define LZ4F_STATIC_LINKING_ONLY
#include <lz4frame.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <cmocka.h>

#include "common/frame.h"
#include "common/log.h"

size_t LZ4F_decompress(LZ4F_dctx *context, void *to, size_t *to_size, const void *from,
                       size_t *from_size, const LZ4F_decompressOptions_t *options)
{
    (void)context, (void)to, (void)to_size, (void)from, (void)from_size, (void)options;
    return (size_t)-LZ4F_ERROR_allocation_failed;
}

size_t ZSTD_decompress(void *to, size_t to_size, const void *from, size_t from_size)
{
    (void)to, (void)to_size, (void)from, (void)from_size;
    return (size_t)-ZSTD_error_memory_allocation;
}

static void decode(enum stream_codec codec, enum frame_kind kind)
{
    uint8_t record[STREAM_HEADER_BYTES] = {0};
    struct frame frame = {.kind = kind};
    struct frame_record decoded = {0};
    assert_int_equal(frame_encode(&frame.stored, codec, record, sizeof record), 0);
    assert_int_equal(frame_decode(&decoded, &frame, NULL), ERR_MEMORY);
    assert_int_equal(frame_decode(&decoded, &frame, "x"), ERR_MEMORY);
    frame_buffer_free(&frame.stored);
    frame_buffer_free(&decoded.content);
}

static void test_codecs_are_told_by_what_they_say(void **state)
{
    (void)state;
    assert_string_equal(LZ4F_getErrorName((size_t)-LZ4F_ERROR_allocation_failed),
                        "ERROR_allocation_failed");
    assert_int_equal(ZSTD_getErrorCode((size_t)-ZSTD_error_memory_allocation),
                     ZSTD_error_memory_allocation);
}

static void test_lz4_without_memory(void **state)
{
    (void)state;
    decode(STREAM_CODEC_LZ4, FRAME_LZ4);
}

static void test_zstd_without_memory(void **state)
{
    (void)state;
    decode(STREAM_CODEC_ZSTD, FRAME_ZSTD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codecs_are_told_by_what_they_say),
        cmocka_unit_test(test_lz4_without_memory),
        cmocka_unit_test(test_zstd_without_memory),
    };
    log_init("test_frame_memory", LOG_SILENT);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
