/* test_plane.c - the control socket: both ends in threads of one process, the trainer in a process
 * of its own where one is stopped or killed, and a foreigner that speaks the messages by hand.
 *
 * A wake-up is PERIOD ms here instead of a second.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plane_ends.h"

/* Both ends; what each of them was told. */
static void join(struct plane **generator, struct plane **trainer, const struct plane_setup *a,
                 const struct plane_setup *b, int *status_a, int *status_b)
{
    struct attachment attachment = {.setup = *b};
    pthread_t thread;
    assert_int_equal(plane_listen(generator, a, attachment.attach.socket), 0);
    assert_int_equal(pthread_create(&thread, NULL, attach_run, &attachment), 0);
    *status_a = plane_accept(*generator, -1);
    pthread_join(thread, NULL);
    *status_b = attachment.status;
    *trainer = attachment.plane;
}

static void join_well(struct plane **generator, struct plane **trainer)
{
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    int a, b;
    join(generator, trainer, &setup, &setup, &a, &b);
    assert_int_equal(a, 0);
    assert_int_equal(b, 0);
}

/* ---- who may attach */

static void test_devices_and_planes(void **state)
{
    (void)state;
    const struct {
        enum begin_plane generator, trainer;
        bool same;
        uint32_t version_a, version_b;
        bool one_a, one_b;
        int want;
    } cases[] = {
        {BEGIN_CUDA_IPC, BEGIN_CUDA_IPC, true, 0, 0, false, false, 0},
        {BEGIN_CUDA_IPC, BEGIN_CUDA_IPC, false, 0, 0, false, false, ERR_USAGE},
        {BEGIN_CUDA_IPC, BEGIN_CUDA_IPC, false, 23000, 23000, true, true, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, false, 21800, 21800, false, false, 0},
        {BEGIN_NCCL, BEGIN_NCCL, true, 23000, 23000, false, false, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, true, 23000, 23000, true, false, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, true, 23000, 23000, false, true, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, true, 22999, 23000, true, true, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, true, 23000, 22999, true, true, ERR_USAGE},
        {BEGIN_NCCL, BEGIN_NCCL, true, 23000, 23001, true, true, 0},
        {BEGIN_NCCL, BEGIN_CUDA_IPC, true, 23000, 23000, true, true, ERR_USAGE},
        {BEGIN_CUDA_IPC, BEGIN_NCCL, true, 23000, 23000, true, true, ERR_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct plane_setup a = make_setup(cases[i].generator, 1);
        struct plane_setup b = make_setup(cases[i].trainer, cases[i].same ? 1 : 2);
        a.nccl_version = cases[i].version_a;
        b.nccl_version = cases[i].version_b;
        a.nccl_one_device = cases[i].one_a;
        b.nccl_one_device = cases[i].one_b;
        struct plane *generator, *trainer;
        int status_a, status_b;
        join(&generator, &trainer, &a, &b, &status_a, &status_b);
        if (status_a != cases[i].want || status_b != cases[i].want)
            print_error("case %zu\n", i);
        assert_int_equal(status_a, cases[i].want);
        assert_int_equal(status_b, cases[i].want);
        plane_free(trainer);
        plane_free(generator);
    }
}

static void test_nobody_comes(void **state)
{
    (void)state;
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    struct plane *plane;
    char name[BEGIN_SOCKET_BYTES], other[BEGIN_SOCKET_BYTES];
    int64_t start = io_clock_ns();
    assert_int_equal(plane_listen(&plane, &setup, name), 0);
    assert_int_equal(plane_accept(plane, -1), ERR_PEER);
    assert_true(io_clock_ns() - start >= PLANE_ATTACH_WAIT * PERIOD * INT64_C(1000000));
    plane_free(plane);
    assert_int_equal(plane_listen(&plane, &setup, other), 0);
    assert_string_not_equal(name, other);
    plane_free(plane);
    struct begin_attach attach = {.buffers = BUFFERS, .capacity = CAPACITY};
    memcpy(attach.socket, name, sizeof name);
    assert_int_equal(plane_attach(&plane, &setup, &attach), ERR_PEER); /* its time is over */
    assert_null(plane);
}

static void test_the_reader_of_the_output_goes_before_it_attaches(void **state)
{
    (void)state;
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    struct plane *plane;
    char name[BEGIN_SOCKET_BYTES];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    assert_int_equal(plane_listen(&plane, &setup, name), 0);
    assert_int_equal(plane_accept(plane, ends[1]), ERR_CLOSED);
    assert_int_equal(plane_reader_gone(plane), ERR_CLOSED);
    close(ends[1]);
    plane_free(plane);
}

/* ---- credits */

static void test_passes_come_in_order_and_give_their_buffers_back(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    join_well(&generator, &trainer);
    uint32_t buffer, held[BUFFERS];
    struct plane_pass pass;
    for (uint64_t number = 0; number < 50; number++) {
        assert_int_equal(plane_take(generator, &buffer), 0);
        assert_true(buffer < BUFFERS);
        uint32_t rows = (uint32_t)(number % (CAPACITY + 1)), served = rows / 2;
        assert_int_equal(plane_announce(generator, buffer, rows, served), 0);
        held[number % BUFFERS] = buffer;
        if (number < BUFFERS - 1)
            continue; /* keeps all but one of them full */
        assert_int_equal(plane_next_pass(trainer, &pass), 1);
        uint64_t want = number - (BUFFERS - 1);
        assert_int_equal(pass.number, want);
        assert_int_equal(pass.buffer, held[want % BUFFERS]);
        assert_int_equal(pass.rows, want % (CAPACITY + 1));
        assert_int_equal(pass.served, want % (CAPACITY + 1) / 2);
        assert_int_equal(plane_free_pass(trainer, want), 0);
    }
    assert_int_equal(plane_go_on(generator), 0);
    assert_int_equal(plane_go_on(trainer), 0);
    plane_bye(trainer);
    plane_free(trainer);
    plane_free(generator);
}

struct take {
    struct plane *plane;
    uint32_t buffer;
    _Atomic int status; /* 1 while it waits */
};

static void *take_run(void *argument)
{
    struct take *take = argument;
    take->status = plane_take(take->plane, &take->buffer);
    return NULL;
}

static void *finish_run(void *argument)
{
    struct take *take = argument;
    take->status = plane_finish(take->plane);
    return NULL;
}

/* Fills all buffers; a thread then waits in `run`. */
static pthread_t fill_and_wait(struct plane *generator, struct take *take, void *(*run)(void *))
{
    for (int i = 0; i < BUFFERS; i++) {
        uint32_t buffer;
        assert_int_equal(plane_take(generator, &buffer), 0);
        assert_int_equal(buffer, i);
        assert_int_equal(plane_announce(generator, buffer, 1, 1), 0);
    }
    *take = (struct take){.plane = generator, .status = 1};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, run, take), 0);
    return thread;
}

