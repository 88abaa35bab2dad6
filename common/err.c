/* err.c - lookups in the table of failure codes. */
#include "err.h"

#include "sig.h"

int err_exit_status(int code)
{
    if (code >= 0)
        return 0;
    if (code == ERR_INTERRUPTED && sig_pending() != 0)
        return sig_exit_status();
    switch (code) {
#define ERR_CASE(name, value, status, meaning) \
    case value:                                \
        return status;
        ERR_TABLE(ERR_CASE)
#undef ERR_CASE
    default:
        return 70;
    }
}

const char *err_meaning(int code)
{
    switch (code) {
#define ERR_CASE(name, value, status, meaning) \
    case value:                                \
        return meaning;
        ERR_TABLE(ERR_CASE)
#undef ERR_CASE
    default:
        return code >= 0 ? "success" : "internal error";
    }
}
