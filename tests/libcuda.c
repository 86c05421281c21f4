/* A CUDA driver without a GPU, which notes that it was started. Tests build it as libcuda.so.1. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NO_DEVICE = 100 };

int cuInit(unsigned flags)
{
    FILE *log = fopen(getenv("CUINIT_LOG"), "a");
    fputs("cuInit\n", log);
    fclose(log);
    return NO_DEVICE;
}

int cuDriverGetVersion(int *version)
{
    *version = 13000;
    return 0;
}

static int refuse(void)
{
    return NO_DEVICE;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status)
{
    if (!strcmp(name, "cuInit"))
        *function = (void *)cuInit;
    else if (!strcmp(name, "cuDriverGetVersion"))
        *function = (void *)cuDriverGetVersion;
    else if (!strncmp(name, "cuGetProcAddress", 16))
        *function = (void *)cuGetProcAddress_v2;
    else
        *function = (void *)refuse;
    if (status)
        *status = 0;
    return 0;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
