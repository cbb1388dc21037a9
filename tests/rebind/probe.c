/*
 * A program that does with sockets what its arguments say, one after the other,
 * and prints what came of it. But for the addresses of moved sockets it prints
 * the same with and without rebind.so. Builds with glibc and musl.
 *
 *   socket tcp4|tcp6|mptcp4|udp4|udp6|unix|none  the socket that the following words use
 *   first                                  goes back to the first socket
 *   v6only 0|1
 *   reuseaddr 0|1
 *   todevice NAME                          SO_BINDTODEVICE
 *   bind FAMILY ADDRESS PORT LENGTH        PORT may be "same": as the last "name";
 *                                          LENGTH may be "full"
 *   listen
 *   serve                                  connects to itself, accepts, and closes the
 *                                          accepted end first
 *   name                                   prints the socket's own address
 *   reuse                                  prints SO_REUSEADDR
 *   device                                 prints SO_BINDTODEVICE
 *   lowest                                 prints the lowest free descriptor
 *   threads PORT                           binds in many threads, forking all the while
 *   daemon ROOT                            forks twice, closes everything, clears the
 *                                          environment; as root: chroot, user 65534
 *   nobody                                 becomes user 65534
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS 100
/* No call that succeeds may change errno. */
#define UNTOUCHED 77

static int fd = -1, first = -1;
static int same_port;

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int new_socket(const char *kind)
{
	if (!strcmp(kind, "tcp4"))
		return socket(AF_INET, SOCK_STREAM, 0);
	if (!strcmp(kind, "tcp6"))
		return socket(AF_INET6, SOCK_STREAM, 0);
	if (!strcmp(kind, "udp4"))
		return socket(AF_INET, SOCK_DGRAM, 0);
	if (!strcmp(kind, "udp6"))
		return socket(AF_INET6, SOCK_DGRAM, 0);
	if (!strcmp(kind, "unix"))
		return socket(AF_UNIX, SOCK_STREAM, 0);
	if (!strcmp(kind, "mptcp4"))
		return socket(AF_INET, SOCK_STREAM, 262);
	return 9999;
}

static socklen_t make_address(struct sockaddr_storage *storage, const char *family,
			      const char *text, int port)
{
	memset(storage, 0, sizeof *storage);
	if (!strcmp(family, "inet6")) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)storage;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
			die(text);
		return sizeof *in6;
	}
	if (!strcmp(family, "unix")) {
		struct sockaddr_un *un = (struct sockaddr_un *)storage;
		un->sun_family = AF_UNIX;
		/* Abstract, with the port in the name. */
		memcpy(un->sun_path, (uint16_t[]){0, htons(port)}, 4);
		return sizeof un->sun_family + 4;
	}
	struct sockaddr_in *in = (struct sockaddr_in *)storage;
	in->sin_family = strcmp(family, "unspec") ? AF_INET : AF_UNSPEC;
	in->sin_port = htons(port);
	if (inet_pton(AF_INET, text, &in->sin_addr) != 1)
		die(text);
	return sizeof *in;
}

static void do_bind(char **words)
{
	struct sockaddr_storage address, before;
	int port = strcmp(words[2], "same") ? atoi(words[2]) : same_port;
	socklen_t length = make_address(&address, words[0], words[1], port);

	if (strcmp(words[3], "full"))
		length = atoi(words[3]);
	before = address;
	errno = UNTOUCHED;
	int result = bind(fd, (struct sockaddr *)&address, length);
	printf("bind %d errno %d%s\n", result, errno,
	       memcmp(&before, &address, sizeof address) ? " address changed" : "");
}

static void do_name(void)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof address;
	char text[INET6_ADDRSTRLEN] = "-";

	if (getsockname(fd, (struct sockaddr *)&address, &length))
		die("getsockname");
	if (address.ss_family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)&address;
		inet_ntop(AF_INET, &in->sin_addr, text, sizeof text);
		same_port = ntohs(in->sin_port);
	} else if (address.ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof text);
		same_port = ntohs(in6->sin6_port);
	}
	printf("name %s %d\n", text, same_port);
}

static void do_serve(void)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof address;
	int client, accepted;

	if (getsockname(fd, (struct sockaddr *)&address, &length))
		die("getsockname");
	if ((client = socket(address.ss_family, SOCK_STREAM, 0)) < 0)
		die("socket");
	if (connect(client, (struct sockaddr *)&address, length))
		die("connect");
	if ((accepted = accept(fd, NULL, NULL)) < 0)
		die("accept");
	close(accepted);
	close(client);
	printf("served\n");
}

