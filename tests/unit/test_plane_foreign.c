/* test_plane_foreign.c - who speaks the control socket's messages by hand: what is none, and what a
 * partner may not send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/plane_wire.h"
#include "plane_ends.h"

/* A connection by hand to a generator that a thread lets accept. */
struct acceptance {
    struct plane *plane;
    int status;
};

static void *accept_run(void *argument)
{
    struct acceptance *acceptance = argument;
    acceptance->status = plane_accept(acceptance->plane, -1);
    return NULL;
}

static int connect_by_hand(const char *name)
{
    struct sockaddr_un address;
    socklen_t size = plane_wire_address(&address, name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, size), 0);
    return fd;
}

static void test_what_says_no_hello_is_sent_away(void **state)
{
    (void)state;
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    struct acceptance acceptance;
    struct attachment attachment = {.setup = setup};
    pthread_t thread;
    assert_int_equal(plane_listen(&acceptance.plane, &setup, attachment.attach.socket), 0);
    assert_int_equal(pthread_create(&thread, NULL, accept_run, &acceptance), 0);
    uint8_t bytes[2 * PLANE_WIRE_BYTES] = {0};
    const struct plane_wire beat = {.type = PLANE_BEAT}, hello = {.type = PLANE_HELLO};
    for (int i = 0; i < 6; i++) {
        int fd = connect_by_hand(attachment.attach.socket);
        size_t size = PLANE_WIRE_BYTES;
        plane_wire_put(bytes, i == 2 ? &beat : &hello);
        if (i == 0)
            memset(bytes, 0, sizeof bytes);
        else if (i == 1)
            size--;
        else if (i == 3)
            size++;
        else if (i == 4)
            bytes[6] = 200; /* no such type */
        if (i < 5)
            assert_int_equal(send(fd, bytes, size, 0), size);
        char byte; /* the last one says nothing, and is sent away as well */
        assert_true(recv(fd, &byte, 1, 0) <= 0);
        close(fd);
    }
    attach_run(&attachment);
    pthread_join(thread, NULL);
    assert_int_equal(acceptance.status, 0);
    assert_int_equal(attachment.status, 0);
    plane_free(attachment.plane);
    plane_free(acceptance.plane);
}

