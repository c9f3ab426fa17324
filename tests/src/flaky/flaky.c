/*
 * Netlink calls that fail now and then, as they do on a machine under pressure: preloaded into a router (flaky.rs).
 *
 * Of all calls that send to or receive from a netlink socket, one in FLAKY_ONE_IN fails before it reaches the kernel, with
 * an error that such a call may have. Which ones follows from FLAKY_SEED and from how the calls of all threads come
 * after each other. Other sockets are not touched. Each failure is one byte appended to the file FLAKY_TALLY.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* EAGAIN is not among them: on a socket that epoll has called ready the kernel does not say it. */
static const int errors[] = {ENOBUFS, ENOMEM, EINTR};

static uint64_t number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text ? strtoull(text, NULL, 10) : otherwise;
}

static int is_netlink(int fd)
{
	int domain = 0;
	socklen_t length = sizeof(domain);
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_NETLINK;
}

/* Whether this call is to fail; errno says how. */
static int fails(int fd)
{
	static _Atomic uint64_t calls;
	int before = errno;
	if (!is_netlink(fd)) {
		errno = before;
		return 0;
	}
	errno = before;
	/* SplitMix64 (Steele, Lea and Flood, 2014) of the number of the call. */
	uint64_t x = (atomic_fetch_add(&calls, 1) + number("FLAKY_SEED", 0)) * 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	x ^= x >> 31;
	uint64_t one_in = number("FLAKY_ONE_IN", 0);
	if (one_in == 0 || (x >> 8) % one_in != 0)
		return 0;
	const char *tally = getenv("FLAKY_TALLY");
	int file = tally ? open(tally, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
	if (file >= 0) {
		(void)!write(file, ".", 1);
		close(file);
	}
	errno = errors[x % (sizeof(errors) / sizeof(errors[0]))];
	return 1;
}

#define FLAKY(result, name, parameters, arguments)                  \
	result name parameters                                      \
	{                                                           \
		static result(*real) parameters;                    \
		if (!real)                                          \
			real = (result(*) parameters)dlsym(RTLD_NEXT, #name); \
		return fails(fd) ? -1 : real arguments;             \
	}

FLAKY(ssize_t, send, (int fd, const void *buffer, size_t length, int flags), (fd, buffer, length, flags))
FLAKY(ssize_t, sendto,
      (int fd, const void *buffer, size_t length, int flags, const struct sockaddr *to, socklen_t size),
      (fd, buffer, length, flags, to, size))
FLAKY(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
FLAKY(ssize_t, recv, (int fd, void *buffer, size_t length, int flags), (fd, buffer, length, flags))
FLAKY(ssize_t, recvfrom,
      (int fd, void *buffer, size_t length, int flags, struct sockaddr *from, socklen_t *size),
      (fd, buffer, length, flags, from, size))
FLAKY(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