/* What was given back is what is taken next, and not a moment before; and it is that buffer. */
static void test_a_full_window_waits_for_a_credit(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    join_well(&generator, &trainer);
    struct take take;
    pthread_t thread = fill_and_wait(generator, &take, take_run);
    struct plane_pass pass;
    for (int i = 0; i < 2; i++)
        assert_int_equal(plane_next_pass(trainer, &pass), 1);
    sleep_ms(5 * PERIOD); /* a credit for what was only looked at would have come by now */
    assert_int_equal(take.status, 1);
    assert_int_equal(plane_free_pass(trainer, 1), 0);
    pthread_join(thread, NULL);
    assert_int_equal(take.status, 0);
    assert_int_equal(take.buffer, 1);
    plane_bye(trainer);
    plane_free(trainer);
    plane_free(generator);
}

static void test_the_end_waits_for_all_credits(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    join_well(&generator, &trainer);
    struct take take;
    pthread_t thread = fill_and_wait(generator, &take, finish_run);
    struct plane_pass pass;
    for (int i = 0; i < BUFFERS; i++) {
        assert_int_equal(take.status, 1);
        assert_int_equal(plane_next_pass(trainer, &pass), 1);
        sleep_ms(2 * PERIOD);
        assert_int_equal(take.status, 1);
        assert_int_equal(plane_free_pass(trainer, pass.number), 0);
    }
    assert_int_equal(plane_next_pass(trainer, &pass), 0);
    sleep_ms(2 * PERIOD);
    assert_int_equal(take.status, 1); /* the window may still be mapped */
    plane_bye(trainer);
    pthread_join(thread, NULL);
    assert_int_equal(take.status, 0);
    plane_free(generator);
    assert_int_equal(plane_next_pass(trainer, &pass), 0); /* that it hangs up then is no loss */
    assert_int_equal(plane_go_on(trainer), ERR_CLOSED);
    plane_free(trainer);
}

