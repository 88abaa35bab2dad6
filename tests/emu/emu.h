/* emu.h - what the files of the emulation share.
 *
 * The emulation lets the sources of kernels/cuda run where there is no GPU, in the hope to find
 * there what would fail on one:
 *
 * - fibers.cc runs a kernel: one fiber per thread, one block after the other. A warp runs as far
 *   ahead of the others as barriers let it, so that a missing one shows as a wrong result. Threads
 *   that wait at different barriers, or for one that has returned, are a fault.
 * - runtime.cc has streams, events, errors. What is launched runs when somebody waits for it, and
 *   streams advance in random order, so that a missing wait for an event shows.
 * - memory.cc has device memory: filled with NaN, between pages that cannot be touched; another
 *   process may map it by its handle.
 *
 * - links.cc has NCCL between two processes.
 *
 * The environment says what there is to emulate: EMU_ORDER=forward|backward|random:SEED of threads
 * and blocks, EMU_DEVICES=N, EMU_MEMORY=BYTES, EMU_DRIVER=VERSION (0: none), EMU_CAPABILITY=80,
 * EMU_NCCL=VERSION, and EMU_FAIL=N: the process's N-th kernel is lost.
 *
 * Calls may come from several threads; one lock guards all. It says nothing of speed, nor of what
 * the hardware does inside of a warp between two collectives.
 */
#ifndef CCPIPE_EMU_H
#define CCPIPE_EMU_H

#include <cuda_runtime.h>

#include <mutex>

/* A lock that may be taken again by its holder, who may let others have it for a millisecond. */
class emu_mutex
{
    std::recursive_mutex mutex;
    unsigned depth = 0;

  public:
    void lock(void);
    void unlock(void);
    void pause(void);
};

/* Held by every call of the runtime. */
extern emu_mutex emu_lock;

enum emu_direction { EMU_FORWARD, EMU_BACKWARD, EMU_RANDOM };
/* Of EMU_ORDER; forward without it. */
enum emu_direction emu_order(void);
/* A random number below n, of EMU_ORDER's seed. */
unsigned emu_random(unsigned n);

/* Runs a kernel to its end. cudaSuccess, or cudaErrorLaunchFailure with the fault on stderr. */
cudaError_t emu_run_kernel(const struct emu_shape &shape, const std::function<void()> &thread);

/* Puts something that the device does into a stream; it runs later. */
cudaError_t emu_enqueue(cudaStream_t stream, std::function<cudaError_t()> body);
/* The same for what waits for another process: it is asked again and again until it is done, and
 * may be asked after that. */
cudaError_t emu_enqueue_waiting(cudaStream_t stream, std::function<bool()> done);
/* Lets the device take a step, if a stream has something of that kind. */
void emu_advance_links(void);
/* The device that the calling thread has set. */
int emu_device(void);

/* False if [address, address + bytes) is not inside one piece of device memory. */
bool emu_is_device(const void *address, size_t bytes);
/* The same of the host's page-locked memory. */
bool emu_is_locked(const void *address, size_t bytes);
/* False, with a line on stderr, if somebody wrote around a piece of device memory. */
bool emu_memory_intact(void);

#endif
