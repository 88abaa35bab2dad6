/* plane.c - both ends of the control socket.
 *
 * The thread alone receives. It keeps what it learns in `plane` under `mutex` and then adds to
 * `news`, an eventfd; whoever waits looks at the state, then polls `news` together with the
 * signals' descriptor, so that a signal ends each wait at once. One thread of a side waits (the
 * generator's main thread, the trainer's filler); others may call plane_go_on(), which never waits.
 * Sends come from several threads: a message is one datagram, which the kernel does not mix with
 * another.
 *
 * A buffer's life, as the generator sees it: FREE -> TAKEN (plane_take) -> FULL (plane_announce, a
 * PASS is sent) -> FREE (a FREE with the pass's number came). Anything else that comes is no
 * partner: it is lost. The trainer holds the generator to the same rule.
 *
 * That a side is lost is found by the thread and said by the call that returns it first, so that a
 * loss that matters to nobody (all rows have come, say) is not reported.
 */
#define _GNU_SOURCE /* accept4 */
#include "plane.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "io.h"
#include "log.h"
#include "mem.h"
#include "plane_wire.h"
#include "sig.h"

enum { PLANE_BACKLOG = 4, PLANE_HELLO_WAIT = 5 };

enum plane_buffer_state { BUFFER_FREE, BUFFER_TAKEN, BUFFER_FULL };

struct plane_buffer {
    enum plane_buffer_state state;
    uint64_t number; /* of the pass, where FULL */
};

struct plane {
    struct plane_setup setup;
    bool generator;
    const char *peer; /* "the trainer" */
    int listener, fd, news;

    pthread_t thread;
    bool running;
    _Atomic bool stop, interrupted;
    int wake; /* eventfd that ends the thread's poll */

    pthread_mutex_t mutex; /* guards what follows */
    struct plane_buffer *buffers;
    uint64_t passes;          /* announced: the number of the next one */
    struct plane_pass *queue; /* trainer: passes that have come, number % buffers */
    uint64_t handed_out;      /* trainer: passes that plane_next_pass() has given */
    bool left;                /* the other side has said BYE */
    const char *lost;         /* why it is lost, or NULL */
    bool told;                /* that has been logged */
};

/* ---- wake-ups: counted, so that a process that was stopped has missed one and not many */

struct plane_clock {
    int64_t period, next;
    unsigned count;
};

static struct plane_clock clock_start(const struct plane *plane)
{
    int64_t period = 1000000 * (int64_t)plane->setup.period_ms;
    return (struct plane_clock){period, io_clock_ns() + period, 0};
}

/* Polls until something is there, a signal or the next wake-up; true where it is one. */
static bool clock_poll(struct plane_clock *clock, struct pollfd *fds, nfds_t count)
{
    int64_t left = clock->next - io_clock_ns();
    poll(fds, count, left > 0 ? (int)((left + 999999) / 1000000) : 0);
    int64_t now = io_clock_ns();
    if (now < clock->next)
        return false;
    clock->next = now + clock->period;
    clock->count++;
    return true;
}

/* ---- what comes */

static void plane_tell(const struct plane *plane)
{
    uint64_t one = 1;
    ssize_t put = write(plane->news, &one, sizeof one);
    (void)put; /* a counter that is full is readable as well */
}

static const char *plane_take_pass(struct plane *plane, const struct plane_pass *pass)
{
    if (plane->generator || pass->number != plane->passes || pass->buffer >= plane->setup.buffers ||
        pass->rows > plane->setup.capacity || pass->served > pass->rows ||
        plane->buffers[pass->buffer].state != BUFFER_FREE)
        return "announced a pass that cannot be";
    plane->buffers[pass->buffer] = (struct plane_buffer){BUFFER_FULL, pass->number};
    plane->queue[pass->number % plane->setup.buffers] = *pass;
    plane->passes++;
    return NULL;
}

/* The buffer that holds a pass, or NULL. */
static struct plane_buffer *plane_find(struct plane *plane, uint64_t number)
{
    for (uint32_t i = 0; i < plane->setup.buffers; i++)
        if (plane->buffers[i].state == BUFFER_FULL && plane->buffers[i].number == number)
            return &plane->buffers[i];
    return NULL;
}

