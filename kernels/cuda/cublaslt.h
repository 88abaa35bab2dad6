/* cublaslt.h - cuBLASLt, loaded when a device is opened.
 *
 * The library is half a gigabyte and takes a third of a second to load. Whoever asks `auto` on a
 * machine without a GPU shall not wait for it, and where it is missing the message shall say what
 * to install; so the backend is not linked with it.
 */
#ifndef CCPIPE_KERNELS_CUDA_CUBLASLT_H
#define CCPIPE_KERNELS_CUDA_CUBLASLT_H

#include "kernels/kernels.h"

#include <cublasLt.h>

/* X(name): cublasLtNAME is called. */
#define CUBLASLT_CALLS(X)           \
    X(Create)                       \
    X(Destroy)                      \
    X(GetStatusString)              \
    X(Matmul)                       \
    X(MatmulAlgoGetHeuristic)       \
    X(MatmulDescCreate)             \
    X(MatmulDescDestroy)            \
    X(MatmulDescSetAttribute)       \
    X(MatmulPreferenceCreate)       \
    X(MatmulPreferenceDestroy)      \
    X(MatmulPreferenceSetAttribute) \
    X(MatrixLayoutCreate)           \
    X(MatrixLayoutDestroy)

struct cublaslt {
#define CUBLASLT_MEMBER(name) decltype(&cublasLt##name) name;
    CUBLASLT_CALLS(CUBLASLT_MEMBER)
#undef CUBLASLT_MEMBER
};

/* Fills in the table; the library stays loaded. ERR_DEVICE with the reason, which is logged. */
int cublaslt_load(struct cublaslt *library, const struct kernels_host *host);

#endif
