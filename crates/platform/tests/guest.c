/* The guest of the boot tests: does what the kernel's command line says, then ends the machine in that way. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void probe_hostfs(void)
{
	/* What a guest root can reach of the host through Debian's kernel. */
	mkdir("/host", 0755);
	if (mount("none", "/host", "hostfs", 0, "/")) {
		printf("TEST hostfs: not there\n");
		return;
	}
	const char *secrets[] = { "/host/etc/passwd", "/host/root", "/host/home", "/host/proc/1", "/host/usr/bin", "/host/dev/null" };
	int seen = 0;
	for (unsigned i = 0; i < sizeof(secrets) / sizeof(*secrets); i++)
		seen += access(secrets[i], F_OK) == 0;
	printf("TEST hostfs: %d of the host's files\n", seen);
}

static void features(void)
{
	const char *kinds[] = { "tmpfs", "proc", "sysfs", "devtmpfs", "devpts", "cgroup2", "mqueue", "overlay", "erofs", "ext4" };
	char have[4096] = { 0 };
	int fd = open("/proc/filesystems", O_RDONLY);
	if (fd < 0 || read(fd, have, sizeof(have) - 1) < 0)
		return;
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		printf("TEST filesystem %s: %s\n", kinds[i], strstr(have, kinds[i]) ? "yes" : "no");
}

static void devices(void)
{
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	printf("TEST virtio device: %s\n", access("/sys/bus/virtio/devices/virtio0", F_OK) ? "missing" : "there");
}

int main(void)
{
	char line[4096] = { 0 };
	setvbuf(stdout, NULL, _IONBF, 0);
	mount("proc", "/proc", "proc", 0, NULL);
	int fd = open("/proc/cmdline", O_RDONLY);
	if (fd >= 0 && read(fd, line, sizeof(line) - 1) < 0)
		line[0] = 0;
	printf("TEST init reached\n");
	/* Fork and wait, so that more than one guest process existed. */
	pid_t child = fork();
	if (child == 0)
		_exit(7);
	int status = 0;
	waitpid(child, &status, 0);
	printf("TEST child exited with %d\n", WEXITSTATUS(status));
	if (strstr(line, "test=features"))
		features();
	if (strstr(line, "test=device"))
		devices();
	if (strstr(line, "test=hostfs"))
		probe_hostfs();
	if (strstr(line, "test=panic")) {
		fd = open("/proc/sysrq-trigger", O_WRONLY);
		if (fd < 0 || write(fd, "c", 1) < 0)
			_exit(1); /* the end of init is a panic as well */
	}
	if (strstr(line, "test=hang"))
		for (;;)
			pause();
	if (strstr(line, "test=spin")) {
		for (int i = 0; i < 3; i++)
			if (fork() == 0)
				for (;;)
					;
		for (;;)
			pause();
	}
	reboot(strstr(line, "test=restart") ? RB_AUTOBOOT : RB_POWER_OFF);
	return 0;
}
