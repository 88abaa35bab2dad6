/* test_kernels_links.c - a way between the devices of two processes.
 *
 * Each case is two processes that open a device of their own and meet by an id that goes through a
 * pipe, rank 0 first; a third, cmocka's, has none open and reads their exit statuses. Small numbers
 * of those are places in the cases here.
 */
#include "parity.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZES = 4, LARGEST = 2000003, ROUNDS = 8, ASKED_MOST = 5 };
/* One byte, a block's remainder, and more than any socket holds at once. */
static const size_t sizes[SIZES] = {1, 1000, LARGEST, 17};

struct pair {
    int to_first[2], to_second[2]; /* pipes */
};

static int always(void *context)
{
    (void)context;
    return 0;
}

/* Gives up after ASKED_MOST questions. */
static int a_few_times(void *context)
{
    int *asked = context;
    return ++*asked < ASKED_MOST ? 0 : ERR_INTERRUPTED;
}

#define REQUIRE(condition)         \
    do {                           \
        if (!(condition))          \
            _exit(__LINE__ & 127); \
    } while (0)

struct side {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct kernels_queue *queue;
    struct kernels_link *link;
};

static struct side open_side(const char *device)
{
    struct side side = {0};
    REQUIRE(kernels_open(&side.kernels, &side.device, device, 1, DTYPE_F32) == 0);
    REQUIRE(side.kernels->queue_create(side.device, &side.queue) == 0);
    return side;
}

static void close_side(struct side *side)
{
    side->kernels->queue_free(side->queue);
    kernels_close(side->kernels, side->device);
}

/* link_open() of either rank, after the id has gone to the second. */
static int meet(struct side *side, const struct pair *pair, unsigned rank)
{
    uint8_t id[128];
    if (rank == 0) {
        REQUIRE(side->kernels->link_id(side->device, id) == 0);
        REQUIRE(write(pair->to_second[1], id, sizeof id) == (ssize_t)sizeof id);
    } else {
        REQUIRE(read(pair->to_second[0], id, sizeof id) == (ssize_t)sizeof id);
    }
    return side->kernels->link_open(side->device, &side->link, id, rank, always, NULL);
}

/* Runs the two, and expects these exit statuses, a signal being 128 + its number. */
static void expect(int (*first)(const struct pair *), int first_status,
                   int (*second)(const struct pair *), int second_status)
{
    struct pair pair;
    int (*const bodies[2])(const struct pair *) = {first, second};
    const int wanted[2] = {first_status, second_status};
    pid_t children[2];
    assert_int_equal(pipe(pair.to_first), 0);
    assert_int_equal(pipe(pair.to_second), 0);
    fflush(NULL);
    for (int i = 0; i < 2; i++) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            alarm(60);
            close(i == 0 ? pair.to_first[1] : pair.to_second[1]);
            _exit(bodies[i](&pair) & 127);
        }
    }
    int *ends[] = {pair.to_first, pair.to_second};
    for (int i = 0; i < 4; i++)
        close(ends[i / 2][i % 2]);
    for (int i = 0; i < 2; i++) {
        int status = 0;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        int got = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (got != wanted[i])
            fail_msg("rank %d ended with %d, not %d", i, got, wanted[i]);
    }
}

/* ---- what one sends the other receives */

static uint8_t byte_of(int buffer, size_t i)
{
    return (uint8_t)(i * 7 + i / 251 + (size_t)buffer * 50);
}

/* Sends all, beside a queue that has work of its own, and touches the device no more until the
 * other says that it has them. */
