/* Another user of the machine, who wants the clients of a program: `thief PORT CROWD` tries without
 * pause to listen on PORT, on each address and with each pair of options, while CROWD idle processes
 * of this user make /proc slow. When standard input ends, it prints what it got, and ends. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const struct {
    int family;
    int v6only;
    const char *host;
} addresses[] = {
    {AF_INET, 0, "127.0.0.1"}, {AF_INET, 0, "0.0.0.0"},         {AF_INET, 0, "127.1.2.3"},
    {AF_INET6, 1, "::1"},      {AF_INET6, 1, "::"},             {AF_INET6, 0, "::"},
    {AF_INET6, 0, "::1"},      {AF_INET6, 0, "::ffff:127.0.0.1"},
};
enum { ADDRESSES = sizeof addresses / sizeof *addresses, OPTIONS = 4 };

static long attempts, bound, listened, clients, bytes;

/* For each address and pair of options: the listener, or -1. */
static int listeners[ADDRESSES][OPTIONS];

static int attempt(int address, int options, int port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int family = addresses[address].family, v6only = addresses[address].v6only;
    int reuse_address = options & 1, reuse_port = options >> 1;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0), result;

    attempts++;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse_address, sizeof reuse_address);
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &reuse_port, sizeof reuse_port);
    if (family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
        inet_pton(family, addresses[address].host, &v6.sin6_addr);
        result = bind(fd, (struct sockaddr *)&v6, sizeof v6);
    } else {
        inet_pton(family, addresses[address].host, &v4.sin_addr);
        result = bind(fd, (struct sockaddr *)&v4, sizeof v4);
    }
    if (result == 0) {
        bound++;
        if (listen(fd, 128) == 0) {
            listened++;
            return fd;
        }
    }
    close(fd);
    return -1;
}

/* Reads what the next client types. */
static void serve(int listener)
{
    char line[256];
    struct pollfd typed = {.fd = accept(listener, NULL, NULL), .events = POLLIN};

    if (typed.fd < 0)
        return;
    clients++;
    if (poll(&typed, 1, 50) == 1) {
        ssize_t length = read(typed.fd, line, sizeof line);
        if (length > 0)
            bytes += length;
    }
    close(typed.fd);
}

static void crowd(int left)
{
    for (; left > 0; left--)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
}

int main(int argc, char **argv)
{
    struct pollfd over = {.fd = 0, .events = POLLIN};

    if (argc != 3)
        return 2;
    crowd(atoi(argv[2]));
    memset(listeners, -1, sizeof listeners);
    puts("at work");
    fflush(stdout);
    while (poll(&over, 1, 0) == 0)
        for (int address = 0; address < ADDRESSES; address++)
            for (int options = 0; options < OPTIONS; options++) {
                int *listener = &listeners[address][options];
                if (*listener < 0)
                    *listener = attempt(address, options, atoi(argv[1]));
                else
                    serve(*listener);
            }
    printf("attempts %ld bound %ld listened %ld clients %ld bytes %ld\n", attempts, bound, listened,
           clients, bytes);
    return 0;
}
