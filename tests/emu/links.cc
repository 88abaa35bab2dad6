/* links.cc - the calls of NCCL, by their documentation, for two ranks in two processes.
 *
 * The id names a socket on which the process that made it listens; the rank that finds no such
 * socket in its own process connects. Each says which rank and which device it is: two alike are
 * refused, two on one device from version 2.30 on only with NCCL_MULTI_RANK_GPU_ENABLE=1 (EMU_NCCL
 * is the version).
 *
 * A communicator is non-blocking, and what a call begins goes on when its state is asked for: so it
 * is with the set-up, and with each operation, which is not in its stream before (a thread of
 * NCCL puts it there). The first one waits until the peer has come to its first. Whoever does not
 * ask waits in vain; another call meanwhile is wrong usage. A send and a receive are operations
 * of a stream that are done when all bytes have gone or come; a receive of another size than was
 * sent is said on stderr and fails. Where the peer has gone they wait without end, as on the
 * device, the state is a remote error, and an abort lets the stream go on. The end is agreed on by
 * both.
 *
 * The device works also while the host does not wait for it, which the other emulated operations
 * need not know; here the host may wait for what the peer does with the data. So a thread lets the
 * streams advance while there is such an operation in one.
 */
/* First, as CUDA's __noinline__ is not the one that it means. */
#include <map>
#include <memory>
#include <string>

#include <nccl.h>

#include "tests/emu/emu.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef std::lock_guard<emu_mutex> emu_guard;

enum { VERSION = 22809, VERSION_OF_SHARED_DEVICES = 23000, NAME_BYTES = 32 };
static constexpr uint64_t END_MARK = UINT64_MAX; /* in place of a number of bytes */

struct greeting {
    int rank, device;
};

/* One direction: what was put into a stream is done in the order of the calls. */
struct direction {
    uint64_t called, done;
    uint64_t header;
    size_t moved; /* of the header and the bytes of the one whose turn it is */
};

struct emu_link {
    struct greeting own, other;
    int listener, socket;
    bool greeted;               /* it has said who it is */
    bool connecting, connected; /* it has come to its first operation, and said so; both have */
    bool ending, end_sent, end_come, aborted;
    ncclResult_t state;
    struct direction sending, receiving;
    std::function<ncclResult_t()> pending; /* to be put into its stream */
};

struct ncclComm {
    std::shared_ptr<struct emu_link> link; /* operations have it too */
};

static bool works(const struct emu_link *link)
{
    return link->state == ncclSuccess || link->state == ncclInProgress;
}

static std::map<std::string, int> listeners; /* of this process, by the socket's name */

/* ---- bytes */

/* Moves what can be moved of [start, start + bytes), `from` of which are done. False: the peer has
 * gone. */
static bool move_bytes(struct emu_link *link, bool send_them, void *start, size_t bytes,
                       size_t *from)
{
    while (*from < bytes) {
        char *at = static_cast<char *>(start) + *from;
        ssize_t got = send_them ? send(link->socket, at, bytes - *from, MSG_DONTWAIT | MSG_NOSIGNAL)
                                : recv(link->socket, at, bytes - *from, MSG_DONTWAIT);
        if (got > 0)
            *from += (size_t)got;
        else if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        else
            return false;
    }
    return true;
}

/* The header and then the bytes: true when all have been moved. */
static bool move_message(struct emu_link *link, bool send_them, void *start, uint64_t bytes)
{
    struct direction *way = send_them ? &link->sending : &link->receiving;
    size_t head = way->moved < sizeof way->header ? way->moved : sizeof way->header;
    if (send_them)
        way->header = bytes;
    bool there = move_bytes(link, send_them, &way->header, sizeof way->header, &head);
    if (head == sizeof way->header && way->moved <= head && way->header != bytes && there) {
        fprintf(stderr, "emu: %llu bytes are expected of the peer, which sent %lld\n",
                (unsigned long long)bytes, (long long)way->header);
        link->state = ncclInvalidUsage;
    }
    if (there && head == sizeof way->header && works(link) && bytes != END_MARK) {
        size_t body = way->moved > head ? way->moved - head : 0;
        there = move_bytes(link, send_them, start, (size_t)bytes, &body);
        head += body;
    }
    way->moved = head;
    if (!there && works(link))
        link->state = ncclRemoteError;
    if (!works(link) || way->moved < sizeof way->header + (bytes != END_MARK ? (size_t)bytes : 0))
        return false;
    way->moved = 0;
    return true;
}

