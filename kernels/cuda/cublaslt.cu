/* cublaslt.cu - finds cuBLASLt: where the toolkit lay when this was built (the backend's run path),
 * else where the system's linker looks. Only the version that this was compiled for will do. */
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
    char message[512];
    void *loaded = dlopen(CUBLASLT_NAME(CUBLAS_VER_MAJOR), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    bool found = loaded != NULL;
#define CUBLASLT_FIND(name) found = found && find_call(loaded, "cublasLt" #name, &library->name);
    CUBLASLT_CALLS(CUBLASLT_FIND)
#undef CUBLASLT_FIND
    if (found)
        return 0;
    snprintf(message, sizeof message,
             "cannot load cuBLASLt: %s; install the CUDA %d libraries, or put their folder on "
             "LD_LIBRARY_PATH",
             dlerror(), CUBLAS_VER_MAJOR);
    return host->fail(ERR_DEVICE, message);
}

#endif
