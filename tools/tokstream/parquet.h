/* parquet.h - Parquet files: a column of lists of integers. */
#ifndef TOKSTREAM_PARQUET_H
#define TOKSTREAM_PARQUET_H

#include "source.h"

/* Takes `bytes` over on success, and leaves it untouched otherwise. Only the column that
 * setup->column names is read; its row groups are the source's groups. */
int parquet_open(struct source **source, struct bytes *bytes,
                 const struct source_setup *setup) MUST_CHECK;

#endif
