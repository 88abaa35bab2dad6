/* input.h - all files of an input, one after the other. A place is a sequence's number in them. */
#ifndef TOKSTREAM_INPUT_H
#define TOKSTREAM_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct input {
    struct source **sources;
    uint64_t
        *first; /* (source_count + 1) places of the sources' first sequences, as far as known */
    size_t source_count;
    size_t known;   /* first[0 .. known] are known */
    size_t current; /* the source that is read */
    uint64_t next;  /* place of the next sequence */
    bool at_rest;   /* which has to be sought first */
};

/* Opens files and folders; with no paths, standard input. input_free() frees, also after a failure.
 */
int input_open(struct input *input, char *const *paths, size_t path_count,
               const struct source_setup *setup) MUST_CHECK;
void input_free(struct input *input);

/* Counts all sequences, and makes those reachable that can be. Where input comes through a pipe,
 * ERR_USAGE that says `what` cannot be done. */
int input_index(struct input *input, const char *what) MUST_CHECK;

/* 0, or ERR_USAGE that says `what` needs files. */
int input_need_files(const struct input *input, const char *what) MUST_CHECK;

/* Whether the number of sequences is known, and that number. */
bool input_is_counted(const struct input *input);
uint64_t input_count(const struct input *input);

/* Whether all sequences are known to have one length. */
bool input_length(const struct input *input, uint64_t *length);

/* Whether each sequence can be reached at the same cost. */
bool input_is_single(const struct input *input);

/* Bytes that reading it may take: of one file at a time, and all tables. */
uint64_t input_memory(const struct input *input);

/* The sequence at `place` is the next one: 1; 0 where there are fewer. */
int input_seek(struct input *input, uint64_t place) MUST_CHECK;

/* The next sequence and its place: 1, or 0 behind the last. */
int input_next(struct input *input, uint64_t *place, struct source_sequence *sequence) MUST_CHECK;

/* What is decoded together, with places, where not all can be reached singly; sequences that can be
 * are taken together by the thousand. Of counted inputs. The caller frees *groups. */
int input_list_groups(const struct input *input, struct source_group **groups,
                      size_t *count) MUST_CHECK;

#endif
