/* link.h - NCCL, loaded when it is first asked for.
 *
 * As cuBLASLt, and more so: only runs whose stages are on two devices want it, and it may be
 * missing both where this is built (then links are refused) and where it runs.
 */
#ifndef CCPIPE_KERNELS_CUDA_LINK_H
#define CCPIPE_KERNELS_CUDA_LINK_H

#include "kernels/kernels.h"

#if __has_include(<nccl.h>)
#define LINK_HAS_NCCL

#include <nccl.h>

/* X(name): ncclNAME is called. */
#define NCCL_CALLS(X)     \
    X(GetVersion)         \
    X(GetUniqueId)        \
    X(GetErrorString)     \
    X(CommInitRankConfig) \
    X(CommGetAsyncError)  \
    X(CommFinalize)       \
    X(CommDestroy)        \
    X(CommAbort)          \
    X(Send)               \
    X(Recv)

struct nccl {
#define NCCL_MEMBER(name) decltype(&nccl##name) name;
    NCCL_CALLS(NCCL_MEMBER)
#undef NCCL_MEMBER
};

#endif

int cuda_link_version(struct kernels_device *device, uint32_t *version, bool *one_device);
int cuda_link_id(struct kernels_device *device, uint8_t id[128]);
int cuda_link_open(struct kernels_device *device, struct kernels_link **link, const uint8_t id[128],
                   unsigned rank, int (*go_on)(void *context), void *context);
void cuda_link_send(struct kernels_queue *queue, struct kernels_link *link, const void *d_from,
                    size_t bytes);
void cuda_link_receive(struct kernels_queue *queue, struct kernels_link *link, void *d_to,
                       size_t bytes);
int cuda_link_poll(struct kernels_link *link);
void cuda_link_close(struct kernels_link *link, bool lost);

#endif
