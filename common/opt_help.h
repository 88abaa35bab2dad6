/* opt_help.h - what --help, --version, --man and --completion print, all from the one table.
 * Internal to opt.c.
 */
#ifndef CCPIPE_OPT_HELP_H
#define CCPIPE_OPT_HELP_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "opt.h"

/* Where `word` (of `length` bytes, without "--") asks for one of the four, prints it to standard
 * output and returns 1, ERR_CLOSED or ERR_IO; 0 where it asks for none. */
int opt_help_answer(const struct opt_tool *tool, const char *word, size_t length) MUST_CHECK;

/* The option whose name is nearest to `word`, at most two edits away; NULL where there is none. */
const char *opt_help_nearest(const struct opt_tool *tool, const char *word, size_t length);

/* Whether help shows the option. */
bool opt_help_shows(const struct opt *opt);

#endif
