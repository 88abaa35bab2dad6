/* window.c - shares the engine's buffers, and says in DATA what lies in them.
 *
 * A pass is announced before its DATA is written: the trainer that reads DATA may then move rows at
 * once, and a pipe that is full is not what the window waits for. The rows of a pass are flushed,
 * as the trainer gives a buffer back only when it has read of all its rows.
 *
 * A trainer that dies closes the pipe; one that hangs leaves it full, and the write would wait for
 * ever. So a write of this stream waits for the pipe and for word of a loss.
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
    bool attached;
    int lost[2]; /* a pipe that is readable once the trainer is lost */
};

int window_check_output(const char *output)
{
    struct stat found;
    bool named = output != NULL && strcmp(output, "-") != 0;
    bool there = named ? stat(output, &found) == 0 : fstat(STDOUT_FILENO, &found) == 0;
    if (there ? !S_ISREG(found.st_mode) : !named)
        return 0;
    return log_fail(ERR_USAGE,
                    "--via cuda-ipc leaves the rows on the device, and %s is a file: "
                    "pipe into cctrain, or use --via inline",
                    named ? output : "standard output");
}

int window_check_device(const struct engine *engine)
{
    const struct gemma2_device *on = engine_device(engine);
    if (on->kernels->share != NULL)
        return 0;
    return log_fail(ERR_USAGE,
                    "--via cuda-ipc needs a CUDA device, and this is %s: use --via inline",
                    on->kernels->name);
}

/* By the plane's thread. */
static void trainer_lost(void *context)
{
    const struct window *window = context;
    ssize_t put = write(window->lost[1], "", 1);
    (void)put; /* an empty pipe takes one byte */
}

static int listen_for_trainer(struct window *window, struct begin *begin)
{
    const struct gemma2_device *on = engine_device(window->engine);
    struct begin_attach *attach = &begin->attach;
    struct plane_setup setup = {.kind = BEGIN_CUDA_IPC,
                                .buffers = WINDOW_BUFFERS,
                                .capacity = (uint32_t)engine_capacity(window->engine),
                                .lost = trainer_lost,
                                .context = window};
    on->kernels->identity(on->device, setup.uuid);
    begin->plane = setup.kind;
    attach->buffers = setup.buffers;
    attach->capacity = setup.capacity;
    int status = on->kernels->share(on->device, engine_window(window->engine), attach->key);
    return status != 0 ? status : plane_listen(&window->plane, &setup, attach->socket);
}

int window_open(struct window **opened, struct engine *engine, struct stream_writer *writer,
                struct begin *begin)
{
    size_t capacity = engine_capacity(engine);
    *opened = NULL;
    if (capacity > UINT32_MAX / WINDOW_BUFFERS)
        return log_fail(ERR_USAGE, "%zu rows in a buffer are too many; lower --batch", capacity);
    struct window *window = mem_alloc_zero(1, sizeof *window);
    if (window == NULL)
        return mem_fail("a window", 1, sizeof *window);
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
    return status;
}

int window_take(struct window *window, uint32_t *buffer)
{
    return plane_take(window->plane, buffer);
}

int window_announce(struct window *window, uint32_t buffer, size_t rows, size_t served)
{
    return plane_announce(window->plane, buffer, (uint32_t)rows, (uint32_t)served);
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
    return plane_finish(window->plane);
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
