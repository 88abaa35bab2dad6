/* link.cu - a way from the device of one process to that of another, by NCCL.
 *
 * The communicator is a non-blocking one: NCCL waits for the peer without end, and a peer that has
 * been killed never comes. So a call that NCCL goes on with is asked after 20,000 times a second,
 * and go_on() beside it, which knows of signals and of the peer by other means. That holds for a
 * send as well: until NCCL is done with the call nothing lies in the stream, and an event recorded
 * then would be before it. The first one waits for the peer's, and is made when a link is opened.
 * What lies in the stream and waits there for a lost peer ends by an abort.
 *
 * NCCL's monitor of its own (RAS) opens sockets and threads in each process; it is turned off
 * unless somebody has asked for it.
 */
#include "kernels/cuda/link.h"

#include "kernels/cuda/cuda.h"

#ifdef LINK_HAS_NCCL

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    RANKS = 2,
    VERSION_LEAST = 21800,
    POLL_NANOSECONDS = 50000,
    CLOSE_POLLS = 100000,
    WORD_POLLS = 10000
};

struct kernels_link {
    struct kernels_device *device;
    ncclComm_t communicator;
    cudaStream_t stream; /* of the first operation, */
    void *d_mark;        /* and what it moves */
    int peer;            /* its rank */
    int error;           /* the first failure, 0: none */
    int (*go_on)(void *context);
    void *context;
};

/* ---- the library */

#ifdef CCPIPE_EMU

static int load_calls(struct kernels_device *device)
{
#define NCCL_SET(name) device->nccl.name = nccl##name;
    NCCL_CALLS(NCCL_SET)
#undef NCCL_SET
    return 0;
}

#else

/* Sets *call, a pointer to a function. */
static bool find_call(void *loaded, const char *name, void *call)
{
    void *symbol = dlsym(loaded, name);
    memcpy(call, &symbol, sizeof symbol);
    return symbol != NULL;
}

static int load_calls(struct kernels_device *device)
{
    struct nccl nccl;
    void *loaded = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    bool found = loaded != NULL;
#define NCCL_FIND(name) found = found && find_call(loaded, "nccl" #name, &nccl.name);
    NCCL_CALLS(NCCL_FIND)
#undef NCCL_FIND
    if (found) {
        device->nccl = nccl;
        return 0;
    }
    return device_fail(
        device, ERR_USAGE,
        "cannot load NCCL: %s; install libnccl2, or put its folder on LD_LIBRARY_PATH", dlerror());
}

#endif

/* `given` is one of NCCL's failures. */
static int fail(const struct kernels_device *device, ncclResult_t given, const char *what)
{
    int code = given == ncclRemoteError    ? ERR_PEER
               : given == ncclInvalidUsage ? ERR_USAGE
                                           : ERR_DEVICE;
    return device_fail(device, code, "cuda:%d: %s failed: %s", device->index, what,
                       device->nccl.GetErrorString(given));
}

/* Its version, or a code. */
static int load(struct kernels_device *device)
{
    int version = 0;
    bool is_loaded = device->nccl.GetVersion != NULL;
    if (!is_loaded && setenv("NCCL_RAS_ENABLE", "0", 0) != 0)
        return device_fail(device, ERR_MEMORY, "not enough memory to set NCCL_RAS_ENABLE");
    int code = is_loaded ? 0 : load_calls(device);
    if (code < 0)
        return code;
    ncclResult_t result = device->nccl.GetVersion(&version);
    if (result != ncclSuccess)
        return fail(device, result, "ncclGetVersion");
    if (version < VERSION_LEAST)
        return device_fail(device, ERR_USAGE, "NCCL is version %d, at least %d is needed", version,
                           VERSION_LEAST);
    return version;
}

int cuda_link_version(struct kernels_device *device, uint32_t *version, bool *one_device)
{
    const char *named = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    int found = load(device);
    if (found < 0)
        return found;
    *version = (uint32_t)found;
    *one_device = named != NULL && strcmp(named, "1") == 0;
    return 0;
}

int cuda_link_id(struct kernels_device *device, uint8_t id[128])
{
    ncclUniqueId made;
    static_assert(sizeof made == 128, "what the other process is given");
    int code = load(device);
    if (code >= 0)
        code = device_enter(device);
    if (code < 0)
        return code;
    ncclResult_t result = device->nccl.GetUniqueId(&made);
    if (result != ncclSuccess)
        return fail(device, result, "ncclGetUniqueId");
    memcpy(id, &made, sizeof made);
    return 0;
}

/* ---- links */

/* What NCCL says of the link now: of its latest call, or of what lies in streams. */
static ncclResult_t ask(const struct kernels_link *link)
{
    ncclResult_t found = ncclSuccess;
    ncclResult_t answer = link->device->nccl.CommGetAsyncError(link->communicator, &found);
    return answer == ncclSuccess ? found : answer;
}

static void pause_asking(void)
{
    const struct timespec pause = {0, POLL_NANOSECONDS};
    (void)nanosleep(&pause, NULL);
}

/* The first failure. Where the peer's end has gone, go_on() may know why: the peer may have said
 * that it leaves before it closed, and that word be a moment behind. */
static int break_link(struct kernels_link *link, ncclResult_t answer, const char *what)
{
    int code = 0;
    for (unsigned polls = 0; answer == ncclRemoteError && code == 0 && polls < WORD_POLLS;
         polls++) {
        code = link->go_on(link->context);
        if (code == 0)
            pause_asking();
    }
    return link->error = code != 0 ? code : fail(link->device, answer, what);
}

/* What NCCL has begun, and has answered so, is waited for: 0, or the code of its failure or of
 * go_on(), which the link keeps. */
