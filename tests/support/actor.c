/* A program that does what its arguments say, one after the other: `actor bind 5901 listen accept
 * echo exit 1` is a server of one connection. Without an `exit` it ends with 0. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

static int listener = -1;
static int session = -1;
static int protocol = 0;
static const char *ledger;
static char **next;

/* Ends the process where a call fails that no test makes fail. */
static void check(int result, const char *deed)
{
    if (result < 0) {
        perror(deed);
        _exit(99);
    }
}

static const char *argument(void)
{
    if (!*next) {
        fprintf(stderr, "actor: an argument is missing\n");
        _exit(98);
    }
    return *next++;
}

static void send_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = write(fd, bytes, length);
        if (sent < 0)
            _exit(97); /* the other side is gone */
        bytes += sent;
        length -= sent;
    }
}

static void append(const char *file, const char *line)
{
    int fd = open(file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    check(fd, "open");
    send_all(fd, line, strlen(line));
    close(fd);
}

static void append_pid(const char *file)
{
    char line[32];
    snprintf(line, sizeof line, "%d\n", (int)getpid());
    append(file, line);
}

static void bind_to(int family, int v6only, const char *host, int port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;

    check(listener = socket(family, SOCK_STREAM, protocol), "socket");
    check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "SO_REUSEADDR");
    if (family == AF_INET6) {
        check(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only), "V6ONLY");
        inet_pton(AF_INET6, host, &v6.sin6_addr);
        check(bind(listener, (struct sockaddr *)&v6, sizeof v6), "bind");
    } else {
        inet_pton(AF_INET, host, &v4.sin_addr);
        check(bind(listener, (struct sockaddr *)&v4, sizeof v4), "bind");
    }
}

static void do_bind(void) { bind_to(AF_INET, 0, "0.0.0.0", atoi(argument())); }
static void do_bind_dual(void) { bind_to(AF_INET6, 0, "::", atoi(argument())); }
static void do_bind_v6(void) { bind_to(AF_INET6, 1, "::", atoi(argument())); }

static void do_listen(void) { check(listen(listener, 128), "listen"); }

/* Binds to an IPv4 address: the first argument. */
static void do_bind_at(void)
{
    const char *host = argument();
    bind_to(AF_INET, 0, host, atoi(argument()));
}

/* Makes a second listener, for IPv6 alone, at the port that getsockname(2) says of the first one. The first one stays the
 * listener that `accept` uses. */
static void do_listen_beside(void)
{
    struct sockaddr_in said;
    socklen_t length = sizeof said;
    int first = listener;
    check(getsockname(first, (struct sockaddr *)&said, &length), "getsockname");
    bind_to(AF_INET6, 1, "::", ntohs(said.sin_port));
    do_listen();
    listener = first;
}

/* Sockets made from here on are MPTCP sockets (IPPROTO_MPTCP). */
static void do_mptcp(void) { protocol = 262; }

static void do_listen_without_end(void)
{
    for (;;)
        do_listen();
}

static void do_close_listener(void) { close(listener); }

