/* test_safetensors.c - files of the safetensors package; headers it would refuse; every cut;
 * shards; conversion.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "tests/unit/scratch.h"

#define FILES "tests/golden/files/"

/* ---- files made here */

/* Length, header, data, as the format has them: the file's path, one of scratch_path(). */
static const char *make_file(const char *header, const void *data, size_t size)
{
    size_t length = strlen(header), total = 8 + length + size;
    uint8_t *bytes = malloc(total);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, header, length);
    if (size > 0)
        memcpy(bytes + 8 + length, data, size);
    scratch_write("file.safetensors", bytes, total);
    free(bytes);
    return scratch_path("file.safetensors");
}

static int open_status(const char *path)
{
    struct safetensors *model = (struct safetensors *)&scratch;
    int status = safetensors_open(&model, path);
    if (status != 0)
        assert_null(model);
    safetensors_free(status == 0 ? model : NULL);
    return status;
}

static struct safetensors *open_model(const char *path)
{
    struct safetensors *model;
    assert_int_equal(safetensors_open(&model, path), 0);
    return model;
}

static const struct safetensors_tensor *find(const struct safetensors *model, const char *name)
{
    const struct safetensors_tensor *tensor = safetensors_find(model, name);
    assert_non_null(tensor);
    assert_string_equal(tensor->name, name);
    return tensor;
}

/* ---- the package's file */

static void test_types_and_shapes_of_the_package(void **state)
{
    (void)state;
    static const struct {
        const char *name, *type;
        unsigned rank;
        uint64_t shape[3];
        size_t bytes;
        const char *data;
    } expected[] = {
        {"bool", "BOOL", 1, {2}, 2, "\1\0"},
        {"u8", "U8", 1, {3}, 3, "\0\7\377"},
        {"i8", "I8", 1, {3}, 3, "\200\7\177"},
        {"f8_e5m2", "F8_E5M2", 1, {2}, 2, "\1\2"},
        {"f8_e4m3", "F8_E4M3", 1, {2}, 2, "\1\2"},
        {"i16", "I16", 1, {2}, 4, "\0\200\5\0"},
        {"u16", "U16", 1, {2}, 4, "\377\377\5\0"},
        {"i32", "I32", 1, {2}, 8, "\373\377\377\377\5\0\0\0"},
        {"u32", "U32", 1, {1}, 4, "\377\377\377\377"},
        {"i64", "I64", 1, {1}, 8, "\0\0\0\0\0\0\0\300"},
        {"u64", "U64", 1, {1}, 8, "\1\0\0\0\0\0\0\200"},
        {"f64", "F64", 1, {2}, 16, "\232\231\231\231\231\231\271\77\0\0\0\0\0\0\4\300"},
        {"scalar", "F32", 0, {0}, 4, "\0\0\0\77"},
        {"empty", "F32", 2, {0, 3}, 0, ""},
        {"größe", "F32", 1, {1}, 4, "\0\0\20A"},
        {"bf16", "BF16", 2, {3, 4}, 24, NULL},
        {"f16", "F16", 2, {2, 3}, 12, NULL},
        {"f32", "F32", 3, {2, 3, 2}, 48, NULL},
    };
    struct safetensors *model = open_model(FILES "types.safetensors");
    size_t count = sizeof expected / sizeof *expected;
    assert_int_equal(safetensors_count(model), count);
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_tensor *tensor = find(model, expected[i].name);
        assert_string_equal(safetensors_type_name(tensor->type), expected[i].type);
        assert_int_equal(tensor->rank, expected[i].rank);
        for (unsigned j = 0; j < tensor->rank; j++)
            assert_int_equal(tensor->shape[j], expected[i].shape[j]);
        assert_int_equal(tensor->bytes, expected[i].bytes);
        assert_int_equal(tensor->elements * safetensors_type_size(tensor->type), tensor->bytes);
        char data[48];
        if (expected[i].data != NULL) {
            assert_int_equal(safetensors_read(model, tensor, data, 0, tensor->bytes), 0);
            assert_memory_equal(data, expected[i].data, tensor->bytes);
        }
    }
    assert_null(safetensors_find(model, "absent"));
    assert_null(safetensors_find(model, "__metadata__"));
    assert_null(safetensors_at(model, count));
    for (size_t i = 0; i + 1 < count; i++)
        assert_true(strcmp(safetensors_at(model, i)->name, safetensors_at(model, i + 1)->name) < 0);
    const json_t *metadata = safetensors_metadata(model);
    assert_int_equal(json_object_size(metadata), 2);
    assert_string_equal(json_string_value(json_object_get(metadata, "k")), "v\n\"ä");
    assert_string_equal(safetensors_path(model, safetensors_at(model, 0)),
                        FILES "types.safetensors");
    safetensors_free(model);
}

