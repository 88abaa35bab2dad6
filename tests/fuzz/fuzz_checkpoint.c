/* fuzz_checkpoint.c - any bytes as the manifest of a step folder whose files are there, else as the
 * file of a crosscoder.
 *
 * What must hold: a manifest that verifies names the weights; a crosscoder that is read has arrays
 * of the sizes that it says, all of whose elements can be read and are finite.
 */
#define _GNU_SOURCE /* memfd_create */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/checkpoint.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/fuzz_checkpoint.XXXXXX";
static int input_fd = -1; /* a memory file; /proc/self/fd/N opens it again */
static char input_path[64], weights_path[64], manifest_path[64];

static void write_file(const char *path, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    require(file != NULL && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

static void remove_folder(void)
{
    require(checkpoint_remove(folder) == 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    require(mkdtemp(folder) != NULL);
    require(atexit(remove_folder) == 0);
    snprintf(weights_path, sizeof weights_path, "%s/" CHECKPOINT_WEIGHTS, folder);
    snprintf(manifest_path, sizeof manifest_path, "%s/" CHECKPOINT_MANIFEST, folder);
    write_file(weights_path, (const uint8_t *)"", 0); /* the seeds hold the XXH3-128 of nothing */
    input_fd = memfd_create("input", 0);
    require(input_fd >= 0);
    snprintf(input_path, sizeof input_path, "/proc/self/fd/%d", input_fd);
    return 0;
}

static void check_array(const float *values, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        require(isfinite(values[i]));
}

static void check_crosscoder(const struct crosscoder *cc)
{
    uint64_t width = 0;
    for (size_t s = 0; s < cc->source_count; s++) {
        require(cc->sources[s].name != NULL && cc->sources[s].scale > 0);
        require(crosscoder_column(cc, s) == width);
        width += cc->sources[s].width;
    }
    require(width == cc->width && width > 0 && cc->latents > 0);
    check_array(cc->w_enc, cc->width * cc->latents);
    check_array(cc->w_dec, cc->width * cc->latents);
    check_array(cc->b_enc, cc->latents);
    check_array(cc->b_dec, cc->width);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size > 0 && bytes[0] == '{') {
        write_file(manifest_path, bytes, size);
        if (checkpoint_verify(folder, true) == 0)
            require(memmem(bytes, size, "99aa06d3014798d86001c324468d497f", 32) != NULL ||
                    memchr(bytes, '\\', size) != NULL);
        return 0;
    }
    struct crosscoder cc;
    double lambda;
    require(ftruncate(input_fd, 0) == 0);
    require(pwrite(input_fd, bytes, size, 0) == (ssize_t)size);
    int status = crosscoder_read(&cc, input_path);
    if (status == 0) {
        check_crosscoder(&cc);
        (void)crosscoder_recipe_real(&cc, "l1", &lambda);
        crosscoder_free(&cc);
    } else {
        require(status < 0 && cc.sources == NULL && cc.w_enc == NULL && cc.path == NULL);
    }
    return 0;
}