static const char *plane_take_free(struct plane *plane, uint64_t number)
{
    struct plane_buffer *buffer = plane->generator ? plane_find(plane, number) : NULL;
    if (buffer == NULL)
        return "gave a pass back that it does not have";
    buffer->state = BUFFER_FREE;
    return NULL;
}

/* One message; why the other side is lost, or NULL. */
static const char *plane_handle(struct plane *plane, const struct plane_wire *message)
{
    switch (message->type) {
    case PLANE_PASS:
        return plane_take_pass(plane, &message->pass);
    case PLANE_FREE:
        return plane_take_free(plane, message->pass.number);
    case PLANE_BYE:
        plane->left = true;
        return NULL;
    case PLANE_BEAT:
        return NULL;
    default:
        return "sent what it should not";
    }
}

/* All that has come. False at the end of the connection, or where the other side is lost. */
static bool plane_receive(struct plane *plane, unsigned *silent)
{
    struct plane_wire message;
    int status = 0;
    pthread_mutex_lock(&plane->mutex);
    while (plane->lost == NULL && (status = plane_wire_receive(&message, plane->fd)) != 0) {
        *silent = 0;
        if (status == ERR_CLOSED) {
            if (!plane->left)
                plane->lost = "closed the connection without a word";
            break;
        }
        plane->lost =
            status == ERR_DATA ? "sent what is no message" : plane_handle(plane, &message);
    }
    bool go_on = plane->lost == NULL && status != ERR_CLOSED;
    pthread_mutex_unlock(&plane->mutex);
    plane_tell(plane);
    return go_on;
}

static void plane_lose(struct plane *plane, const char *why)
{
    pthread_mutex_lock(&plane->mutex);
    if (!plane->left)
        plane->lost = why;
    pthread_mutex_unlock(&plane->mutex);
    plane_tell(plane);
}

static void *plane_run(void *argument)
{
    struct plane *plane = argument;
    struct plane_clock clock = clock_start(plane);
    unsigned silent = 0;
    const struct plane_wire beat = {.type = PLANE_BEAT};
    while (!plane->stop) {
        struct pollfd fds[2] = {{plane->fd, POLLIN, 0}, {plane->wake, POLLIN, 0}};
        bool tick = clock_poll(&clock, fds, 2);
        if (fds[0].revents != 0 && !plane_receive(plane, &silent))
            break;
        if (!tick)
            continue;
        int sent = plane_wire_send(plane->fd, &beat);
        (void)sent; /* no room: it does not read, and hears us once it does; closed: see above */
        if (++silent >= PLANE_SILENCE) {
            plane_lose(plane, "has not been heard of for too long");
            break;
        }
    }
    if (plane->lost != NULL && plane->setup.lost != NULL)
        plane->setup.lost(plane->setup.context);
    return NULL;
}

/* ---- waiting */

/* Under mutex. 0, or why not to go on. */
static int plane_look(struct plane *plane)
{
    if (sig_pending() != 0 || plane->interrupted)
        return ERR_INTERRUPTED;
    if (plane->lost != NULL) {
        int status = plane->told
                         ? ERR_PEER
                         : log_fail(ERR_PEER, "%s is lost: it %s", plane->peer, plane->lost);
        plane->told = true;
        return status;
    }
    return 0;
}

/* What is waited for: 1, it is so; 0, not yet; or a code. Under mutex. */
typedef int plane_condition(struct plane *plane, void *context);

static int plane_wait(struct plane *plane, plane_condition *condition, void *context)
{
    for (;;) {
        uint64_t count;
        ssize_t got = read(plane->news, &count, sizeof count); /* before the look at the state */
        (void)got;
        pthread_mutex_lock(&plane->mutex);
        int status = plane_look(plane);
        if (status == 0)
            status = condition(plane, context);
        pthread_mutex_unlock(&plane->mutex);
        if (status != 0)
            return status;
        struct pollfd fds[2] = {{plane->news, POLLIN, 0}, {sig_fd(), POLLIN, 0}};
        poll(fds, 2, (int)plane->setup.period_ms);
    }
}

int plane_go_on(void *argument)
{
    struct plane *plane = argument;
    pthread_mutex_lock(&plane->mutex);
    int status = plane_look(plane);
    if (status == 0 && plane->left)
        status = ERR_CLOSED;
    pthread_mutex_unlock(&plane->mutex);
    return status;
}

