/* fuzz_plane.c - any datagrams to either end of the control socket (plane.h), between calls of it.
 *
 * An input: a byte that says which end is under test and how it was set up; then the datagram that
 * greets it; then steps, a byte each and what that takes: a datagram, a call, or the end of the
 * connection. A datagram is raw bytes or a message of which the input chooses the fields.
 *
 * What must hold: the end under test does what a model of the protocol does, which is written here
 * from plane_wire.h's table. After each step plane_go_on() knows as much as the model, so nothing
 * here depends on when the end's thread ran: what was sent is waited for until it has been taken.
 */
#define _GNU_SOURCE /* accept4 */
#include <linux/sockios.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/le.h"
#include "common/plane_wire.h"
#include "fuzz.h"

enum { BUFFERS = 3, CAPACITY = 5, OWN_DEVICE = 1 };

struct input {
    const uint8_t *at;
    size_t left;
};

struct datagram {
    uint8_t bytes[512];
    size_t size;
};

/* What a datagram says by the table; type 0: nothing. */
struct said {
    unsigned type, version;
    uint64_t number;
    uint32_t buffer, rows, served;
};

enum buffer_state { IS_FREE, IS_TAKEN, IS_FULL };

struct session {
    struct input input;
    bool generator; /* is the end under test */
    struct plane_setup setup;
    struct plane *plane;
    int fd; /* the other end, which is the fuzzer's */
    _Atomic int losses;
    /* the model */
    bool left, lost, closed;
    struct {
        enum buffer_state state;
        uint64_t number;
    } buffers[BUFFERS];
    uint64_t passes, handed_out; /* passes: the number of the next one */
    struct plane_pass queue[BUFFERS];
};

static int listener = -1; /* where a trainer under test attaches */
static char listener_name[BEGIN_SOCKET_BYTES];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    fuzz_start(argc, argv);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = sizeof address;
    listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    /* An address without a name: the system gives it an abstract one. */
    require(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0);
    require(listen(listener, 1) == 0);
    require(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    memcpy(listener_name, address.sun_path + 1, size - sizeof(sa_family_t) - 1);
    return 0;
}

/* ---- the input */

static uint8_t take_byte(struct input *input)
{
    if (input->left == 0)
        return 0;
    input->left--;
    return *input->at++;
}

static void make_message(struct datagram *datagram, struct session *session, bool exact)
{
    struct input *input = &session->input;
    uint8_t *to = datagram->bytes;
    memcpy(to, "CCPL", 4);
    le_put16(to + 4, exact ? PLANE_WIRE_VERSION : take_byte(input));
    uint8_t type = take_byte(input);
    le_put16(to + 6, type);
    if (type == PLANE_HELLO) {
        le_put32(to + 8, take_byte(input));
        le_put32(to + 12, PLANE_ONE_DEVICE + take_byte(input) - 128u);
        le_put32(to + 16, take_byte(input));
        memset(to + 20, take_byte(input), PLANE_UUID_BYTES);
    } else {
        le_put64(to + 8, session->passes + take_byte(input) - 128u);
        le_put32(to + 16, take_byte(input));
        le_put32(to + 20, take_byte(input));
        le_put32(to + 24, take_byte(input));
    }
    datagram->size = exact ? PLANE_WIRE_BYTES : PLANE_WIRE_BYTES + take_byte(input) % 3 - 1u;
}

static void make_datagram(struct datagram *datagram, struct session *session)
{
    struct input *input = &session->input;
    memset(datagram, 0, sizeof *datagram);
    uint8_t form = take_byte(input);
    if (form % 4 != 0) {
        make_message(datagram, session, form % 4 != 3);
        return;
    }
    size_t size = 2u * take_byte(input), given = size < input->left ? size : input->left;
    memcpy(datagram->bytes, input->at, given);
    input->at += given;
    input->left -= given;
    datagram->size = size;
}

static struct said read_datagram(const struct datagram *datagram)
{
    const uint8_t *from = datagram->bytes;
    struct said said = {0};
    if (datagram->size != 256 || memcmp(from, "CCPL", 4) != 0)
        return said;
    said.version = le_get16(from + 4);
    said.type = le_get16(from + 6);
    if (said.type > 7 || (said.version != 1 && said.type != PLANE_HELLO))
        said.type = 0;
    said.number = le_get64(from + 8);
    said.buffer = le_get32(from + 16);
    said.rows = le_get32(from + 20);
    said.served = le_get32(from + 24);
    return said;
}

/* ---- greeting */

/* What the generator is to answer the one who greets it with that. */
static unsigned answer_to(const struct session *session, const struct datagram *datagram)
{
    const struct plane_setup *own = &session->setup;
    const uint8_t *from = datagram->bytes;
    struct said said = read_datagram(datagram);
    if (said.type != PLANE_HELLO)
        return 0;
    if (said.version != 1 || le_get32(from + 8) != (uint32_t)own->kind)
        return PLANE_REFUSE;
    bool same = memcmp(from + 20, own->uuid, sizeof own->uuid) == 0;
    if (own->kind == BEGIN_CUDA_IPC)
        return same ? PLANE_ACCEPT : PLANE_REFUSE;
    bool shared = own->nccl_one_device && own->nccl_version >= 23000 && le_get32(from + 16) != 0 &&
                  le_get32(from + 12) >= 23000;
    return !same || shared ? PLANE_ACCEPT : PLANE_REFUSE;
}

