/* A server as it is written in a first lesson: one client after the other, until accept() fails. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in at = {.sin_family = AF_INET};

	if (argc < 2)
		return 2;
	at.sin_port = htons(atoi(argv[1]));
	if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 100)) {
		perror("listen");
		return 1;
	}
	for (;;) {
		int client = accept(listener, NULL, NULL);
		if (client < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (client < 0) {
			perror("accept");
			return 3;
		}
		if (write(client, "hello\n", 6) != 6)
			perror("write");
		close(client);
	}
}
