/* pack.h - arrays of other programs as rows: .npy files, and dictionary_learning's cache folders.
 *
 * A folder of that cache holds one source: config.json with shard_count and total_size, and per
 * shard shard_I.memmap, bare elements, with shard_I.meta, {"shape": [n, d], "dtype":
 * "torch.bfloat16"}.
 */
#ifndef CCANALYZE_PACK_H
#define CCANALYZE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "common/begin.h"
#include "common/err.h"

struct pack;

/* Opens one .npy that holds all sources, (N, D) or (N, S, d), or a .npy (N, d_s) or a cache folder
 * for each source of `begin`, in their order. f32 stays f32, f16 becomes f32, bf16 stays bf16 where
 * all are bf16: begin's dtype and rows are set. ERR_USAGE, ERR_DATA, ERR_TRUNCATED, logged. */
int pack_open(struct pack **pack, struct begin *begin, char *const *paths,
              size_t path_count) MUST_CHECK;
void pack_free(struct pack *pack);

/* The next rows, at most `most`, into `to` as they travel in a stream: their number, 0 behind the
 * last, or a negative code. A value that is not finite is ERR_DATA, naming file and row. */
int64_t pack_next(struct pack *pack, uint8_t *to, size_t most) MUST_CHECK;

/* What a cache folder holds. */
struct pack_folder {
    uint64_t rows, width;
    size_t shards;
    enum dtype dtype;
};

/* Reads config.json and the .meta files of a cache folder, and looks at the sizes of its shards. */
int pack_look(struct pack_folder *found, const char *folder) MUST_CHECK;

#endif