/* Element i of f32 and bf16 is (i - 3) * 0.375, exact in both. */
static void test_conversion_to_f32(void **state)
{
    (void)state;
    static const float halves[] = {0.0f, -0.0f, 0x1p-24f, -0x1p-15f, 1.0f, 65504.0f};
    static const char *const names[] = {"f32", "bf16"};
    struct safetensors *model = open_model(FILES "types.safetensors");
    float values[12];
    for (int i = 0; i < 2; i++) {
        const struct safetensors_tensor *tensor = find(model, names[i]);
        assert_int_equal(safetensors_read_f32(model, tensor, values, 0, 12), 0);
        for (int j = 0; j < 12; j++)
            assert_true(values[j] == (float)(j - 3) * 0.375f);
        assert_int_equal(safetensors_read_f32(model, tensor, values, 5, 4), 0);
        for (int j = 0; j < 4; j++)
            assert_true(values[j] == (float)(j + 2) * 0.375f);
        assert_int_equal(safetensors_read_f32(model, tensor, values, 12, 0), 0);
    }
    assert_int_equal(safetensors_read_f32(model, find(model, "f16"), values, 0, 6), 0);
    assert_memory_equal(values, halves, sizeof halves);
    assert_int_equal(safetensors_read_f32(model, find(model, "empty"), values, 0, 0), 0);
    assert_int_equal(safetensors_read_f32(model, find(model, "i32"), values, 0, 2), ERR_USAGE);
    assert_int_equal(safetensors_read_f32(model, find(model, "f64"), values, 0, 2), ERR_USAGE);
    safetensors_free(model);
}

/* More than two chunks of 1 MiB, in each type: element i is i % 251. */
static void test_conversion_over_many_chunks(void **state)
{
    (void)state;
    enum { N = 1300001 };
    static const char *const types[] = {"F32", "BF16", "F16"};
    uint8_t *data = malloc(4 * (size_t)N);
    float *values = malloc(N * sizeof *values);
    assert_true(data != NULL && values != NULL);
    for (int t = 0; t < 3; t++) {
        size_t size = t == 0 ? 4 : 2;
        for (uint32_t i = 0; i < N; i++) {
            float value = (float)(i % 251);
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            /* normal numbers and zero: the exponent is biased by 127 and by 15 */
            uint16_t half = i % 251 == 0 ? 0 : (uint16_t)((bits - (112u << 23)) >> 13);
            uint16_t brain = (uint16_t)(bits >> 16);
            memcpy(data + size * i,
                   t == 0   ? (void *)&value
                   : t == 1 ? (void *)&brain
                            : &half,
                   size);
        }
        char header[128];
        snprintf(header, sizeof header,
                 "{\"x\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%zu]}}", types[t], N,
                 size * N);
        struct safetensors *model = open_model(make_file(header, data, size * N));
        const struct safetensors_tensor *tensor = find(model, "x");
        assert_int_equal(safetensors_read_f32(model, tensor, values, 1, N - 1), 0);
        for (uint32_t i = 1; i < N; i++)
            if (values[i - 1] != (float)(i % 251))
                fail_msg("%s, element %u is %f", types[t], i, (double)values[i - 1]);
        safetensors_free(model);
    }
    free(values);
    free(data);
}

/* ---- values that are not finite, and what the message says of them */

