/* scan.c - records are cut and joined to blocks of one size, since the products have one shape.
 *
 * The device is opened before the stream: a backend must be loaded before the program has threads,
 * and the stream's reader has some.
 */
#include "scan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/progress.h"
#include "common/sig.h"
#include "forward.h"
#include "rows.h"

struct scan {
    const struct crosscoder *cc;
    struct forward *forward;
    struct stream_reader *reader;
    struct progress *progress;
    size_t block; /* rows */
    float *x;     /* (block, D) */
    struct stream_tag *tags;
    struct stream_record record; /* being cut */
    uint32_t taken;              /* rows of it that are in blocks already */
    bool finished;
    uint64_t rows; /* in blocks handed out */
};

static struct forward_setup scan_forward_setup(const struct scan_setup *setup)
{
    return (struct forward_setup){.cc = setup->cc,
                                  .device = setup->device,
                                  .dtype = setup->dtype,
                                  .threads = setup->threads,
                                  .decode = setup->decode};
}

uint64_t scan_bytes(const struct scan_setup *setup)
{
    struct forward_setup forward = scan_forward_setup(setup);
    return forward_bytes(&forward);
}

static int scan_open_stream(struct scan *scan, const struct scan_setup *setup)
{
    int status = stream_reader_open(&scan->reader, setup->paths, setup->path_count,
                                    BEGIN_ACTIVATIONS, setup->threads);
    if (status == 0)
        status = crosscoder_check_begin(setup->cc, stream_reader_begin(scan->reader));
    if (status != 0)
        return status;
    scan->x = mem_alloc(scan->block * (size_t)setup->cc->width, sizeof *scan->x);
    scan->tags = mem_alloc(scan->block, sizeof *scan->tags);
    if (scan->x == NULL || scan->tags == NULL)
        return mem_fail("rows", scan->block * (size_t)setup->cc->width, sizeof *scan->x);
    const struct begin *begin = stream_reader_begin(scan->reader);
    struct progress_setup progress = {.unit = "rows",
                                      .total = begin->has_rows ? begin->rows : 0,
                                      .in = stream_reader_file(scan->reader),
                                      .metrics = setup->metrics};
    return progress_start(&scan->progress, &progress);
}

int scan_open(struct scan **result, const struct scan_setup *setup)
{
    *result = NULL;
    struct scan *scan = mem_alloc_zero(1, sizeof *scan);
    if (scan == NULL)
        return mem_fail("rows", 1, sizeof *scan);
    scan->cc = setup->cc;
    scan->block = forward_block(setup->cc);
    struct forward_setup forward = scan_forward_setup(setup);
    int status = forward_open(&scan->forward, &forward);
    if (status == 0)
        status = scan_open_stream(scan, setup);
    if (status != 0) {
        int ignored = scan_close(scan); /* already failing */
        (void)ignored;
        return status;
    }
    *result = scan;
    return 0;
}

int scan_close(struct scan *scan)
{
    if (scan == NULL)
        return 0;
    int status = progress_stop(scan->progress);
    stream_reader_free(scan->reader);
    forward_free(scan->forward);
    free(scan->x);
    free(scan->tags);
    free(scan);
    return status;
}

const struct begin *scan_begin(const struct scan *scan)
{
    return stream_reader_begin(scan->reader);
}

/* Moves rows of the record into the block; the rows there now. */
static size_t scan_take(struct scan *scan, size_t filled)
{
    const struct begin *begin = scan_begin(scan);
    size_t room = scan->block - filled, left = scan->record.rows - scan->taken;
    size_t n = left < room ? left : room;
    rows_to_f32(scan->x + filled * scan->cc->width, begin,
                scan->record.data + scan->taken * begin_row_bytes(begin), n);
    for (size_t i = 0; i < n; i++)
        scan->tags[filled + i] =
            stream_tag_get(scan->record.tags + (scan->taken + i) * STREAM_TAG_BYTES);
    scan->taken += (uint32_t)n;
    return filled + n;
}

/* By the bits, of which the largest is found without a branch: infinities and NaNs are above all
 * numbers. */
static bool scan_is_finite(const float *values, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most < 0x7f800000u;
}

/* Finite rows and weights may overflow in f32; no figure made of that would be one. */
static int scan_check(const struct scan *scan, const struct scan_block *block)
{
    size_t latents = (size_t)scan->cc->latents, width = (size_t)scan->cc->width;
    for (size_t i = 0; i < block->rows; i++)
        if (!scan_is_finite(block->f + i * latents, latents) ||
            (block->xhat != NULL && !scan_is_finite(block->xhat + i * width, width)))
            return log_fail(ERR_DATA,
                            "row %" PRIu64
                            ": what comes of it is not finite; the weights of '%s' or "
                            "the row are too large",
                            block->first_row + i, scan->cc->path);
    return 0;
}

int scan_next(struct scan *scan, struct scan_block *block)
{
    size_t filled = 0;
    if (sig_pending() != 0)
        return ERR_INTERRUPTED;
    while (filled < scan->block && !scan->finished) {
        if (scan->taken == scan->record.rows) {
            scan->taken = 0;
            scan->record.rows = 0;
            int status = stream_reader_next(scan->reader, &scan->record);
            if (status < 0)
                return status;
            scan->finished = status == 0;
            continue;
        }
        filled = scan_take(scan, filled);
    }
    if (filled == 0)
        return 0;
    *block = (struct scan_block){
        .first_row = scan->rows, .rows = filled, .tags = scan->tags, .x = scan->x};
    int status = forward_run(scan->forward, scan->x, filled, &block->f, &block->xhat);
    if (status == 0)
        status = scan_check(scan, block);
    if (status != 0)
        return status;
    scan->rows += filled;
    progress_set(scan->progress, scan->rows);
    return 1;
}
