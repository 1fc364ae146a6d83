/* Reads a file and says how long it took, in nanoseconds. The same program in every guest.
 *
 *   read seq FILE          the whole file, 1 MiB at a time
 *   read direct FILE       the same past the guest's page cache
 *   read random FILE N     N blocks of 4 KiB at places that a fixed generator chooses
 *   read randomdirect FILE N
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	int random = !strncmp(argv[1], "random", 6);
	int direct = !!strstr(argv[1], "direct");
	int fd = open(argv[2], O_RDONLY | (direct ? O_DIRECT : 0));
	struct stat about;
	void *buffer;
	if (fd < 0 || fstat(fd, &about) || posix_memalign(&buffer, 4096, 1 << 20)) {
		perror(argv[2]);
		return 1;
	}
	/* Touched before the clock runs. */
	memset(buffer, 1, 1 << 20);
	if (random)
		posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	uint64_t bytes = 0, blocks = about.st_size / 4096, place = 88172645463325252ull;
	uint64_t begun = now();
	if (random) {
		for (long left = argc > 3 ? atol(argv[3]) : 1000; left > 0; left--) {
			place ^= place << 13;
			place ^= place >> 7;
			place ^= place << 17;
			ssize_t got = pread(fd, buffer, 4096, place % blocks * 4096);
			if (got != 4096) {
				perror("pread");
				return 1;
			}
			bytes += got;
		}
	} else {
		for (ssize_t got; (got = read(fd, buffer, 1 << 20)) != 0; bytes += got) {
			if (got < 0) {
				perror("read");
				return 1;
			}
		}
	}
	printf("read %s %llu %llu\n", argv[1], (unsigned long long)bytes, (unsigned long long)(now() - begun));
	return 0;
}
