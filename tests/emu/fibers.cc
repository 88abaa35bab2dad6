/* fibers.cc - runs a kernel: a fiber for each thread of a block, blocks one after the other.
 *
 * A fiber is a stack and a saved stack pointer. The scheduler takes a block's warps in the order
 * that EMU_ORDER names and lets each run as far as it gets without the others; in a warp it passes
 * over the fibers and lets each run until it waits in a collective or returns. In random order it
 * passes over all fibers of the block now and then, so that warps do not always wait at barriers. A
 * collective of a warp is over when its last live lane has come; the lane that comes last wakes the
 * others and goes on, they follow in the same or the next pass. A block barrier is over when all
 * threads of the block wait at it. A pass in which nobody could run is a deadlock.
 *
 * The switch is a few lines of assembler because swapcontext() makes a system call each time, and a
 * test switches some hundred million times.
 */
#include "tests/emu/emu.h"

#include <emu_ptx.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

#ifndef __x86_64__
#error "the switch of fibers is written for x86-64"
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

enum { LANES = 32, THREADS_MOST = 1024, STACK_BYTES = 256 << 10, GUARD_BYTES = 4096 };

enum fiber_state { FIBER_READY, FIBER_IN_WARP, FIBER_IN_BLOCK, FIBER_DONE };

struct fiber {
    void *stack_pointer;
    unsigned char *stack; /* NULL before it starts and when it has returned */
    enum fiber_state state;
    unsigned exchanges; /* how many collectives of its warp it has come to */
    uint3 index;
};

struct warp {
    unsigned live;    /* lanes that have not returned */
    unsigned there;   /* lanes that wait in the collective */
    unsigned came[2]; /* lanes that came to the newest two, which may have returned since */
    const char *what;
    alignas(16) unsigned char lanes[2][LANES][EMU_LANE_BYTES];
};

static struct {
    const struct emu_shape *shape;
    const std::function<void()> *thread;
    struct fiber fibers[THREADS_MOST];
    struct warp warps[THREADS_MOST / LANES];
    unsigned count, warp_count; /* of threads, of warps */
    unsigned live, waiting;     /* threads not returned, threads in the block barrier */
    const char *barrier_file;
    int barrier_line;
    unsigned current;                    /* the fiber that runs */
    void *scheduler;                     /* its stack pointer */
    char fault[256];                     /* what is wrong with the kernel, or "" */
    std::vector<unsigned char *> stacks; /* free ones */
    std::vector<unsigned char> shared;
} run;

/* Saves the registers that a call keeps, and the stack pointer to *save; goes on where `load` was
 * saved.
 */
extern "C" void emu_switch(void **save, void *load);
asm(".text\n"
    ".type emu_switch, @function\n"
    "emu_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emu_switch, . - emu_switch\n");

static void leave(void)
{
    emu_switch(&run.fibers[run.current].stack_pointer, run.scheduler);
}