/* Sends, and waits for room where there is none. A connection that is closed is the thread's to
 * find out. */
static int plane_send(struct plane *plane, const struct plane_wire *message)
{
    int status;
    while ((status = plane_wire_send(plane->fd, message)) == 0) {
        if ((status = plane_go_on(plane)) != 0)
            return status;
        struct pollfd fds[2] = {{plane->fd, POLLOUT, 0}, {sig_fd(), POLLIN, 0}};
        poll(fds, 2, (int)plane->setup.period_ms);
    }
    return 0;
}

/* ---- set-up */

static int plane_create(struct plane **result, const struct plane_setup *setup, bool generator)
{
    assert(setup->kind != BEGIN_INLINE && setup->buffers >= 2 && setup->capacity >= 1);
    *result = NULL;
    struct plane *plane = mem_alloc_zero(1, sizeof *plane);
    if (plane == NULL)
        return mem_fail("a data plane", 1, sizeof *plane);
    plane->setup = *setup;
    if (setup->period_ms == 0)
        plane->setup.period_ms = 1000;
    plane->generator = generator;
    plane->peer = generator ? "the trainer" : "the generator";
    plane->listener = plane->fd = -1;
    plane->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    plane->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&plane->mutex, NULL);
    plane->buffers = mem_alloc_zero(setup->buffers, sizeof *plane->buffers);
    plane->queue = mem_alloc_zero(setup->buffers, sizeof *plane->queue);
    int status = 0;
    if (plane->news < 0 || plane->wake < 0)
        status = log_fail_errno("cannot make an eventfd");
    else if (plane->buffers == NULL || plane->queue == NULL)
        status = mem_fail("pass buffers", setup->buffers, sizeof *plane->queue);
    if (status != 0)
        plane_free(plane);
    else
        *result = plane;
    return status;
}

void plane_free(struct plane *plane)
{
    if (plane == NULL)
        return;
    plane->stop = true;
    uint64_t one = 1;
    bool woken = write(plane->wake, &one, sizeof one) == sizeof one;
    assert(woken);
    (void)woken;
    if (plane->running)
        pthread_join(plane->thread, NULL);
    int fds[] = {plane->fd, plane->listener, plane->news, plane->wake};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&plane->mutex);
    free(plane->buffers);
    free(plane->queue);
    free(plane);
}

static int plane_start(struct plane *plane)
{
    int status = sig_thread_create(&plane->thread, plane_run, plane);
    plane->running = status == 0;
    return status;
}

static int plane_socket(int *fd)
{
    *fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return *fd >= 0 ? 0 : log_fail_errno("cannot make a socket");
}

/* Waits for a first message: 1; 0 where none came in `wakeups`; or a code. */
static int plane_receive_first(struct plane_wire *message, int fd, struct plane_clock *clock,
                               unsigned wakeups)
{
    unsigned until = clock->count + wakeups;
    for (;;) {
        int status = plane_wire_receive(message, fd);
        if (status != 0 || clock->count >= until)
            return status;
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
        struct pollfd fds[2] = {{fd, POLLIN, 0}, {sig_fd(), POLLIN, 0}};
        clock_poll(clock, fds, 2);
    }
}

/* ---- the generator */

int plane_listen(struct plane **result, const struct plane_setup *setup,
                 char name[BEGIN_SOCKET_BYTES])
{
    uint8_t random[16];
    struct plane *plane;
    int status = plane_create(&plane, setup, true);
    if (status != 0)
        return status;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        status = log_fail_errno("cannot get random bytes");
    int at = snprintf(name, BEGIN_SOCKET_BYTES, "ccpipe-");
    for (size_t i = 0; i < sizeof random; i++)
        at += snprintf(name + at, BEGIN_SOCKET_BYTES - (size_t)at, "%02x", random[i]);
    if (status == 0)
        status = plane_socket(&plane->listener);
    struct sockaddr_un address;
    socklen_t size = plane_wire_address(&address, name);
    if (status == 0 && (bind(plane->listener, (struct sockaddr *)&address, size) != 0 ||
                        listen(plane->listener, PLANE_BACKLOG) != 0))
        status = log_fail_errno("cannot listen at the control socket");
    if (status != 0)
        plane_free(plane);
    else
        *result = plane;
    return status;
}

