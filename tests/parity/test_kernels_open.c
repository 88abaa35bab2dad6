/* Finding, loading and opening a backend, what it says when that fails, and that it rests when it
 * has nothing to do.
 *
 * Each case is a process of its own: the environment is read once, and what is loaded stays. Its
 * standard error is read through a pipe, its results come back as the exit status.
 */
#include "tests/parity/parity.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char said[4096]; /* the last case's standard error */

static const char *backends(void)
{
    const char *folder = getenv("BIN");
    return folder != NULL ? folder : "bin";
}

/* Runs body(argument) in a child and returns its exit status; `said` is what it wrote. */
static int in_child(int (*body)(const void *argument), const void *argument)
{
    int ends[2], status = 0;
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        setenv("CCPIPE_BACKENDS", backends(), 0);
        _exit(body(argument));
    }
    close(ends[1]);
    for (ssize_t got; (got = read(ends[0], said + length, sizeof said - 1 - length)) > 0;)
        length += (size_t)got;
    said[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status))
        fail_msg("the child was killed by signal %d; it said: %s", WTERMSIG(status), said);
    return WEXITSTATUS(status);
}

struct opening {
    const char *name, *variable, *value;
    enum dtype type;
};

static int open_device(const void *argument)
{
    const struct opening *opening = argument;
    const struct kernels *kernels = NULL;
    struct kernels_device *device = NULL;
    if (opening->variable != NULL)
        setenv(opening->variable, opening->value, 1);
    int code = kernels_open(&kernels, &device, opening->name, 2, opening->type);
    if (code == 0)
        kernels_close(kernels, device);
    return err_exit_status(code);
}

static void expect(const char *name, const char *variable, const char *value, int status,
                   const char *text)
{
    struct opening opening = {name, variable, value, DTYPE_F32};
    int got = in_child(open_device, &opening);
    if (got != status || strstr(said, text) == NULL)
        fail_msg("'%s' with %s=%s: status %d, not %d; it said: %s (not: %s)", name,
                 variable != NULL ? variable : "", value != NULL ? value : "", got, status, said,
                 text);
}

static void unknown_devices_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {
        "", "gpu", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:1x", "cuda:-1", "cuda:99999", "cuda0"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        expect(names[i], NULL, NULL, 64, "unknown device");
}

static void a_backend_that_is_not_there_is_named(void **state)
{
    (void)state;
    char folder[] = "/tmp/ccpipe-test-XXXXXX";
    assert_non_null(mkdtemp(folder));
    expect("cuda", "CCPIPE_BACKENDS", folder, 76, "'ccpipe-cuda.so' not found");
    expect("cuda:3", "CCPIPE_BACKENDS", folder, 76, folder);
    expect("cpu", "CCPIPE_BACKENDS", folder, 76, ".so' not found");
    expect("cpu", "CCPIPE_BACKENDS", "/nowhere", 76, "/nowhere");
    expect("auto", "CCPIPE_BACKENDS", folder, 76, ".so' not found");
    /* Beside this program there is none either. */
    expect("cpu", "CCPIPE_BACKENDS", "", 76, "lib/ccpipe");
    assert_int_equal(rmdir(folder), 0);
}

/* A file that is no shared object, and a shared object that is no backend. */
static void a_file_that_is_no_backend_is_refused(void **state)
{
    (void)state;
    char folder[] = "/tmp/ccpipe-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/ccpipe-cuda.so", folder);
    int file = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(file >= 0);
    assert_int_equal(write(file, "no library", 10), 10);
    close(file);
    expect("cuda", "CCPIPE_BACKENDS", folder, 76, "cannot load the CUDA backend");
    assert_int_equal(unlink(path), 0);
    static const char *const libraries[] = {"/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6"};
    for (size_t i = 0; i < 2; i++) {
        if (access(libraries[i], R_OK) != 0)
            continue;
        assert_int_equal(symlink(libraries[i], path), 0);
        expect("cuda", "CCPIPE_BACKENDS", folder, 76, "is not a backend");
        assert_int_equal(unlink(path), 0);
        break;
    }
    assert_int_equal(rmdir(folder), 0);
}