struct greeting {
    struct session *session;
    struct datagram datagram;
    char name[BEGIN_SOCKET_BYTES];
    int pipe[2]; /* its reader goes where the generator sends the fuzzer away */
};

static void *greet_generator(void *argument)
{
    struct greeting *greeting = argument;
    struct session *session = greeting->session;
    struct sockaddr_un address;
    socklen_t length = plane_wire_address(&address, greeting->name);
    struct datagram *sent = &greeting->datagram, answer = {0};
    require(connect(session->fd, (struct sockaddr *)&address, length) == 0);
    require(send(session->fd, sent->bytes, sent->size, 0) == (ssize_t)sent->size);
    ssize_t got = recv(session->fd, answer.bytes, sizeof answer.bytes, 0);
    answer.size = got > 0 ? (size_t)got : 0;
    unsigned want = answer_to(session, sent);
    require(read_datagram(&answer).type == want);
    if (want == 0)
        close(greeting->pipe[0]);
    return NULL;
}

/* True where the session goes on. */
static bool open_generator(struct session *session)
{
    struct greeting greeting = {.session = session};
    pthread_t thread;
    make_datagram(&greeting.datagram, session);
    unsigned want = answer_to(session, &greeting.datagram);
    session->fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    require(session->fd >= 0 && pipe(greeting.pipe) == 0);
    require(plane_listen(&session->plane, &session->setup, greeting.name) == 0);
    require(pthread_create(&thread, NULL, greet_generator, &greeting) == 0);
    int status = plane_accept(session->plane, greeting.pipe[1]);
    require(status == (want == PLANE_ACCEPT ? 0 : want == PLANE_REFUSE ? ERR_USAGE : ERR_CLOSED));
    pthread_join(thread, NULL);
    close(greeting.pipe[1]);
    if (want != 0)
        close(greeting.pipe[0]);
    return status == 0;
}

static void *greet_trainer(void *argument)
{
    struct greeting *greeting = argument;
    struct session *session = greeting->session;
    struct datagram hello = {.size = PLANE_WIRE_BYTES};
    session->fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    require(session->fd >= 0);
    require(recv(session->fd, hello.bytes, sizeof hello.bytes, 0) == PLANE_WIRE_BYTES);
    require(answer_to(session, &hello) != 0 && read_datagram(&hello).version == 1);
    require(send(session->fd, greeting->datagram.bytes, greeting->datagram.size, 0) >= 0);
    return NULL;
}

static bool open_trainer(struct session *session)
{
    struct begin_attach attach = {.buffers = BUFFERS, .capacity = CAPACITY};
    struct greeting greeting = {.session = session};
    pthread_t thread;
    make_datagram(&greeting.datagram, session);
    unsigned type = read_datagram(&greeting.datagram).type;
    memcpy(attach.socket, listener_name, sizeof attach.socket);
    require(pthread_create(&thread, NULL, greet_trainer, &greeting) == 0);
    int status = plane_attach(&session->plane, &session->setup, &attach);
    require(status == (type == PLANE_ACCEPT ? 0 : type == PLANE_REFUSE ? ERR_USAGE : ERR_PEER));
    pthread_join(thread, NULL);
    return status == 0;
}

/* ---- datagrams */

static bool full_with(const struct session *session, uint64_t number, uint32_t *buffer)
{
    for (*buffer = 0; *buffer < BUFFERS; ++*buffer)
        if (session->buffers[*buffer].state == IS_FULL &&
            session->buffers[*buffer].number == number)
            return true;
    return false;
}

/* Whether it is one that the other side may send now; the model has then taken it. */
static bool model_takes(struct session *session, const struct said *said)
{
    uint32_t buffer = said->buffer;
    switch (said->type) {
    case PLANE_PASS:
        if (session->generator || said->number != session->passes || buffer >= BUFFERS ||
            session->buffers[buffer].state != IS_FREE || said->rows > CAPACITY ||
            said->served > said->rows)
            return false;
        session->buffers[buffer].state = IS_FULL;
        session->buffers[buffer].number = said->number;
        session->queue[session->passes++ % BUFFERS] =
            (struct plane_pass){said->number, buffer, said->rows, said->served};
        return true;
    case PLANE_FREE:
        if (!session->generator || !full_with(session, said->number, &buffer))
            return false;
        session->buffers[buffer].state = IS_FREE;
        return true;
    case PLANE_BYE:
        session->left = true;
        return true;
    default:
        return said->type == PLANE_BEAT;
    }
}

/* Until the end under test has taken all; it then knows what the model knows. */
static void settle(struct session *session)
{
    int want = session->lost ? ERR_PEER : session->left ? ERR_CLOSED : 0, unread = 1;
    while (!session->closed && ioctl(session->fd, SIOCOUTQ, &unread) == 0 && unread > 0)
        sched_yield();
    /* The end of a connection is not to be seen from here. */
    while (session->closed && session->lost && plane_go_on(session->plane) == 0)
        sched_yield();
    require(plane_go_on(session->plane) == want);
}

