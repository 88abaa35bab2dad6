/* via_rows.c - sends the rows of a file by a data plane, as actgen --via does, and otherwise if
 * asked to.
 *
 *   via_rows PLANE DEVICE CAPACITY FILE [FAULT ROW]
 *
 * PLANE is cuda-ipc or nccl, with two buffers of CAPACITY rows. Passes hold 0, 1, 2, ... CAPACITY
 * rows in turn, so that they meet records, chunks and batches at all places; their rows lie in the
 * buffer backward, as DATA alone says which is where. FAULT is of ROW:
 *
 *   flip    a bit of it is another on the device than DATA says
 *   place   DATA says it lies in the buffer before
 *   cut     the stream ends before its pass, without END
 *   stop    the process stops itself before its pass (SIGSTOP)
 *   early   its pass is announced before its rows are on the device
 *   hang    its pass is not announced, and nothing comes any more
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/plane.h"
#include "common/sig.h"
#include "common/stream.h"
#include "common/tool.h"
#include "kernels/kernels.h"

enum { BUFFERS = 2 };

struct source {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    struct kernels_link *link;
    struct plane *plane;
    struct stream_reader *reader;
    struct stream_writer *writer;
    struct begin begin;
    size_t row_bytes, capacity;
    uint8_t *d_window, *rows, *tags; /* (capacity) of a pass */
    struct stream_hashed *hashed;
    uint64_t row; /* of the stream, the next one */
    const char *fault;
    uint64_t fault_row;
};

static bool is_fault(const struct source *source, const char *name, uint64_t rows)
{
    return strcmp(source->fault, name) == 0 && source->fault_row >= source->row &&
           source->fault_row < source->row + rows;
}

static int fill_begin(struct source *source, enum begin_plane plane)
{
    struct plane_setup setup = {
        .kind = plane, .buffers = BUFFERS, .capacity = (uint32_t)source->capacity};
    struct begin_attach *attach = &source->begin.attach;
    void *window = NULL;
    int status = begin_copy(&source->begin, stream_reader_begin(source->reader));
    if (status == 0)
        status = source->kernels->alloc(source->device, &window,
                                        BUFFERS * source->capacity * source->row_bytes);
    source->d_window = window;
    source->begin.plane = plane;
    attach->buffers = BUFFERS;
    attach->capacity = (uint32_t)source->capacity;
    source->kernels->identity(source->device, setup.uuid);
    if (status == 0 && plane == BEGIN_CUDA_IPC)
        status = source->kernels->share(source->device, window, attach->key);
    if (status == 0 && plane == BEGIN_NCCL)
        status = source->kernels->link_version(source->device, &setup.nccl_version,
                                               &setup.nccl_one_device);
    if (status == 0 && plane == BEGIN_NCCL)
        status = source->kernels->link_id(source->device, attach->key);
    return status != 0 ? status : plane_listen(&source->plane, &setup, attach->socket);
}

static int open_source(struct source *source, char **argv)
{
    char *paths[] = {argv[4]};
    source->capacity = (size_t)strtoul(argv[3], NULL, 10);
    int status = stream_reader_open(&source->reader, paths, 1, BEGIN_ACTIVATIONS, 1);
    if (status == 0)
        status = kernels_open(&source->kernels, &source->device, argv[2], 1, DTYPE_F32);
    if (status != 0)
        return status;
    source->row_bytes = begin_row_bytes(stream_reader_begin(source->reader));
    source->rows = malloc(source->capacity * source->row_bytes);
    source->tags = malloc(source->capacity * STREAM_TAG_BYTES);
    source->hashed = malloc(source->capacity * sizeof *source->hashed);
    status = source->kernels->queue_create(source->device, &source->queue);
    if (status == 0)
        status = fill_begin(source, strcmp(argv[1], "nccl") == 0 ? BEGIN_NCCL : BEGIN_CUDA_IPC);
    if (status == 0)
        status = stream_writer_open(&source->writer, NULL, STREAM_CODEC_NONE, 1);
    if (status == 0)
        status = stream_writer_begin(source->writer, &source->begin);
    if (status == 0)
        status = plane_accept(source->plane, STDOUT_FILENO);
    if (status == 0 && source->begin.plane == BEGIN_NCCL)
        status = source->kernels->link_open(source->device, &source->link, source->begin.attach.key,
                                            0, plane_go_on, source->plane);
    return status;
}

