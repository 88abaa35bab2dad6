/* folder.h - the files that the arguments name: themselves, or those in folders. */
#ifndef TOKSTREAM_FOLDER_H
#define TOKSTREAM_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct folder_file {
    char *path;
    bool listed; /* found in a folder: its name had the ending of a token file */
};

struct folder {
    struct folder_file *files;
    size_t count, room;
};

/* Appends `path`, or where it is a folder the token files in and below it, in bytewise order of
 * their paths; names that begin with a dot are passed over, further files counted in one note.
 * ERR_USAGE for a folder without token files. folder_free() frees what is there, also after a
 * failure. */
int folder_add(struct folder *folder, const char *path) MUST_CHECK;
void folder_free(struct folder *folder);

#endif
