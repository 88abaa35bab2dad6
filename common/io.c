/* io.c - reads and writes that end in full, in a failure that names its place, or at a signal. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "sig.h"

#define IO_PIPE_BYTES (1 << 20)

int64_t io_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

char *io_join(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = mem_alloc(size, 1);
    if (path != NULL)
        snprintf(path, size, "%s/%s", folder, name);
    return path;
}

/* ---- opening and closing */

static int io_set_up(struct io_file *file, int fd, bool owned, const char *name)
{
    *file = (struct io_file){.fd = fd, .owned = owned};
    struct stat status;
    if (fstat(fd, &status) != 0)
        return log_fail_errno("cannot look at '%s'", name);
    if (S_ISDIR(status.st_mode))
        return log_fail(ERR_USAGE, "'%s' is a folder", name);
    file->regular = S_ISREG(status.st_mode);
    file->pipe = S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode);
    if (S_ISFIFO(status.st_mode))
        (void)fcntl(fd, F_SETPIPE_SZ, IO_PIPE_BYTES); /* a larger pipe is a wish */
    file->name = strdup(name);
    return file->name == NULL ? mem_fail("a file name", strlen(name), 1) : 0;
}

/* open() of a FIFO waits for its other end; a signal ends that. */
static int io_open(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR && sig_pending() == 0);
    return fd;
}

int io_wrap(struct io_file *file, int fd, const char *name)
{
    int status = io_set_up(file, fd, false, name);
    if (status != 0)
        *file = (struct io_file)IO_FILE_CLOSED;
    return status;
}

static int io_take(struct io_file *file, int fd, const char *path)
{
    int status = io_set_up(file, fd, true, path);
    if (status != 0) {
        close(fd);
        *file = (struct io_file)IO_FILE_CLOSED;
    }
    return status;
}

int io_open_input(struct io_file *file, const char *path)
{
    *file = (struct io_file)IO_FILE_CLOSED;
    if (strcmp(path, "-") == 0)
        return io_wrap(file, STDIN_FILENO, "standard input");
    int fd = io_open(path, O_RDONLY);
    if (fd >= 0)
        return io_take(file, fd, path);
    if (errno == EINTR)
        return ERR_INTERRUPTED;
    bool usage = errno == ENOENT || errno == EACCES || errno == ENOTDIR;
    int status = log_fail_errno("cannot open '%s'", path);
    return usage ? ERR_USAGE : status;
}

int io_open_output(struct io_file *file, const char *path, bool binary)
{
    *file = (struct io_file)IO_FILE_CLOSED;
    bool standard = path == NULL || strcmp(path, "-") == 0;
    const char *name = standard ? "standard output" : path;
    int fd = standard ? STDOUT_FILENO : io_open(path, O_WRONLY | O_CREAT | O_TRUNC);
    if (fd < 0)
        return errno == EINTR ? ERR_INTERRUPTED : log_fail_errno("cannot write '%s'", name);
    if (binary && isatty(fd)) {
        if (!standard)
            close(fd);
        return log_fail(ERR_USAGE, "refusing to write binary data to a terminal; send it to a file "
                                   "or a pipe");
    }
    return standard ? io_wrap(file, fd, name) : io_take(file, fd, name);
}

int io_close(struct io_file *file)
{
    int status = 0;
    if (file->fd >= 0 && file->owned && close(file->fd) != 0)
        status = log_fail_errno("cannot close '%s'", file->name == NULL ? "?" : file->name);
    free(file->name);
    file->fd = -1;
    file->owned = false;
    file->name = NULL;
    return status;
}

/* ---- waiting */

/* Waits until there is something to read, or the end; 0, or ERR_INTERRUPTED where a signal or the
 * file's owner ends it. */
static int io_wait(struct io_file *file)
{
    if (file->regular)
        return sig_pending() != 0 ? ERR_INTERRUPTED : 0;
    struct pollfd wait[3] = {{.fd = file->fd, .events = POLLIN},
                             {.fd = sig_fd(), .events = POLLIN},
                             {.fd = file->cancel_fd > 0 ? file->cancel_fd : -1, .events = POLLIN}};
    int ready = poll(wait, 3, 0);
    if (ready == 0) {
        int64_t start = io_clock_ns();
        file->waiting_since_ns = start;
        do
            ready = poll(wait, 3, -1);
        while (ready < 0 && errno == EINTR && sig_pending() == 0);
        file->waited_ns += io_clock_ns() - start;
        file->waiting_since_ns = 0;
    }
    if (wait[1].revents != 0 || wait[2].revents != 0 || sig_pending() != 0)
        return ERR_INTERRUPTED;
    return ready < 0 && errno != EINTR ? log_fail_errno("cannot wait for '%s'", file->name) : 0;
}

