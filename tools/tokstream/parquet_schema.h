/* parquet_schema.h - finding the items of a list in a Parquet schema, by structure. */
#ifndef TOKSTREAM_PARQUET_SCHEMA_H
#define TOKSTREAM_PARQUET_SCHEMA_H

#include "parquet_meta.h"
#include "parquet_thrift.h"

/* `thrift` stands at the list of schema elements. *leaves is the number of columns in all. */
int parquet_schema_find(struct parquet_leaf *leaf, size_t *leaves, struct thrift *thrift,
                        uint8_t type, const char *column, const char *name) MUST_CHECK;

#endif