/* NULL, or why the trainer that says HELLO cannot be served. */
static const char *plane_object(const struct plane *plane, const struct plane_wire *hello)
{
    const struct plane_setup *own = &plane->setup;
    bool same = memcmp(hello->uuid, own->uuid, sizeof own->uuid) == 0;
    bool shared = own->nccl_one_device && hello->nccl_one_device != 0 &&
                  own->nccl_version >= PLANE_ONE_DEVICE && hello->nccl_version >= PLANE_ONE_DEVICE;
    if (hello->version != PLANE_WIRE_VERSION)
        return "actgen and cctrain are of different versions";
    if (hello->kind != own->kind)
        return "the trainer wants another data plane";
    if (own->kind == BEGIN_CUDA_IPC && !same)
        return "with --via cuda-ipc actgen and cctrain work on one device, and these are two; give "
               "both the same --device, or use --via nccl";
    if (own->kind == BEGIN_NCCL && same && !shared)
        return "with --via nccl actgen and cctrain work on two devices, and this is one; use --via "
               "cuda-ipc, or NCCL 2.30 with NCCL_MULTI_RANK_GPU_ENABLE=1 for both";
    return NULL;
}

/* Answers the one who has connected: 1, that is the trainer; 0, it is not; or a code. */
static int plane_welcome(struct plane *plane, int fd, struct plane_clock *clock)
{
    struct plane_wire hello, answer = {.type = PLANE_ACCEPT};
    int status =
        plane_wire_is_own(fd) ? plane_receive_first(&hello, fd, clock, PLANE_HELLO_WAIT) : 0;
    if (status == ERR_INTERRUPTED)
        return status;
    if (status != 1 || hello.type != PLANE_HELLO)
        return 0;
    const char *why = plane_object(plane, &hello);
    if (why != NULL) {
        answer.type = PLANE_REFUSE;
        snprintf(answer.text, sizeof answer.text, "%s", why);
    }
    int sent = plane_wire_send(fd, &answer);
    if (why != NULL)
        return log_fail(ERR_USAGE, "%s", why);
    return sent == 1;
}

