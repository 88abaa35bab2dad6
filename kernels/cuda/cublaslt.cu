/* cublaslt.cu - finds cuBLASLt: where the toolkit lay when this was built (the backend's run path),
 * else where the system's linker looks. The version that this was compiled for is taken first, but
 * that of CUDA 12 or 13 will do: what is called here, its constants and its structs are the same in
 * both (compared for 12.9 and 13.0). The calls are looked up by name, as the library gives its
 * symbols a version, which would tie a linked backend to one of them. */
#include "kernels/cuda/cublaslt.h"

#ifdef CCPIPE_EMU

int cublaslt_load(struct cublaslt *library, const struct kernels_host *host)
{
    (void)host;
#define CUBLASLT_SET(name) library->name = cublasLt##name;
    CUBLASLT_CALLS(CUBLASLT_SET)
#undef CUBLASLT_SET
    return 0;
}

#else

#include <cublas_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define CUBLASLT_QUOTED(number) #number
#define CUBLASLT_NAME(major) "libcublasLt.so." CUBLASLT_QUOTED(major)

/* Sets *call, a pointer to a function. */
static bool find_call(void *loaded, const char *name, void *call)
{
    void *symbol = dlsym(loaded, name);
    memcpy(call, &symbol, sizeof symbol);
    return symbol != NULL;
}

int cublaslt_load(struct cublaslt *library, const struct kernels_host *host)
{
    static const char *const names[] = {CUBLASLT_NAME(CUBLAS_VER_MAJOR), CUBLASLT_NAME(13),
                                        CUBLASLT_NAME(12)};
    char message[512];
    void *loaded = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && loaded == NULL; i++)
        loaded = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    bool found = loaded != NULL;
#define CUBLASLT_FIND(name) found = found && find_call(loaded, "cublasLt" #name, &library->name);
    CUBLASLT_CALLS(CUBLASLT_FIND)
#undef CUBLASLT_FIND
    if (found)
        return 0;
    snprintf(
        message, sizeof message,
        "cannot load cuBLASLt: %s; install the libraries of CUDA 12 or 13, or put their folder "
        "on LD_LIBRARY_PATH",
        dlerror());
    return host->fail(ERR_DEVICE, message);
}

#endif