void emu_kernel_fault(const char *what)
{
    if (run.fault[0] == '\0')
        snprintf(run.fault, sizeof run.fault, "%s: thread (%u, %u, %u) of block (%u, %u, %u)", what,
                 threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
    leave(); /* never to come back: the scheduler gives the kernel up */
    abort();
}

static struct warp *current_warp(void)
{
    return &run.warps[run.current / LANES];
}

unsigned emu_lane(void)
{
    return run.current % LANES;
}

unsigned emu_warp_live(void)
{
    return current_warp()->came[(run.fibers[run.current].exchanges - 1) & 1];
}

void *emu_dynamic_shared(void)
{
    return run.shared.data();
}

std::vector<struct emu_copy> &emu_copies(void)
{
    static std::vector<struct emu_copy> of_thread[THREADS_MOST];
    return of_thread[run.current];
}

static void wake_warp(struct warp *warp)
{
    size_t first = (size_t)(warp - run.warps) * LANES;
    for (unsigned lane = 0; lane < LANES; lane++)
        if (warp->there >> lane & 1)
            run.fibers[first + lane].state = FIBER_READY;
    warp->there = 0;
}

const unsigned char *emu_warp_exchange(const void *mine, size_t bytes, unsigned mask,
                                       const char *what)
{
    struct warp *warp = current_warp();
    struct fiber *fiber = &run.fibers[run.current];
    unsigned lane = emu_lane(), place = fiber->exchanges++ & 1;
    if (mask != 0xffffffffu)
        emu_kernel_fault("a collective is for part of a warp");
    if (warp->there != 0 && warp->what != what && strcmp(warp->what, what) != 0)
        emu_kernel_fault("the lanes of a warp are in different collectives");
    warp->what = what;
    if (bytes > 0) /* a barrier of the warp brings nothing, and no address */
        memcpy(warp->lanes[place][lane], mine, bytes);
    warp->came[place] = (warp->there == 0 ? 0 : warp->came[place]) | 1u << lane;
    warp->there |= 1u << lane;
    if (warp->there == warp->live) {
        wake_warp(warp);
    } else {
        fiber->state = FIBER_IN_WARP;
        leave();
    }
    return &warp->lanes[place][0][0];
}

void emu_block_barrier(const char *file, int line)
{
    if (run.waiting != 0 && (line != run.barrier_line || strcmp(file, run.barrier_file) != 0))
        emu_kernel_fault("the threads of a block wait at different barriers");
    if (run.live != run.count)
        emu_kernel_fault("a barrier is not reached by threads that have returned");
    run.barrier_file = file;
    run.barrier_line = line;
    if (++run.waiting < run.count) {
        run.fibers[run.current].state = FIBER_IN_BLOCK;
        leave();
        return;
    }
    run.waiting = 0;
    for (unsigned i = 0; i < run.count; i++)
        if (run.fibers[i].state == FIBER_IN_BLOCK)
            run.fibers[i].state = FIBER_READY;
}

/* A fiber's first function; it never returns. */
static void fiber_main(void)
{
    (*run.thread)();
    struct fiber *fiber = &run.fibers[run.current];
    struct warp *warp = current_warp();
    fiber->state = FIBER_DONE;
    run.live--;
    warp->live &= ~(1u << emu_lane());
    if (warp->there != 0 && warp->there == warp->live)
        wake_warp(warp);
    if (run.waiting != 0)
        emu_kernel_fault("a barrier is not reached by threads that have returned");
    leave();
    abort();
}

static unsigned char *take_stack(void)
{
    if (!run.stacks.empty()) {
        unsigned char *stack = run.stacks.back();
        run.stacks.pop_back();
        return stack;
    }
    void *memory = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, GUARD_BYTES, PROT_NONE) != 0) {
        perror("emu: no memory for a stack");
        abort();
    }
    return static_cast<unsigned char *>(memory);
}

/* A stack that emu_switch() can load: six registers and the address that it returns to. At a
 * function's first instruction the stack pointer is 8 below a multiple of 16. */
static void prepare(struct fiber *fiber)
{
    fiber->stack = take_stack();
    void **top = reinterpret_cast<void **>(fiber->stack + STACK_BYTES) - 2;
    *top = reinterpret_cast<void *>(fiber_main);
    top -= 6;
    memset(top, 0, 6 * sizeof *top);
    fiber->stack_pointer = top;
}

static void resume(unsigned i)
{
    struct fiber *fiber = &run.fibers[i];
    if (fiber->stack == NULL)
        prepare(fiber);
    run.current = i;
    threadIdx = fiber->index;
    emu_switch(&run.scheduler, fiber->stack_pointer);
    if (fiber->state == FIBER_DONE) {
        run.stacks.push_back(fiber->stack);
        fiber->stack = NULL;
    }
}

/* The i-th of n things in the order of a pass: first, step are the pass's. */
struct pass {
    unsigned first, step;
};

static struct pass start_pass(unsigned n)
{
    switch (emu_order()) {
    case EMU_FORWARD:
        return {0, 1};
    case EMU_BACKWARD:
        return {n - 1, n - 1};
    default:
        break;
    }
    unsigned step = 1 + emu_random(n), a, b;
    do { /* until step and n have no common factor, so that all are met once */
        step = step % n + 1;
        for (a = step, b = n; b != 0;) {
            unsigned rest = a % b;
            a = b;
            b = rest;
        }
    } while (a != 1);
    return {emu_random(n), step};
}

static unsigned at_pass(struct pass pass, unsigned i, unsigned n)
{
    return (unsigned)((pass.first + (uint64_t)i * pass.step) % n);
}

/* The kernels' __shared__ variables; shared.ld puts them there. */
extern "C" unsigned char emu_shared_start[], emu_shared_end[];