static int send_all(const struct pair *pair)
{
    struct side side = open_side("cuda:0");
    struct kernels_queue *beside = NULL;
    void *d_buffers[SIZES], *d_beside = NULL;
    uint8_t *host = malloc(LARGEST), said = 0;
    REQUIRE(host != NULL && meet(&side, pair, 0) == 0);
    for (int i = 0; i < SIZES; i++) {
        REQUIRE(side.kernels->alloc(side.device, &d_buffers[i], sizes[i]) == 0);
        for (size_t j = 0; j < sizes[i]; j++)
            host[j] = byte_of(i, j);
        side.kernels->upload(side.queue, d_buffers[i], host, sizes[i]);
        REQUIRE(i + 1 == SIZES || side.kernels->wait(side.queue) == 0);
    }
    REQUIRE(side.kernels->queue_create(side.device, &beside) == 0);
    REQUIRE(side.kernels->alloc(side.device, &d_beside, LARGEST) == 0);
    for (int i = 0; i < ROUNDS * SIZES; i++) {
        side.kernels->upload(beside, d_beside, host, LARGEST);
        side.kernels->link_send(side.queue, side.link, d_buffers[i % SIZES], sizes[i % SIZES]);
    }
    REQUIRE(read(pair->to_first[0], &said, 1) == 1);
    REQUIRE(side.kernels->wait(side.queue) == 0 && side.kernels->link_poll(side.link) == 0);
    REQUIRE(side.kernels->wait(beside) == 0);
    side.kernels->link_close(side.link, false);
    side.kernels->queue_free(beside);
    side.kernels->free(side.device, d_beside);
    for (int i = 0; i < SIZES; i++)
        side.kernels->free(side.device, d_buffers[i]);
    free(host);
    close_side(&side);
    return 0;
}

static int receive_all(const struct pair *pair)
{
    struct side side = open_side("cuda:1");
    void *d_buffer = NULL;
    uint8_t *host = malloc(LARGEST);
    REQUIRE(host != NULL && meet(&side, pair, 1) == 0);
    REQUIRE(side.kernels->alloc(side.device, &d_buffer, LARGEST) == 0);
    for (int i = 0; i < ROUNDS * SIZES; i++) {
        size_t size = sizes[i % SIZES];
        side.kernels->link_receive(side.queue, side.link, d_buffer, size);
        side.kernels->download(side.queue, host, d_buffer, size);
        REQUIRE(side.kernels->wait(side.queue) == 0);
        for (size_t j = 0; j < size; j++)
            REQUIRE(host[j] == byte_of(i % SIZES, j));
    }
    REQUIRE(write(pair->to_first[1], "", 1) == 1);
    side.kernels->link_close(side.link, false);
    side.kernels->free(side.device, d_buffer);
    free(host);
    close_side(&side);
    return 0;
}

/* The peer asks for nothing before it is told that all is sent. */
static int send_first(const struct pair *pair)
{
    struct side side = open_side("cuda:0");
    void *d_buffer = NULL;
    REQUIRE(meet(&side, pair, 0) == 0);
    REQUIRE(side.kernels->alloc(side.device, &d_buffer, LARGEST) == 0);
    side.kernels->link_send(side.queue, side.link, d_buffer, LARGEST);
    REQUIRE(write(pair->to_second[1], "", 1) == 1);
    REQUIRE(side.kernels->wait(side.queue) == 0);
    side.kernels->link_close(side.link, false);
    side.kernels->free(side.device, d_buffer);
    close_side(&side);
    return 0;
}

static int receive_then(const struct pair *pair)
{
    struct side side = open_side("cuda:1");
    void *d_buffer = NULL;
    uint8_t said;
    REQUIRE(meet(&side, pair, 1) == 0);
    REQUIRE(side.kernels->alloc(side.device, &d_buffer, LARGEST) == 0);
    REQUIRE(read(pair->to_second[0], &said, 1) == 1);
    side.kernels->link_receive(side.queue, side.link, d_buffer, LARGEST);
    REQUIRE(side.kernels->wait(side.queue) == 0);
    side.kernels->link_close(side.link, false);
    side.kernels->free(side.device, d_buffer);
    close_side(&side);
    return 0;
}

static void a_send_does_not_wait_for_the_peers_receive(void **state)
{
    (void)state;
    expect(send_first, 0, receive_then, 0);
}

static void buffers_arrive(void **state)
{
    (void)state;
    expect(send_all, 0, receive_all, 0);
}

/* ---- a peer that is lost */

