/* fuzz_safetensors.c - any bytes as a safetensors file, or as the index of a folder of shards.
 *
 * Input that begins as JSON (and cannot be a file: its length would be above 2^56) is written as
 * the index beside a fixed shard; all else is a file. Of what opens, every tensor is read, as it is
 * and as f32.
 */
#define _GNU_SOURCE /* memfd_create */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/safetensors.h"
#include "tests/fuzz/fuzz.h"

#define MOST_ELEMENTS 4096

static char folder[] = "/tmp/fuzz_safetensors.XXXXXX";
static int input_fd = -1; /* a memory file; /proc/self/fd/N opens it again */
static char input_path[64], shard_path[64], index_path[64];

static void remove_folder(void)
{
    unlink(shard_path);
    unlink(index_path);
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    require(mkdtemp(folder) != NULL);
    require(atexit(remove_folder) == 0);
    snprintf(shard_path, sizeof shard_path, "%s/s", folder);
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", folder);
    const float values[3] = {1, 2, 3};
    const struct safetensors_entry entries[] = {{"a", SAFETENSORS_F32, 1, {2}, values},
                                                {"b", SAFETENSORS_F32, 1, {1}, values}};
    require(safetensors_write(shard_path, entries, 2, NULL) == 0);
    input_fd = memfd_create("input", 0);
    require(input_fd >= 0);
    snprintf(input_path, sizeof input_path, "/proc/self/fd/%d", input_fd);
    return 0;
}

static void read_all(const struct safetensors *model)
{
    static float values[MOST_ELEMENTS];
    static uint8_t raw[8 * MOST_ELEMENTS];
    for (size_t i = 0; i < safetensors_count(model); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(model, i);
        require(safetensors_find(model, tensor->name) != NULL);
        uint64_t n = tensor->elements < MOST_ELEMENTS ? tensor->elements : MOST_ELEMENTS;
        uint64_t bytes = n * safetensors_type_size(tensor->type);
        require(safetensors_read(model, tensor, raw, tensor->bytes - bytes, bytes) == 0);
        int status = safetensors_read_f32(model, tensor, values, tensor->elements - n, n);
        require(status == 0 || status == ERR_USAGE || status == ERR_DATA);
    }
    require(json_is_object(safetensors_metadata(model)));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct safetensors *model;
    int status;
    if (size > 0 && bytes[0] == '{' && (size < 8 || bytes[7] != 0)) {
        FILE *file = fopen(index_path, "wb");
        require(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
        status = safetensors_open_folder(&model, folder);
    } else {
        require(ftruncate(input_fd, 0) == 0);
        require(pwrite(input_fd, bytes, size, 0) == (ssize_t)size);
        status = safetensors_open(&model, input_path);
    }
    if (status == 0)
        read_all(model);
    else
        require(model == NULL);
    safetensors_free(status == 0 ? model : NULL);
    return 0;
}