static ssize_t io_fill(struct io_file *file, void *to, size_t size, bool heed_signals)
{
    size_t got = 0;
    while (got < size) {
        int status = heed_signals ? io_wait(file) : 0;
        if (status != 0)
            return status;
        ssize_t n = read(file->fd, (char *)to + got, size - got);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return log_fail_errno("cannot read '%s' at offset %" PRId64, file->name, file->offset);
        if (n > 0) {
            got += (size_t)n;
            file->offset += n;
        }
    }
    return (ssize_t)got;
}

ssize_t io_read(struct io_file *file, void *to, size_t size)
{
    return io_fill(file, to, size, true);
}

int io_pread(const struct io_file *file, void *to, size_t size, int64_t offset)
{
    size_t got = 0;
    while (got < size) {
        ssize_t n = pread(file->fd, (char *)to + got, size - got, (off_t)(offset + (int64_t)got));
        if (n == 0)
            return log_fail(ERR_TRUNCATED,
                            "'%s' ends at offset %" PRId64 ", before the %zu bytes "
                            "that belong at %" PRId64,
                            file->name, offset + (int64_t)got, size, offset);
        if (n < 0 && errno != EINTR)
            return log_fail_errno("cannot read '%s' at offset %" PRId64, file->name,
                                  offset + (int64_t)got);
        got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* A write that cancel_fd may end: no more than what a pipe that is ready takes without waiting. */
static ssize_t io_put_cancelled(const struct io_file *file, const char *from, size_t size)
{
    struct pollfd wait[2] = {{.fd = file->fd, .events = POLLOUT},
                             {.fd = file->cancel_fd, .events = POLLIN}};
    if (poll(wait, 2, -1) < 0)
        return -1;
    if (wait[1].revents != 0) {
        errno = ECANCELED;
        return -1;
    }
    return write(file->fd, from, size < PIPE_BUF ? size : PIPE_BUF);
}

/* One write() with the time that it took; as write(). */
static ssize_t io_put(struct io_file *file, const char *from, size_t size)
{
    if (file->regular)
        return write(file->fd, from, size);
    int64_t start = io_clock_ns();
    file->waiting_since_ns = start;
    ssize_t n =
        file->cancel_fd > 0 ? io_put_cancelled(file, from, size) : write(file->fd, from, size);
    if (n < 0 && errno == EAGAIN) { /* somebody made our standard output non-blocking */
        struct pollfd wait = {.fd = file->fd, .events = POLLOUT};
        poll(&wait, 1, 1000);
        errno = EAGAIN;
    }
    int error = errno;
    file->waited_ns += io_clock_ns() - start;
    file->waiting_since_ns = 0;
    errno = error;
    return n;
}

static int io_write_all(struct io_file *file, const char *from, size_t size)
{
    int64_t deadline = 0;
    while (size > 0) {
        ssize_t n = io_put(file, from, size);
        if (n >= 0) {
            from += n;
            size -= (size_t)n;
            file->offset += n;
            continue;
        }
        if (errno == EPIPE)
            return ERR_CLOSED;
        if (errno == ECANCELED)
            return ERR_INTERRUPTED;
        if (errno != EINTR && errno != EAGAIN)
            return log_fail_errno("cannot write '%s' at offset %" PRId64, file->name, file->offset);
        if (sig_pending() == 0)
            continue;
        int64_t now = io_clock_ns();
        if (deadline == 0)
            deadline = now + IO_GRACE_NS;
        else if (now > deadline)
            return ERR_INTERRUPTED;
    }
    return 0;
}

int io_write(struct io_file *file, const void *from, size_t size)
{
    if (file->failed == 0)
        file->failed = io_write_all(file, from, size);
    return file->failed;
}

int64_t io_size(const struct io_file *file)
{
    struct stat status;
    if (fstat(file->fd, &status) != 0)
        return log_fail_errno("cannot look at '%s'", file->name);
    return (int64_t)status.st_size;
}

int io_read_file(char **text, size_t *size, const char *path, size_t limit)
{
    struct io_file file;
    char *bytes = NULL;
    size_t used = 0, room = 0;
    int status = io_open_input(&file, path);
    while (status == 0) {
        if (used == room) {
            size_t grown = room == 0 ? 65536 : room * 2;
            grown = grown > limit ? limit + 1 : grown;
            char *larger = mem_resize(bytes, grown + 1, 1);
            if (larger == NULL) {
                status = mem_fail(path, grown, 1);
                break;
            }
            bytes = larger;
            room = grown;
        }
        ssize_t got = io_fill(&file, bytes + used, room - used, !file.regular);
        if (got <= 0) {
            status = (int)got;
            break;
        }
        used += (size_t)got;
        if (used > limit)
            status = log_fail(ERR_DATA, "'%s' is longer than %zu bytes", path, limit);
    }
    int closed = io_close(&file);
    if (status == 0)
        status = closed;
    if (status != 0) {
        free(bytes);
        return status;
    }
    bytes[used] = '\0';
    *text = bytes;
    *size = used;
    return 0;
}