static void test_a_trainer_that_has_enough_says_so(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    join_well(&generator, &trainer);
    struct take take;
    pthread_t thread = fill_and_wait(generator, &take, take_run);
    plane_bye(trainer);
    plane_free(trainer);
    pthread_join(thread, NULL);
    assert_int_equal(take.status, ERR_CLOSED);
    assert_int_equal(plane_reader_gone(generator), ERR_CLOSED);
    assert_int_equal(plane_go_on(generator), ERR_CLOSED);
    assert_int_equal(plane_finish(generator), 0);
    plane_free(generator);
}

/* ---- losses */

static void test_a_hang_up_is_a_loss_at_once(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    struct plane_pass pass;
    join_well(&generator, &trainer);
    struct take take;
    pthread_t thread = fill_and_wait(generator, &take, take_run);
    int64_t start = io_clock_ns();
    plane_free(trainer);
    pthread_join(thread, NULL);
    assert_int_equal(take.status, ERR_PEER);
    assert_true(io_clock_ns() - start < PLANE_SILENCE / 2 * PERIOD * INT64_C(1000000));
    assert_int_equal(plane_go_on(generator), ERR_PEER);
    assert_int_equal(plane_reader_gone(generator), ERR_PEER);
    plane_free(generator);

    join_well(&generator, &trainer);
    plane_free(generator);
    assert_int_equal(plane_next_pass(trainer, &pass), ERR_PEER);
    plane_free(trainer);
}

static void *interrupt_run(void *argument)
{
    sleep_ms(3 * PERIOD);
    plane_interrupt(argument);
    return NULL;
}

static void test_a_wait_for_a_pass_can_be_interrupted(void **state)
{
    (void)state;
    struct plane *generator, *trainer;
    struct plane_pass pass;
    pthread_t thread;
    join_well(&generator, &trainer);
    assert_int_equal(pthread_create(&thread, NULL, interrupt_run, trainer), 0);
    assert_int_equal(plane_next_pass(trainer, &pass), ERR_INTERRUPTED);
    pthread_join(thread, NULL);
    plane_bye(trainer);
    plane_free(trainer);
    plane_free(generator);
}

/* A trainer in a process of its own, which attaches, gives one pass back, and stays until the
 * generator says BYE; its exit status is the code that a wait ended with, turned. */
static pid_t fork_trainer(const char *name, const struct plane_setup *setup)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0)
        return child;
    struct begin_attach attach = {.buffers = BUFFERS, .capacity = CAPACITY};
    memcpy(attach.socket, name, sizeof attach.socket);
    struct plane *plane;
    struct plane_pass pass;
    int status = plane_attach(&plane, setup, &attach);
    if (status == 0 && (status = plane_next_pass(plane, &pass)) == 1 &&
        (status = plane_free_pass(plane, pass.number)) == 0 &&
        (status = plane_next_pass(plane, &pass)) == 0)
        plane_bye(plane);
    plane_free(plane);
    _exit(-status);
}

static _Atomic int told; /* how often the generator was told of a loss */

static void tell(void *context)
{
    (void)context;
    told++;
}

static void join_process(struct plane **generator, pid_t *child)
{
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    told = 0;
    setup.lost = tell;
    char name[BEGIN_SOCKET_BYTES];
    assert_int_equal(plane_listen(generator, &setup, name), 0);
    *child = fork_trainer(name, &setup);
    assert_int_equal(plane_accept(*generator, -1), 0);
}

