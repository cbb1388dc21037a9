/* A library for LD_PRELOAD. In a hand-over (O2), it lets the new binary fail as the variable FAULT says: with most values
 * while the new binary creates its runtime. It does nothing in a websockify that is started, or in the trial before a
 * hand-over; and in the old binary that goes on after a failed one only with FAULT=unwritten. FAULT=wait is for the old
 * binary that is about to execute the new one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_due, is_back;
static pid_t us;
static long (*real_syscall)(long, ...);

/* Runs before websockify removes these variables from its environment. */
__attribute__((constructor)) static void begin(void)
{
    is_back = getenv("WEBSOCKIFY_HAND_BACK") != NULL;
    is_due = getenv("WEBSOCKIFY_HAND_OVER") && !is_back;
    us = getpid();
    real_syscall = dlsym(RTLD_NEXT, "syscall");
}

static void *crash(void *nothing)
{
    raise(SIGSEGV);
    return nothing;
}

static int is(const char *name)
{
    const char *fault = getenv("FAULT");
    return is_due && fault && !strcmp(fault, name);
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

/* The second alarm(0) is the last moment at which the new binary can still give back to the old one. With FAULT=stopped,
 * somebody has sent SIGTERM just before. */
unsigned alarm(unsigned seconds)
{
    static int taken_back;
    unsigned (*real)(unsigned) = dlsym(RTLD_NEXT, "alarm");
    if ((is("late") || is("stopped")) && seconds == 0 && ++taken_back == 2) {
        if (is("stopped")) {
            kill(us, SIGTERM);
            /* A thread that takes signals takes it. */
            usleep(200000);
        }
        crash(NULL);
    }
    return real(seconds);
}

int epoll_create1(int flags)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "epoll_create1");
    const char *fault = getenv("FAULT");
    if (is_due && fault)
        fail(fault);
    return real(is("fail") ? -1 : flags);
}

/* With FAULT=password, the new binary finds no file of this name, as while somebody writes it anew. With FAULT=unwritten,
 * neither does the old binary, on its way back, the first three times. */
static int is_missing(const char *path)
{
    static int times;
    const char *fault = getenv("FAULT");
    if (!fault || strcmp(path, "password"))
        return 0;
    return is("password") || (!strcmp(fault, "unwritten") && (is_due || (is_back && ++times <= 3)));
}

int open64(const char *path, int flags, ...)
{
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (is_missing(path)) {
        errno = ENOENT;
        return -1;
    }
    return real(path, flags, mode);
}

/* FAULT=epoll: the kernel does not watch the first socket that listens, which is that of the admin address. */
int epoll_ctl(int epoll, int what, int number, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *) = dlsym(RTLD_NEXT, "epoll_ctl");
    int listens = 0;
    socklen_t size = sizeof listens;
    if (is("epoll") && !getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) && listens) {
        errno = ENOSPC;
        return -1;
    }
    return real(epoll, what, number, event);
}

/* With FAULT=wait, the old binary makes a file "waits" when it is about to execute the new one, and then waits for as long
 * as there is a file "hold". The child in which the new binary is tried executes it at once. */
long syscall(long number, ...)
{
    long words[6];
    va_list rest;
    va_start(rest, number);
    for (int at = 0; at < 6; at++)
        words[at] = va_arg(rest, long);
    va_end(rest);
    const char *fault = number == SYS_execveat && getpid() == us ? getenv("FAULT") : NULL;
    if (fault && !strcmp(fault, "wait")) {
        close(open("waits", O_WRONLY | O_CREAT, 0600));
        while (!access("hold", F_OK))
            usleep(5000);
    }
    return real_syscall(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}
