/* What a hostile guest kernel may attempt from its process: does one thing, by name, and says what came of it.
 * Exit code 0: the host let it. 1: an error. A forbidden system call ends the process with SIGSYS. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static int done(long result)
{
	printf("%s\n", result < 0 ? strerror(errno) : "it worked");
	return result < 0;
}

static int fill(void)
{
	char block[65536];
	memset(block, 1, sizeof(block));
	int fd = open("big", O_RDWR | O_CREAT | O_EXCL, 0600);
	long total = 0, n;
	while (fd >= 0 && total < 1 << 30 && (n = write(fd, block, sizeof(block))) > 0)
		total += n;
	printf("filled %ld KiB, %s\n", total >> 10, strerror(errno));
	return 1;
}

static int hoard(void)
{
	long total = 0;
	while (total < 1 << 30) {
		char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (p == MAP_FAILED)
			break;
		memset(p, 1, 1 << 20);
		total += 1 << 20;
	}
	printf("hoarded %ld KiB, %s\n", total >> 10, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	setvbuf(stdout, NULL, _IONBF, 0);
	if (!strcmp(what, "nothing")) return 0;
	if (!strcmp(what, "open")) return done(open("/etc/passwd", O_RDONLY));
	if (!strcmp(what, "climb")) {
		for (int i = 0; i < 64; i++)
			if (open("../../../../../../../../etc/passwd", O_RDONLY) >= 0)
				return done(0);
		return done(-1);
	}
	if (!strcmp(what, "pid")) { printf("pid %d\n", getpid()); return 0; }
	if (!strcmp(what, "descriptors")) {
		for (int fd = 3; fd < 1024; fd++)
			if (fcntl(fd, F_GETFL) >= 0) { printf("descriptor %d is open\n", fd); return 0; }
		return 1;
	}
	if (!strcmp(what, "signal")) {
		int reached = 0;
		for (int pid = 2; pid < 70000; pid++)
			reached += kill(pid, 0) == 0;
		printf("reached %d\n", reached);
		return !reached;
	}
	if (!strcmp(what, "trace")) {
		for (int pid = 2; pid < 70000; pid++)
			if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0)
				return done(0);
		return done(-1);
	}
	/* As the kernel does it (arch/um/os-Linux/util.c, uml_abort). */
	if (!strcmp(what, "abort"))
		for (;;)
			if (kill(getpid(), SIGABRT) < 0)
				exit(127);
	if (!strcmp(what, "fill")) return fill();
	if (!strcmp(what, "hoard")) return hoard();
	if (!strcmp(what, "abstract")) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		struct sockaddr_un to = { .sun_family = AF_UNIX };
		strcpy(to.sun_path + 1, argv[2]);
		return done(connect(fd, (void *)&to, sizeof(sa_family_t) + 1 + strlen(argv[2])));
	}
	if (!strcmp(what, "connect")) {
		struct sockaddr_un to = { .sun_family = AF_UNIX };
		strcpy(to.sun_path, argv[2]);
		for (int i = 0; i < 2; i++)
			done(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&to, sizeof(to)));
		return 0;
	}
	if (!strcmp(what, "limit-parent")) {
		struct rlimit none = { 0, 0 };
		return done(syscall(SYS_prlimit64, getppid(), RLIMIT_NOFILE, &none, NULL));
	}
	if (!strcmp(what, "trace-parent")) return done(ptrace(PTRACE_ATTACH, getppid(), 0, 0));
	if (!strcmp(what, "write-initramfs")) return done(open("initramfs", O_WRONLY));
	if (!strcmp(what, "read-initramfs")) return done(open("initramfs", O_RDONLY));
	if (!strcmp(what, "own-limit")) {
		struct rlimit one = { 1, 1 };
		return done(setrlimit(RLIMIT_NOFILE, &one));
	}
	if (!strcmp(what, "signal-another")) return done(fcntl(1, F_SETOWN, getpid() + 1));
	if (!strcmp(what, "lock")) { struct flock all = { .l_type = F_RDLCK }; return done(fcntl(1, F_SETLK, &all)); }
	if (!strcmp(what, "reserve"))
		return done(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ? -1 : 0);
	if (!strcmp(what, "execve")) { char *none[] = { NULL }; return done(execve("initramfs", none, none)); }
	if (!strcmp(what, "shared-memory"))
		return done(mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
	if (!strcmp(what, "inet")) return done(socket(AF_INET, SOCK_STREAM, 0));
	if (!strcmp(what, "netlink")) return done(socket(AF_NETLINK, SOCK_RAW, 0));
	if (!strcmp(what, "vsock")) return done(socket(AF_VSOCK, SOCK_STREAM, 0));
	if (!strcmp(what, "unshare")) return done(unshare(CLONE_NEWUSER));
	if (!strcmp(what, "clone-user")) return done(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
	if (!strcmp(what, "setns")) return done(setns(0, 0));
	if (!strcmp(what, "mount")) return done(mount("none", "/", "tmpfs", 0, NULL));
	if (!strcmp(what, "bpf")) return done(syscall(SYS_bpf, 0, 0, 0));
	if (!strcmp(what, "io_uring")) return done(syscall(SYS_io_uring_setup, 8, 0));
	if (!strcmp(what, "perf")) return done(syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
	if (!strcmp(what, "keyctl")) return done(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
	if (!strcmp(what, "memfd")) return done(syscall(SYS_memfd_create, "x", 0));
	if (!strcmp(what, "userfaultfd")) return done(syscall(SYS_userfaultfd, 0));
	if (!strcmp(what, "truncate")) return done(ftruncate(1, 0));
	if (!strcmp(what, "shrink")) return done(fallocate(1, FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
	if (!strcmp(what, "setuid")) return done(syscall(SYS_setresuid, 0, 0, 0));
	if (!strcmp(what, "chroot")) return done(chroot("/"));
	if (!strcmp(what, "pidfd")) return done(syscall(SYS_pidfd_open, 1, 0));
	if (!strcmp(what, "reboot")) return done(syscall(SYS_reboot, 0, 0, 0, 0));
	if (!strcmp(what, "sethostname")) return done(sethostname("x", 1));
	if (!strcmp(what, "tiocsti")) { char c = 'x'; return done(syscall(SYS_ioctl, 0, 0x5412, &c)); }
	if (!strcmp(what, "chmod")) return done(chmod("initramfs", 0777));
	if (!strcmp(what, "listen")) return done(listen(socket(AF_UNIX, SOCK_STREAM, 0), 1));
	return 100;
}
