/* terminal.h - a pseudo-terminal for tests of what a tool says to one. */
#ifndef CCPIPE_TESTS_TERMINAL_H
#define CCPIPE_TESTS_TERMINAL_H

#ifndef _XOPEN_SOURCE
#define _XOPEN_SOURCE 700 /* posix_openpt() */
#endif

/* cmocka.h wants these first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The descriptor of its master side, with *name that of the other, valid until the next call. Where
 * the system has none (a chroot without /dev/pts) the test is skipped, and said so. */
static inline int terminal_open(const char **name)
{
    *name = NULL;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
        (*name = ptsname(master)) == NULL || access(*name, R_OK | W_OK) != 0) {
        fprintf(stderr, "skipped: there are no pseudo-terminals here\n");
        skip();
    }
    return master;
}

#endif
