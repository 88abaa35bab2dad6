/* checkpoint.c - step folders: sealed by a manifest, found again by it.
 *
 * A folder is believed for one reason alone, that every file which its manifest names has the size
 * and the XXH3-128 that the manifest says. So nothing depends on the order in which a file system
 * brought things to the disk: whatever was lost of a step, it does not verify, and the step before
 * is taken. The manifest is written last all the same, so that a step cut short has none.
 *
 * Files are read by pread and hashed piece by piece; signals do not end that, as a run that is
 * being stopped verifies what it wrote. What is wrong with a folder is put into words by one
 * function, checkpoint_inspect(), and becomes an error, a warning or nothing, as the caller needs
 * it.
 */
#define _GNU_SOURCE /* O_DIRECTORY, O_NOFOLLOW */
#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "io.h"
#include "json.h"
#include "log.h"
#include "mem.h"

#define CHECKPOINT_FORMAT "ccpipe checkpoint 1"
#define CHECKPOINT_MAX_MANIFEST (1u << 20)
#define CHECKPOINT_CHUNK (1u << 20) /* bytes read at a time */
#define CHECKPOINT_HEX 33           /* XXH3-128 in hexadecimal, and a 0 */

/* What is wrong with a folder, in words. */
struct checkpoint_finding {
    char text[1024];
};

