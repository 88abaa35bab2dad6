/* begin.h - what BEGIN says of a stream: kind, sources, element type, where it came from.
 *
 * doc/FORMAT.md lists the JSON keys. A struct begin is the parsed form; begin_to_json() and
 * begin_from_json() are inverse to each other on valid input.
 */
#ifndef CCPIPE_BEGIN_H
#define CCPIPE_BEGIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "err.h"

#define BEGIN_MAX_SOURCES 256
#define BEGIN_MAX_WIDTH (1u << 24) /* elements of a row, all sources together */
#define BEGIN_MAX_BUFFERS 256      /* pass buffers of a data plane */
#define BEGIN_SOCKET_BYTES 101     /* of a socket's name, its end included */

/* The last two are what a reader may ask for, and no BEGIN has them: either kind; activations by
 * whatever data plane. */
enum begin_kind { BEGIN_TOKENS, BEGIN_ACTIVATIONS, BEGIN_ANY, BEGIN_ACTIVATIONS_VIA };

/* How rows travel: inside DATA, or from device memory to device memory while DATA says of each row
 * its hash and where it lies. */
enum begin_plane { BEGIN_INLINE, BEGIN_CUDA_IPC, BEGIN_NCCL };
#define BEGIN_PLANE_CHOICES "inline|cuda-ipc|nccl" /* in the order of the enum */

/* What it takes to reach a generator's window of pass buffers. */
struct begin_attach {
    char socket[BEGIN_SOCKET_BYTES]; /* abstract name of the control socket: [A-Za-z0-9._-] */
    uint32_t buffers;                /* W, 2 .. BEGIN_MAX_BUFFERS */
    uint32_t capacity; /* rows of a buffer; buffers * capacity rows have numbers of 32 bits */
    uint8_t key[128];  /* CUDA_IPC: the memory's handle, 64 bytes; NCCL: the unique id, all */
};

struct begin_source {
    char *name;       /* "MODEL.HOOK", e.g. "base.blocks.14.hook_resid_pre" */
    char *model;      /* "base" */
    char *hook;       /* "blocks.14.hook_resid_pre", "" where unknown (packed arrays) */
    char *model_hash; /* of the configuration and the weights that rows depend on, "" unknown */
    uint32_t width;   /* d_s */
    double scale;     /* the factor already applied to the rows; 1 for none */
};

struct begin {
    enum begin_kind kind;
    /* tokens */
    bool has_seq_len;
    uint64_t seq_len; /* every sequence has this length; absent where lengths may differ */
    /* activations */
    enum dtype dtype; /* F32, BF16 or I8 (one f32 scale per row and source before the bytes) */
    size_t source_count;
    struct begin_source *sources;
    char *tokenizer_hash; /* "" unknown */
    enum begin_plane plane;
    struct begin_attach attach; /* all zero for INLINE */
    /* both */
    bool has_rows;
    uint64_t rows;      /* rows (sequences) from first_row on, exact */
    uint64_t first_row; /* number of the first row; above 0 where a shuffle skipped draws */
    json_t *options;    /* resolved options that change the bytes, {} if none; owned */
    json_t *upstream;   /* BEGIN of the stage before, or NULL; owned */
    json_t *extra;      /* further keys of the tool (e.g. "dropped", "inputs"), {}; owned */
    const char *tool;   /* "actgen 0.1.0"; owned */
};

/* An empty one for `tool` ("actgen"); begin_free() frees the members, legal on a zeroed struct. */
int begin_init(struct begin *begin, enum begin_kind kind, const char *tool) MUST_CHECK;
void begin_free(struct begin *begin);
int begin_copy(struct begin *to, const struct begin *from) MUST_CHECK;

/* What a shuffle writes of the rows of `begin`, whose JSON as it was read is `json`: its own name
 * and options ({"rows": N, "seed": S, "epochs": E}), all rows inline, from draw `skip` of `total`
 * on (has_total: that is known; a total below `skip` is not). */
int begin_shuffled(struct begin *shuffled, const struct begin *begin, const json_t *json,
                   const json_t *options, bool has_total, uint64_t total, uint64_t skip) MUST_CHECK;

/* Appends a source; the strings are copied. */
int begin_add_source(struct begin *begin, const char *name, const char *model, const char *hook,
                     const char *model_hash, uint32_t width, double scale) MUST_CHECK;

/* D: the sum of the widths. Bytes of a row without its tag; and of what DATA holds of a row. */
size_t begin_width(const struct begin *begin);
size_t begin_row_bytes(const struct begin *begin);
size_t begin_data_bytes(const struct begin *begin);

const char *begin_plane_name(enum begin_plane plane);

json_t *begin_to_json(const struct begin *begin) MUST_CHECK;
/* ERR_DATA, logged with `name`, where a key is missing, of a wrong type or out of range. */
int begin_from_json(struct begin *begin, const json_t *json, const char *name) MUST_CHECK;

/* Whether rows of both may follow each other or train one crosscoder: same kind, dtype, source
 * names, widths, model hashes and scales, and both inline. 0, or ERR_USAGE with both values
 * printed, naming what differs; for scales it names --norm FILE. */
int begin_compatible(const struct begin *a, const char *name_a, const struct begin *b,
                     const char *name_b) MUST_CHECK;

/* XXH3-128 in hexadecimal (32 digits) of the canonical JSON, at any level without "rows" and
 * "first_row" and with the data plane taken as inline: two streams with one identity carry the same
 * rows in the same order, wherever they begin and however the rows travel. */
int begin_identity(const struct begin *begin, char hex[33]) MUST_CHECK;

#endif
