/* lines.h - a sequence per line: ids as text, or JSON. */
#ifndef TOKSTREAM_LINES_H
#define TOKSTREAM_LINES_H

#include "source.h"

/* A line that is longer cannot be a sequence that a record takes. */
#define LINES_MOST_BYTES ((size_t)256 << 20)

enum lines_form {
    LINES_TEXT, /* "2 17 204": decimal ids and white space; an empty line is an empty sequence */
    LINES_JSON  /* {"input_ids": [2, 17]} with the setup's column as the key, or [2, 17]; lines of
                   white space are passed over */
};

/* Takes `bytes` over on success, and leaves it untouched otherwise; the window stands at the file's
 * beginning. */
int lines_open(struct source **source, struct bytes *bytes, enum lines_form form,
               const struct source_setup *setup) MUST_CHECK;

#endif
