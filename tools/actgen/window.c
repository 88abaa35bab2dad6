/* window.c - shares the engine's buffers or sends them, and says in DATA what lies in them.
 *
 * A pass is announced before its DATA is written: the trainer that reads DATA may then move rows at
 * once, and a pipe that is full is not what the window waits for. The rows of a pass are flushed,
 * as the trainer gives a buffer back only when it has read of all its rows.
 *
 * A trainer that dies closes the pipe; one that hangs leaves it full, and the write would wait for
 * ever. So a write of this stream waits for the pipe and for word of a loss.
 *
 * What is sent goes by a queue of its own, which stands still where the trainer is lost, until the
 * link is closed. The pass that is made next in a buffer waits on the device for what was sent of
 * it, and not before the trainer has given it back: so computing never waits for a lost trainer.
 */
#include "window.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/plane.h"
#include "common/sig.h"

struct window {
    struct engine *engine;
    struct stream_writer *writer;
    struct plane *plane;
    uint8_t *hashed; /* (capacity, STREAM_HASHED_BYTES) */
    enum begin_plane kind;
    uint8_t key[128]; /* of the link */
    struct kernels_link *link;
    struct kernels_queue *sends;
    struct kernels_event *sent[WINDOW_BUFFERS];
    bool attached, finished;
    int lost[2]; /* a pipe that is readable once the trainer is lost */
};

int window_check_output(const char *output, enum begin_plane kind)
{
    struct stat found;
    bool named = output != NULL && strcmp(output, "-") != 0;
    bool there = named ? stat(output, &found) == 0 : fstat(STDOUT_FILENO, &found) == 0;
    if (there ? !S_ISREG(found.st_mode) : !named)
        return 0;
    return log_fail(
        ERR_USAGE,
        "--via %s leaves the rows on the device, and %s is a file: pipe into cctrain, or "
        "use --via inline",
        begin_plane_name(kind), named ? output : "standard output");
}

int window_check_device(const struct engine *engine, enum begin_plane kind)
{
    const struct kernels *kernels = engine_device(engine)->kernels;
    if (kind == BEGIN_CUDA_IPC ? kernels->share != NULL : kernels->link_open != NULL)
        return 0;
    return log_fail(ERR_USAGE, "--via %s needs a CUDA device, and this is %s: use --via inline",
                    begin_plane_name(kind), kernels->name);
}

/* By the plane's thread. */
static void trainer_lost(void *context)
{
    const struct window *window = context;
    ssize_t put = write(window->lost[1], "", 1);
    (void)put; /* an empty pipe takes one byte */
}

/* What BEGIN says of how to reach the rows: the key. */
static int make_key(struct window *window, struct plane_setup *setup)
{
    const struct gemma2_device *on = engine_device(window->engine);
    if (window->kind == BEGIN_CUDA_IPC)
        return on->kernels->share(on->device, engine_window(window->engine), window->key);
    int status =
        on->kernels->link_version(on->device, &setup->nccl_version, &setup->nccl_one_device);
    if (status == 0)
        status = on->kernels->link_id(on->device, window->key);
    if (status == 0)
        status = on->kernels->queue_create(on->device, &window->sends);
    for (size_t i = 0; i < WINDOW_BUFFERS && status == 0; i++)
        status = on->kernels->event_create(on->device, &window->sent[i]);
    return status;
}

static int listen_for_trainer(struct window *window, struct begin *begin)
{
    const struct gemma2_device *on = engine_device(window->engine);
    struct begin_attach *attach = &begin->attach;
    struct plane_setup setup = {.kind = window->kind,
                                .buffers = WINDOW_BUFFERS,
                                .capacity = (uint32_t)engine_capacity(window->engine),
                                .lost = trainer_lost,
                                .context = window};
    int status = make_key(window, &setup);
    if (status != 0)
        return status;
    on->kernels->identity(on->device, setup.uuid);
    begin->plane = setup.kind;
    attach->buffers = setup.buffers;
    attach->capacity = setup.capacity;
    memcpy(attach->key, window->key, sizeof attach->key);
    return plane_listen(&window->plane, &setup, attach->socket);
}