static void *bind_often(void *port)
{
	long moved = 0;

	for (int round = 0; round < ROUNDS; round++) {
		struct sockaddr_storage address;
		socklen_t length = make_address(&address, "inet", "0.0.0.0", *(int *)port);
		int own = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
		/* The threads bind the same address. */
		setsockopt(own, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
		if (bind(own, (struct sockaddr *)&address, length))
			die("bind");
		getsockname(own, (struct sockaddr *)&address, &length);
		moved += ((struct sockaddr_in *)&address)->sin_addr.s_addr == htonl(INADDR_LOOPBACK);
		close(own);
	}
	return (void *)moved;
}

static void do_threads(int port)
{
	pthread_t threads[THREADS];
	long moved = 0;
	int failed = 0;

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, bind_often, &port))
			die("pthread_create");
	for (int i = 0; i < 20; i++) {
		int status;
		pid_t child = fork();
		if (child == 0)
			_exit((long)bind_often(&port) != ROUNDS);
		waitpid(child, &status, 0);
		failed += status != 0;
	}
	for (int i = 0; i < THREADS; i++) {
		void *of_thread;
		pthread_join(threads[i], &of_thread);
		moved += (long)of_thread;
	}
	printf("threads %ld of %d, children failed %d\n", moved, THREADS * ROUNDS, failed);
}

static void become_daemon(const char *root)
{
	int status;
	pid_t child;

	fflush(stdout);
	if ((child = fork())) {
		waitpid(child, &status, 0);
		_exit(status != 0);
	}
	setsid();
	if (fork())
		_exit(0);
	alarm(20);
	for (int i = 0; i < 1024; i++)
		close(i);
	clearenv();
	if (geteuid() == 0 &&
	    (chroot(root) || chdir("/") || setgroups(0, NULL) || setgid(65534) || setuid(65534)))
		_exit(3);
}

int main(int argc, char **argv)
{
	/* Ends the process if anything here waits. */
	alarm(20);
	for (int i = 1; i < argc; i++) {
		char *deed = argv[i], **words = argv + i + 1;
		if (!strcmp(deed, "socket")) {
			fd = new_socket(words[0]);
			if (fd < 0)
				die(words[0]);
			if (first < 0)
				first = fd;
			i += 1;
		} else if (!strcmp(deed, "first")) {
			fd = first;
		} else if (!strcmp(deed, "v6only")) {
			int value = atoi(words[0]);
			if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &value, sizeof value))
				die("IPV6_V6ONLY");
			i += 1;
		} else if (!strcmp(deed, "reuseaddr")) {
			int value = atoi(words[0]);
			if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value))
				die("SO_REUSEADDR");
			i += 1;
		} else if (!strcmp(deed, "todevice")) {
			if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, words[0], strlen(words[0])))
				die("SO_BINDTODEVICE");
			i += 1;
		} else if (!strcmp(deed, "nobody")) {
			if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
				die("nobody");
		} else if (!strcmp(deed, "bind")) {
			do_bind(words);
			i += 4;
		} else if (!strcmp(deed, "listen")) {
			errno = UNTOUCHED;
			int result = listen(fd, 5);
			printf("listen %d errno %d\n", result, errno);
		} else if (!strcmp(deed, "serve")) {
			do_serve();
		} else if (!strcmp(deed, "name")) {
			do_name();
		} else if (!strcmp(deed, "reuse")) {
			int value;
			socklen_t length = sizeof value;
			if (getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, &length))
				die("SO_REUSEADDR");
			printf("reuse %d\n", value);
		} else if (!strcmp(deed, "device")) {
			char name[16] = "";
			socklen_t length = sizeof name;
			if (getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &length))
				die("SO_BINDTODEVICE");
			printf("device %s\n", length ? name : "-");
		} else if (!strcmp(deed, "lowest")) {
			int lowest = dup(1);
			printf("lowest %d\n", lowest);
			close(lowest);
		} else if (!strcmp(deed, "threads")) {
			do_threads(atoi(words[0]));
			i += 1;
		} else if (!strcmp(deed, "daemon")) {
			become_daemon(words[0]);
			i += 1;
		} else {
			fprintf(stderr, "no such deed: %s\n", deed);
			return 2;
		}
	}
	return 0;
}