static int read_f32_message(const struct safetensors *model, const char *name, float *to,
                            uint64_t first, uint64_t count, char *message, size_t room)
{
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    int fd = open(scratch_path("stderr"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(kept >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    log_init("test", LOG_ERROR);
    int status = safetensors_read_f32(model, find(model, name), to, first, count);
    log_init("test", LOG_SILENT);
    fflush(stderr);
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    ssize_t size = pread(fd, message, room - 1, 0);
    assert_true(size >= 0);
    message[size] = '\0';
    close(fd);
    return status;
}

static void test_a_value_that_is_not_finite_is_named(void **state)
{
    (void)state;
    static const char *const header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":"
                                      "[0,24]},\"b\":{\"dtype\":\"BF16\",\"shape\":[3],"
                                      "\"data_offsets\":[24,30]},\"h\":{\"dtype\":\"F16\","
                                      "\"shape\":[3],\"data_offsets\":[30,36]}}";
    static const uint8_t halves[] = {0, 0, 0x80, 0xff, 0, 0,     /* bf16 -inf at 1 */
                                     0, 0, 0,    0,    1, 0x7e}; /* f16 NaN at 2 */
    float values[6] = {1, 2, 3, 4, NAN, 6};
    uint8_t data[36];
    char message[512];
    memcpy(data, values, 24);
    memcpy(data + 24, halves, 12);
    struct safetensors *model = open_model(make_file(header, data, sizeof data));
    assert_int_equal(read_f32_message(model, "w", values, 2, 4, message, sizeof message), ERR_DATA);
    assert_non_null(strstr(message, "file.safetensors"));
    assert_non_null(strstr(message, "element 4 of tensor 'w'"));
    assert_int_equal(read_f32_message(model, "b", values, 0, 3, message, sizeof message), ERR_DATA);
    assert_non_null(strstr(message, "element 1 of tensor 'b'"));
    assert_int_equal(read_f32_message(model, "h", values, 0, 3, message, sizeof message), ERR_DATA);
    assert_non_null(strstr(message, "element 2 of tensor 'h'"));
    assert_int_equal(safetensors_read_f32(model, find(model, "w"), values, 0, 4), 0);
    safetensors_free(model);
}

/* ---- damage */

#define T(name, dtype, shape, first, last)                                                  \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" #first \
    "," #last "]}"

static void test_malformed_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        int status;
    } cases[] = {
        {"{}", 0, 0},
        {"{\"__metadata__\":{}}  ", 0, 0},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "U8", "", 8, 9) "}   ", 9, 0},
        {"{" T("b", "U8", "", 8, 9) "," T("a", "F32", "2", 0, 8) "}", 9, 0},
        {"{" T("a", "F32", "0", 0, 0) "," T("b", "U8", "1", 0, 1) "}", 1, 0},
        {"{" T("b", "U8", "1", 0, 1) "," T("a", "F32", "0", 0, 0) "}", 1, 0},
        {"", 0, ERR_DATA},
        {" {}", 0, ERR_DATA},
        {"[]", 0, ERR_DATA},
        {"{", 0, ERR_DATA},
        {"{}x", 0, ERR_DATA},
        {"{}", 1, ERR_DATA},
        {"{\"a\":3}", 0, ERR_DATA},
        {"{\"a\":{}}", 0, ERR_DATA},
        {"{\"__metadata__\":3}", 0, ERR_DATA},
        {"{\"__metadata__\":{\"a\":3}}", 0, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "," T("a", "F32", "2", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "}", 9, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "}", 7, ERR_TRUNCATED},
        {"{" T("a", "F32", "2", 0, 7) "}", 7, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 9) "}", 9, ERR_DATA},
        {"{" T("a", "F32", "2", 8, 0) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "2", -8, 0) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "2", 1, 9) "}", 9, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "U8", "1", 9, 10) "}", 10, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "U8", "1", 7, 8) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "2", 0, 8) "," T("b", "F32", "2", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "0", 1, 1) "," T("b", "U8", "2", 0, 2) "}", 2, ERR_DATA},
        {"{" T("a", "F4", "2", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "f32", "2", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "-2", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "F32", "2.0", 0, 8) "}", 8, ERR_DATA},
        {"{" T("a", "U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, ERR_DATA},
        {"{" T("a", "U8", "4294967296,4294967296", 0, 0) "}", 0, ERR_DATA},
        {"{" T("a", "F64", "2305843009213693952", 0, 0) "}", 0, ERR_DATA},
        {"{" T("a", "U8", "9223372036854775807", 0, 9223372036854775807) "}", 0, ERR_DATA},
        {"{" T("a", "U8", "0", 9223372036854775807, 9223372036854775807) "}", 0, ERR_DATA},
        {"{" T("a", "U8", "99999999999999999999", 0, 1) "}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":3,\"data_offsets\":[0,1]}}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, ERR_DATA},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ERR_DATA},
        {"{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ERR_DATA},
    };
    static const uint8_t data[16] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = open_status(make_file(cases[i].header, data, cases[i].data));
        if (status != cases[i].status)
            print_error("%s\n", cases[i].header);
        assert_int_equal(status, cases[i].status);
    }
}

static void test_every_cut_is_found(void **state)
{
    (void)state;
    char *text;
    size_t size;
    assert_int_equal(io_read_file(&text, &size, FILES "types.safetensors", 1u << 20), 0);
    for (size_t cut = 0; cut < size; cut++) {
        scratch_write("file.safetensors", text, cut);
        assert_int_equal(open_status(scratch_path("file.safetensors")), ERR_TRUNCATED);
    }
    text[size] = 'x';
    scratch_write("file.safetensors", text, size + 1); /* io_read_file() has left room for a 0 */
    assert_int_equal(open_status(scratch_path("file.safetensors")), ERR_DATA);
    free(text);
}

static void test_a_header_length_is_not_believed(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[10];
        int status;
    } cases[] = {
        {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'}, ERR_DATA},
        {{0, 0, 0, 0, 0, 0, 0, 0x80, '{', '}'}, ERR_DATA},
        {{0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'}, ERR_DATA},      /* 100,000,001 */
        {{0x00, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'}, ERR_TRUNCATED}, /* 100,000,000 */
        {{3, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, ERR_TRUNCATED},
        {{0, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, ERR_DATA},
        {{2, 0, 0, 0, 0, 0, 0, 0, '{', '}'}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_write("file.safetensors", cases[i].bytes, 10);
        assert_int_equal(open_status(scratch_path("file.safetensors")), cases[i].status);
    }
}

static void test_a_file_cut_while_it_is_read(void **state)
{
    (void)state;
    static const uint8_t data[8] = {0};
    float values[2];
    const char *path = make_file("{" T("a", "F32", "2", 0, 8) "}", data, 8);
    struct safetensors *model = open_model(path);
    assert_int_equal(truncate(path, 20), 0);
    const struct safetensors_tensor *tensor = find(model, "a");
    assert_int_equal(safetensors_read(model, tensor, values, 0, 8), ERR_TRUNCATED);
    assert_int_equal(safetensors_read_f32(model, tensor, values, 0, 2), ERR_TRUNCATED);
    safetensors_free(model);
}

static void test_what_is_not_a_file(void **state)
{
    (void)state;
    const char *path = scratch_path("fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(open_status(path), ERR_USAGE);
    unlink(path);
    assert_int_equal(open_status(scratch), ERR_USAGE);
    assert_int_equal(open_status("/dev/zero"), ERR_USAGE);
    assert_int_equal(open_status(scratch_path("absent")), ERR_USAGE);
}

/* ---- shards */

static void test_shards_of_the_package(void **state)
{
    (void)state;
    struct safetensors *model;
    float values[6];
    assert_int_equal(safetensors_open_folder(&model, FILES "sharded"), 0);
    assert_int_equal(safetensors_count(model), 3);
    assert_int_equal(safetensors_read_f32(model, find(model, "a"), values, 0, 6), 0);
    assert_true(values[0] == 0 && values[5] == 5);
    assert_int_equal(safetensors_read_f32(model, find(model, "b"), values, 0, 4), 0);
    assert_true(values[0] == 10 && values[3] == 13); /* the second shard's has 90 */
    assert_int_equal(safetensors_read_f32(model, find(model, "c"), values, 0, 2), 0);
    assert_true(values[0] == 20 && values[1] == 21);
    assert_null(safetensors_find(model, "unused"));
    assert_string_equal(safetensors_path(model, find(model, "c")),
                        FILES "sharded/model-00002-of-00002.safetensors");
    assert_string_equal(json_string_value(json_object_get(safetensors_metadata(model), "shard")),
                        "1");
    safetensors_free(model);
}

static void test_one_file_goes_before_an_index(void **state)
{
    (void)state;
    struct safetensors *model;
    const char *single = scratch_path("model.safetensors");
    scratch_write("model.safetensors.index.json", "{", 1);
    assert_int_equal(rename(make_file("{" T("a", "U8", "1", 0, 1) "}", "x", 1), single), 0);
    assert_int_equal(safetensors_open_folder(&model, scratch), 0);
    assert_int_equal(safetensors_count(model), 1);
    safetensors_free(model);
    unlink(single);
    assert_int_equal(safetensors_open_folder(&model, scratch), ERR_DATA);
    assert_null(model);
    unlink(scratch_path("model.safetensors.index.json"));
    assert_int_equal(safetensors_open_folder(&model, scratch), ERR_USAGE);
}

static void test_an_index_that_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *index;
        int status;
    } cases[] = {
        {"{\"weight_map\":{\"a\":\"file.safetensors\"}}", 0},
        {"{\"weight_map\":{\"a\":\"link.safetensors\"}}", 0},
        {"{\"metadata\":{},\"weight_map\":{\"a\":\"file.safetensors\"}}", 0},
        {"{\"metadata\":{\"total_size\":3},\"weight_map\":{\"a\":\"file.safetensors\"}}", 0},
        {"{\"metadata\":{\"total_size\":3.0},\"weight_map\":{\"a\":\"file.safetensors\"}}", 0},
        {"{\"metadata\":{\"total_size\":4},\"weight_map\":{\"a\":\"file.safetensors\"}}", ERR_DATA},
        {"{\"metadata\":{\"total_size\":\"3\"},\"weight_map\":{\"a\":\"file.safetensors\"}}",
         ERR_DATA},
        {"{\"weight_map\":{\"a\":\"file.safetensors\",\"z\":\"file.safetensors\"}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":\"./file.safetensors\"}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":\"..\"}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":\"\"}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":3}}", ERR_DATA},
        {"{\"weight_map\":{\"a\":\"absent.safetensors\"}}", ERR_USAGE},
        {"{\"weight_map\":{}}", ERR_DATA},
        {"{\"weight_map\":[]}", ERR_DATA},
        {"{}", ERR_DATA},
        {"[]", ERR_DATA},
    };
    assert_non_null(
        make_file("{" T("a", "U8", "3", 0, 3) "," T("b", "U8", "1", 3, 4) "}", "abcd", 4));
    assert_int_equal(symlink("file.safetensors", scratch_path("link.safetensors")), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors *model;
        scratch_write("model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        int status = safetensors_open_folder(&model, scratch);
        if (status != cases[i].status)
            print_error("%s\n", cases[i].index);
        assert_int_equal(status, cases[i].status);
        if (status == 0)
            assert_int_equal(safetensors_count(model), 1);
        safetensors_free(model);
    }
    unlink(scratch_path("link.safetensors"));
    unlink(scratch_path("model.safetensors.index.json"));
}

int main(void)
{
    log_init("test_safetensors", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types_and_shapes_of_the_package),
        cmocka_unit_test(test_conversion_to_f32),
        cmocka_unit_test(test_conversion_over_many_chunks),
        cmocka_unit_test(test_a_value_that_is_not_finite_is_named),
        cmocka_unit_test(test_malformed_headers),
        cmocka_unit_test(test_every_cut_is_found),
        cmocka_unit_test(test_a_header_length_is_not_believed),
        cmocka_unit_test(test_a_file_cut_while_it_is_read),
        cmocka_unit_test(test_what_is_not_a_file),
        cmocka_unit_test(test_shards_of_the_package),
        cmocka_unit_test(test_one_file_goes_before_an_index),
        cmocka_unit_test(test_an_index_that_is_wrong),
    };
    return cmocka_run_group_tests_name("safetensors", tests, scratch_open, scratch_close);
}