static int checkpoint_find(struct checkpoint_finding *finding, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int checkpoint_find(struct checkpoint_finding *finding, int code, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vsnprintf(finding->text, sizeof finding->text, format, list);
    va_end(list);
    return code;
}

/* ---- one file */

/* pread() until `size` bytes are there or the file ends; the count, or -1 with errno. */
static ssize_t checkpoint_pread(int fd, void *to, size_t size, int64_t offset)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = pread(fd, (char *)to + got, size - got, (off_t)(offset + (int64_t)got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

/* Opens a regular file of the folder (a FIFO would make open() wait) and says its size. */
static int checkpoint_open(int *fd, int64_t *size, const char *path,
                           struct checkpoint_finding *finding)
{
    struct stat found;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0)
        return checkpoint_find(finding, errno == ENOENT ? ERR_TRUNCATED : ERR_IO, "'%s': %s", path,
                               strerror(errno));
    if (fstat(*fd, &found) == 0 && S_ISREG(found.st_mode)) {
        *size = (int64_t)found.st_size;
        return 0;
    }
    close(*fd);
    *fd = -1;
    return checkpoint_find(finding, ERR_DATA, "'%s' is not a regular file", path);
}

/* XXH3-128 of the bytes of an open file up to its end; *size says how many there were. */
static int checkpoint_hash(int fd, const char *path, char hex[CHECKPOINT_HEX], int64_t *size,
                           struct checkpoint_finding *finding)
{
    XXH3_state_t *state = XXH3_createState();
    uint8_t *chunk = mem_alloc(CHECKPOINT_CHUNK, 1);
    int status = 0;
    *size = 0;
    if (state == NULL || chunk == NULL || XXH3_128bits_reset(state) != XXH_OK)
        status = checkpoint_find(finding, ERR_MEMORY, "not enough memory to read '%s'", path);
    while (status == 0) {
        ssize_t got = checkpoint_pread(fd, chunk, CHECKPOINT_CHUNK, *size);
        if (got < 0)
            status = checkpoint_find(finding, ERR_IO, "cannot read '%s' at offset %" PRId64 ": %s",
                                     path, *size, strerror(errno));
        if (got <= 0)
            break;
        XXH3_128bits_update(state, chunk, (size_t)got);
        *size += got;
    }
    if (status == 0) {
        XXH128_hash_t hash = XXH3_128bits_digest(state);
        snprintf(hex, CHECKPOINT_HEX, "%016" PRIx64 "%016" PRIx64, (uint64_t)hash.high64,
                 (uint64_t)hash.low64);
    }
    XXH3_freeState(state);
    free(chunk);
    return status;
}

/* ---- the manifest: {"format": …, "files": {NAME: {"bytes": N, "xxh3_128": HEX}, …}} */

static bool checkpoint_plain_name(const char *name)
{
    return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0 && strcmp(name, CHECKPOINT_MANIFEST) != 0;
}

/* Checks one entry against its file. */
static int checkpoint_check_file(const char *folder, const char *name, const json_t *entry,
                                 struct checkpoint_finding *finding)
{
    const json_t *bytes = json_object_get(entry, "bytes");
    const char *said = json_string_value(json_object_get(entry, "xxh3_128"));
    if (!checkpoint_plain_name(name) || !json_is_integer(bytes) || said == NULL)
        return checkpoint_find(finding, ERR_DATA,
                               "'%s/" CHECKPOINT_MANIFEST "' says no size and sum of '%s'", folder,
                               name);
    char *path = io_join(folder, name);
    if (path == NULL)
        return checkpoint_find(finding, ERR_MEMORY, "not enough memory for a path");
    int fd;
    int64_t size, needed = json_integer_value(bytes);
    char hex[CHECKPOINT_HEX];
    int status = checkpoint_open(&fd, &size, path, finding);
    if (status == 0 && size == needed)
        status = checkpoint_hash(fd, path, hex, &size, finding);
    if (status == 0 && size != needed)
        status =
            checkpoint_find(finding, size < needed ? ERR_TRUNCATED : ERR_DATA,
                            "'%s' has %" PRId64 " bytes, " CHECKPOINT_MANIFEST " says %" PRId64,
                            path, size, needed);
    else if (status == 0 && strcmp(hex, said) != 0)
        status = checkpoint_find(finding, ERR_DATA,
                                 "'%s' has the XXH3-128 %s, " CHECKPOINT_MANIFEST " says %s", path,
                                 hex, said);
    if (fd >= 0)
        close(fd);
    free(path);
    return status;
}

static int checkpoint_read_manifest(json_t **manifest, const char *path,
                                    struct checkpoint_finding *finding)
{
    int fd;
    int64_t size;
    int status = checkpoint_open(&fd, &size, path, finding);
    if (status != 0)
        return status;
    char *text = NULL;
    if (size > CHECKPOINT_MAX_MANIFEST)
        status = checkpoint_find(finding, ERR_DATA, "'%s' is longer than a manifest can be", path);
    else if ((text = mem_alloc((size_t)size, 1)) == NULL)
        status = checkpoint_find(finding, ERR_MEMORY, "not enough memory to read '%s'", path);
    else if (checkpoint_pread(fd, text, (size_t)size, 0) != size)
        status = checkpoint_find(finding, ERR_IO, "cannot read '%s'", path);
    else if ((*manifest = json_parse(text, (size_t)size, NULL)) == NULL)
        status = checkpoint_find(finding, ERR_DATA, "'%s' is not a JSON text", path);
    free(text);
    close(fd);
    return status;
}

/* Checks a folder: 0, or a code with what is wrong. */
static int checkpoint_inspect(const char *folder, struct checkpoint_finding *finding)
{
    char *path = io_join(folder, CHECKPOINT_MANIFEST);
    if (path == NULL)
        return checkpoint_find(finding, ERR_MEMORY, "not enough memory for a path");
    json_t *manifest = NULL;
    int status = checkpoint_read_manifest(&manifest, path, finding);
    json_t *files = json_object_get(manifest, "files");
    const char *format = json_string_value(json_object_get(manifest, "format"));
    if (status == 0 && (format == NULL || strcmp(format, CHECKPOINT_FORMAT) != 0))
        status = checkpoint_find(finding, ERR_DATA, "'%s' is not of the format '%s'", path,
                                 CHECKPOINT_FORMAT);
    if (status == 0 && json_object_get(files, CHECKPOINT_WEIGHTS) == NULL)
        status = checkpoint_find(finding, ERR_DATA, "'%s' does not name " CHECKPOINT_WEIGHTS, path);
    const char *name;
    json_t *entry;
    json_object_foreach(files, name, entry)
    {
        if (status == 0)
            status = checkpoint_check_file(folder, name, entry, finding);
    }
    json_decref(manifest);
    free(path);
    return status;
}

int checkpoint_verify(const char *folder, bool quiet)
{
    struct checkpoint_finding finding;
    int status = checkpoint_inspect(folder, &finding);
    return status == 0 || quiet ? status : log_fail(status, "%s", finding.text);
}

/* Brings a file to the disk and describes it. */
static int checkpoint_describe(json_t *files, const char *folder, const char *name)
{
    struct checkpoint_finding finding;
    char hex[CHECKPOINT_HEX];
    int fd;
    int64_t size;
    char *path = io_join(folder, name);
    if (path == NULL)
        return mem_fail("a path", strlen(folder), 1);
    int status = checkpoint_open(&fd, &size, path, &finding);
    if (status == 0)
        status = checkpoint_hash(fd, path, hex, &size, &finding);
    if (status != 0)
        status = log_fail(status, "%s", finding.text);
    else if (fsync(fd) != 0)
        status = log_fail_errno("cannot bring '%s' to the disk", path);
    else if (json_object_set_new(
                 files, name,
                 json_pack("{s:I, s:s}", "bytes", (json_int_t)size, "xxh3_128", hex)) != 0)
        status = mem_fail("a manifest", 1, 1);
    if (fd >= 0)
        close(fd);
    free(path);
    return status;
}

static int checkpoint_sync(const char *path, int flags)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0)
        return log_fail_errno("cannot open '%s'", path);
    int status = fsync(fd) != 0 ? log_fail_errno("cannot bring '%s' to the disk", path) : 0;
    close(fd);
    return status;
}

int checkpoint_sync_folder(const char *folder)
{
    return checkpoint_sync(folder, O_DIRECTORY);
}

