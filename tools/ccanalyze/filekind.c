/* filekind.c - folders are told by the files in them, files by their first bytes.
 *
 * A file that begins like nothing known is taken for a stream: its reader then says at which offset
 * no record begins, which is what the owner of a damaged cache wants to hear.
 */
#include "filekind.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/checkpoint.h"
#include "common/io.h"
#include "common/le.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/safetensors.h"

#define FILEKIND_HEAD 9 /* bytes that are looked at */

/* Whether a folder has a file of that name; ERR_MEMORY. */
static int filekind_has(const char *folder, const char *name)
{
    struct stat found;
    char *path = io_join(folder, name);
    if (path == NULL)
        return mem_fail("a path", strlen(folder), 1);
    int has = stat(path, &found) == 0;
    free(path);
    return has;
}

static int filekind_of_folder(enum filekind *kind, const char *path)
{
    static const struct {
        const char *name;
        enum filekind kind;
    } marks[] = {
        {CHECKPOINT_WEIGHTS, FILEKIND_STEP},
        {"shard_0.memmap", FILEKIND_MEMMAP},
        {"model.safetensors", FILEKIND_MODEL},
        {"model.safetensors.index.json", FILEKIND_MODEL},
    };
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        int has = filekind_has(path, marks[i].name);
        if (has < 0)
            return has;
        *kind = marks[i].kind;
        if (has > 0)
            return 0;
    }
    *kind = FILEKIND_RUN;
    uint64_t *steps;
    size_t count;
    int status = checkpoint_list(path, &steps, &count);
    free(steps);
    if (status == 0 && count == 0)
        status = log_fail(ERR_USAGE,
                          "'%s' is a folder without a checkpoint (step-N, " CHECKPOINT_WEIGHTS
                          "), a model (model.safetensors) or a cache (shard_0.memmap)",
                          path);
    return status;
}

static enum filekind filekind_of_bytes(const uint8_t *head, size_t size)
{
    static const uint8_t npy[] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    if (size >= sizeof npy && memcmp(head, npy, sizeof npy) == 0)
        return FILEKIND_NPY;
    if (size == FILEKIND_HEAD && head[8] == '{' && le_get64(head) <= SAFETENSORS_MAX_HEADER)
        return FILEKIND_SAFETENSORS;
    for (size_t i = 0; i < size; i++)
        if (strchr(" \t\r\n", head[i]) == NULL || head[i] == '\0')
            return head[i] == '{' ? FILEKIND_JSON : FILEKIND_STREAM;
    return FILEKIND_STREAM;
}

int filekind_of(enum filekind *kind, const char *path)
{
    struct stat found;
    *kind = FILEKIND_STREAM;
    if (strcmp(path, "-") == 0)
        return 0;
    if (stat(path, &found) != 0) {
        int status = log_fail_errno("cannot open '%s'", path);
        (void)status;
        return ERR_USAGE;
    }
    if (S_ISDIR(found.st_mode))
        return filekind_of_folder(kind, path);
    if (!S_ISREG(found.st_mode))
        return 0;
    struct io_file file;
    uint8_t head[FILEKIND_HEAD];
    int status = io_open_input(&file, path);
    if (status != 0)
        return status;
    ssize_t got = io_read(&file, head, sizeof head);
    int ignored = io_close(&file); /* it was read only */
    (void)ignored;
    if (got < 0)
        return (int)got;
    if (got >= 4 && memcmp(head, "PAR1", 4) == 0)
        return log_fail(ERR_USAGE, "'%s' is a Parquet file: tokstream --info looks into it", path);
    *kind = filekind_of_bytes(head, (size_t)got);
    return 0;
}