/* Either direction: the event stays ahead until the link is closed as lost. */
static int lose(const struct pair *pair, bool sends)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct side side = open_side("cuda:0");
    struct kernels_event *event = NULL;
    void *d_buffer = NULL;
    REQUIRE(side.kernels->alloc(side.device, &d_buffer, LARGEST) == 0);
    REQUIRE(side.kernels->event_create(side.device, &event) == 0);
    REQUIRE(meet(&side, pair, 0) == 0);
    if (sends)
        side.kernels->link_send(side.queue, side.link, d_buffer, LARGEST);
    else
        side.kernels->link_receive(side.queue, side.link, d_buffer, LARGEST);
    side.kernels->event_record(side.queue, event);
    int code = 0;
    while ((code = side.kernels->link_poll(side.link)) == 0) {
        REQUIRE(side.kernels->event_poll(event) == 0);
        nanosleep(&pause, NULL);
    }
    REQUIRE(side.kernels->event_poll(event) == 0);
    REQUIRE(side.kernels->link_poll(side.link) == code);
    side.kernels->link_close(side.link, true);
    REQUIRE(side.kernels->event_sync(event) == 0);
    side.kernels->event_free(event);
    side.kernels->free(side.device, d_buffer);
    close_side(&side);
    return err_exit_status(code);
}

static int lose_sending(const struct pair *pair)
{
    return lose(pair, true);
}

static int lose_receiving(const struct pair *pair)
{
    return lose(pair, false);
}

static int is_killed(const struct pair *pair)
{
    struct side side = open_side("cuda:1");
    REQUIRE(meet(&side, pair, 1) == 0);
    return raise(SIGKILL);
}

/* What is known of the peer: once it is asked to leave, that it has, after a few questions. */
struct word {
    bool leaves;
    int asked;
};

static int comes_late(void *context)
{
    struct word *word = context;
    return word->leaves && ++word->asked == ASKED_MOST ? ERR_CLOSED : 0;
}

static int is_left(const struct pair *pair)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct side side = open_side("cuda:0");
    struct word word = {0};
    void *d_buffer = NULL;
    uint8_t id[128];
    REQUIRE(side.kernels->alloc(side.device, &d_buffer, LARGEST) == 0);
    REQUIRE(side.kernels->link_id(side.device, id) == 0);
    REQUIRE(write(pair->to_second[1], id, sizeof id) == (ssize_t)sizeof id);
    REQUIRE(side.kernels->link_open(side.device, &side.link, id, 0, comes_late, &word) == 0);
    side.kernels->link_send(side.queue, side.link, d_buffer, LARGEST);
    word.leaves = true;
    REQUIRE(write(pair->to_second[1], "", 1) == 1);
    int code;
    while ((code = side.kernels->link_poll(side.link)) == 0)
        nanosleep(&pause, NULL);
    REQUIRE(code == ERR_CLOSED);
    REQUIRE(side.kernels->link_poll(side.link) == ERR_CLOSED);
    side.kernels->link_close(side.link, true);
    REQUIRE(side.kernels->wait(side.queue) == 0);
    side.kernels->free(side.device, d_buffer);
    close_side(&side);
    return 0;
}

static int leaves(const struct pair *pair)
{
    char byte;
    struct side side = open_side("cuda:1");
    REQUIRE(meet(&side, pair, 1) == 0);
    REQUIRE(read(pair->to_second[0], &byte, 1) == 1);
    side.kernels->link_close(side.link, true);
    close_side(&side);
    return 0;
}

static void a_peer_that_has_left_is_no_failure(void **state)
{
    (void)state;
    expect(is_left, 0, leaves, 0);
}

static void a_peer_that_is_killed_is_lost(void **state)
{
    (void)state;
    expect(lose_sending, 75, is_killed, 128 + SIGKILL);
    expect(lose_receiving, 75, is_killed, 128 + SIGKILL);
}

static int waits_in_vain(const struct pair *pair)
{
    struct side side = open_side("cuda:0");
    uint8_t id[128];
    int asked = 0;
    (void)pair;
    REQUIRE(side.kernels->link_id(side.device, id) == 0);
    int code = side.kernels->link_open(side.device, &side.link, id, 0, a_few_times, &asked);
    REQUIRE(code == ERR_INTERRUPTED && asked == ASKED_MOST && side.link == NULL);
    close_side(&side);
    return 0;
}

static int does_not_come(const struct pair *pair)
{
    (void)pair;
    return 0;
}

static void waiting_for_a_peer_can_be_given_up(void **state)
{
    (void)state;
    expect(waits_in_vain, 0, does_not_come, 0);
}

/* ---- what is refused */

