/* plane.h - the control socket of a data plane: who may attach, which pass buffers are full and
 * which are free again, and whether the other side is still there.
 *
 * Rows go from the generator's device memory to the trainer's (begin.h: struct begin_attach); the
 * pipe between the two says which rows they are, and this socket when a buffer may be read and when
 * it may be filled again. A buffer is announced as a pass, once all that the trainer is to read
 * lies in it. The trainer takes passes in the order of their numbers and gives each back once:
 * those are the generator's credits. So a buffer is never written while it is read.
 *
 * Each side has a thread that receives and that lets the other hear of it. A side of which nothing
 * is heard for PLANE_SILENCE of one's own wake-ups, one a second, or whose connection is closed
 * without a word, is lost: all waits end with ERR_PEER, which is logged once. Wake-ups are counted,
 * not seconds: a pipeline that is stopped and continued as a whole loses nobody.
 *
 * The generator must not keep DATA to itself while it waits for a buffer: the trainer gives a pass
 * back once it has read of all its rows.
 */
#ifndef CCPIPE_PLANE_H
#define CCPIPE_PLANE_H

#include <stdbool.h>
#include <stdint.h>

#include "begin.h"
#include "err.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PLANE_UUID_BYTES 16
#define PLANE_SILENCE 30       /* wake-ups without a word */
#define PLANE_ATTACH_WAIT 60   /* wake-ups that the generator waits for a trainer to attach */
#define PLANE_ONE_DEVICE 23000 /* NCCL's version from which two ranks may be on one device */

struct plane;

struct plane_setup {
    enum begin_plane kind;          /* CUDA_IPC or NCCL */
    uint8_t uuid[PLANE_UUID_BYTES]; /* of one's own device */
    uint32_t nccl_version;          /* 0 for CUDA_IPC */
    bool nccl_one_device;           /* NCCL_MULTI_RANK_GPU_ENABLE=1 */
    uint32_t buffers, capacity;     /* as in struct begin_attach */
    unsigned period_ms;             /* from one wake-up to the next; 0: 1000 */
    /* Called once, by another thread, where the other side is lost: for what waits elsewhere, for
     * the pipe. NULL: nobody is told. */
    void (*lost)(void *context);
    void *context;
};

/* Rows 0 .. rows - 1 of a buffer; DATA has `served` of them, behind those of the passes before. */
struct plane_pass {
    uint64_t number; /* 0, 1, 2, ... */
    uint32_t buffer, rows, served;
};

/* ---- the generator, one thread */

/* Listens at an abstract name with a random part, which BEGIN is to carry. */
int plane_listen(struct plane **plane, const struct plane_setup *setup,
                 char name[BEGIN_SOCKET_BYTES]) MUST_CHECK;

/* Behind BEGIN: waits for the trainer. CUDA_IPC wants both on one device; NCCL on two, unless both
 * have PLANE_ONE_DEVICE and nccl_one_device. ERR_USAGE where that is not so, which the trainer is
 * told as well; ERR_PEER where none comes; ERR_CLOSED where the reader of `output` (stdout; -1:
 * not looked at) has gone; ERR_INTERRUPTED. Connections that are no trainer's are closed. */
int plane_accept(struct plane *plane, int output) MUST_CHECK;

/* Waits for a buffer that may be written. ERR_CLOSED where the trainer has said BYE. */
int plane_take(struct plane *plane, uint32_t *buffer) MUST_CHECK;

/* Says that a buffer is full; it must have been taken. ERR_PEER, ERR_CLOSED as above. */
int plane_announce(struct plane *plane, uint32_t buffer, uint32_t rows, uint32_t served) MUST_CHECK;

/* Behind END: waits until all buffers are free again and says BYE, then until the trainer says BYE:
 * nobody reaches into the window any more. 0 also where the trainer said it before. */
int plane_finish(struct plane *plane) MUST_CHECK;

/* The reader of the output has gone (ERR_CLOSED, EPIPE): ERR_CLOSED where the trainer has said BYE
 * or never attached, ERR_PEER where it is lost. Waits for either. */
int plane_reader_gone(struct plane *plane) MUST_CHECK;

/* ---- the trainer */

/* Attaches to the generator that wrote BEGIN. ERR_USAGE with the reason where it refuses; ERR_PEER
 * where there is none. setup's buffers and capacity are those of `attach`. */
int plane_attach(struct plane **plane, const struct plane_setup *setup,
                 const struct begin_attach *attach) MUST_CHECK;

/* Waits for the next pass: 1; 0 where the generator has said BYE, and now waits for ours; or a
 * code. One thread. */
int plane_next_pass(struct plane *plane, struct plane_pass *pass) MUST_CHECK;

/* Gives a pass back: nothing reads its buffer any more. */
int plane_free_pass(struct plane *plane, uint64_t number) MUST_CHECK;

/* From another thread: plane_next_pass() ends with ERR_INTERRUPTED, now or later. */
void plane_interrupt(struct plane *plane);

/* Says that nothing more is wanted, and that nothing reaches into the window any more. Once; the
 * generator's waits end with ERR_CLOSED. */
void plane_bye(struct plane *plane);

/* ---- both */

/* Whether to go on with what takes long: 0, ERR_PEER, ERR_INTERRUPTED, or ERR_CLOSED where the
 * other side has said BYE. `plane` is a struct plane; fits kernels->link_open. Any thread. */
int plane_go_on(void *plane);

/* Without BYE before it the other side takes this one for lost. NULL is legal. */
void plane_free(struct plane *plane);

#ifdef __cplusplus
}
#endif
#endif
