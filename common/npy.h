/* npy.h - NumPy's .npy files, format versions 1.0 to 3.0, C order, little-endian.
 *
 * Header: "\x93NUMPY", version, length, a Python dict literal with descr, fortran_order, shape.
 * Only that form is read; object arrays, Fortran order and big-endian are refused by name
 * (ERR_USAGE).
 */
#ifndef CCPIPE_NPY_H
#define CCPIPE_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define NPY_MAX_RANK 8

struct npy_header {
    char type[8]; /* "<f4", "<u2", "|i1", ... as in the file */
    size_t item_bytes;
    unsigned rank;
    uint64_t shape[NPY_MAX_RANK];
    uint64_t elements;
    size_t data_offset; /* bytes from the start of the file to the first element */
};

/* Parses the first `size` bytes of a file. 0; ERR_DATA or ERR_USAGE (logged with `name`); where the
 * header is longer than `size`, data_offset is set to what is needed and 1 is returned. */
int npy_parse(struct npy_header *header, const uint8_t *bytes, size_t size,
              const char *name) MUST_CHECK;

/* Writes a version 1.0 header (padded to 64 bytes) for `type` and shape to `to`, which has room for
 * 256 bytes; returns its length. */
size_t npy_format(uint8_t *to, const char *type, const uint64_t *shape, unsigned rank);

#endif