static void test_a_hello_of_another_version_is_refused(void **state)
{
    (void)state;
    struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
    struct acceptance acceptance;
    char name[BEGIN_SOCKET_BYTES];
    pthread_t thread;
    assert_int_equal(plane_listen(&acceptance.plane, &setup, name), 0);
    assert_int_equal(pthread_create(&thread, NULL, accept_run, &acceptance), 0);
    int fd = connect_by_hand(name);
    uint8_t bytes[PLANE_WIRE_BYTES];
    struct plane_wire hello = {.type = PLANE_HELLO, .kind = BEGIN_CUDA_IPC}, answer;
    memset(hello.uuid, 1, sizeof hello.uuid);
    plane_wire_put(bytes, &hello);
    bytes[4] = PLANE_WIRE_VERSION + 1;
    assert_int_equal(send(fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(recv(fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_true(plane_wire_get(&answer, bytes, sizeof bytes));
    assert_int_equal(answer.type, PLANE_REFUSE);
    assert_non_null(strstr(answer.text, "versions"));
    pthread_join(thread, NULL);
    assert_int_equal(acceptance.status, ERR_USAGE);
    close(fd);
    plane_free(acceptance.plane);
}

/* After a good HELLO: what a trainer may not send. Pass 0 is out, in buffer 0. */
static void test_what_a_trainer_may_not_send(void **state)
{
    (void)state;
    struct plane_wire hello = {.type = PLANE_HELLO, .kind = BEGIN_CUDA_IPC}, answer;
    memset(hello.uuid, 1, sizeof hello.uuid);
    const struct plane_wire messages[] = {
        {.type = PLANE_FREE, .pass.number = 1},
        {.type = PLANE_FREE, .pass.number = UINT64_MAX},
        {.type = PLANE_PASS, .pass = {0, 1, 1, 1}},
        {.type = PLANE_ACCEPT},
        {.type = PLANE_REFUSE},
        hello,
    };
    for (size_t i = 0; i < 2 + sizeof messages / sizeof *messages; i++) {
        struct plane_setup setup = make_setup(BEGIN_CUDA_IPC, 1);
        struct acceptance acceptance;
        char name[BEGIN_SOCKET_BYTES];
        pthread_t thread;
        assert_int_equal(plane_listen(&acceptance.plane, &setup, name), 0);
        assert_int_equal(pthread_create(&thread, NULL, accept_run, &acceptance), 0);
        int fd = connect_by_hand(name), status;
        uint8_t bytes[PLANE_WIRE_BYTES];
        assert_int_equal(plane_wire_send(fd, &hello), 1);
        assert_int_equal(recv(fd, bytes, sizeof bytes, 0), sizeof bytes);
        assert_true(plane_wire_get(&answer, bytes, sizeof bytes));
        assert_int_equal(answer.type, PLANE_ACCEPT);
        pthread_join(thread, NULL);
        uint32_t buffer;
        assert_int_equal(plane_take(acceptance.plane, &buffer), 0);
        assert_int_equal(plane_announce(acceptance.plane, buffer, 1, 1), 0);
        if (i == 0) { /* a credit twice */
            const struct plane_wire credit = {.type = PLANE_FREE};
            assert_int_equal(plane_wire_send(fd, &credit), 1);
            assert_int_equal(plane_wire_send(fd, &credit), 1);
        } else if (i == 1) {
            assert_int_equal(send(fd, bytes, 7, 0), 7);
        } else {
            assert_int_equal(plane_wire_send(fd, &messages[i - 2]), 1);
        }
        assert_true(wait_for_loss(acceptance.plane, &status) < PLANE_SILENCE / 2);
        assert_int_equal(status, ERR_PEER);
        close(fd);
        plane_free(acceptance.plane);
    }
}

/* What a generator may not send, in the place of pass 0, or of pass 1 behind a good one. */
static void test_what_a_generator_may_not_send(void **state)
{
    (void)state;
    const struct {
        bool behind;
        struct plane_wire message;
    } cases[] = {
        {false, {.type = PLANE_PASS, .pass = {0, BUFFERS, 1, 1}}},
        {false, {.type = PLANE_PASS, .pass = {0, UINT32_MAX, 1, 1}}},
        {false, {.type = PLANE_PASS, .pass = {0, 0, CAPACITY + 1, 1}}},
        {false, {.type = PLANE_PASS, .pass = {0, 0, UINT32_MAX, 1}}},
        {false, {.type = PLANE_PASS, .pass = {0, 0, 2, 3}}},
        {false, {.type = PLANE_PASS, .pass = {1, 0, 1, 1}}},
        {false, {.type = PLANE_FREE, .pass.number = 0}},
        {true, {.type = PLANE_PASS, .pass = {0, 1, 1, 1}}}, /* a number twice */
        {true, {.type = PLANE_PASS, .pass = {2, 1, 1, 1}}},
        {true, {.type = PLANE_PASS, .pass = {1, 0, 1, 1}}}, /* a buffer that is still full */
        {true, {.type = PLANE_FREE, .pass.number = 0}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct attachment attachment = {.setup = make_setup(BEGIN_CUDA_IPC, 1)};
        struct sockaddr_un address;
        pthread_t thread;
        snprintf(attachment.attach.socket, BEGIN_SOCKET_BYTES, "ccpipe-test-%d-%zu", (int)getpid(),
                 i);
        socklen_t size = plane_wire_address(&address, attachment.attach.socket);
        int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
        assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
        assert_int_equal(listen(listener, 1), 0);
        assert_int_equal(pthread_create(&thread, NULL, attach_run, &attachment), 0);
        int fd = accept(listener, NULL, NULL);
        const struct plane_wire yes = {.type = PLANE_ACCEPT},
                                good = {.type = PLANE_PASS, .pass = {0, 0, 3, 2}};
        assert_int_equal(plane_wire_send(fd, &yes), 1);
        pthread_join(thread, NULL);
        assert_int_equal(attachment.status, 0);
        struct plane_pass pass;
        if (cases[i].behind) {
            assert_int_equal(plane_wire_send(fd, &good), 1);
            assert_int_equal(plane_next_pass(attachment.plane, &pass), 1);
            assert_int_equal(pass.rows, 3);
        }
        assert_int_equal(plane_wire_send(fd, &cases[i].message), 1);
        int status = plane_next_pass(attachment.plane, &pass);
        if (status != ERR_PEER)
            print_error("case %zu\n", i);
        assert_int_equal(status, ERR_PEER);
        plane_free(attachment.plane);
        close(fd);
        close(listener);
    }
}

int main(void)
{
    log_init("test_plane_foreign", LOG_SILENT);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_says_no_hello_is_sent_away),
        cmocka_unit_test(test_a_hello_of_another_version_is_refused),
        cmocka_unit_test(test_what_a_trainer_may_not_send),
        cmocka_unit_test(test_what_a_generator_may_not_send),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
