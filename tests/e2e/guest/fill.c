/* Fills memory in small pieces, and works on a table of 8 MiB in its own file meanwhile: what a kernel without swap
 * space can still take away when memory is full, and must read again at once. Build: gcc -O1 -static. */
#include <stdlib.h>
#include <string.h>

#define PAGE 4096
#define PAGES 2048

static const volatile char table[PAGES * PAGE] __attribute__((aligned(PAGE))) = { 1 };

int main(void)
{
	unsigned page = 0;
	char *piece;

	while ((piece = malloc(10000))) {
		memset(piece, table[page * PAGE] + 1, 10000);
		/* A number prime to that of the pages: it comes to all of them. */
		page = (page + 1237) % PAGES;
	}
	return 0;
}
