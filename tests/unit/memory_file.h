/* memory_file.h - bytes as a regular file that has a path, for what reads files. */
#ifndef TEST_MEMORY_FILE_H
#define TEST_MEMORY_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct memory_file {
    FILE *file; /* without a name */
    char path[64];
};

/* False where there is no room for temporary files. */
static inline bool memory_file_open(struct memory_file *memory)
{
    memory->file = tmpfile();
    if (memory->file == NULL)
        return false;
    snprintf(memory->path, sizeof memory->path, "/proc/self/fd/%d", fileno(memory->file));
    return true;
}

static inline void memory_file_close(struct memory_file *memory)
{
    fclose(memory->file);
}

/* Replaces the content; false where it cannot be written. */
static inline bool memory_file_set(struct memory_file *memory, const uint8_t *bytes, size_t size)
{
    int fd = fileno(memory->file);
    return ftruncate(fd, 0) == 0 && pwrite(fd, bytes, size, 0) == (ssize_t)size;
}

/* The whole of a file; the caller frees it. NULL where it cannot be read. */
static inline uint8_t *memory_file_load(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    if (file == NULL)
        return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (bytes = malloc((size_t)ftell(file) + 1)) != NULL) {
        *size = (size_t)ftell(file);
        rewind(file);
        if (fread(bytes, 1, *size, file) != *size) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(file);
    return bytes;
}

#endif
