/* scratch.h - a folder for the files of a test, removed with all that is in it. */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io.h"

static char scratch[64];

/* A cmocka set-up. */
static inline int scratch_open(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/ccpipe-test.XXXXXX");
    return mkdtemp(scratch) == NULL;
}

/* A path in the folder; one of the last four stays valid. */
static inline const char *scratch_path(const char *name)
{
    static char paths[4][512];
    static unsigned next;
    char *path = paths[next++ % 4];
    int length = snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
    assert_true(length > 0 && (size_t)length < sizeof paths[0]);
    return path;
}

/* A new file each time: to cut an old one and fill it again is brought to the disk at once by some
 * file systems. */
static inline void scratch_write(const char *name, const void *bytes, size_t size)
{
    const char *path = scratch_path(name);
    unlink(path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Removes a folder and what is in it; links are not followed. */
static inline int scratch_remove(const char *folder)
{
    DIR *listing = opendir(folder);
    if (listing == NULL)
        return -1;
    struct dirent *entry;
    while ((entry = readdir(listing)) != NULL) {
        struct stat found;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *path = io_join(folder, entry->d_name);
        if (path == NULL)
            break;
        if (lstat(path, &found) == 0 && S_ISDIR(found.st_mode))
            scratch_remove(path);
        else
            unlink(path);
        free(path);
    }
    closedir(listing);
    return rmdir(folder);
}

/* A cmocka tear-down. */
static inline int scratch_close(void **state)
{
    (void)state;
    return scratch_remove(scratch);
}

#endif
