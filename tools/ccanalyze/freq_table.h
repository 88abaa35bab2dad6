/* freq_table.h - reads back what `ccanalyze freq` printed, for the verbs that leave dead latents
 * out. */
#ifndef CCANALYZE_FREQ_TABLE_H
#define CCANALYZE_FREQ_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* dead (latents): 1 for those whose count is 0. The columns `index` and `count` are found by name;
 * every latent must have its line (ERR_USAGE where the file is of another crosscoder), a malformed
 * line is ERR_DATA. *dead_count of them are dead. */
int freq_table_read(const char *path, uint8_t *dead, size_t latents, size_t *dead_count) MUST_CHECK;

/* The same from text in memory, which is cut up; text[size] is 0, and there is no other 0 in it
 * (ERR_DATA). `name` is for messages. */
int freq_table_parse(char *text, size_t size, const char *name, uint8_t *dead, size_t latents,
                     size_t *dead_count) MUST_CHECK;

#endif