static void start_block(void)
{
    const dim3 &block = run.shape->block;
#ifndef __SANITIZE_ADDRESS__ /* which has its own bytes between the variables */
    memset(emu_shared_start, 0xff, (size_t)(emu_shared_end - emu_shared_start));
#endif
    run.live = run.count;
    run.waiting = 0;
    std::fill(run.shared.begin(), run.shared.end(), (unsigned char)0xff);
    for (unsigned i = 0; i < run.count; i++) {
        run.fibers[i].state = FIBER_READY;
        run.fibers[i].exchanges = 0;
        run.fibers[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    }
    for (unsigned i = 0; i < run.warp_count; i++) {
        unsigned lanes = run.count - i * LANES;
        run.warps[i].live = lanes >= LANES ? 0xffffffffu : (1u << lanes) - 1;
        run.warps[i].there = 0;
    }
}

/* Lets each of `count` fibers from `first` run once. False if none could. */
static bool run_pass(unsigned first, unsigned count)
{
    struct pass pass = start_pass(count);
    bool moved = false;
    for (unsigned i = 0; i < count && run.fault[0] == '\0'; i++) {
        unsigned next = first + at_pass(pass, i, count);
        if (run.fibers[next].state != FIBER_READY)
            continue;
        resume(next);
        moved = true;
    }
    return moved;
}

/* Lets each warp, one after the other, run until it waits for the others: as far ahead of them as
 * can be. */
static bool run_warps(void)
{
    struct pass pass = start_pass(run.warp_count);
    bool moved = false;
    for (unsigned i = 0; i < run.warp_count; i++) {
        unsigned first = at_pass(pass, i, run.warp_count) * LANES;
        while (run_pass(first, std::min<unsigned>(LANES, run.count - first)))
            moved = true;
    }
    return moved;
}

static void run_block(void)
{
    start_block();
    while (run.live > 0 && run.fault[0] == '\0') {
        bool together = emu_order() == EMU_RANDOM && emu_random(2) == 0;
        if (!(together ? run_pass(0, run.count) : run_warps()))
            snprintf(
                run.fault, sizeof run.fault,
                "deadlock: of %u threads of block (%u, %u, %u) %u wait at a barrier, others in "
                "a collective that not all lanes reach",
                run.count, blockIdx.x, blockIdx.y, blockIdx.z, run.waiting);
    }
}

/* The stacks of a kernel that was given up are as good as new. */
static void give_up(void)
{
    for (unsigned i = 0; i < run.count; i++)
        if (run.fibers[i].stack != NULL) {
            run.stacks.push_back(run.fibers[i].stack);
            run.fibers[i].stack = NULL;
        }
}

/* The host's fault is the kernel's: says where, and lets it be fatal. */
static void report_fault(int signal_number, siginfo_t *info, void *context)
{
    (void)context;
    fprintf(stderr,
            "emu: %s: thread (%u, %u, %u) of block (%u, %u, %u) touches memory that is not there: "
            "%p\n",
            run.shape->name, threadIdx.x, threadIdx.y, threadIdx.z, blockIdx.x, blockIdx.y,
            blockIdx.z, info->si_addr);
    signal(signal_number, SIG_DFL);
}

/* Only while a kernel runs, and not where a sanitizer reports faults. */
static void watch_faults(bool on, struct sigaction *before)
{
#ifndef __SANITIZE_ADDRESS__
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = report_fault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, on ? &action : before, on ? before : NULL);
#else
    (void)on;
    (void)before;
#endif
}

cudaError_t emu_run_kernel(const struct emu_shape &shape, const std::function<void()> &thread)
{
    const dim3 &grid = shape.grid;
    run.shape = &shape;
    run.thread = &thread;
    run.count = shape.block.x * shape.block.y * shape.block.z;
    run.warp_count = (run.count + LANES - 1) / LANES;
    run.fault[0] = '\0';
    run.shared.resize(shape.shared_bytes);
    gridDim = grid;
    blockDim = shape.block;
    size_t plane = (size_t)grid.x * grid.y, blocks = plane * grid.z;
    if (blocks > 0x7fffffff) {
        fprintf(stderr, "emu: %s: a grid of %zu blocks is too large to emulate\n", shape.name,
                blocks);
        return cudaErrorLaunchFailure;
    }
    struct sigaction before;
    watch_faults(true, &before);
    struct pass pass = start_pass((unsigned)blocks);
    for (size_t i = 0; i < blocks && run.fault[0] == '\0'; i++) {
        size_t block = at_pass(pass, (unsigned)i, (unsigned)blocks);
        blockIdx = {(unsigned)(block % grid.x), (unsigned)(block % plane / grid.x),
                    (unsigned)(block / plane)};
        run_block();
    }
    watch_faults(false, &before);
    if (run.fault[0] == '\0')
        return cudaSuccess;
    fprintf(stderr, "emu: %s: %s\n", shape.name, run.fault);
    give_up();
    return cudaErrorLaunchFailure;
}
