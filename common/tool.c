/* tool.c - what each main() does first and last. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "log.h"
#include "sig.h"

/* A tool started with a standard descriptor closed would get that number for the next file that it
 * opens, and write messages or rows into it. Such a number is taken by a descriptor that can only
 * be used the wrong way round, so that its first use fails. */
static int tool_hold_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            return log_fail_errno("cannot open '/dev/null'");
    return 0;
}

int tool_start(const char *name)
{
    log_init(name, LOG_NOTE);
    int status = tool_hold_descriptors();
    return status != 0 ? status : sig_install();
}

int tool_finish(int code)
{
    if (code >= 0 && (fflush(stdout) != 0 || ferror(stdout)))
        code = errno == EPIPE ? ERR_CLOSED : log_fail_errno("cannot write 'standard output'");
    if (code == ERR_CLOSED)
        log_note("the reader of standard output went away; stopping");
    return err_exit_status(code);
}
