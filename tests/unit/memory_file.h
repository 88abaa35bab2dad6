/* memory_file.h - bytes as a regular file that has a path, for what reads files. */
#ifndef TEST_MEMORY_FILE_H
#define TEST_MEMORY_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct memory_file {
    int fd; /* of a file in memory that has no other name */
    char path[64];
};

/* False where there is no /dev/shm. */
static inline bool memory_file_open(struct memory_file *memory)
{
    char name[] = "/dev/shm/ccpipe-test-XXXXXX";
    memory->fd = mkstemp(name);
    if (memory->fd < 0)
        return false;
    snprintf(memory->path, sizeof memory->path, "/proc/self/fd/%d", memory->fd);
    return unlink(name) == 0;
}

static inline void memory_file_close(struct memory_file *memory)
{
    close(memory->fd);
}

/* Replaces the content; false where it cannot be written. */
static inline bool memory_file_set(struct memory_file *memory, const uint8_t *bytes, size_t size)
{
    return ftruncate(memory->fd, (off_t)size) == 0 &&
           pwrite(memory->fd, bytes, size, 0) == (ssize_t)size;
}

#endif
