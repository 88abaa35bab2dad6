/* sig.c - a flag and a self-pipe; the handler uses async-signal-safe calls alone. The flag is read
 * in every thread: an atomic that is lock-free, which a handler may write as well.
 */
#include "sig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

static _Atomic int sig_number;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler writes it");
static int sig_pipe[2] = {-1, -1};

static void sig_handler(int number)
{
    int error = errno;
    if (number != SIGALRM && sig_number == 0) {
        sig_number = number;
        ssize_t put = write(sig_pipe[1], "", 1);
        (void)put;
    }
    alarm(1);
    errno = error;
}

static void sig_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGUSR1);
    sigaddset(set, SIGALRM);
}

int sig_install(void)
{
    if (pipe(sig_pipe) != 0)
        return log_fail_errno("cannot make a pipe for signals");
    for (int i = 0; i < 2; i++)
        if (fcntl(sig_pipe[i], F_SETFD, FD_CLOEXEC) != 0 ||
            fcntl(sig_pipe[i], F_SETFL, O_NONBLOCK) != 0)
            return log_fail_errno("cannot set up the pipe for signals");

    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = sig_handler;
    sigemptyset(&action.sa_mask);
    static const int stopping[] = {SIGINT, SIGTERM, SIGUSR1};
    for (size_t i = 0; i < sizeof stopping / sizeof *stopping; i++) {
        action.sa_flags = (int)SA_RESETHAND;
        if (sigaction(stopping[i], &action, NULL) != 0)
            return log_fail_errno("cannot install a signal handler");
    }
    action.sa_flags = 0;
    if (sigaction(SIGALRM, &action, NULL) != 0)
        return log_fail_errno("cannot install a signal handler");
    action.sa_handler = SIG_IGN;
    if (sigaction(SIGPIPE, &action, NULL) != 0 || sigaction(SIGXFSZ, &action, NULL) != 0)
        return log_fail_errno("cannot ignore a signal");
    return 0;
}

int sig_pending(void)
{
    return sig_number;
}

int sig_fd(void)
{
    return sig_pipe[0];
}

int sig_exit_status(void)
{
    int number = sig_number;
    return number == SIGUSR1 ? 75 : 128 + number;
}

int sig_thread_create(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t set, old;
    sig_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    int failed = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return failed != 0 ? log_fail(ERR_MEMORY, "cannot create a thread: %s", strerror(failed)) : 0;
}
