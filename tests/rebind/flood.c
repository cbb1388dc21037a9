/*
 * A server to which strangers connect without end: when one is closed, the next one connects.
 *
 *   flood HOW PORT FROM FROM_PORT
 *
 * HOW is edge, level, select, timeout or blocking. FROM is the address of a client, which is let in. Prints what accept()
 * returns.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in at, from;
/* How many more strangers will connect, and how many have been closed. */
static int to_come, closed;
static volatile int is_waiting;
static pid_t waiter;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int come(int is_client)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (is_client && bind(fd, (struct sockaddr *)&from, sizeof from))
		die("bind of the client");
	if (connect(fd, (struct sockaddr *)&at, sizeof at))
		die("connect");
	if (!is_client)
		syscall(SYS_close, fd);
	return fd;
}

/* Replaces the C library's close(), by which rebind.so closes strangers. */
int close(int fd)
{
	closed++;
	if (to_come > 0 && --to_come == 0 && is_waiting)
		come(1);
	else if (to_come > 0)
		come(0);
	return syscall(SYS_close, fd);
}

static int ask(int listener, const char *what)
{
	closed = 0;
	int fd = accept(listener, NULL, NULL);
	const char *said = fd >= 0 ? "accepted" : errno == EAGAIN ? "EAGAIN" : errno == EINTR ? "EINTR" : "else";
	printf("%s: %s, %d closed\n", what, said, closed);
	return fd;
}

/* Connects as a stranger as soon as the other thread sleeps in accept(). */
static void *knock(void *nothing)
{
	char path[64], line[256], state = 0;

	snprintf(path, sizeof path, "/proc/self/task/%d/stat", waiter);
	while (!is_waiting || state != 'S') {
		int fd = open(path, O_RDONLY);
		ssize_t length = read(fd, line, sizeof line - 1);
		syscall(SYS_close, fd);
		line[length > 0 ? length : 0] = 0;
		char *end = strrchr(line, ')');
		state = end ? end[2] : 0;
		usleep(1000);
	}
	come(0);
	return nothing;
}

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0);
	struct sockaddr_in any = {.sin_family = AF_INET};
	socklen_t length = sizeof at;

	if (argc < 5)
		return 2;
	alarm(20);
	setvbuf(stdout, NULL, _IOLBF, 0);
	const char *how = argv[1];
	any.sin_port = htons(atoi(argv[2]));
	from.sin_family = AF_INET;
	from.sin_port = htons(atoi(argv[4]));
	inet_pton(AF_INET, argv[3], &from.sin_addr);
	if (bind(listener, (struct sockaddr *)&any, sizeof any) || listen(listener, 100) ||
	    getsockname(listener, (struct sockaddr *)&at, &length))
		die("listen");
	if (!strcmp(how, "blocking") || !strcmp(how, "timeout")) {
		struct timeval time = {.tv_sec = 15};
		pthread_t thread;
		if (!strcmp(how, "timeout"))
			setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
		waiter = syscall(SYS_gettid);
		to_come = 1000;
		pthread_create(&thread, NULL, knock, NULL);
		is_waiting = 1;
		ask(listener, how);
		return 0;
	}
	int is_epoll = !strcmp(how, "edge") || !strcmp(how, "level");
	if (is_epoll)
		fcntl(listener, F_SETFL, O_NONBLOCK);
	struct epoll_event event = {.events = EPOLLIN | (strcmp(how, "edge") ? 0 : EPOLLET)};
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (int i = 0; i < 3; i++)
		come(0);
	if (epoll_wait(epoll, &event, 1, 10000) != 1)
		die("the first");
	to_come = 1 << 30;
	ask(listener, how);
	to_come = 0;
	printf("told again: %d\n", epoll_wait(epoll, &event, 1, 0));
	ask(listener, "the rest");
	come(1);
	printf("told again: %d\n", epoll_wait(epoll, &event, 1, 10000));
	ask(listener, "a client");
	return 0;
}
