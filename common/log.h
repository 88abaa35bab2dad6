/* log.h - messages on standard error: `tool: level: message`.
 *
 * Messages are lower-case, name the thing in quotes, give the reason, and do not end in a full
 * stop: actgen: error: cannot open 'x.safetensors': No such file or directory Standard output is
 * data and is never written here. The level and the program's name are the only process-wide state
 * of the project besides the pending signal (sig.h).
 */
#ifndef CCPIPE_LOG_H
#define CCPIPE_LOG_H

#include "err.h"

#ifdef __cplusplus
extern "C" {
#endif

enum log_level { LOG_SILENT, LOG_ERROR, LOG_WARNING, LOG_NOTE, LOG_VERBOSE };

/* The name in front of every message (kept by reference) and the level: LOG_NOTE by default,
 * LOG_WARNING with -q, LOG_VERBOSE with -v. LOG_SILENT is for fuzzers. */
void log_init(const char *program, enum log_level level);
const char *log_program(void);
enum log_level log_get_level(void);

void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_verbose(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Logs an error and returns code, so that a failure is one statement:
 *     return log_fail(ERR_DATA, "'%s' at offset %lld: bad magic", path, offset); */
int log_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* As log_fail(ERR_IO, ...), with ": strerror(errno)" behind the message. */
int log_fail_errno(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The redrawn progress line of a terminal: text without a newline; "" clears it. A message that is
 * logged in between clears the line first. Elsewhere than on a terminal: nothing. */
void log_redraw(const char *text);

#ifdef __cplusplus
}
#endif
#endif