int checkpoint_seal(const char *folder, const char *const *names, size_t count)
{
    json_t *files = json_object();
    json_t *manifest = json_pack("{s:s, s:O?}", "format", CHECKPOINT_FORMAT, "files", files);
    char *path = io_join(folder, CHECKPOINT_MANIFEST);
    int status = 0;
    if (files == NULL || manifest == NULL || path == NULL)
        status = mem_fail("a manifest", count, 1);
    for (size_t i = 0; i < count && status == 0; i++)
        status = checkpoint_describe(files, folder, names[i]);
    if (status == 0)
        status = json_write_file(manifest, path);
    if (status == 0)
        status = checkpoint_sync(path, 0);
    if (status == 0)
        status = checkpoint_sync_folder(folder);
    json_decref(manifest);
    json_decref(files);
    free(path);
    return status;
}

/* ---- the steps of a run */

/* The N of "step-N", decimal without leading zeros. */
static bool checkpoint_step_of(const char *name, uint64_t *step)
{
    char back[32];
    if (strncmp(name, "step-", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(name + 5, &end, 10);
    snprintf(back, sizeof back, "step-%llu", value);
    *step = value;
    return errno == 0 && *end == '\0' && strcmp(name, back) == 0 && value <= INT64_MAX;
}

static int checkpoint_descending(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? 1 : a > b ? -1 : 0;
}

int checkpoint_list(const char *run, uint64_t **steps, size_t *count)
{
    *steps = NULL;
    *count = 0;
    DIR *listing = opendir(run);
    if (listing == NULL) {
        bool usage = errno == ENOENT || errno == EACCES || errno == ENOTDIR;
        int status = log_fail_errno("cannot open '%s'", run);
        return usage ? ERR_USAGE : status;
    }
    struct dirent *entry;
    int status = 0;
    while (status == 0 && (errno = 0, entry = readdir(listing)) != NULL) {
        uint64_t step;
        if (!checkpoint_step_of(entry->d_name, &step))
            continue;
        uint64_t *grown = mem_resize(*steps, *count + 1, sizeof *grown);
        if (grown == NULL) {
            status = mem_fail("a list of steps", *count + 1, sizeof *grown);
            break;
        }
        *steps = grown;
        grown[(*count)++] = step;
    }
    if (status == 0 && errno != 0)
        status = log_fail_errno("cannot read the folder '%s'", run);
    closedir(listing);
    if (*count > 0)
        qsort(*steps, *count, sizeof **steps, checkpoint_descending);
    return status;
}

/* Whether one step verifies: 0 with *folder, 1 where it does not, or ERR_MEMORY. */
static int checkpoint_try(const char *run, uint64_t step, char **folder, bool warn)
{
    struct checkpoint_finding finding;
    char name[32];
    snprintf(name, sizeof name, "step-%" PRIu64, step);
    *folder = io_join(run, name);
    if (*folder == NULL)
        return mem_fail("a path", strlen(run), 1);
    int status = checkpoint_inspect(*folder, &finding);
    if (status == 0)
        return 0;
    if (warn || status == ERR_MEMORY)
        log_warning("'%s' is passed over: %s", *folder, finding.text);
    free(*folder);
    *folder = NULL;
    return status == ERR_MEMORY ? status : 1;
}

int checkpoint_newest(const char *run, uint64_t *step, char **folder, bool warn)
{
    uint64_t *steps;
    size_t count;
    *folder = NULL;
    int status = checkpoint_list(run, &steps, &count);
    if (status == 0)
        status = 1;
    for (size_t i = 0; i < count && status == 1; i++) {
        status = checkpoint_try(run, steps[i], folder, warn);
        *step = steps[i];
    }
    if (status == 1 && count > 0)
        status = log_fail(ERR_DATA, "'%s': none of its %zu checkpoints is whole", run, count);
    free(steps);
    return status;
}

/* ---- removal */

/* Removes what lies in an open folder. */
static int checkpoint_empty(int fd, const char *folder)
{
    DIR *listing = fdopendir(fd);
    if (listing == NULL) {
        close(fd);
        return log_fail_errno("cannot read the folder '%s'", folder);
    }
    struct dirent *entry;
    int status = 0;
    while (status == 0 && (errno = 0, entry = readdir(listing)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlinkat(dirfd(listing), entry->d_name, 0) != 0 && errno != ENOENT)
            status = log_fail_errno("cannot remove '%s/%s'", folder, entry->d_name);
    if (status == 0 && errno != 0 && errno != ENOENT)
        status = log_fail_errno("cannot read the folder '%s'", folder);
    closedir(listing);
    return status;
}

int checkpoint_remove(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    struct stat found;
    if (fd < 0 && lstat(folder, &found) == 0 && S_ISLNK(found.st_mode))
        return unlink(folder) == 0 || errno == ENOENT
                   ? 0
                   : log_fail_errno("cannot remove '%s'", folder);
    if (fd < 0)
        return log_fail_errno("cannot open '%s'", folder);
    int status = checkpoint_empty(fd, folder);
    if (status == 0 && rmdir(folder) != 0 && errno != ENOENT)
        status = log_fail_errno("cannot remove '%s'", folder);
    return status;
}
