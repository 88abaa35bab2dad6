/* log.c - one write() per message, so that lines of several processes on one terminal or file do
 * not mix. A message longer than the buffer is cut with "...". */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX_LINE 2048

static const char *log_name = "ccpipe";
static enum log_level log_max = LOG_NOTE;
static atomic_bool log_line_drawn; /* the progress thread draws, any thread logs */

void log_init(const char *program, enum log_level level)
{
    log_name = program;
    log_max = level;
}

const char *log_program(void)
{
    return log_name;
}

enum log_level log_get_level(void)
{
    return log_max;
}

/* A failing write to standard error has nowhere to be reported. */
static void log_write(const char *text, size_t length)
{
    ssize_t put = write(STDERR_FILENO, text, length);
    (void)put;
}

static void log_line(enum log_level level, const char *word, int error, const char *format,
                     va_list arguments)
{
    if (level > log_max)
        return;
    char line[LOG_MAX_LINE];
    const size_t room = sizeof line - 8;
    const bool drawn = atomic_exchange(&log_line_drawn, false);
    int head = snprintf(line, room, "%s%s: %s: ", drawn ? "\r\033[K" : "", log_name, word);
    size_t used = head < 0 ? 0 : (size_t)head;
    if (used < room) {
        int body = vsnprintf(line + used, room - used, format, arguments);
        used += body < 0 ? 0 : (size_t)body;
    }
    if (used < room && error != 0) {
        int tail = snprintf(line + used, room - used, ": %s", strerror(error));
        used += tail < 0 ? 0 : (size_t)tail;
    }
    if (used >= room) {
        used = room - 1;
        memcpy(line + used, "...", 3);
        used += 3;
    }
    /* A message is one line, whatever a file name or a broken file put into it. */
    for (size_t i = drawn ? 4 : 0; i < used; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[used++] = '\n';
    log_write(line, used);
}

void log_warning(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(LOG_WARNING, "warning", 0, format, arguments);
    va_end(arguments);
}

void log_note(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(LOG_NOTE, "note", 0, format, arguments);
    va_end(arguments);
}

void log_verbose(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(LOG_VERBOSE, "verbose", 0, format, arguments);
    va_end(arguments);
}

int log_fail(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(LOG_ERROR, "error", 0, format, arguments);
    va_end(arguments);
    return code;
}

int log_fail_errno(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    log_line(LOG_ERROR, "error", error, format, arguments);
    va_end(arguments);
    return ERR_IO;
}

void log_redraw(const char *text)
{
    if (!isatty(STDERR_FILENO) || log_max < LOG_NOTE)
        return;
    char line[512];
    int length = snprintf(line, sizeof line, "\r\033[K%s", text);
    if (length > 0)
        log_write(line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1);
    log_line_drawn = text[0] != '\0';
}
