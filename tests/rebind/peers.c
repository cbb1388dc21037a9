/*
 * A server and its client in one: asks for the client's address with buffers of every size, and prints all that
 * the calls return and write. The output is the same whether the client has this address, or rebind.so says so.
 *
 *   peers inet|inet6 PORT FROM FROM_PORT [confined]
 *
 * Confined, it is allowed no system calls but accept, getpeername, write and exit.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* No call that succeeds may change errno. */
#define UNTOUCHED 77
/* What the buffer has where a call writes nothing. */
#define FILL 0xa5

static int listener;
static struct sockaddr_storage at;
static struct sockaddr_in from;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

/* Closes by a reset, so that the port is free again at once. */
static void forget(int fd)
{
	struct linger at_once = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(fd);
}

static int come(void)
{
	int client = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	to.sin_port = at.ss_family == AF_INET ? ((struct sockaddr_in *)&at)->sin_port
					      : ((struct sockaddr_in6 *)&at)->sin6_port;
	setsockopt(client, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (bind(client, (struct sockaddr *)&from, sizeof from))
		die("bind of the client");
	if (connect(client, (struct sockaddr *)&to, sizeof to))
		die("connect");
	return client;
}

/* Connects from the next port. */
static void come_again(void)
{
	from.sin_port = htons(ntohs(from.sin_port) + 1);
	come();
}

static void show(const char *call, int result, int error, const unsigned char *room, socklen_t length)
{
	printf("%s %d errno %d length %u:", call, result < 0 ? -1 : 0, error, length);
	for (int i = 0; i < 40; i++)
		printf(" %02x", room[i]);
	printf("\n");
}

static int call(int which, int fd, void *address, socklen_t *length)
{
	errno = UNTOUCHED;
	switch (which) {
	case 0:
		return accept(listener, address, length);
	case 1:
		return accept4(listener, address, length, SOCK_CLOEXEC | SOCK_NONBLOCK);
	default:
		return getpeername(fd, address, length);
	}
}

/* From here on, any other system call ends the process by SIGSYS. */
static void confine(void)
{
	/* This is struct sock_filter; musl has no headers of the kernel. The filter loads the call's number. Each ALLOW
	 * compares the number, and allows the call or goes on; the last line is SECCOMP_RET_KILL_PROCESS. */
	struct { uint16_t code; uint8_t yes, no; uint32_t k; } filter[] = {
		{0x20, 0, 0, 0},
#define ALLOW(call) {0x15, 0, 1, call}, {0x06, 0, 0, 0x7fff0000}
		ALLOW(SYS_accept), ALLOW(SYS_accept4), ALLOW(SYS_getpeername), ALLOW(SYS_write),
		ALLOW(SYS_exit), ALLOW(SYS_exit_group),
		{0x06, 0, 0, 0x80000000},
	};
	struct { unsigned short length; void *filter; } program = {sizeof filter / sizeof *filter, filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program))
		die("seccomp");
}

static void be_confined(void)
{
	struct sockaddr_storage one = {0}, other = {0};
	socklen_t first = sizeof one, second = sizeof other;

	come();
	come_again();
	confine();
	int fd = accept(listener, (void *)&one, &first);
	if (fd < 0 || getpeername(fd, (void *)&other, &second) || accept(listener, NULL, NULL) < 0)
		_exit(3);
	int is_same = first == second && !memcmp(&one, &other, first);
	int is_it = ((struct sockaddr_in *)&one)->sin_addr.s_addr == inet_addr("127.9.1.7");
	if (write(1, is_same && is_it ? "told\n" : "else\n", 5) != 5)
		_exit(4);
	_exit(0);
}

int main(int argc, char **argv)
{
	static const char *names[] = {"accept", "accept4", "getpeername"};
	static const socklen_t rooms[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 23, 24, 27, 28, 29, 110, 128, -1};
	socklen_t length = sizeof at;
	int is_v6 = !strcmp(argv[1], "inet6"), no = 0;

	if (argc < 5)
		return 2;
	alarm(20);
	setvbuf(stdout, NULL, _IOLBF, 0);
	from.sin_family = AF_INET;
	from.sin_port = htons(atoi(argv[4]));
	inet_pton(AF_INET, argv[3], &from.sin_addr);
	listener = socket(is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	if (is_v6) {
		struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[2]))};
		setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
		if (bind(listener, (struct sockaddr *)&any, sizeof any))
			die("bind");
	} else {
		struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
		if (bind(listener, (struct sockaddr *)&any, sizeof any))
			die("bind");
	}
	if (listen(listener, 5) || getsockname(listener, (struct sockaddr *)&at, &length))
		die("listen");
	if (argc > 5)
		be_confined();
	for (int which = 0; which < 3; which++) {
		for (size_t i = 0; i < sizeof rooms / sizeof *rooms + 6; i++) {
			_Alignas(16) unsigned char room[128], odd[8];
			size_t sizes = sizeof rooms / sizeof *rooms;
			void *address = room;
			int client, fd = -1;

			/* On EINVAL, musl's accept4() calls accept(), which would wait for the next client. */
			if (which == 1 && i < sizes && rooms[i] == (socklen_t)-1)
				continue;
			client = come();

			memset(room, FILL, sizeof room);
			length = i < sizes ? rooms[i] : 28;
			socklen_t *where = &length;
			if (i == sizes || i == sizes + 1)
				address = NULL;
			if (i == sizes + 1 || i == sizes + 2)
				where = NULL;
			if (i == sizes + 3)
				address = (void *)1;
			if (i == sizes + 4)
				where = (void *)4;
			/* The length is at an odd address, as in a packed structure. */
			if (i == sizes + 5)
				where = memcpy(odd + 1, &length, sizeof length);
			if (which == 2 && (fd = accept(listener, NULL, NULL)) < 0)
				die("accept");
			int result = call(which, fd, address, where);
			int error = errno;
			if (i == sizes + 5)
				memcpy(&length, odd + 1, sizeof length);
			show(names[which], result, error, room, length);
			if (which < 2 && result >= 0)
				forget(result);
			if (fd >= 0)
				forget(fd);
			forget(client);
		}
	}
	/* A socket without a connection has no peer. */
	unsigned char room[128] = {0};
	length = 28;
	for (int i = 0; i < 5; i++) {
		static const char *names[] = {"listener", "nothing", "nothing", "no socket", "no listener"};
		int fds[] = {listener, 99, 99, 1, socket(AF_INET, SOCK_STREAM, 0)};
		errno = UNTOUCHED;
		int result = i < 2 ? getpeername(fds[i], (void *)room, &length)
				   : accept(fds[i], (void *)room, &length);
		show(names[i], result, errno, room, length);
	}
	return 0;
}
