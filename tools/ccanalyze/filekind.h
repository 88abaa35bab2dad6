/* filekind.h - what a path names: the kinds of file and folder that the project reads or writes. */
#ifndef CCANALYZE_FILEKIND_H
#define CCANALYZE_FILEKIND_H

#include "common/err.h"

enum filekind {
    FILEKIND_STREAM,      /* tokens or activations; also a pipe, and a file of no other kind */
    FILEKIND_RUN,         /* a folder with step-N */
    FILEKIND_STEP,        /* a folder with cc.safetensors */
    FILEKIND_SAFETENSORS, /* a file */
    FILEKIND_MODEL,       /* a Hugging Face folder */
    FILEKIND_MEMMAP,      /* a folder of an activation cache: shard_0.memmap */
    FILEKIND_NPY,
    FILEKIND_JSON /* of --norm */
};

/* Tells by content. ERR_USAGE (logged) where there is nothing, or a folder of no known kind. */
int filekind_of(enum filekind *kind, const char *path) MUST_CHECK;

#endif