static void do_accept(void)
{
    check(session = accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept");
    if (ledger)
        append_pid(ledger);
}

/* Sends the line "PID\n" over the accepted connection. */
static void do_greet(void)
{
    char line[32];
    snprintf(line, sizeof line, "%d\n", (int)getpid());
    send_all(session, line, strlen(line));
}

static void do_say(void)
{
    const char *word = argument();
    send_all(session, word, strlen(word));
    send_all(session, "\n", 1);
}

static void do_read_line(void)
{
    char byte = 0;
    while (byte != '\n')
        if (read(session, &byte, 1) != 1)
            _exit(96);
}

static void do_echo(void)
{
    char bytes[16384];
    ssize_t length;
    while ((length = read(session, bytes, sizeof bytes)) > 0)
        send_all(session, bytes, length);
}

static void do_flood(void)
{
    static char bytes[65536];
    long left = atol(argument());
    memset(bytes, 'x', sizeof bytes);
    while (left > 0) {
        long piece = left < (long)sizeof bytes ? left : (long)sizeof bytes;
        send_all(session, bytes, piece);
        left -= piece;
    }
}

/* Takes memory without end, and uses it. */
static void do_devour(void)
{
    for (;;) {
        char *more = malloc(1 << 20);
        if (more)
            memset(more, 'x', 1 << 20);
    }
}

static void do_hang_up(void) { close(session); }

/* Accepts for ever; a process is forked for each connection, which greets and echoes. */
static void do_serve(void)
{
    signal(SIGCHLD, SIG_IGN);
    for (;;) {
        do_accept();
        pid_t pid = fork();
        check(pid, "fork");
        if (pid == 0) {
            close(listener);
            do_greet();
            do_echo();
            _exit(0);
        }
        close(session);
    }
}

/* From here on, each `accept` and each process of `hops` appends its PID to this file. */
static void do_ledger(void) { ledger = argument(); }

static void do_note(void) { append_pid(argument()); }

static void do_await(void)
{
    const char *file = argument();
    while (access(file, F_OK) != 0)
        usleep(2000);
}

/* Copies a line from standard input to standard output. */
static void do_ask(void)
{
    char byte = 0;
    while (byte != '\n') {
        if (read(0, &byte, 1) != 1)
            _exit(95);
        send_all(1, &byte, 1);
    }
}

static void do_fork_exit(void)
{
    int status = atoi(argument());
    pid_t pid = fork();
    check(pid, "fork");
    if (pid != 0)
        _exit(status);
}

static void wait_for_ever(void)
{
    for (;;)
        pause();
}

/* Closes all file descriptors except the listener's. */
static void close_all(void)
{
    for (int fd = 0; fd < 1024; fd++)
        if (fd != listener)
            close(fd);
}

static void stand_by(void)
{
    close(listener);
    listener = -1;
    close_all();
    wait_for_ever();
}

/* Forks a process that does nothing, has no file descriptor, and is ended by SIGTERM. */
static void do_helper(void)
{
    pid_t pid = fork();
    check(pid, "fork");
    if (pid == 0) {
        stand_by();
    }
}

/* The same, but for 0.1 s that process has the listener open too, as any forked process has until its exec. */
static void do_slow_helper(void)
{
    pid_t pid = fork();
    check(pid, "fork");
    if (pid == 0) {
        usleep(100000);
        close(listener);
        stand_by();
    }
}

/* Leaves a process that does nothing, orphaned, in a session (setsid(2)) of its own, which SIGTERM does not end. */
static void do_stubborn_helper(void)
{
    pid_t pid = fork();
    check(pid, "fork");
    if (pid == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN);
        if (fork() == 0) {
            stand_by();
        }
        _exit(0);
    }
}

/* Begins a session (setsid(2)), waits for this file, and leaves an orphan in a process group of its own. The two processes
 * above the orphan end at once, so that nobody can see whose descendant it is. */
static void do_session_helper(void)
{
    const char *file = argument();
    check(setsid(), "setsid");
    while (access(file, F_OK) != 0)
        usleep(2000);
    for (int generation = 0; generation < 2; generation++) {
        if (fork() != 0)
            _exit(0);
        setpgid(0, 0);
    }
    stand_by();
}

/* So many processes, one after the other: each lives for two milliseconds, forks the next one and ends. */
static void do_hops(void)
{
    for (int left = atoi(argument()); left > 0; left--) {
        pid_t pid = fork();
        check(pid, "fork");
        if (pid != 0)
            _exit(0);
        if (ledger)
            append_pid(ledger);
        usleep(2000);
    }
}

/* Forks; both processes do what the remaining arguments say. */
static void do_twin(void) { check(fork(), "fork"); }

/* Forks; this process serves, and the forked one, which has no listener, does what the remaining arguments say. */
static void do_serve_beside(void)
{
    pid_t pid = fork();
    check(pid, "fork");
    if (pid != 0)
        do_serve();
    close(listener);
    listener = -1;
}

static void do_setsid(void) { check(setsid(), "setsid"); }

/* Becomes the user nobody, if this process is root. */
static void do_nobody(void)
{
    if (geteuid() == 0) {
        check(setgroups(0, NULL), "setgroups");
        check(setgid(65534), "setgid");
        check(setuid(65534), "setuid");
    }
}

/* Sets the real, effective and saved user ID, so that there is no way back. */
static void do_become(void)
{
    int id = atoi(argument());
    check(setresuid(id, id, id), "setresuid");
}

/* From here on, /proc hides what this process has open, or, mounted with `hidepid`, the process itself (proc(5)). */
static void do_undumpable(void) { check(prctl(PR_SET_DUMPABLE, 0), "prctl"); }

/* In a program that is setuid root: sets the real and saved user ID to 0 too. */
static void do_become_root(void) { check(setresuid(0, 0, 0), "setresuid"); }

static void do_clear_environment(void) { clearenv(); }

static void do_ignore_term(void) { signal(SIGTERM, SIG_IGN); }

static const char *farewell;

static void say_farewell(int signal)
{
    (void)signal;
    append_pid(farewell);
    _exit(0);
}

/* At SIGTERM, appends the PID to this file and exits with 0. */
static void do_on_term(void)
{
    farewell = argument();
    signal(SIGTERM, say_farewell);
}

static void do_nothing(int signal) { (void)signal; }

