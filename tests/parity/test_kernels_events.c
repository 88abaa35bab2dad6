/* test_kernels_events.c - an event tells of what its queue failed in, as wait() does: a trainer
 * waits for events alone. The failure is an operation whose workspace there is no memory for. And
 * host memory for copies that nobody waits for.
 */
#include "parity.h"

static uint64_t memory_left;

static int host_fail(int code, const char *message)
{
    (void)message;
    return code;
}

static void host_note(const char *message)
{
    (void)message;
}

static uint64_t host_memory(void)
{
    return memory_left;
}

enum { PIECES_MOST = 10000, PIECE_LEAST = 256 };

/* Takes all that the device has: the host's word is not what a CUDA device goes by. */
static size_t fill(const struct kernels *kernels, struct kernels_device *device, void **pieces)
{
    size_t count = 0;
    for (size_t bytes = kernels->memory_free(device); bytes >= PIECE_LEAST;) {
        if (count < PIECES_MOST && kernels->alloc(device, &pieces[count], bytes) == 0)
            count++;
        else
            bytes /= 2;
    }
    assert_true(count < PIECES_MOST);
    return count;
}

static void an_event_tells_of_its_queue(void **state)
{
    (void)state;
    static const struct kernels_host host = {host_fail, host_note, host_memory};
    enum { COUNT = 100000 };
    struct parity parity;
    assert_int_equal(setenv("EMU_MEMORY", "20000000", 1), 0); /* for an emulated device */
    parity_open(&parity, 1, DTYPE_F32);
    const struct kernels *kernels = parity.kernels;
    struct kernels_device *device = NULL;
    struct kernels_queue *good = NULL, *bad = NULL;
    struct kernels_event *before = NULL, *after = NULL, *other = NULL, *never = NULL;
    void *d_values = NULL, *d_sum = NULL;
    memory_left = 1 << 30;
    assert_int_equal(kernels->open(&device, 0, 1, DTYPE_F32, &host), 0);
    assert_int_equal(kernels->alloc(device, &d_values, COUNT * sizeof(float)), 0);
    assert_int_equal(kernels->alloc(device, &d_sum, sizeof(double)), 0);
    assert_int_equal(kernels->queue_create(device, &good), 0);
    assert_int_equal(kernels->queue_create(device, &bad), 0);
    struct kernels_event **events[] = {&before, &after, &other, &never};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(kernels->event_create(device, events[i]), 0);

    kernels->event_record(bad, before);
    assert_int_equal(kernels->event_sync(before), 0);
    /* A kernel's code is loaded when it is first launched, and that takes memory too. */
    kernels->scale(good, d_values, d_values, 1.0f, COUNT);
    assert_int_equal(kernels->wait(good), 0);
    static void *pieces[PIECES_MOST];
    size_t filled = getenv("PARITY_DEVICE") != NULL ? fill(kernels, device, pieces) : 0;
    memory_left = 0;
    kernels->dot(bad, d_sum, d_values, d_values, COUNT);
    kernels->event_record(bad, after);
    kernels->scale(good, d_values, d_values, 2.0f, COUNT); /* needs no memory, so it works */
    kernels->event_record(good, other);
    assert_int_equal(kernels->event_sync(after), ERR_MEMORY);
    assert_int_equal(kernels->wait(bad), ERR_MEMORY);
    assert_int_equal(kernels->event_sync(other), 0);
    assert_int_equal(kernels->event_sync(never), 0);
    assert_int_equal(kernels->wait(good), 0);

    for (size_t i = 0; i < 4; i++)
        kernels->event_free(*events[i]);
    kernels->queue_free(good);
    kernels->queue_free(bad);
    for (size_t i = 0; i < filled; i++)
        kernels->free(device, pieces[i]);
    kernels->free(device, d_values);
    kernels->free(device, d_sum);
    kernels->close(device);
    parity_close(&parity);
}

