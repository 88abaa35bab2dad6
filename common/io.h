/* io.h - byte input and output on descriptors, with names and offsets for messages.
 *
 * struct io_file is one open file, pipe or terminal together with the name that messages use, the
 * bytes passed so far, and the time spent waiting (for progress.h). Reads and writes go on after
 * EINTR and short counts; a pending signal (sig.h) ends a wait with ERR_INTERRUPTED: that for
 * input at once and in any thread; that for output after IO_GRACE_NS and in the main thread alone,
 * so that what is being written is finished and ABORT written behind it as long as the reader
 * lives. One thread reads or writes a file at a time; the counters may be read by others, and stay
 * as they are when the file is closed.
 */
#ifndef CCPIPE_IO_H
#define CCPIPE_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

struct io_file {
    int fd;        /* -1: not open */
    bool regular;  /* a regular file: pread and size make sense */
    bool owned;    /* io_close() closes fd */
    bool pipe;     /* a pipe, FIFO or socket: another process is at its other end */
    int failed;    /* the code that a write failed with; nothing is written after it */
    int cancel_fd; /* a descriptor that ends a wait with ERR_INTERRUPTED once it is readable
                      (for input polled beside sig_fd()); 0: none */
    char *name;    /* for messages: the path, "standard input", "standard output" */
    _Atomic int64_t offset;           /* bytes read or written through this struct */
    _Atomic int64_t waited_ns;        /* time spent inside waiting reads or writes */
    _Atomic int64_t waiting_since_ns; /* CLOCK_MONOTONIC start of the wait now going on, or 0 */
};

#define IO_FILE_CLOSED \
    {                  \
        .fd = -1       \
    }

#define IO_GRACE_NS 5000000000

/* Opens `path` for reading; "-" is standard input. Directories are refused. */
int io_open_input(struct io_file *file, const char *path) MUST_CHECK;

/* Opens `path` for writing, replacing what is there; NULL or "-" is standard output. A terminal is
 * refused with ERR_USAGE where `binary`. */
int io_open_output(struct io_file *file, const char *path, bool binary) MUST_CHECK;

/* Wraps an open descriptor, which stays the caller's. */
int io_wrap(struct io_file *file, int fd, const char *name) MUST_CHECK;

/* Closes what is owned and frees the name. 0, or ERR_IO: a close() that fails after writing means
 * lost data. Legal on a closed file. */
int io_close(struct io_file *file);

/* Reads until `size` bytes are there or input ends; the count read, or a negative code (logged). */
ssize_t io_read(struct io_file *file, void *to, size_t size) MUST_CHECK;

/* Reads `size` bytes at `offset` of a regular file without moving; exactly that many, or
 * ERR_TRUNCATED where the file ends before (logged), ERR_IO. */
int io_pread(const struct io_file *file, void *to, size_t size, int64_t offset) MUST_CHECK;

/* Writes all, or fails: ERR_CLOSED on EPIPE (not logged; main() makes the one note), ERR_IO with
 * what happened logged, ERR_INTERRUPTED. Part of the bytes may then have been written, so further
 * calls write nothing and return the same code. */
int io_write(struct io_file *file, const void *from, size_t size) MUST_CHECK;

/* The size of a regular file in bytes, or a negative code. */
int64_t io_size(const struct io_file *file) MUST_CHECK;

/* The whole of a file of at most `limit` bytes, with a 0 behind it; *size without that 0. The
 * caller frees *text. A longer file is ERR_DATA, naming the limit. Of a regular file, signals do
 * not end it: a run that is being stopped reads its last checkpoint back. */
int io_read_file(char **text, size_t *size, const char *path, size_t limit) MUST_CHECK;

/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t io_clock_ns(void);

/* a path and a name, joined with '/'; the caller frees it; NULL where memory is short. */
char *io_join(const char *folder, const char *name) MUST_CHECK;

#endif
