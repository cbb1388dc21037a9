/* Preloaded: what the variable FAULT says happens to a websockify that begins in another's place (O2), when it makes its
 * runtime. Nothing happens to one that is started, tried, or has come back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_due;

/* Before it takes the variables away. */
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

/* The second that takes an alarm back is the last moment at which there is a way back. */
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
        /* An error, which the others never come to. */
        return real(-1);
    }
    return real(flags);
}