int plane_accept(struct plane *plane, int output)
{
    struct plane_clock clock = clock_start(plane);
    while (clock.count < PLANE_ATTACH_WAIT) {
        struct pollfd fds[3] = {
            {plane->listener, POLLIN, 0}, {sig_fd(), POLLIN, 0}, {output, 0, 0}};
        clock_poll(&clock, fds, 3);
        if (sig_pending() != 0)
            return ERR_INTERRUPTED;
        if (fds[2].revents != 0) /* POLLERR, POLLHUP: nothing else was asked for */
            return ERR_CLOSED;
        int fd = accept4(plane->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            continue;
        int status = plane_welcome(plane, fd, &clock);
        if (status == 1) {
            plane->fd = fd;
            return plane_start(plane);
        }
        close(fd);
        if (status < 0)
            return status;
    }
    return log_fail(ERR_PEER, "no cctrain has attached to the data plane");
}

static int plane_has_free(struct plane *plane, void *context)
{
    uint32_t *found = context;
    for (uint32_t i = 0; i < plane->setup.buffers && !plane->left; i++)
        if (plane->buffers[i].state == BUFFER_FREE) {
            plane->buffers[i].state = BUFFER_TAKEN;
            *found = i;
            return 1;
        }
    return plane->left ? ERR_CLOSED : 0;
}

int plane_take(struct plane *plane, uint32_t *buffer)
{
    int status = plane_wait(plane, plane_has_free, buffer);
    return status == 1 ? 0 : status;
}

int plane_announce(struct plane *plane, uint32_t buffer, uint32_t rows, uint32_t served)
{
    pthread_mutex_lock(&plane->mutex);
    assert(plane->buffers[buffer].state == BUFFER_TAKEN && rows <= plane->setup.capacity);
    struct plane_wire message = {.type = PLANE_PASS,
                                 .pass = {plane->passes++, buffer, rows, served}};
    plane->buffers[buffer] = (struct plane_buffer){BUFFER_FULL, message.pass.number};
    pthread_mutex_unlock(&plane->mutex);
    int status = plane_send(plane, &message);
    return status != 0 ? status : plane_go_on(plane);
}

static int plane_is_empty(struct plane *plane, void *context)
{
    (void)context;
    for (uint32_t i = 0; i < plane->setup.buffers && !plane->left; i++)
        if (plane->buffers[i].state == BUFFER_FULL)
            return 0;
    return 1;
}

static int plane_has_left(struct plane *plane, void *context)
{
    (void)context;
    return plane->left ? ERR_CLOSED : 0;
}

int plane_finish(struct plane *plane)
{
    int status = plane_wait(plane, plane_is_empty, NULL);
    if (status != 1)
        return status;
    plane_bye(plane);
    status = plane_wait(plane, plane_has_left, NULL);
    return status == ERR_CLOSED ? 0 : status;
}

int plane_reader_gone(struct plane *plane)
{
    return plane->running ? plane_wait(plane, plane_has_left, NULL) : ERR_CLOSED;
}

/* ---- the trainer */

static int plane_connect(struct plane *plane, const char *name)
{
    struct sockaddr_un address;
    socklen_t size = plane_wire_address(&address, name);
    int status = plane_socket(&plane->fd);
    if (status != 0)
        return status;
    if (connect(plane->fd, (struct sockaddr *)&address, size) != 0)
        return log_fail(ERR_PEER, "cannot reach the generator of the rows: %s", strerror(errno));
    if (!plane_wire_is_own(plane->fd))
        return log_fail(ERR_USAGE, "the generator of the rows is another user's");
    return 0;
}

static int plane_greet(struct plane *plane)
{
    struct plane_wire message = {.type = PLANE_HELLO,
                                 .kind = plane->setup.kind,
                                 .nccl_version = plane->setup.nccl_version,
                                 .nccl_one_device = plane->setup.nccl_one_device};
    memcpy(message.uuid, plane->setup.uuid, sizeof message.uuid);
    struct plane_clock clock = clock_start(plane);
    int status = plane_wire_send(plane->fd, &message);
    if (status == 1)
        status = plane_receive_first(&message, plane->fd, &clock, PLANE_ATTACH_WAIT);
    if (status == ERR_INTERRUPTED)
        return status;
    if (status == 1 && message.type == PLANE_REFUSE)
        return log_fail(ERR_USAGE, "the generator refuses: %s", message.text);
    if (status != 1 || message.type != PLANE_ACCEPT)
        return log_fail(ERR_PEER, "the generator of the rows does not answer");
    return 0;
}

int plane_attach(struct plane **result, const struct plane_setup *setup,
                 const struct begin_attach *attach)
{
    struct plane *plane;
    int status = plane_create(&plane, setup, false);
    if (status != 0)
        return status;
    status = plane_connect(plane, attach->socket);
    if (status == 0)
        status = plane_greet(plane);
    if (status == 0)
        status = plane_start(plane);
    *result = status == 0 ? plane : NULL;
    if (status != 0)
        plane_free(plane);
    return status;
}

static int plane_has_pass(struct plane *plane, void *context)
{
    struct plane_pass *pass = context;
    if (plane->handed_out == plane->passes)
        return plane->left ? ERR_CLOSED : 0;
    *pass = plane->queue[plane->handed_out++ % plane->setup.buffers];
    return 1;
}

int plane_next_pass(struct plane *plane, struct plane_pass *pass)
{
    int status = plane_wait(plane, plane_has_pass, pass);
    return status == ERR_CLOSED ? 0 : status;
}

int plane_free_pass(struct plane *plane, uint64_t number)
{
    pthread_mutex_lock(&plane->mutex);
    struct plane_buffer *buffer = plane_find(plane, number);
    assert(buffer != NULL && number < plane->handed_out);
    buffer->state = BUFFER_FREE;
    pthread_mutex_unlock(&plane->mutex);
    const struct plane_wire message = {.type = PLANE_FREE, .pass.number = number};
    return plane_send(plane, &message);
}

void plane_interrupt(struct plane *plane)
{
    plane->interrupted = true;
    plane_tell(plane);
}

/* A word that finds no room was not listened for. */
void plane_bye(struct plane *plane)
{
    const struct plane_wire message = {.type = PLANE_BYE};
    int sent = plane_wire_send(plane->fd, &message);
    (void)sent;
}