static void levels_are_checked(void **state)
{
    (void)state;
    static const char *const wrong[] = {"v1", "v5", "4", "v", "v33", "V3"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        expect("cpu", "CCPIPE_CPU_LEVEL", wrong[i], 64, "CCPIPE_CPU_LEVEL");
    expect("auto", "CCPIPE_CPU_LEVEL", "v2", 0, "device: cpu: x86-64-v2, 2 threads");
    expect("auto", "CCPIPE_CPU_LEVEL", "", 0, "device: cpu: x86-64-v");
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("x86-64-v4"))
        expect("cpu", "CCPIPE_CPU_LEVEL", "v4", 76, "this processor is");
}

static void only_auto_says_what_it_chose(void **state)
{
    (void)state;
    expect("cpu", NULL, NULL, 0, "");
    assert_string_equal(said, "");
    expect("auto", NULL, NULL, 0, "note: device: cpu: ");
}

/* Without bf16 instructions bf16 is the form of storage: one note, and none where they are. */
static void missing_bf16_is_said_once(void **state)
{
    (void)state;
    struct opening opening = {"cpu", "ONEDNN_MAX_CPU_ISA", "AVX2", DTYPE_BF16};
    assert_int_equal(in_child(open_device, &opening), 0);
    char *note = strstr(said, "bf16 storage, f32 products");
    assert_non_null(note);
    assert_null(strstr(note + 1, "bf16 storage"));
    opening.type = DTYPE_F32;
    assert_int_equal(in_child(open_device, &opening), 0);
    assert_string_equal(said, "");
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16")) {
        struct opening native = {"cpu", NULL, NULL, DTYPE_BF16};
        assert_int_equal(in_child(open_device, &native), 0);
        assert_string_equal(said, "");
    }
}

/* What is asked and what is free are both named; nothing is taken. */
static int ask_too_much(const void *argument)
{
    struct parity parity;
    void *d_memory = &parity;
    parity_open(&parity, 1, DTYPE_F32);
    uint64_t available = parity.kernels->memory_free(parity.device);
    size_t bytes = *(const size_t *)argument;
    if (bytes == 0)
        bytes = (size_t)available + ((size_t)1 << 32);
    int code = parity.kernels->alloc(parity.device, &d_memory, bytes);
    parity_close(&parity);
    return d_memory == &parity ? err_exit_status(code) : 1;
}

static void memory_that_is_not_there_is_refused(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, SIZE_MAX / 2, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(in_child(ask_too_much, &sizes[i]), 71);
        unsigned long long asked = 0, available = 0;
        const char *text = strstr(said, "not enough memory: ");
        assert_non_null(text);
        assert_int_equal(
            sscanf(text, "not enough memory: %llu bytes asked, %llu free", &asked, &available), 2);
        assert_true(available > 0 && asked > available);
        if (sizes[i] > 0)
            assert_true(asked == sizes[i]);
    }
}

/* A folder with the CPU's backends and the emulated CUDA's, in CCPIPE_BACKENDS. */
static char both[32];

static void link_into_both(const char *folder, const char *file, bool make)
{
    char here[1024], from[4096], to[4096];
    assert_non_null(getcwd(here, sizeof here));
    snprintf(from, sizeof from, "%s%s%s/%s", folder[0] == '/' ? "" : here,
             folder[0] == '/' ? "" : "/", folder, file);
    snprintf(to, sizeof to, "%s/%s", both, file);
    if (!make)
        assert_int_equal(unlink(to), 0);
    else if (access(from, R_OK) != 0 || symlink(from, to) != 0)
        fail_msg("cannot link '%s' to '%s'", from, to);
}