/* What the emulated device refuses: host memory where its own is meant. */
static void a_failure_of_cuda_is_kept(void **state)
{
    (void)state;
    struct parity parity;
    struct kernels_queue *bad = NULL;
    struct kernels_event *event = NULL;
    float host = 1, *values;
    parity_open(&parity, 1, DTYPE_F32);
    const struct kernels *kernels = parity.kernels;
    if (parity_is_emulated(&parity)) {
        void *d_value = parity_random(&parity, &values, DTYPE_F32, 1, 1.0f);
        assert_int_equal(kernels->queue_create(parity.device, &bad), 0);
        assert_int_equal(kernels->event_create(parity.device, &event), 0);
        kernels->copy(bad, d_value, &host, sizeof host);
        kernels->scale(bad, d_value, d_value, 3.0f, 1); /* is dropped */
        kernels->event_record(bad, event);
        assert_int_equal(kernels->event_sync(event), ERR_DEVICE);
        assert_int_equal(kernels->wait(bad), ERR_DEVICE);
        parity_get(&parity, &host, d_value, DTYPE_F32, 1);
        assert_memory_equal(&host, values, sizeof host);
        kernels->event_free(event);
        kernels->queue_free(bad);
        parity_free(&parity, d_value);
        free(values);
    }
    parity_close(&parity);
}

static char said[256];

static int host_keep(int code, const char *message)
{
    snprintf(said, sizeof said, "%s", message);
    return code;
}

/* A copy in and one out again, on queues that only events order; and what is asked is told. */
static void host_memory_is_there_for_copies(void **state)
{
    (void)state;
    static const struct kernels_host host = {host_keep, host_note, host_memory};
    enum { COUNT = 1000 };
    struct parity parity;
    parity_open(&parity, 1, DTYPE_F32);
    const struct kernels *kernels = parity.kernels;
    struct kernels_device *device = NULL;
    struct kernels_queue *in = NULL, *out = NULL;
    struct kernels_event *filled = NULL;
    void *from = NULL, *to = NULL, *huge = NULL, *d_values = NULL;
    memory_left = 1 << 30;
    assert_int_equal(kernels->open(&device, 0, 1, DTYPE_F32, &host), 0);
    assert_int_equal(kernels->host_alloc(device, &from, COUNT * sizeof(float)), 0);
    assert_int_equal(kernels->host_alloc(device, &to, COUNT * sizeof(float)), 0);
    assert_int_equal((uintptr_t)from % 64, 0);
    assert_int_equal(kernels->alloc(device, &d_values, COUNT * sizeof(float)), 0);
    assert_int_equal(kernels->queue_create(device, &in), 0);
    assert_int_equal(kernels->queue_create(device, &out), 0);
    assert_int_equal(kernels->event_create(device, &filled), 0);
    for (size_t i = 0; i < COUNT; i++)
        ((float *)from)[i] = (float)i;
    kernels->upload(in, d_values, from, COUNT * sizeof(float));
    kernels->event_record(in, filled);
    kernels->event_wait(out, filled);
    kernels->download(out, to, d_values, COUNT * sizeof(float));
    assert_int_equal(kernels->wait(out), 0);
    assert_memory_equal(to, from, COUNT * sizeof(float));

    memory_left = (size_t)1 << 50; /* the word of the host is not what decides */
    assert_int_equal(kernels->host_alloc(device, &huge, (size_t)1 << 49), ERR_MEMORY);
    assert_non_null(strstr(said, "562949953421312 "));
    assert_null(huge);
    kernels->host_free(device, NULL);
    kernels->host_free(device, from);
    kernels->host_free(device, to);
    kernels->event_free(filled);
    kernels->queue_free(in);
    kernels->queue_free(out);
    kernels->free(device, d_values);
    kernels->close(device);
    parity_close(&parity);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_event_tells_of_its_queue),
                                       cmocka_unit_test(a_failure_of_cuda_is_kept),
                                       cmocka_unit_test(host_memory_is_there_for_copies)};
    log_init("test_kernels_events", LOG_WARNING);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