/* ---- setting up */

static socklen_t address_of(struct sockaddr_un *address, const char *name)
{
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path + 1, sizeof address->sun_path - 1, "%.*s", NAME_BYTES - 1, name);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static int version(void)
{
    const char *named = getenv("EMU_NCCL");
    return named != NULL ? (int)strtol(named, NULL, 10) : VERSION;
}

ncclResult_t ncclGetVersion(int *found)
{
    *found = version();
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    emu_guard guard(emu_lock);
    uint64_t random;
    struct sockaddr_un address;
    memset(id, 0, sizeof *id);
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return ncclSystemError;
    snprintf(id->internal, NAME_BYTES, "emu-nccl-%016llx", (unsigned long long)random);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t length = address_of(&address, id->internal);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
        listen(listener, 1) != 0)
        return ncclSystemError;
    listeners[id->internal] = listener;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInProgress:
        return "NCCL operation in progress";
    default:
        return "unhandled system error";
    }
}

/* The peer has come when both have said who they are. */
static void meet(struct emu_link *link)
{
    if (link->socket < 0) {
        link->socket = accept(link->listener, NULL, NULL);
        if (link->socket < 0)
            return;
        (void)fcntl(link->socket, F_SETFD, FD_CLOEXEC);
    }
    size_t sent = 0, come = 0;
    if (!link->greeted) /* always fits into the socket */
        link->greeted = move_bytes(link, true, &link->own, sizeof link->own, &sent);
    if (!link->greeted || !move_bytes(link, false, &link->other, sizeof link->other, &come)) {
        link->state = ncclRemoteError;
        return;
    }
    if (come == 0)
        return;
    const char *shared = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    bool may_share = version() >= VERSION_OF_SHARED_DEVICES && shared != NULL && *shared == '1';
    bool alike = link->other.rank == link->own.rank ||
                 (link->other.device == link->own.device && !may_share);
    link->state = alike ? ncclInvalidUsage : ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    emu_guard guard(emu_lock);
    if (ranks != 2 || rank < 0 || rank >= ranks || config->blocking != 0 ||
        memchr(id.internal, 0, NAME_BYTES) == NULL)
        return ncclInvalidArgument;
    auto link = std::make_shared<struct emu_link>();
    link->own = {rank, emu_device()};
    link->state = ncclInProgress;
    link->listener = link->socket = -1;
    auto known = listeners.find(id.internal);
    if (known != listeners.end()) {
        link->listener = known->second;
        listeners.erase(known);
    } else {
        struct sockaddr_un address;
        socklen_t length = address_of(&address, id.internal);
        link->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (link->socket < 0 || connect(link->socket, (struct sockaddr *)&address, length) != 0)
            link->state = ncclSystemError;
    }
    *comm = new ncclComm{link};
    return link->state;
}

/* ---- operations */

static void start_device_thread(void);