static void link_both(bool make)
{
    const char *build = getenv("BUILD");
    char emulated[4096];
    snprintf(emulated, sizeof emulated, "%s/emu", build != NULL ? build : "build");
    static const char *const files[] = {"ccpipe-cpu-v2.so", "ccpipe-cpu-v3.so", "ccpipe-cpu-v4.so"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        link_into_both(backends(), files[i], make);
    link_into_both(emulated, "ccpipe-cuda.so", make);
}

static int make_both(void **state)
{
    (void)state;
    snprintf(both, sizeof both, "/tmp/ccpipe-test-XXXXXX");
    assert_non_null(mkdtemp(both));
    link_both(true);
    return setenv("CCPIPE_BACKENDS", both, 1);
}

static int remove_both(void **state)
{
    (void)state;
    link_both(false);
    assert_int_equal(rmdir(both), 0);
    return unsetenv("CCPIPE_BACKENDS");
}

static void auto_takes_a_cuda_device_where_there_is_one(void **state)
{
    (void)state;
    expect("auto", NULL, NULL, 0, "note: device: cuda:0: emulated device");
    expect("auto", "EMU_DEVICES", "0", 0, "note: device: cpu: ");
    assert_non_null(strstr(said, "(not cuda: there is no CUDA device: no CUDA-capable device"));
    expect("auto", "EMU_CAPABILITY", "75", 0, "(not cuda: cuda:0 (emulated device) has compute");
    expect("auto", "EMU_DRIVER", "12040", 0, "(not cuda: the NVIDIA driver is too old");
    assert_null(strstr(said, "error"));
}

static void a_cuda_device_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    expect("cuda:1", NULL, NULL, 0, "");
    expect("cuda:2", NULL, NULL, 76, "error: there is no cuda:2: 2 devices, from cuda:0");
    expect("cuda", "EMU_DEVICES", "0", 76, "error: there is no CUDA device: no CUDA-capable");
    expect("cuda", "EMU_DRIVER", "0", 76, "no NVIDIA driver is installed");
    expect("cuda", "EMU_DRIVER", "12040", 76, "it knows CUDA 12.4, this program needs 13.0");
    expect("cuda", "EMU_CAPABILITY", "75", 76, "has compute capability 7.5, at least 8.0 is");
}

static double seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Milliseconds of processor time that a third of a second of rest took, after work by 2 threads. */
static int rest(const void *argument)
{
    enum { COUNT = 1 << 20 };
    const struct timespec pause = {.tv_nsec = 333000000};
    struct parity parity;
    (void)argument;
    parity_open(&parity, 2, DTYPE_F32); /* with more threads than processors libgomp gives up */
    float *d_x = parity_alloc(&parity, COUNT * sizeof *d_x);
    for (int i = 0; i < 10; i++)
        parity.kernels->scale(parity.queue, d_x, d_x, 1.5f, COUNT);
    double before = seconds(CLOCK_PROCESS_CPUTIME_ID);
    nanosleep(&pause, NULL);
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - before;
    parity_free(&parity, d_x);
    parity_close(&parity);
    return used > 0.2 ? 200 : (int)(1e3 * used);
}

/* libgomp's threads spin for seconds by default. Sleeping and waking costs less than 1 ms here. */
static void waiting_threads_do_not_spin(void **state)
{
    (void)state;
    unsetenv("OMP_WAIT_POLICY");
    unsetenv("GOMP_SPINCOUNT");
    int used = in_child(rest, NULL);
    if (used > 20)
        fail_msg("resting for 333 ms took %d ms of processor time", used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_devices_are_refused),
        cmocka_unit_test(a_backend_that_is_not_there_is_named),
        cmocka_unit_test(a_file_that_is_no_backend_is_refused),
        cmocka_unit_test(levels_are_checked),
        cmocka_unit_test(only_auto_says_what_it_chose),
        cmocka_unit_test(missing_bf16_is_said_once),
        cmocka_unit_test(memory_that_is_not_there_is_refused),
        cmocka_unit_test_setup_teardown(auto_takes_a_cuda_device_where_there_is_one, make_both,
                                        remove_both),
        cmocka_unit_test_setup_teardown(a_cuda_device_that_is_not_there_is_an_error, make_both,
                                        remove_both),
        cmocka_unit_test(waiting_threads_do_not_spin),
    };
    unsetenv("CCPIPE_BACKENDS");
    unsetenv("CCPIPE_CPU_LEVEL");
    unsetenv("ONEDNN_MAX_CPU_ISA");
    log_init("test_kernels_open", LOG_NOTE);
    return cmocka_run_group_tests_name("kernels open", tests, NULL, NULL);
}
