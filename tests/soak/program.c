/* Gives back what it gets, to many at a time, and crashes: `program PORT SEED FILE`, after some sessions, in one of several
 * ways, for as long as there is such a file. After sessions, and not after a time: on a busy machine nobody would be served
 * before it. */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void *serve(void *argument)
{
    int session = (int)(intptr_t)argument;
    char bytes[16384];
    ssize_t length;
    while ((length = read(session, bytes, sizeof bytes)) > 0)
        for (ssize_t sent, at = 0; at < length; at += sent)
            if ((sent = send(session, bytes + at, length - at, MSG_NOSIGNAL)) < 0)
                goto end;
end:
    close(session);
    return NULL;
}

/* In the middle of what the sessions have just begun. */
static void *crash(void *unused)
{
    static const int signals[] = {SIGKILL, SIGSEGV, SIGABRT, SIGTERM};
    long way = lrand48() % 6;
    (void)unused;
    usleep(lrand48() % 100000);
    if (way < 4)
        raise(signals[way]);
    _exit(way - 4);
}

static void check(int result, const char *deed)
{
    if (result != 0) {
        perror(deed);
        exit(99);
    }
}

int main(int argc, char **argv)
{
    struct rlimit no_core = {0, 0};
    struct sockaddr_in any = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    pthread_attr_t detached;
    pthread_t thread;
    if (argc != 4)
        return 98;
    any.sin_port = htons(atoi(argv[1]));
    srand48(atol(argv[2]) ^ getpid());
    setrlimit(RLIMIT_CORE, &no_core);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, 65536);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(bind(listener, (struct sockaddr *)&any, sizeof any), "bind");
    check(listen(listener, 128), "listen");
    for (long left = lrand48() % 150;; left--) {
        int session = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (session >= 0)
            check(pthread_create(&thread, &detached, serve, (void *)(intptr_t)session), "pthread_create");
        if (left <= 0 && access(argv[3], F_OK) == 0)
            check(pthread_create(&thread, &detached, crash, NULL), "pthread_create");
    }
}
