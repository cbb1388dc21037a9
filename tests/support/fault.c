/* A library for LD_PRELOAD. In a hand-over (O2), it lets the new binary fail as the variable FAULT says, while the new
 * binary creates its runtime. It does nothing in a websockify that is started, in the trial before a hand-over, or in the
 * old binary that goes on after a failed one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_due;

/* Runs before websockify removes these variables from its environment. */
__attribute__((constructor)) static void begin(void)
{
    is_due = getenv("WEBSOCKIFY_HAND_OVER") && !getenv("WEBSOCKIFY_HAND_BACK");
}

static void *crash(void *nothing)
{
    raise(SIGSEGV);
    return nothing;
}

static void fail(const char *fault)
{
    pthread_t thread;
    if (!strcmp(fault, "crash")) {
        crash(NULL);
    } else if (!strcmp(fault, "abort")) {
        abort();
    } else if (!strcmp(fault, "thread")) {
        pthread_create(&thread, NULL, crash, NULL);
        for (;;)
            pause();
    } else if (!strcmp(fault, "hang")) {
        for (;;)
            pause();
    }
}

/* The second alarm(0) is the last moment at which the new binary can still give back to the old one. */
unsigned alarm(unsigned seconds)
{
    static int taken_back;
    unsigned (*real)(unsigned) = dlsym(RTLD_NEXT, "alarm");
    const char *fault = getenv("FAULT");
    if (is_due && fault && !strcmp(fault, "late") && seconds == 0 && ++taken_back == 2)
        crash(NULL);
    return real(seconds);
}

int epoll_create1(int flags)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "epoll_create1");
    const char *fault = getenv("FAULT");
    if (is_due && fault && strcmp(fault, "late")) {
        fail(fault);
        /* FAULT=fail: the call fails. With any other fault, `fail` does not return. */
        return real(-1);
    }
    return real(flags);
}