static int exit_of(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void test_a_killed_trainer_is_lost_at_once(void **state)
{
    (void)state;
    struct plane *generator;
    pid_t child;
    int status;
    join_process(&generator, &child);
    kill(child, SIGKILL);
    assert_true(wait_for_loss(generator, &status) < PLANE_SILENCE / 2);
    assert_int_equal(status, ERR_PEER);
    assert_int_equal(exit_of(child), 128 + SIGKILL);
    plane_free(generator);
    assert_int_equal(told, 1);
}

/* A side that is stopped alone is lost after PLANE_SILENCE wake-ups of the other, not before; and
 * finds itself alone when it is continued. */
static void test_a_stopped_trainer_is_lost_in_time(void **state)
{
    (void)state;
    struct plane *generator;
    pid_t child;
    int status;
    join_process(&generator, &child);
    kill(child, SIGSTOP);
    int64_t waited = wait_for_loss(generator, &status);
    assert_int_equal(status, ERR_PEER);
    assert_true(waited >= PLANE_SILENCE - 2);
    plane_free(generator);
    kill(child, SIGCONT);
    assert_int_equal(exit_of(child), -ERR_PEER);
}

/* A pause of a third of the time that is allowed, three times, is no loss: each word starts anew.
 */
static void test_pauses_do_not_add_up(void **state)
{
    (void)state;
    struct plane *generator;
    pid_t child;
    uint32_t buffer;
    join_process(&generator, &child);
    for (int i = 0; i < 4; i++) {
        kill(child, SIGSTOP);
        sleep_ms(PLANE_SILENCE / 3 * PERIOD);
        kill(child, SIGCONT);
        sleep_ms(5 * PERIOD);
        assert_int_equal(plane_go_on(generator), 0);
    }
    assert_int_equal(plane_take(generator, &buffer), 0);
    assert_int_equal(plane_announce(generator, buffer, 1, 1), 0);
    assert_int_equal(plane_finish(generator), 0);
    assert_int_equal(exit_of(child), 0);
    plane_free(generator);
}

/* Both in one process group of their own, stopped and continued together, far beyond the time that
 * one alone would have. */
static void test_stopped_and_continued_as_a_whole(void **state)
{
    (void)state;
    pid_t group = fork();
    assert_true(group >= 0);
    if (group == 0) {
        setpgid(0, 0);
        struct plane *generator;
        pid_t child;
        uint32_t buffer;
        join_process(&generator, &child);
        raise(SIGSTOP); /* this one alone: the parent stops the other, and continues both */
        sleep_ms(4 * PERIOD);
        int status = plane_take(generator, &buffer);
        if (status == 0)
            status = plane_announce(generator, buffer, 1, 1);
        if (status == 0)
            status = plane_finish(generator);
        int other = exit_of(child);
        plane_free(generator);
        _exit(status != 0 ? -status : other);
    }
    int status;
    assert_int_equal(waitpid(group, &status, WUNTRACED), group);
    assert_true(WIFSTOPPED(status));
    kill(-group, SIGSTOP);
    sleep_ms(2 * PLANE_SILENCE * PERIOD);
    kill(-group, SIGCONT);
    assert_int_equal(exit_of(group), 0);
}

int main(void)
{
    log_init("test_plane", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_and_planes),
        cmocka_unit_test(test_nobody_comes),
        cmocka_unit_test(test_the_reader_of_the_output_goes_before_it_attaches),
        cmocka_unit_test(test_passes_come_in_order_and_give_their_buffers_back),
        cmocka_unit_test(test_a_full_window_waits_for_a_credit),
        cmocka_unit_test(test_the_end_waits_for_all_credits),
        cmocka_unit_test(test_a_trainer_that_has_enough_says_so),
        cmocka_unit_test(test_a_hang_up_is_a_loss_at_once),
        cmocka_unit_test(test_a_wait_for_a_pass_can_be_interrupted),
        cmocka_unit_test(test_a_killed_trainer_is_lost_at_once),
        cmocka_unit_test(test_a_stopped_trainer_is_lost_in_time),
        cmocka_unit_test(test_pauses_do_not_add_up),
        cmocka_unit_test(test_stopped_and_continued_as_a_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
