/* folder.c - folders, read recursively.
 *
 * All paths are collected first and then sorted as a whole, so that the order depends on the names
 * alone and not on the file system. Links are followed, as the caches of model hubs are made of
 * them; a depth that no data set has stops links that go round.
 */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/io.h"
#include "common/log.h"
#include "common/mem.h"

#define FOLDER_MAX_DEPTH 32

static const char *const folder_endings[] = {".parquet", ".npy", ".jsonl", ".json",
                                             ".txt",     ".pt",  ".bin"};

static bool folder_is_token_file(const char *name)
{
    const char *ending = strrchr(name, '.');
    for (size_t i = 0; ending != NULL && i < sizeof folder_endings / sizeof *folder_endings; i++)
        if (strcmp(ending, folder_endings[i]) == 0)
            return true;
    return false;
}

/* Takes `path`, which was allocated. */
static int folder_append(struct folder *folder, char *path, bool listed)
{
    if (path == NULL)
        return mem_fail("a file name", 1, 1);
    if (folder->count == folder->room) {
        size_t room = 2 * folder->room + 16;
        struct folder_file *grown = mem_resize(folder->files, room, sizeof *grown);
        if (grown == NULL) {
            free(path);
            return mem_fail("file names", room, sizeof *grown);
        }
        folder->files = grown;
        folder->room = room;
    }
    folder->files[folder->count++] = (struct folder_file){path, listed};
    return 0;
}

static int folder_read(struct folder *folder, const char *path, unsigned depth, size_t *others);

/* One name of a folder; takes `path`. */
static int folder_visit(struct folder *folder, char *path, const char *name, unsigned depth,
                        size_t *others)
{
    struct stat status;
    int result = 0;
    if (path == NULL)
        return mem_fail("a file name", 1, 1);
    if (stat(path, &status) != 0) {
        result = log_fail_errno("cannot look at '%s'", path);
    } else if (S_ISDIR(status.st_mode)) {
        result = folder_read(folder, path, depth + 1, others);
    } else if (S_ISREG(status.st_mode) && folder_is_token_file(name)) {
        return folder_append(folder, path, true);
    } else {
        ++*others;
    }
    free(path);
    return result;
}

static int folder_read(struct folder *folder, const char *path, unsigned depth, size_t *others)
{
    if (depth > FOLDER_MAX_DEPTH)
        return log_fail(ERR_USAGE, "'%s' lies deeper than %d folders: does a link go round?", path,
                        FOLDER_MAX_DEPTH);
    DIR *handle = opendir(path);
    if (handle == NULL)
        return log_fail_errno("cannot read the folder '%s'", path);
    int status = 0;
    while (status == 0) {
        errno = 0;
        const struct dirent *entry = readdir(handle);
        if (entry == NULL) {
            status = errno != 0 ? log_fail_errno("cannot read the folder '%s'", path) : 0;
            break;
        }
        if (entry->d_name[0] != '.')
            status =
                folder_visit(folder, io_join(path, entry->d_name), entry->d_name, depth, others);
    }
    closedir(handle);
    return status;
}

static int folder_compare(const void *a, const void *b)
{
    return strcmp(((const struct folder_file *)a)->path, ((const struct folder_file *)b)->path);
}

int folder_add(struct folder *folder, const char *path)
{
    struct stat status;
    if (strcmp(path, "-") == 0 || stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return folder_append(folder, strdup(path), false);
    size_t first = folder->count, others = 0;
    char *trimmed = strdup(path);
    if (trimmed == NULL)
        return mem_fail("a file name", strlen(path), 1);
    for (size_t length = strlen(trimmed); length > 1 && trimmed[length - 1] == '/';)
        trimmed[--length] = '\0';
    int result = folder_read(folder, trimmed, 0, &others);
    free(trimmed);
    if (result != 0)
        return result;
    if (folder->count == first)
        return log_fail(ERR_USAGE,
                        "'%s' holds no token files (.parquet .npy .jsonl .json .txt .pt .bin)",
                        path);
    qsort(folder->files + first, folder->count - first, sizeof *folder->files, folder_compare);
    if (others > 0)
        log_note("'%s': %zu other files are passed over", path, others);
    return 0;
}

void folder_free(struct folder *folder)
{
    for (size_t i = 0; i < folder->count; i++)
        free(folder->files[i].path);
    free(folder->files);
    *folder = (struct folder){0};
}
