/* array.h - flat arrays of ids: .npy files and items without a header. */
#ifndef TOKSTREAM_ARRAY_H
#define TOKSTREAM_ARRAY_H

#include "source.h"

/* Both take `bytes` over on success, and leave it untouched otherwise; the window stands at the
 * file's beginning. A .npy of two dimensions is a sequence per row; of one, it is cut each
 * setup->seq_len items, as are items without a header (setup->raw_bytes each). The last piece may
 * be shorter. */
int array_open_npy(struct source **source, struct bytes *bytes,
                   const struct source_setup *setup) MUST_CHECK;
int array_open_raw(struct source **source, struct bytes *bytes,
                   const struct source_setup *setup) MUST_CHECK;

#endif