/* Binds the port so many times, each time with another socket, while signals arrive without pause. */
static void do_storm(void)
{
    int left = atoi(argument());
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(atoi(argument()))};
    struct sigaction restart = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    pid_t us = getpid();
    check(sigaction(SIGURG, &restart, NULL), "sigaction");
    pid_t pid = fork();
    check(pid, "fork");
    if (pid == 0)
        while (kill(us, SIGURG) == 0 && getppid() == us)
            ;
    while (left-- > 0) {
        int bound = socket(AF_INET, SOCK_STREAM, 0);
        check(bound, "socket");
        check(bind(bound, (struct sockaddr *)&v4, sizeof v4), "bind");
        close(bound);
    }
    kill(pid, SIGKILL);
}

static int binds;

static void *bind_and_close(void *failures)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    for (int left = binds; left > 0; left--) {
        int bound = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(bound, (struct sockaddr *)&any, sizeof any) < 0)
            __atomic_fetch_add((int *)failures, 1, __ATOMIC_RELAXED);
        close(bound);
    }
    return NULL;
}

/* Eight threads bind so many sockets each, to ports that the kernel chooses. */
static void do_throng(void)
{
    pthread_t threads[8];
    int failures = 0;
    binds = atoi(argument());
    for (int at = 0; at < 8; at++)
        check(-pthread_create(&threads[at], NULL, bind_and_close, &failures), "pthread_create");
    for (int at = 0; at < 8; at++)
        pthread_join(threads[at], NULL);
    check(failures ? -1 : 0, "bind");
}

static void play(void);

static char state_of_first_thread(void)
{
    char line[64] = "";
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    check(read(fd, line, sizeof line - 1), "read");
    close(fd);
    return strrchr(line, ')')[2];
}

static void *go_on(void *unused)
{
    (void)unused;
    while (state_of_first_thread() != 'Z')
        usleep(1000);
    play();
    exit(0);
}

/* Goes on in another thread once the first has ended. */
static void do_leave_first_thread(void)
{
    pthread_t other;
    check(-pthread_create(&other, NULL, go_on, NULL), "pthread_create");
    pthread_exit(NULL);
}

static void do_stop(void) { raise(SIGSTOP); }

/* Sleeps for a second, so that others can see that the connection has ended. */
static void do_nap(void) { sleep(1); }

static void do_raise(void)
{
    raise(atoi(argument()));
    _exit(94); /* it did not end us */
}

static void do_exit(void) { _exit(atoi(argument())); }

/* Ends with the status that the session asks for in its first byte. */
static void do_exit_byte(void)
{
    unsigned char status;
    if (read(session, &status, 1) != 1)
        _exit(93);
    _exit(status);
}

static const struct {
    const char *name;
    void (*act)(void);
} verbs[] = {
    {"accept", do_accept},
    {"ask", do_ask},
    {"await", do_await},
    {"become", do_become},
    {"become-root", do_become_root},
    {"bind", do_bind},
    {"bind-at", do_bind_at},
    {"bind-dual", do_bind_dual},
    {"bind-v6", do_bind_v6},
    {"clear-environment", do_clear_environment},
    {"close-all", close_all},
    {"close-listener", do_close_listener},
    {"devour", do_devour},
    {"echo", do_echo},
    {"exit", do_exit},
    {"exit-byte", do_exit_byte},
    {"flood", do_flood},
    {"fork-exit", do_fork_exit},
    {"greet", do_greet},
    {"hang-up", do_hang_up},
    {"helper", do_helper},
    {"hops", do_hops},
    {"ignore-term", do_ignore_term},
    {"leave-first-thread", do_leave_first_thread},
    {"ledger", do_ledger},
    {"listen", do_listen},
    {"listen-beside", do_listen_beside},
    {"listen-without-end", do_listen_without_end},
    {"mptcp", do_mptcp},
    {"nap", do_nap},
    {"nobody", do_nobody},
    {"note", do_note},
    {"on-term", do_on_term},
    {"raise", do_raise},
    {"read-line", do_read_line},
    {"say", do_say},
    {"serve", do_serve},
    {"serve-beside", do_serve_beside},
    {"session-helper", do_session_helper},
    {"setsid", do_setsid},
    {"sleep", wait_for_ever},
    {"slow-helper", do_slow_helper},
    {"stop", do_stop},
    {"storm", do_storm},
    {"stubborn-helper", do_stubborn_helper},
    {"throng", do_throng},
    {"twin", do_twin},
    {"undumpable", do_undumpable},
};

static void play(void)
{
    while (*next) {
        const char *name = *next++;
        size_t at = 0;
        while (at < sizeof verbs / sizeof *verbs && strcmp(verbs[at].name, name) != 0)
            at++;
        if (at == sizeof verbs / sizeof *verbs) {
            fprintf(stderr, "actor: cannot '%s'\n", name);
            exit(98);
        }
        verbs[at].act();
    }
}

int main(int argc, char **argv)
{
    (void)argc;
    next = argv + 1;
    play();
    return 0;
}
