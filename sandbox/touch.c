/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/touch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/image_rewrite.h"

#define AREA_BYTES_MAX (256u << 20)

struct area {
	unsigned long begin;
	unsigned long end;
	unsigned long offset;
	char path[PATH_MAX];
};

/* An area that runs code of a file, in a line of /proc/<pid>/maps. */
static bool parse(const char *line, struct area *ret)
{
	char flags[5];
	int at = 0;

	if (sscanf(line, "%lx-%lx %4s %lx %*s %*s %n", &ret->begin, &ret->end, flags, &ret->offset,
		    &at) != 4 ||
		at == 0 || line[at] != '/' || strcmp(flags, "r-xp") != 0 ||
		ret->end - ret->begin > AREA_BYTES_MAX)
		return false;
	snprintf(ret->path, sizeof(ret->path), "%.*s", (int)strcspn(line + at, "\n"), line + at);
	/* of a clone's own memory each page is its snapshot's */
	return strncmp(ret->path, NEST_IMAGE_REWRITE_DIR "/", sizeof(NEST_IMAGE_REWRITE_DIR)) != 0;
}

void nest_touch_end(struct nest_touch *touch)
{
	char bytes[NEST_TOUCH_BATCH];
	size_t done = 0;

	while (done < touch->n) {
		struct iovec local = { .iov_base = bytes, .iov_len = touch->n - done };
		ssize_t n = process_vm_readv(
			touch->pid, &local, 1, touch->bytes + done, touch->n - done, 0);

		if (n < 0 && errno != EFAULT)
			break;
		/* one that can't be read ends the call, or fails it as its first */
		done += n > 0 ? (size_t)n : 1;
	}
	touch->n = 0;
}

void nest_touch_byte(struct nest_touch *touch, uint64_t at)
{
	touch->bytes[touch->n++] = (struct iovec){ .iov_base = (void *)at, .iov_len = 1 };
	if (touch->n == NEST_TOUCH_BATCH)
		nest_touch_end(touch);
}

/* @resident has a byte for each page. */
static void touch_resident(pid_t pid, const struct area *area, const unsigned char *resident)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), npages = (area->end - area->begin) / page;
	struct nest_touch touch = { .pid = pid };

	for (size_t i = 0; i < npages;) {
		unsigned long at = area->begin + i * page;

		if (!(resident[i] & 1)) {
			i++;
			continue;
		}
		nest_touch_byte(&touch, at);
		/* on to the next block */
		i += (NEST_TOUCH_BLOCK_BYTES - at % NEST_TOUCH_BLOCK_BYTES) / page;
	}
	nest_touch_end(&touch);
}

static void touch_area(pid_t pid, const struct area *area)
{
	size_t bytes = area->end - area->begin, page = (size_t)sysconf(_SC_PAGESIZE);
	nest_autofree unsigned char *resident = malloc(bytes / page);
	nest_autoclose int fd = open(area->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	void *map;

	/* the name is the process's word: only what is root's is looked at */
	if (!resident || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != 0)
		return;
	map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, (off_t)area->offset);
	if (map == MAP_FAILED)
		return;
	if (mincore(map, bytes, resident) == 0)
		touch_resident(pid, area, resident);
	munmap(map, bytes);
}

void nest_touch_programs(pid_t pid)
{
	nest_autofclose FILE *maps = NULL;
	nest_autofree char *line = NULL;
	struct area area;
	char path[32];
	size_t room = 0;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	while (maps && getline(&line, &room, maps) > 0) {
		if (parse(line, &area))
			touch_area(pid, &area);
	}
}
