/* tool.h - the frame of main(): signals before, the exit status after. */
#ifndef CCPIPE_TOOL_H
#define CCPIPE_TOOL_H

#include "err.h"

/* Names the program for messages and installs the signal handlers. */
int tool_start(const char *name) MUST_CHECK;

/* Turns the result of a run into the exit status; one note for a reader that went away. */
int tool_finish(int code);

#endif
