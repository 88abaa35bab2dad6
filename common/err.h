/* err.h - the one table of failure codes.
 *
 * Every library function that can fail returns 0 (or a count >= 0) on success and one of these
 * negative codes on failure. A code of -64 and below is the process's exit status with the
 * sign turned, so that main() ends with err_exit_status(code) and nothing is translated twice.
 *
 * The function that knows path, offset and record logs the failure once (log_fail() in log.h); its
 * callers pass the code on in silence.
 */
#ifndef CCPIPE_ERR_H
#define CCPIPE_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, code, exit status, meaning) */
#define ERR_TABLE(X)                                              \
    X(CLOSED, -1, 0, "the reader of our output went away")        \
    X(INTERRUPTED, -2, 130, "a signal asked us to stop (sig.h)")  \
    X(USAGE, -64, 64, "wrong usage, or inputs that do not match") \
    X(DATA, -65, 65, "corrupt data")                              \
    X(TRUNCATED, -66, 66, "input ended before its end mark")      \
    X(MEMORY, -71, 71, "not enough memory")                       \
    X(IO, -74, 74, "input or output failed")                      \
    X(PEER, -75, 75, "a peer was lost; the run can be resumed")   \
    X(DEVICE, -76, 76, "the compute device failed or is not there")

enum err {
    ERR_OK = 0,
#define ERR_ENUM(name, code, status, meaning) ERR_##name = code,
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
};

/* Must-check marker for functions whose result says whether they worked. */
#define MUST_CHECK __attribute__((warn_unused_result))

/* The exit status for a code; 0 for codes >= 0, 70 (internal error) for one not in the table. */
int err_exit_status(int code);

/* The table's meaning of a code, a static string. */
const char *err_meaning(int code);

#ifdef __cplusplus
}
#endif
#endif