/* One operation, whose `number` says when it is its turn, into its stream. */
static ncclResult_t put(const std::shared_ptr<struct emu_link> &link, bool send_it, void *start,
                        size_t bytes, cudaStream_t stream)
{
    struct direction *way = send_it ? &link->sending : &link->receiving;
    uint64_t number = way->called++;
    start_device_thread();
    cudaError_t error = emu_enqueue_waiting(stream, [=] {
        if (link->aborted || way->done > number)
            return true;
        if (way->done != number || !move_message(link.get(), send_it, start, bytes))
            return false;
        way->done++;
        return true;
    });
    return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

static ncclResult_t begin(ncclComm_t comm, bool send_it, void *start, size_t bytes, int peer,
                          cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    const std::shared_ptr<struct emu_link> &link = comm->link;
    if (link->state != ncclSuccess || link->ending)
        return link->state == ncclSuccess || link->state == ncclInProgress ? ncclInvalidUsage
                                                                           : link->state;
    if (peer != 1 - link->own.rank || (bytes > 0 && !emu_is_device(start, bytes)))
        return ncclInvalidArgument;
    link->pending = [=] { return put(link, send_it, start, bytes, stream); };
    return link->state = ncclInProgress;
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    (void)type;
    return begin(comm, true, const_cast<void *>(from), count, peer, stream);
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    (void)type;
    return begin(comm, false, to, count, peer, stream);
}

/* ---- states and ends */

/* All operations are done, and both have said that there are no more. */
static bool has_ended(struct emu_link *link)
{
    if (link->sending.done != link->sending.called ||
        link->receiving.done != link->receiving.called)
        return false;
    link->end_sent = link->end_sent || move_message(link, true, NULL, END_MARK);
    if (works(link))
        link->end_come = link->end_come || move_message(link, false, NULL, END_MARK);
    return link->end_sent && link->end_come;
}

/* The first operation sets connections up, for which the peer has to have come to its own. */
static bool is_connected(struct emu_link *link)
{
    char mark = 0;
    size_t sent = 0, come = 0;
    bool there = link->connecting || move_bytes(link, true, &mark, 1, &sent);
    link->connecting = link->connecting || sent == 1;
    if (!link->connected && (!there || !move_bytes(link, false, &mark, 1, &come)))
        link->state = ncclRemoteError;
    link->connected = link->connected || come == 1;
    return link->connected;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    emu_guard guard(emu_lock);
    struct emu_link *link = comm->link.get();
    if (link->state == ncclInProgress) {
        if (link->pending && is_connected(link)) {
            link->state = ncclSuccess;
            std::function<ncclResult_t()> pending = std::move(link->pending);
            link->pending = nullptr;
            link->state = pending();
        } else if (link->pending) {
            ; /* not yet */
        } else if (link->ending) {
            if (has_ended(link))
                link->state = ncclSuccess;
        } else {
            meet(link);
        }
    }
    *error = link->state;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    emu_guard guard(emu_lock);
    if (comm->link->state != ncclSuccess || comm->link->ending)
        return ncclInvalidUsage;
    comm->link->ending = true;
    return comm->link->state = ncclInProgress;
}

static void forget(ncclComm_t comm)
{
    for (int file : {comm->link->listener, comm->link->socket})
        if (file >= 0)
            (void)close(file);
    comm->link->listener = comm->link->socket = -1;
    delete comm;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    emu_guard guard(emu_lock);
    if (!comm->link->end_come)
        return ncclInvalidUsage;
    forget(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    emu_guard guard(emu_lock);
    comm->link->aborted = true;
    forget(comm);
    return ncclSuccess;
}

/* ---- the device goes on by itself */

static pthread_t device_thread;
static bool device_thread_runs, device_thread_ends;

static void *run_device(void *nothing)
{
    for (bool ends = false; !ends;) {
        {
            emu_guard guard(emu_lock);
            emu_advance_links();
            ends = device_thread_ends;
        }
        const struct timespec pause = {0, 200000};
        (void)nanosleep(&pause, NULL);
    }
    return nothing;
}

/* Before what it works on is taken down. */
static void end_device_thread(void)
{
    {
        emu_guard guard(emu_lock);
        device_thread_ends = true;
    }
    (void)pthread_join(device_thread, NULL);
}

/* Signals are for the program's own threads. */
static void start_device_thread(void)
{
    sigset_t all, before;
    if (device_thread_runs)
        return;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    device_thread_runs = pthread_create(&device_thread, NULL, run_device, NULL) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!device_thread_runs || atexit(end_device_thread) != 0)
        abort();
}
