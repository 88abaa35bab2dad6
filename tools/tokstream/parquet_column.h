/* parquet_column.h - the lists of one column chunk. */
#ifndef TOKSTREAM_PARQUET_COLUMN_H
#define TOKSTREAM_PARQUET_COLUMN_H

#include "parquet_meta.h"
#include "source.h"

struct parquet_column;

/* Decodes chunks of the file behind `source`; lists are cut to source->setup->most. NULL: no memory
 * (logged). */
struct parquet_column *parquet_column_create(struct source *source,
                                             const struct parquet_leaf *leaf) MUST_CHECK;
void parquet_column_free(struct parquet_column *column);

/* What one takes besides its pages and a list longer than a batch. */
size_t parquet_column_bytes(void);

/* Begins with the first list of a row group, which must live as long as it is read. */
void parquet_column_start(struct parquet_column *column, const struct parquet_group *group);

/* The next list: 1; 0 behind the last, when the chunk's count of rows and values has been found
 * right; or a negative code (logged). */
int parquet_column_next(struct parquet_column *column, struct source_sequence *sequence) MUST_CHECK;

#endif
