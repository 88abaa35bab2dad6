/* factors.h - the factor of each source: from a file, or from mean norms; and to a file.
 *
 * A factor always has 9 significant digits, those that factors_write() writes: a run with --norm
 * estimate and a later one with the file it wrote give the same bytes.
 */
#ifndef CCPIPE_FACTORS_H
#define CCPIPE_FACTORS_H

#include <stdint.h>

#include "common/err.h"
#include "sources.h"

/* The factors of {"SOURCE": factor, ...}, (sources->count) of them; other keys are passed over.
 * ERR_USAGE where a source is missing, ERR_DATA where a factor is not a positive number. */
int factors_read(double *factors, const struct sources *sources, const char *path) MUST_CHECK;

/* √width ÷ mean norm. ERR_DATA, naming the source, where the mean is 0. */
int factors_from_mean(double *factor, const struct source *source, uint32_t width,
                      double mean) MUST_CHECK;

int factors_write(const double *factors, const struct sources *sources,
                  const char *path) MUST_CHECK;

#endif