static int settle(struct kernels_link *link, ncclResult_t answer, const char *what)
{
    while (answer == ncclInProgress && (answer = ask(link)) == ncclInProgress) {
        int code = link->go_on(link->context);
        if (code != 0)
            return link->error = code;
        pause_asking();
    }
    return answer == ncclSuccess ? 0 : break_link(link, answer, what);
}

/* Puts a send or a receive into a stream: 0, or the code of the link's failure. */
static int put(struct kernels_link *link, bool sends, void *d_memory, size_t bytes,
               cudaStream_t stream)
{
    const struct nccl *nccl = &link->device->nccl;
    if (link->error != 0)
        return link->error;
    if (sends)
        return settle(
            link, nccl->Send(d_memory, bytes, ncclUint8, link->peer, link->communicator, stream),
            "ncclSend");
    return settle(link,
                  nccl->Recv(d_memory, bytes, ncclUint8, link->peer, link->communicator, stream),
                  "ncclRecv");
}

/* The first operation sets connections up, and NCCL is done with it when the peer has come to its
 * own. Whoever sends before it says so to the peer would wait for ever: so a byte goes over here,
 * where both sides are. What comes later lies in its stream whether the peer has come or not. */
static int connect_peer(struct kernels_link *link, unsigned rank)
{
    int code = device_allocate(link->device, &link->d_mark, 1);
    if (code == 0)
        code = device_check(link->device,
                            cudaStreamCreateWithFlags(&link->stream, cudaStreamNonBlocking),
                            "cudaStreamCreateWithFlags");
    if (code < 0)
        return link->error = code;
    return put(link, rank == 0, link->d_mark, 1, link->stream);
}

int cuda_link_open(struct kernels_device *device, struct kernels_link **opened,
                   const uint8_t id[128], unsigned rank, int (*go_on)(void *context), void *context)
{
    assert(rank < RANKS);
    ncclUniqueId given;
    memcpy(&given, id, sizeof given);
    int code = load(device);
    if (code >= 0)
        code = device_enter(device);
    if (code < 0)
        return code;
    struct kernels_link *link = static_cast<struct kernels_link *>(calloc(1, sizeof *link));
    if (link == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for a link");
    link->device = device;
    link->peer = rank == 0 ? 1 : 0;
    link->go_on = go_on;
    link->context = context;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    code = settle(link,
                  link->device->nccl.CommInitRankConfig(&link->communicator, RANKS, given,
                                                        (int)rank, &config),
                  "ncclCommInitRankConfig");
    if (code == 0)
        code = connect_peer(link, rank);
    if (code != 0) {
        cuda_link_close(link, true);
        return code;
    }
    *opened = link;
    return 0;
}

void cuda_link_send(struct kernels_queue *queue, struct kernels_link *link, const void *d_from,
                    size_t bytes)
{
    if (queue_enter(queue))
        queue->error = put(link, true, const_cast<void *>(d_from), bytes, queue->stream);
}

void cuda_link_receive(struct kernels_queue *queue, struct kernels_link *link, void *d_to,
                       size_t bytes)
{
    if (queue_enter(queue))
        queue->error = put(link, false, d_to, bytes, queue->stream);
}

int cuda_link_poll(struct kernels_link *link)
{
    if (link->error != 0)
        return link->error;
    ncclResult_t answer = ask(link);
    if (answer != ncclSuccess && answer != ncclInProgress)
        return break_link(link, answer, "the link to the other device");
    return 0;
}

/* An end that both sides agree on: true, where the other does so within CLOSE_POLLS. */
static bool finalize(const struct kernels_link *link)
{
    ncclResult_t answer = link->device->nccl.CommFinalize(link->communicator);
    for (unsigned polls = 0; answer == ncclInProgress && polls < CLOSE_POLLS; polls++) {
        answer = ask(link);
        if (answer == ncclInProgress)
            pause_asking();
    }
    return answer == ncclSuccess;
}

void cuda_link_close(struct kernels_link *link, bool lost)
{
    if (link == NULL)
        return;
    if (device_enter(link->device) == 0 && link->communicator != NULL) {
        if (!lost && link->error == 0 && finalize(link))
            (void)link->device->nccl.CommDestroy(link->communicator);
        else
            (void)link->device->nccl.CommAbort(link->communicator);
        if (link->stream != NULL)
            (void)cudaStreamDestroy(link->stream);
        device_release(link->device, link->d_mark);
    }
    free(link);
}

#else

/* Links are refused by the first thing that is asked of them, and so never opened. */
int cuda_link_version(struct kernels_device *device, uint32_t *version, bool *one_device)
{
    (void)version, (void)one_device;
    return device_fail(device, ERR_USAGE, "the CUDA backend was built without NCCL (nccl.h)");
}

int cuda_link_id(struct kernels_device *device, uint8_t id[128])
{
    (void)id;
    return cuda_link_version(device, NULL, NULL);
}

int cuda_link_open(struct kernels_device *device, struct kernels_link **link, const uint8_t id[128],
                   unsigned rank, int (*go_on)(void *context), void *context)
{
    (void)link, (void)id, (void)rank, (void)go_on, (void)context;
    return cuda_link_version(device, NULL, NULL);
}

void cuda_link_send(struct kernels_queue *queue, struct kernels_link *link, const void *d_from,
                    size_t bytes)
{
    (void)link, (void)d_from, (void)bytes;
    queue_fail(queue, ERR_USAGE, "there is no link");
}

void cuda_link_receive(struct kernels_queue *queue, struct kernels_link *link, void *d_to,
                       size_t bytes)
{
    cuda_link_send(queue, link, d_to, bytes);
}

int cuda_link_poll(struct kernels_link *link)
{
    (void)link;
    return ERR_USAGE;
}

void cuda_link_close(struct kernels_link *link, bool lost)
{
    (void)link, (void)lost;
}

#endif
