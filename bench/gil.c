// Measures how long each thread is without Python's GIL: preloaded before libpython, in which it wraps the two
// functions that release the GIL and take it again. The time to wait for the GIL is not measured.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static __thread long long released_ns, released_at, num_releases;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void *PyEval_SaveThread(void) {
    static void *(*save)(void);
    if (!save) save = (void *(*)(void))dlsym(RTLD_NEXT, "PyEval_SaveThread");
    void *state = save();
    released_at = now_ns();
    return state;
}

void PyEval_RestoreThread(void *state) {
    static void (*restore)(void *);
    if (!restore) restore = (void (*)(void *))dlsym(RTLD_NEXT, "PyEval_RestoreThread");
    released_ns += now_ns() - released_at;
    num_releases++;
    restore(state);
}

long long gil_released_ns(void) { return released_ns; }
long long gil_num_releases(void) { return num_releases; }
