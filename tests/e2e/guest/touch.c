/* Writes to every page of a mapping, twice, and checks at the second time what the first one wrote. Arguments: size in
 * MiB, "private" or "shared", "order" or "random", processes that do it at once. Build: gcc -O1 -static. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096

static size_t common_divisor(size_t a, size_t b)
{
	while (b) {
		size_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

static int touch(size_t pages, int sharing, int random)
{
	char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
	/* Steps of the golden ratio come to every page once, and never to the neighbour of one that was near in time. */
	size_t step = random ? (size_t)(pages * 0.618) : 1;

	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	while (common_divisor(step, pages) != 1)
		step++;
	for (int round = 0; round < 2; round++) {
		size_t page = 0;
		for (size_t count = 0; count < pages; count++) {
			uint64_t *word = (uint64_t *)(memory + page * PAGE);
			if (round && *word != ~page) {
				printf("page %zu was lost\n", page);
				return 1;
			}
			*word = ~page;
			page = (page + step) % pages;
		}
	}
	return 0;
}

int main(int count, char **arguments)
{
	size_t pages;
	int sharing, random, processes, status, failed = 0;

	if (count != 5)
		return 2;
	pages = (size_t)atoi(arguments[1]) * (1048576 / PAGE);
	sharing = strcmp(arguments[2], "shared") ? MAP_PRIVATE : MAP_SHARED;
	random = !strcmp(arguments[3], "random");
	processes = atoi(arguments[4]);
	for (int i = 0; i < processes; i++) {
		if (fork() == 0)
			exit(touch(pages, sharing, random));
	}
	while (wait(&status) > 0)
		failed += status != 0;
	printf("%d of %d processes failed\n", failed, processes);
	return failed != 0;
}