static int meets_on(const struct pair *pair, unsigned rank)
{
    struct side side = open_side("cuda:0");
    int code = meet(&side, pair, rank);
    side.kernels->link_close(side.link, false);
    close_side(&side);
    return err_exit_status(code);
}

static int first_on_a_device(const struct pair *pair)
{
    return meets_on(pair, 0);
}

static int second_on_a_device(const struct pair *pair)
{
    return meets_on(pair, 1);
}

/* As NCCL has it: one device for both only from version 2.30 on, and where that is allowed. */
static void one_device_for_both_is_refused(void **state)
{
    (void)state;
    expect(first_on_a_device, 64, second_on_a_device, 64);
    assert_int_equal(setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1), 0);
    expect(first_on_a_device, 64, second_on_a_device, 64);
    assert_int_equal(setenv("EMU_NCCL", "23000", 1), 0);
    expect(first_on_a_device, 0, second_on_a_device, 0);
    assert_int_equal(unsetenv("NCCL_MULTI_RANK_GPU_ENABLE"), 0);
    expect(first_on_a_device, 64, second_on_a_device, 64);
    assert_int_equal(unsetenv("EMU_NCCL"), 0);
}

static int asks_for_the_version(const struct pair *pair)
{
    struct side side = open_side("cuda:0");
    uint32_t version = 0;
    bool one_device = true;
    (void)pair;
    int code = side.kernels->link_version(side.device, &version, &one_device);
    REQUIRE(code != 0 || version == 22809);
    REQUIRE(code != 0 || one_device == (getenv("NCCL_MULTI_RANK_GPU_ENABLE") != NULL));
    const char *monitor = getenv("NCCL_RAS_ENABLE");
    REQUIRE(monitor != NULL && strcmp(monitor, getenv("WANTED_RAS")) == 0);
    close_side(&side);
    return err_exit_status(code);
}

static void the_version_is_told(void **state)
{
    (void)state;
    assert_int_equal(setenv("WANTED_RAS", "0", 1), 0);
    expect(asks_for_the_version, 0, does_not_come, 0);
    assert_int_equal(setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1), 0);
    expect(asks_for_the_version, 0, does_not_come, 0);
    assert_int_equal(unsetenv("NCCL_MULTI_RANK_GPU_ENABLE"), 0);
    assert_int_equal(setenv("NCCL_RAS_ENABLE", "1", 1), 0);
    assert_int_equal(setenv("WANTED_RAS", "1", 1), 0);
    assert_int_equal(setenv("EMU_NCCL", "21799", 1), 0);
    expect(asks_for_the_version, 64, does_not_come, 0);
    assert_int_equal(unsetenv("NCCL_RAS_ENABLE"), 0);
    assert_int_equal(unsetenv("EMU_NCCL"), 0);
}

static void the_cpu_has_no_links(void **state)
{
    (void)state;
    struct parity parity;
    parity_open(&parity, 1, DTYPE_F32);
    const struct kernels *kernels = parity.kernels;
    assert_true(kernels->link_version == NULL && kernels->link_id == NULL &&
                kernels->link_open == NULL && kernels->link_send == NULL &&
                kernels->link_receive == NULL && kernels->link_poll == NULL &&
                kernels->link_close == NULL);
    parity_close(&parity);
}

int main(void)
{
    const struct CMUnitTest cpu[] = {cmocka_unit_test(the_cpu_has_no_links)};
    const struct CMUnitTest cuda[] = {
        cmocka_unit_test(buffers_arrive),
        cmocka_unit_test(a_send_does_not_wait_for_the_peers_receive),
        cmocka_unit_test(a_peer_that_has_left_is_no_failure),
        cmocka_unit_test(a_peer_that_is_killed_is_lost),
        cmocka_unit_test(waiting_for_a_peer_can_be_given_up),
        cmocka_unit_test(one_device_for_both_is_refused),
        cmocka_unit_test(the_version_is_told),
    };
    log_init("test_kernels_links", LOG_ERROR);
    if (strcmp(parity_device_name(), "cpu") == 0)
        return cmocka_run_group_tests_name("kernels links", cpu, NULL, NULL);
    return cmocka_run_group_tests_name("kernels links", cuda, NULL, NULL);
}
