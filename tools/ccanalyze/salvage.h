/* salvage.h - what is whole of a cut or damaged stream in a file, as a stream that ends properly.
 *
 * Kept are all records that pass every check, also those behind a damaged place: the search goes on
 * at the next whole record of the same run. Parts of a `cat` stay parts. A part's BEGIN says the
 * rows that are left; if those are not just fewer at the end, it also says which are missing in
 * between (extra.salvaged.gaps, [row, count] each), since rows are numbered anew behind a gap. So
 * the identity of what was merely cut stays as it was and a run can be resumed on it, and that of a
 * stream with gaps is another one.
 */
#ifndef CCANALYZE_SALVAGE_H
#define CCANALYZE_SALVAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stream.h"

struct salvage;

struct salvage_figures {
    uint64_t parts, records, rows; /* that are whole */
    uint64_t lost;                 /* rows that are known to be missing */
    bool lost_known;  /* that is all of them; false where a part of unknown length was cut */
    uint64_t damages; /* places where bytes belong to no whole record */
};

/* Looks through a regular file; damaged places are warned of with their offsets. ERR_DATA or
 * ERR_TRUNCATED (logged) where no whole BEGIN says what the rows are. */
int salvage_open(struct salvage **salvage, const char *path) MUST_CHECK;
void salvage_free(struct salvage *salvage);

struct salvage_figures salvage_count(const struct salvage *salvage);

/* Writes what is whole. Each record is decoded and checked again. */
int salvage_write(struct salvage *salvage, const char *output, enum stream_codec codec,
                  unsigned threads, const char *metrics) MUST_CHECK;

#endif
