/* plane_ends.h - both ends of a control socket for its tests. A wake-up is PERIOD ms instead of a
 * second.
 */
#ifndef TESTS_PLANE_ENDS_H
#define TESTS_PLANE_ENDS_H

#include <string.h>
#include <time.h>

#include "common/io.h"
#include "common/log.h"
#include "common/plane.h"

enum { PERIOD = 20, BUFFERS = 3, CAPACITY = 8 };

static inline void sleep_ms(int64_t ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static inline struct plane_setup make_setup(enum begin_plane kind, uint8_t device)
{
    struct plane_setup setup = {
        .kind = kind, .buffers = BUFFERS, .capacity = CAPACITY, .period_ms = PERIOD};
    memset(setup.uuid, device, sizeof setup.uuid);
    if (kind == BEGIN_NCCL)
        setup.nccl_version = PLANE_ONE_DEVICE;
    return setup;
}

struct attachment {
    struct begin_attach attach;
    struct plane_setup setup;
    struct plane *plane;
    int status;
};

static inline void *attach_run(void *argument)
{
    struct attachment *attachment = argument;
    attachment->status = plane_attach(&attachment->plane, &attachment->setup, &attachment->attach);
    return NULL;
}

/* Until go_on() says something else than 0; how long that took, in periods. */
static inline int64_t wait_for_loss(struct plane *plane, int *status)
{
    int64_t start = io_clock_ns();
    while ((*status = plane_go_on(plane)) == 0 &&
           io_clock_ns() - start < 10 * PLANE_SILENCE * PERIOD * INT64_C(1000000))
        sleep_ms(1);
    return (io_clock_ns() - start) / 1000000 / PERIOD;
}

#endif
