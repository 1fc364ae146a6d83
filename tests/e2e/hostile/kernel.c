/* A hostile user-mode kernel: it takes the place of a compartment's kernel (BULKHEAD_KERNEL) and does what ATTEMPT,
 * given when it is compiled, says. What it prints is the guest's console. Build: gcc -O1 -static -DATTEMPT='"memory"'. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#ifndef TARGET
#define TARGET ""
#endif
#define MIB (1UL << 20)

static void say(const char *what, long result)
{
	printf("%s: %s\n", what, result < 0 ? strerror(errno) : "it worked");
}

static void map(const char *what, int flags)
{
	void *p = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	say(what, p == MAP_FAILED ? -1 : 0);
}

/* A file of the root that was not there. */
static int file(const char *name)
{
	return open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
}

static void lengthen(int fd, unsigned long size)
{
	lseek(fd, size - 1, SEEK_SET);
	write(fd, "", 1);
}

/* Waits without a call that would end this process. */
static void wait_for(long milliseconds)
{
	struct timespec since, now;
	clock_gettime(CLOCK_MONOTONIC, &since);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - since.tv_sec) * 1000 + (now.tv_nsec - since.tv_nsec) / 1000000 < milliseconds);
}

/* How far the first stack can be made to grow. */
static void stack(void)
{
	struct rlimit all;
	getrlimit(RLIMIT_STACK, &all);
	printf("stack: %lu KiB\n", (unsigned long)all.rlim_max >> 10);
}

static void hoard(void)
{
	unsigned long total = 0;
	while (total < 4096 && mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		total++;
	printf("private: %lu MiB\n", total);
}

/* Addresses cost page tables, whatever is behind them. */
static void addresses(void)
{
	int fd = file("mem");
	unsigned long total = 0;
	lengthen(fd, 16 * MIB);
	while (total < 1UL << 20 && mmap(NULL, 16 * MIB, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED)
		total += 16;
	printf("addresses: %lu MiB\n", total);
}

static void breed(void)
{
	unsigned long children = 0;
	sigset_t none;
	sigemptyset(&none);
	while (children < 100000) {
		long pid = fork();
		if (pid < 0)
			break;
		if (pid == 0)
			for (;;)
				sigsuspend(&none);
		children++;
	}
	printf("processes: %lu\n", children);
}

static void memory(void)
{
	map("growing down", MAP_GROWSDOWN);
	map("huge pages", MAP_HUGETLB);
	map("locked", MAP_LOCKED);
	say("shared", mmap(NULL, MIB, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
	stack();
	hoard();
	addresses();
	breed();
}

/*
 * A page of the first stack, moved and made longer: it stays one that grows
 * down, which neither RLIMIT_DATA nor RLIMIT_STACK counts.
 */
static void grow(void)
{
	volatile char here = 0;
	unsigned long page = ((unsigned long)&here & ~4095UL) - 4 * 4096;
	*(volatile char *)page = 1;
	say("grown", mremap((void *)page, 4096, 100 * MIB, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
}

static void truncation(void)
{
	int fd = file("mem");
	lengthen(fd, MIB);
	say("for both with O_TRUNC", open("mem", O_RDWR | O_TRUNC));
	say("for reading with O_TRUNC", open("mem", O_RDONLY | O_TRUNC));
	say("for reading", open("mem", O_RDONLY));
}

static void sees(void)
{
	struct utsname host;
	struct sysinfo info;
	uname(&host);
	printf("name: %s\n", host.nodename);
	say("sysinfo", sysinfo(&info));
}

static int message(int socket, unsigned request, const void *payload, unsigned size, int fd)
{
	unsigned header[3] = { request, 1, size };
	struct iovec parts[2] = { { header, sizeof(header) }, { (void *)payload, size } };
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };
	if (fd >= 0) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return sendmsg(socket, &m, MSG_NOSIGNAL);
}

static unsigned long ask(int socket, unsigned request)
{
	char reply[64];
	unsigned long value = 0;
	message(socket, request, NULL, 0, -1);
	if (read(socket, reply, sizeof(reply)) >= 20)
		memcpy(&value, reply + 12, 8);
	return value;
}

/* Shows the second device (random numbers) guest memory whose used ring is a hole, and leaves no memory to fill it. */
static void hole(void)
{
	const unsigned long base = 0x10000000, user = 0x7f0000000000, size = 8 * MIB, ring = 4 * MIB;
	int fd = file("mem"), s = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = "1" };
	lengthen(fd, size);
	char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (connect(s, (void *)&to, sizeof(to)) < 0) {
		say("connect", -1);
		return;
	}
	unsigned long features = ask(s, 1) & 0x140000000, protocol = ask(s, 15) & 0x200;
	message(s, 16, &protocol, 8, -1);
	message(s, 2, &features, 8, -1);
	message(s, 3, NULL, 0, -1);
	struct { unsigned count, padding; unsigned long region[2][4]; } table = { 1, 0, { { base, size, user, 0 } } };
	message(s, 5, &table, sizeof(table), fd);
	struct { unsigned index, value; } number = { 0, 16 }, first = { 0, 0 }, on = { 0, 1 };
	struct { unsigned index, flags; unsigned long descriptors, used, available, log; } where = {
		0, 0, user, user + ring, user + 4096, 0
	};
	unsigned long index = 0, one = 1;
	int call = syscall(SYS_eventfd2, 0, O_NONBLOCK), kick = syscall(SYS_eventfd2, 0, O_NONBLOCK);
	message(s, 8, &number, 8, -1);
	message(s, 10, &first, 8, -1);
	/* One descriptor that the device writes, and it is available. */
	struct { unsigned long address; unsigned length; unsigned short flags, next; } one_page = { base + 8192, 64, 2, 0 };
	memcpy(m, &one_page, sizeof(one_page));
	memset(m + 8192, 1, 64);
	((unsigned short *)(m + 4096))[1] = 1;
	static char block[65536];
	int fill = file("fill");
	while (write(fill, block, sizeof(block)) > 0)
		;
	message(s, 9, &where, sizeof(where), -1);
	message(s, 13, &index, 8, call);
	message(s, 12, &index, 8, kick);
	message(s, 18, &on, 8, -1);
	write(kick, &one, 8);
	puts("kicked");
	wait_for(20000);
}

/* What of its user's it can name: first its devices, as an honest kernel does, then the socket TARGET. */
static void reach(int argc, char **argv)
{
	int device = 0, signals = 0, traces = 0;
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "virtio_uml.device=", 18)) {
			struct sockaddr_un to = { .sun_family = AF_UNIX };
			sprintf(to.sun_path, "%d", device++);
			if (connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof(to)) < 0)
				say("device", -1);
		}
	struct sockaddr_un to = { .sun_family = AF_UNIX, .sun_path = TARGET };
	say("connect", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof(to)));
	for (int pid = 1; pid < 70000; pid++)
		if (pid != getpid()) {
			signals += kill(pid, 0) == 0;
			traces += ptrace(PTRACE_ATTACH, pid, 0, 0) == 0;
		}
	printf("signals: reached %d\ntraces: reached %d\n", signals, traces);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(ATTEMPT, "memory")) memory();
	if (!strcmp(ATTEMPT, "growth")) grow();
	if (!strcmp(ATTEMPT, "truncation")) truncation();
	if (!strcmp(ATTEMPT, "sees")) sees();
	if (!strcmp(ATTEMPT, "hole")) hole();
	if (!strcmp(ATTEMPT, "reach")) reach(argc, argv);
	fflush(stdout);
	/* The console is read until this process ends. */
	wait_for(200);
	return 0;
}