int window_open(struct window **opened, enum begin_plane kind, struct engine *engine,
                struct stream_writer *writer, struct begin *begin)
{
    size_t capacity = engine_capacity(engine);
    *opened = NULL;
    if (capacity > UINT32_MAX / WINDOW_BUFFERS)
        return log_fail(ERR_USAGE, "%zu rows in a buffer are too many; lower --batch", capacity);
    struct window *window = mem_alloc_zero(1, sizeof *window);
    if (window == NULL)
        return mem_fail("a window", 1, sizeof *window);
    window->kind = kind;
    window->engine = engine;
    window->writer = writer;
    window->lost[0] = window->lost[1] = -1;
    window->hashed = mem_alloc(capacity, STREAM_HASHED_BYTES);
    int status = window->hashed == NULL ? mem_fail("a window", capacity, STREAM_HASHED_BYTES) : 0;
    if (status == 0 && pipe(window->lost) != 0)
        status = log_fail_errno("cannot make a pipe");
    if (status == 0)
        status = listen_for_trainer(window, begin);
    if (status != 0) {
        window_free(window);
        return status;
    }
    stream_writer_watch(writer, window->lost[0]);
    *opened = window;
    return 0;
}

void window_free(struct window *window)
{
    if (window == NULL)
        return;
    const struct kernels *kernels = engine_device(window->engine)->kernels;
    if (window->link != NULL)
        kernels->link_close(window->link, !window->finished);
    for (size_t i = 0; i < WINDOW_BUFFERS; i++)
        kernels->event_free(window->sent[i]);
    kernels->queue_free(window->sends);
    plane_free(window->plane);
    for (size_t i = 0; i < 2; i++)
        if (window->lost[i] >= 0)
            close(window->lost[i]);
    free(window->hashed);
    free(window);
}

int window_accept(struct window *window)
{
    int status = stream_writer_flush(window->writer);
    if (status == 0)
        status = plane_accept(window->plane, stream_writer_file(window->writer)->fd);
    window->attached = status == 0;
    const struct gemma2_device *on = engine_device(window->engine);
    if (status == 0 && window->kind == BEGIN_NCCL)
        status = on->kernels->link_open(on->device, &window->link, window->key, 0, plane_go_on,
                                        window->plane);
    return status;
}

int window_take(struct window *window, uint32_t *buffer)
{
    const struct gemma2_device *on = engine_device(window->engine);
    int status = plane_take(window->plane, buffer);
    if (status == 0 && window->link != NULL)
        on->kernels->event_wait(on->queue, window->sent[*buffer]);
    return status;
}

static int send_buffer(struct window *window, uint32_t buffer, size_t rows)
{
    const struct kernels *kernels = engine_device(window->engine)->kernels;
    size_t row_bytes = engine_row_bytes(window->engine);
    const uint8_t *d_buffer = (const uint8_t *)engine_window(window->engine) +
                              buffer * engine_capacity(window->engine) * row_bytes;
    if (rows > 0)
        kernels->link_send(window->sends, window->link, d_buffer, rows * row_bytes);
    kernels->event_record(window->sends, window->sent[buffer]);
    return kernels->link_poll(window->link);
}

int window_announce(struct window *window, uint32_t buffer, size_t rows, size_t served)
{
    int status = window->link != NULL ? send_buffer(window, buffer, rows) : 0;
    if (status == 0)
        status = plane_announce(window->plane, buffer, (uint32_t)rows, (uint32_t)served);
    return status;
}

int window_write(struct window *window, const uint8_t *tags, uint32_t buffer, size_t first,
                 size_t end)
{
    const uint64_t *hashes = engine_hashes(window->engine);
    uint64_t start = (uint64_t)buffer * engine_capacity(window->engine);
    for (size_t i = first; i < end; i++) {
        struct stream_hashed row = {{hashes[2 * i], hashes[2 * i + 1]}, start + i};
        stream_hashed_put(window->hashed + (i - first) * STREAM_HASHED_BYTES, row);
    }
    return stream_writer_rows(window->writer, tags + first * STREAM_TAG_BYTES, window->hashed,
                              end - first);
}

int window_finish(struct window *window)
{
    int status = plane_finish(window->plane);
    window->finished = status == 0;
    return status;
}

int window_status(struct window *window, int status)
{
    if (!window->attached)
        return status;
    if (status == ERR_CLOSED)
        return plane_reader_gone(window->plane);
    if (status == ERR_INTERRUPTED && sig_pending() == 0) {
        int why = plane_go_on(window->plane);
        return why != 0 ? why : status;
    }
    return status;
}
