/* metrics.c - appending lines, and cutting them back.
 *
 * A full disk must not end a training run, and must not leave half a line that later lines follow:
 * after a failed write the file is cut back to its last whole line, and the next line tries again.
 * (progress.h's lines end for good at the first failure; a curve of a week should not.)
 *
 * Cutting back goes by the lines' own step numbers, and not by an offset in the checkpoint, as the
 * user's --metrics file need not have the bytes of ours. Lines are in order of their steps, so
 * the first one that is not before the checkpoint ends what is kept; so does a line that does not
 * parse, which is what a kill leaves last.
 */
#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/log.h"
#include "common/mem.h"

/* Whether a line (with its newline) is one of a step before `step`. */
static bool metrics_is_before(const char *line, size_t length, uint64_t step)
{
    if (length == 0 || line[length - 1] != '\n')
        return false;
    json_t *value = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    const json_t *at = json_object_get(value, "step");
    bool before = json_is_integer(at) && json_integer_value(at) >= 0 &&
                  (uint64_t)json_integer_value(at) < step;
    json_decref(value);
    return before;
}

/* *end: where the lines to keep end. */
static int metrics_find_end(int64_t *end, int fd, const char *path, uint64_t step)
{
    int copy = dup(fd);
    FILE *in = copy < 0 ? NULL : fdopen(copy, "r");
    if (in == NULL) {
        if (copy >= 0)
            close(copy);
        return log_fail_errno("cannot read '%s'", path);
    }
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    *end = 0;
    while ((length = getline(&line, &room, in)) > 0 &&
           metrics_is_before(line, (size_t)length, step))
        *end += length;
    bool failed = ferror(in) != 0;
    free(line);
    int closed = fclose(in);
    return failed || closed != 0 ? log_fail_errno("cannot read '%s'", path) : 0;
}

/* Cuts the file to `good` bytes and stands there. */
static int metrics_cut(struct metrics_file *metrics)
{
    int fd = metrics->file.fd;
    return ftruncate(fd, (off_t)metrics->good) == 0 &&
                   lseek(fd, (off_t)metrics->good, SEEK_SET) >= 0
               ? 0
               : -1;
}

static int metrics_take_up(struct metrics_file *metrics, const char *path, uint64_t step)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return log_fail_errno("cannot write '%s'", path);
    int status = io_wrap(&metrics->file, fd, path);
    if (status != 0) {
        close(fd);
        return status;
    }
    metrics->file.owned = true;
    if (!metrics->file.regular)
        return 0;
    status = metrics_find_end(&metrics->good, fd, path, step);
    if (status == 0 && metrics_cut(metrics) != 0)
        status =
            log_fail_errno("cannot cut '%s' back to step %llu", path, (unsigned long long)step);
    return status;
}

int metrics_open(struct metrics_file *metrics, const char *path, bool resumed, uint64_t step)
{
    *metrics = (struct metrics_file){.file = IO_FILE_CLOSED};
    bool standard = strcmp(path, "-") == 0;
    return resumed && !standard ? metrics_take_up(metrics, path, step)
                                : io_open_output(&metrics->file, path, false);
}

static void metrics_lose(struct metrics_file *metrics, const char *reason)
{
    if (!metrics->lost)
        log_warning("a line of '%s' is lost: %s; training goes on", metrics->file.name, reason);
    metrics->lost = true;
}

/* The text to a regular file: 0, or -1 with errno. */
static int metrics_put(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, text, length);
        if (n < 0 && errno != EINTR)
            return -1;
        if (n > 0) {
            text += n;
            length -= (size_t)n;
        }
    }
    return 0;
}

static void metrics_append(struct metrics_file *metrics, const char *text, size_t length)
{
    if (!metrics->file.regular) {
        if (io_write(&metrics->file, text, length) != 0)
            metrics_lose(metrics, "its reader went away or cannot take it");
        return;
    }
    if (metrics_put(metrics->file.fd, text, length) == 0) {
        metrics->good += (int64_t)length;
        return;
    }
    int error = errno;
    if (metrics_cut(metrics) != 0)
        error = errno;
    metrics_lose(metrics, strerror(error));
}

int metrics_write(struct metrics_file *metrics, const json_t *line)
{
    char *text = json_text(line);
    if (text == NULL)
        return mem_fail("a line of metrics", 1, 512);
    size_t length = strlen(text);
    text[length] = '\n'; /* in the place of the 0 */
    metrics_append(metrics, text, length + 1);
    free(text);
    return 0;
}

void metrics_sync(struct metrics_file *metrics)
{
    if (metrics->file.regular && fsync(metrics->file.fd) != 0)
        metrics_lose(metrics, strerror(errno));
}

int metrics_close(struct metrics_file *metrics)
{
    if (metrics->file.name == NULL)
        return 0;
    int status = metrics->lost ? log_fail(ERR_IO, "'%s' is incomplete", metrics->file.name) : 0;
    int closed = io_close(&metrics->file);
    return status != 0 ? status : closed;
}
