/* sig.h - the signals that end a tool in good order.
 *
 * SIGINT, SIGTERM and SIGUSR1 set a flag and make a descriptor readable, so that every wait in io.h
 * ends with ERR_INTERRUPTED; a second one of the same kind ends the process at once. SIGPIPE and
 * SIGXFSZ are ignored: a write to a closed pipe fails with EPIPE, one beyond the limit of a file's
 * size with EFBIG.
 *
 * Only the main thread receives the signals (threads are made with them blocked, see
 * sig_thread_create()). A signal that arrives between the look at the flag and a blocking write is
 * repeated each second by alarm(), so that no wait outlives it.
 */
#ifndef CCPIPE_SIG_H
#define CCPIPE_SIG_H

#include <pthread.h>

#include "err.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Installs the handlers. Once, at the start of main(). */
int sig_install(void) MUST_CHECK;

/* The number of the signal that arrived, or 0. */
int sig_pending(void);

/* A descriptor that is readable once a signal has arrived; -1 before sig_install(). */
int sig_fd(void);

/* 128 + n, or 75 for SIGUSR1 (resumable, as cluster schedulers send it before a time limit). */
int sig_exit_status(void);

/* pthread_create() with the signals above blocked in the new thread. Returns 0 or ERR_MEMORY. */
int sig_thread_create(pthread_t *thread, void *(*run)(void *), void *argument) MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