static void step_send(struct session *session)
{
    struct datagram datagram;
    make_datagram(&datagram, session);
    struct said said = read_datagram(&datagram);
    if (session->closed || session->lost)
        return;
    require(send(session->fd, datagram.bytes, datagram.size, 0) == (ssize_t)datagram.size);
    if (datagram.size == 0) { /* reads as the end of the connection */
        session->closed = true;
        session->lost = !session->left;
    } else {
        session->lost = !model_takes(session, &said);
    }
    settle(session);
}

static void step_close(struct session *session)
{
    if (session->closed || session->lost)
        return;
    require(shutdown(session->fd, SHUT_WR) == 0);
    session->closed = true;
    session->lost = !session->left;
    settle(session);
}

/* ---- calls */

/* What comes of a call that would otherwise do: 0, or why it does not. */
static int model_status(const struct session *session)
{
    return session->lost ? ERR_PEER : session->left ? ERR_CLOSED : 0;
}

static void step_take(struct session *session)
{
    uint32_t buffer, free = 0;
    for (buffer = 0; buffer < BUFFERS; buffer++)
        free += session->buffers[buffer].state == IS_FREE;
    if (free == 0 && model_status(session) == 0)
        return; /* it would wait */
    int status = plane_take(session->plane, &buffer);
    require(status == model_status(session));
    if (status != 0)
        return;
    require(buffer < BUFFERS && session->buffers[buffer].state == IS_FREE);
    session->buffers[buffer].state = IS_TAKEN;
}

static void step_announce(struct session *session)
{
    uint32_t buffer = take_byte(&session->input) % BUFFERS;
    uint32_t rows = take_byte(&session->input) % (CAPACITY + 1);
    struct datagram pass = {0};
    if (session->buffers[buffer].state != IS_TAKEN)
        return;
    require(plane_announce(session->plane, buffer, rows, rows / 2) == model_status(session));
    session->buffers[buffer].state = IS_FULL;
    session->buffers[buffer].number = session->passes++;
    do
        require(recv(session->fd, pass.bytes, sizeof pass.bytes, 0) == PLANE_WIRE_BYTES);
    while (le_get16(pass.bytes + 6) == PLANE_BEAT);
    pass.size = PLANE_WIRE_BYTES;
    struct said said = read_datagram(&pass);
    require(said.type == PLANE_PASS && said.number == session->passes - 1);
    require(said.buffer == buffer && said.rows == rows && said.served == rows / 2);
}

static void step_next_pass(struct session *session)
{
    struct plane_pass pass, want = session->queue[session->handed_out % BUFFERS];
    bool there = session->handed_out < session->passes;
    if (!there && model_status(session) == 0)
        return; /* it would wait */
    int status = plane_next_pass(session->plane, &pass);
    require(status == (session->lost ? ERR_PEER : there));
    if (status != 1)
        return;
    require(pass.number == want.number && pass.buffer == want.buffer);
    require(pass.rows == want.rows && pass.served == want.served);
    session->handed_out++;
}

static void step_free_pass(struct session *session)
{
    uint32_t buffer = take_byte(&session->input) % BUFFERS;
    uint64_t number = session->buffers[buffer].number;
    if (session->buffers[buffer].state != IS_FULL || number >= session->handed_out)
        return;
    require(plane_free_pass(session->plane, number) == 0);
    session->buffers[buffer].state = IS_FREE;
}

static void run_steps(struct session *session)
{
    while (session->input.left > 0)
        switch (take_byte(&session->input) % 4) {
        case 0:
            step_send(session);
            break;
        case 1:
            session->generator ? step_take(session) : step_next_pass(session);
            break;
        case 2:
            session->generator ? step_announce(session) : step_free_pass(session);
            break;
        default:
            step_close(session);
        }
    step_close(session); /* so that a wait for the other side ends */
    if (session->generator)
        require(plane_finish(session->plane) == (session->lost ? ERR_PEER : 0));
}

static void session_lost(void *context)
{
    struct session *session = context;
    session->losses++;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct session session = {.input = {bytes, size}, .fd = -1};
    uint8_t flags = take_byte(&session.input);
    session.generator = (flags & 1) != 0;
    session.setup = (struct plane_setup){.kind = (flags & 2) != 0 ? BEGIN_NCCL : BEGIN_CUDA_IPC,
                                         .nccl_version = PLANE_ONE_DEVICE - ((flags & 4) != 0),
                                         .nccl_one_device = (flags & 8) != 0,
                                         .buffers = BUFFERS,
                                         .capacity = CAPACITY,
                                         .lost = session_lost,
                                         .context = &session};
    memset(session.setup.uuid, OWN_DEVICE, sizeof session.setup.uuid);
    bool open = session.generator ? open_generator(&session) : open_trainer(&session);
    if (open)
        run_steps(&session);
    plane_free(session.plane);
    require(session.losses == session.lost);
    close(session.fd);
    return 0;
}
