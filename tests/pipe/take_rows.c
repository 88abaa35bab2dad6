/* take_rows.c - takes the rows of a stream that travels by a data plane, and writes them inline:
 * what actgen --via says must then be, to the byte, what actgen says.
 *
 *   actgen --via cuda-ipc|nccl ... | take_rows DEVICE [FAULT ROW] >ROWS
 *
 * A pass's rows are copied to the host and hashed there, by the rule of doc/FORMAT.md. FAULT,
 * before the pass that has ROW: "die" (killed), "stop" (stopped, with all its threads), "bye" (has
 * enough).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plane.h"
#include "common/stream.h"
#include "common/tool.h"
#include "kernels/kernels.h"

struct taker {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    struct plane *plane;
    struct stream_reader *reader;
    struct stream_writer *writer;
    struct begin begin;
    struct begin_attach attach;
    size_t row_bytes;
    struct kernels_link *link;
    void *d_window; /* of the generator, or one buffer of one's own */
    uint8_t *rows;  /* (capacity, row_bytes) of a pass */
    struct stream_record record;
    uint32_t next; /* row of the record */
    uint64_t row;
};

static int attach(struct taker *taker)
{
    struct plane_setup setup = {.kind = taker->begin.plane,
                                .buffers = taker->begin.attach.buffers,
                                .capacity = taker->begin.attach.capacity};
    taker->attach = taker->begin.attach;
    taker->row_bytes = begin_row_bytes(&taker->begin);
    taker->rows = malloc(taker->attach.capacity * taker->row_bytes);
    taker->kernels->identity(taker->device, setup.uuid);
    int status = taker->kernels->queue_create(taker->device, &taker->queue);
    if (status == 0 && setup.kind == BEGIN_NCCL)
        status = taker->kernels->link_version(taker->device, &setup.nccl_version,
                                              &setup.nccl_one_device);
    if (status == 0)
        status = plane_attach(&taker->plane, &setup, &taker->attach);
    if (status == 0 && setup.kind == BEGIN_CUDA_IPC)
        status = taker->kernels->map(taker->device, &taker->d_window, taker->attach.key);
    if (status == 0 && setup.kind == BEGIN_NCCL)
        status = taker->kernels->alloc(taker->device, &taker->d_window,
                                       taker->attach.capacity * taker->row_bytes);
    if (status == 0 && setup.kind == BEGIN_NCCL)
        status = taker->kernels->link_open(taker->device, &taker->link, taker->attach.key, 1,
                                           plane_go_on, taker->plane);
    taker->begin.plane = BEGIN_INLINE;
    memset(&taker->begin.attach, 0, sizeof taker->begin.attach);
    return status;
}

static int open_taker(struct taker *taker, const char *device)
{
    int status = kernels_open(&taker->kernels, &taker->device, device, 1, DTYPE_F32);
    if (status == 0)
        status = stream_reader_open(&taker->reader, NULL, 0, BEGIN_ACTIVATIONS_VIA, 1);
    if (status == 0)
        status = begin_copy(&taker->begin, stream_reader_begin(taker->reader));
    if (status == 0)
        status = attach(taker);
    if (status == 0)
        status = stream_writer_open(&taker->writer, NULL, STREAM_CODEC_NONE, 1);
    return status != 0 ? status : stream_writer_begin(taker->writer, &taker->begin);
}

/* The next row of DATA, which must lie in this pass and be what its hash says. */
static int take_row(struct taker *taker, const struct plane_pass *pass)
{
    while (taker->next == taker->record.rows) {
        int status = stream_reader_next(taker->reader, &taker->record);
        if (status != 1)
            return status == 0 ? log_fail(ERR_DATA, "fewer rows than the passes have") : status;
        taker->next = 0;
    }
    struct stream_hashed row =
        stream_hashed_get(taker->record.data + taker->next * STREAM_HASHED_BYTES);
    const uint8_t *tag = taker->record.tags + taker->next * STREAM_TAG_BYTES;
    uint64_t first = (uint64_t)pass->buffer * taker->attach.capacity;
    if (row.place < first || row.place >= first + pass->rows)
        return log_fail(ERR_DATA, "a row lies outside of its pass");
    const uint8_t *bytes = taker->rows + (row.place - first) * taker->row_bytes;
    struct rowsum sum = {0};
    rowsum_add_tagged(&sum, tag, bytes, taker->row_bytes);
    if (!rowsum_equal(&sum, &row.hash))
        return log_fail(ERR_DATA, "row %llu is not what its hash says",
                        (unsigned long long)taker->row);
    taker->next++;
    taker->row++;
    return stream_writer_rows(taker->writer, tag, bytes, 1);
}

static int take_pass(struct taker *taker, const struct plane_pass *pass)
{
    size_t offset = (size_t)pass->buffer * taker->attach.capacity * taker->row_bytes;
    if (taker->link != NULL) {
        offset = 0;
        if (pass->rows > 0)
            taker->kernels->link_receive(taker->queue, taker->link, taker->d_window,
                                         pass->rows * taker->row_bytes);
    }
    taker->kernels->download(taker->queue, taker->rows, (uint8_t *)taker->d_window + offset,
                             pass->rows * taker->row_bytes);
    int status = taker->kernels->wait(taker->queue);
    for (uint32_t i = 0; i < pass->served && status == 0; i++)
        status = take_row(taker, pass);
    return status != 0 ? status : plane_free_pass(taker->plane, pass->number);
}

static int take_all(struct taker *taker, const char *fault, uint64_t fault_row)
{
    struct plane_pass pass;
    int status;
    while ((status = plane_next_pass(taker->plane, &pass)) == 1) {
        if (strcmp(fault, "none") != 0 && fault_row < taker->row + pass.served) {
            if (strcmp(fault, "bye") == 0)
                return 1;
            raise(strcmp(fault, "die") == 0 ? SIGKILL : SIGSTOP);
        }
        if ((status = take_pass(taker, &pass)) != 0)
            return status;
    }
    return status;
}

/* A mapped window is let go of before the generator is told; a link ends when both know. */
static void leave(struct taker *taker, int status)
{
    if (taker->link == NULL && taker->d_window != NULL)
        taker->kernels->unmap(taker->device, taker->d_window);
    if (status >= 0 && taker->plane != NULL)
        plane_bye(taker->plane);
    if (taker->link != NULL) {
        taker->kernels->link_close(taker->link, status != 0);
        taker->kernels->free(taker->device, taker->d_window);
    }
}

int main(int argc, char **argv)
{
    struct taker taker = {0};
    int status = tool_start("take_rows");
    if (status == 0)
        status = argc == 2 || argc == 4 ? open_taker(&taker, argv[1]) : ERR_USAGE;
    if (status == 0)
        status = take_all(&taker, argc == 4 ? argv[2] : "none",
                          argc == 4 ? strtoull(argv[3], NULL, 10) : 0);
    leave(&taker, status);
    if (status == 0 && (status = stream_reader_next(taker.reader, &taker.record)) == 0)
        status = stream_writer_end(taker.writer, stream_reader_end(taker.reader)->skipped);
    plane_free(taker.plane);
    stream_writer_free(taker.writer);
    stream_reader_free(taker.reader);
    if (taker.kernels != NULL) {
        taker.kernels->queue_free(taker.queue);
        kernels_close(taker.kernels, taker.device);
    }
    begin_free(&taker.begin);
    free(taker.rows);
    return tool_finish(status > 0 ? 0 : status);
}
