/* test_kernels_sharing.c - memory of a device that another process has too.
 *
 * Two processes that open the device each; a backend that has no such memory (the CPU) says so by
 * members that are NULL, and by an identity of zeros.
 */
#include "parity.h"

#include <sys/wait.h>
#include <unistd.h>

enum { COUNT = 1000 };

/* What the other process does with the handle that it reads: 0 if all went as it should. */
static int borrow(int ends[2])
{
    struct parity parity;
    uint8_t handle[64];
    void *d_memory = NULL;
    if (read(ends[0], handle, sizeof handle) != (ssize_t)sizeof handle)
        return 2; /* the owner has failed, and says why itself */
    parity_open(&parity, 1, DTYPE_F32);
    if (parity.kernels->map(parity.device, &d_memory, handle) != 0)
        return 3;
    float *d_values = d_memory;
    parity.kernels->scale(parity.queue, d_values, d_values, 4.0f, COUNT);
    parity.kernels->unmap(parity.device, d_memory); /* waits for that */
    if (parity.kernels->wait(parity.queue) != 0)
        return 4;
    parity.kernels->unmap(parity.device, NULL);
    parity_close(&parity);
    return 0;
}

static void two_processes_have_the_same_memory(void **state)
{
    (void)state;
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork(); /* before this one has opened the device */
    assert_true(child >= 0);
    if (child == 0) {
        close(ends[1]);
        _exit(borrow(ends));
    }
    struct parity parity;
    float *values;
    uint8_t handle[64];
    parity_open(&parity, 1, DTYPE_F32);
    float *d_values = parity_random(&parity, &values, DTYPE_F32, COUNT, 1.0f);
    assert_int_equal(parity.kernels->share(parity.device, d_values, handle), 0);
    assert_int_equal(write(ends[1], handle, sizeof handle), sizeof handle);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    float *got = parity_download(&parity, d_values, COUNT * sizeof *got);
    for (int i = 0; i < COUNT; i++) /* a power of two: exact */
        assert_true(got[i] == 4.0f * values[i]);

    /* What is no handle, or this process's own, is refused, and nothing else fails for it. */
    void *d_memory = NULL;
    assert_int_equal(parity.kernels->map(parity.device, &d_memory, handle), ERR_DEVICE);
    memset(handle, 0, sizeof handle);
    assert_int_equal(parity.kernels->map(parity.device, &d_memory, handle), ERR_DEVICE);
    assert_int_equal(parity.kernels->share(parity.device, values, handle), ERR_DEVICE);
    parity.kernels->scale(parity.queue, d_values, d_values, 1.0f, COUNT);
    assert_int_equal(parity.kernels->wait(parity.queue), 0);
    close(ends[0]);
    close(ends[1]);
    free(got);
    free(values);
    parity_free(&parity, d_values);
    parity_close(&parity);
}

static void a_device_is_told_from_others(void **state)
{
    (void)state;
    static const uint8_t zeros[16];
    struct parity parity;
    uint8_t uuid[16], again[16];
    parity_open(&parity, 1, DTYPE_F32);
    memset(uuid, 1, sizeof uuid);
    parity.kernels->identity(parity.device, uuid);
    bool cpu = strcmp(parity_device_name(), "cpu") == 0;
    assert_int_equal(memcmp(uuid, zeros, sizeof uuid) == 0, cpu);
    assert_int_equal(parity.kernels->map == NULL, cpu);
    assert_int_equal(parity.kernels->share == NULL, cpu);
    assert_int_equal(parity.kernels->unmap == NULL, cpu);
    if (strstr(parity.kernels->description(parity.device), "emulated device") !=
        NULL) { /* it has a second device */
        struct kernels_device *second = NULL;
        const struct kernels *kernels = NULL;
        assert_int_equal(kernels_open(&kernels, &second, "cuda:1", 1, DTYPE_F32), 0);
        kernels->identity(second, again);
        assert_memory_not_equal(uuid, again, sizeof uuid);
        kernels_close(kernels, second);
    }
    parity_close(&parity);
}

int main(void)
{
    const struct CMUnitTest cpu[] = {cmocka_unit_test(a_device_is_told_from_others)};
    const struct CMUnitTest others[] = {
        cmocka_unit_test(two_processes_have_the_same_memory), /* first: it forks */
        cmocka_unit_test(a_device_is_told_from_others),
    };
    log_init("test_kernels_sharing", LOG_ERROR);
    if (strcmp(parity_device_name(), "cpu") == 0)
        return cmocka_run_group_tests_name("kernels sharing", cpu, NULL, NULL);
    return cmocka_run_group_tests_name("kernels sharing", others, NULL, NULL);
}