/* To the device, row i of n at n - 1 - i. */
static int upload(struct source *source, uint32_t buffer, size_t n)
{
    uint8_t *d_buffer = source->d_window + buffer * source->capacity * source->row_bytes;
    for (size_t i = 0; i < n; i++)
        source->kernels->upload(source->queue, d_buffer + (n - 1 - i) * source->row_bytes,
                                source->rows + i * source->row_bytes, source->row_bytes);
    if (source->link != NULL && n > 0)
        source->kernels->link_send(source->queue, source->link, d_buffer, n * source->row_bytes);
    return source->link == NULL ? source->kernels->wait(source->queue) : 0;
}

/* A pass of n rows, which lie in `rows`. */
static int send_pass(struct source *source, size_t n)
{
    uint32_t buffer;
    if (is_fault(source, "stop", n))
        raise(SIGSTOP);
    if (is_fault(source, "cut", n))
        return ERR_TRUNCATED;
    int status = plane_take(source->plane, &buffer);
    if (status != 0)
        return status;
    for (size_t i = 0; i < n; i++) {
        struct stream_hashed *row = &source->hashed[i];
        *row = (struct stream_hashed){.place = buffer * source->capacity + (n - 1 - i)};
        rowsum_add_tagged(&row->hash, source->tags + i * STREAM_TAG_BYTES,
                          source->rows + i * source->row_bytes, source->row_bytes);
        if (is_fault(source, "place", n) && source->row + i == source->fault_row)
            row->place = (buffer + 1) % BUFFERS * source->capacity;
        if (is_fault(source, "flip", n) && source->row + i == source->fault_row)
            source->rows[i * source->row_bytes + 1] ^= 4;
    }
    bool early = is_fault(source, "early", n), hang = is_fault(source, "hang", n);
    if (!early)
        status = upload(source, buffer, n);
    if (status == 0 && !hang)
        status = plane_announce(source->plane, buffer, (uint32_t)n, (uint32_t)n);
    for (size_t i = 0; i < n && status == 0; i++) {
        uint8_t data[STREAM_HASHED_BYTES];
        stream_hashed_put(data, source->hashed[i]);
        status = stream_writer_rows(source->writer, source->tags + i * STREAM_TAG_BYTES, data, 1);
    }
    if (status == 0)
        status = stream_writer_flush(source->writer);
    while (status == 0 && hang) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        status = plane_go_on(source->plane);
    }
    if (early) {
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
        status = upload(source, buffer, n);
    }
    if (status == 0 && source->link != NULL)
        status = source->kernels->wait(source->queue);
    source->row += n;
    return status;
}

static int send_all(struct source *source)
{
    struct stream_record record;
    size_t have = 0, size = 0;
    int status;
    while ((status = stream_reader_next(source->reader, &record)) == 1) {
        for (uint32_t i = 0; i < record.rows; i++) {
            while (have == size) {
                if ((status = send_pass(source, have)) != 0)
                    return status;
                have = 0;
                size = (size + 1) % (source->capacity + 1);
            }
            memcpy(source->rows + have * source->row_bytes, record.data + i * source->row_bytes,
                   source->row_bytes);
            memcpy(source->tags + have * STREAM_TAG_BYTES, record.tags + i * STREAM_TAG_BYTES,
                   STREAM_TAG_BYTES);
            have++;
        }
    }
    if (status == 0)
        status = send_pass(source, have);
    if (status == 0)
        status = send_pass(source, 0); /* a pass of which nothing is served, behind the last row */
    if (status == 0)
        status = stream_writer_end(source->writer, NULL);
    return status != 0 ? status : plane_finish(source->plane);
}

int main(int argc, char **argv)
{
    struct source source = {.fault = argc == 7 ? argv[5] : "none",
                            .fault_row = argc == 7 ? strtoull(argv[6], NULL, 10) : 0};
    int status = tool_start("via_rows");
    if (status == 0)
        status = argc == 5 || argc == 7 ? open_source(&source, argv) : ERR_USAGE;
    if (status == 0)
        status = send_all(&source);
    if (status == ERR_CLOSED && source.plane != NULL)
        status = plane_reader_gone(source.plane);
    if (source.link != NULL)
        source.kernels->link_close(source.link, status != 0);
    plane_free(source.plane);
    if (source.d_window != NULL)
        source.kernels->free(source.device, source.d_window);
    stream_writer_free(source.writer);
    stream_reader_free(source.reader);
    if (source.kernels != NULL) {
        source.kernels->queue_free(source.queue);
        kernels_close(source.kernels, source.device);
    }
    begin_free(&source.begin);
    free(source.rows);
    free(source.tags);
    free(source.hashed);
    return tool_finish(status);
}
