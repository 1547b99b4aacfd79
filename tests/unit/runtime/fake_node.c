/* SPDX-License-Identifier: Apache-2.0 */
/* What the library that is preloaded into Node takes for Node: an object that has node::Start, and calls from it. */
#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

typedef void *mapper(void *, size_t, int, int, int, off_t);

int fake_node_start(int argc, char **argv) __asm__("_ZN4node5StartEiPPc");
void *fake_node_map(mapper *map, void *hint, size_t length, int protection, int flags, int fd);
void *fake_node_stay(void *arg);

int fake_node_start(int argc, char **argv)
{
	(void)argv;
	return argc;
}

void *fake_node_map(mapper *map, void *hint, size_t length, int protection, int flags, int fd)
{
	void *volatile start = map(hint, length, protection, flags, fd, 0);

	/* it is used once more, so that the call above returns to this object */
	return start;
}

/* What a thread may run that stays for good. */
void *fake_node_stay(void *arg)
{
	for (;;)
		pause();
	return arg;
}
