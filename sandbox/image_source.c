/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

struct nest_image_source {
	uint64_t id;
	char *path; /* NULL: it is open, or was tried */
	int fd;
	bool ours;
};

static int add(struct nest_image_sources *sources, const struct nest_image_source *source)
{
	if (sources->n == sources->room) {
		size_t room = sources->room ? 2 * sources->room : 64;
		struct nest_image_source *more = reallocarray(sources->list, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		sources->list = more;
		sources->room = room;
	}
	sources->list[sources->n++] = *source;
	return 0;
}

int nest_image_sources_add_open(struct nest_image_sources *sources, uint64_t id, int fd)
{
	return add(sources, &(struct nest_image_source){ .id = id, .fd = fd });
}

int nest_image_sources_add(struct nest_image_sources *sources, uint64_t id, struct nest_wire path)
{
	nest_autofree char *copy = strndup((const char *)path.at, path.left);
	int r = copy ? add(sources,
			       &(struct nest_image_source){
				       .id = id, .path = copy, .fd = -1, .ours = true })
		     : -ENOMEM;

	if (r == 0)
		nest_take_ptr(copy);
	return r;
}

static bool is_plain_of_root(const struct stat *st)
{
	return S_ISREG(st->st_mode) && st->st_uid == 0;
}

/*
 * The name is the kernel's for what a process has mapped, and that process is stopped; looked at
 * before, so that nothing that acts when it is opened is.
 */
static int open_source(const char *path)
{
	nest_autoclose int fd = -1;
	struct stat st;

	if (path[0] != '/' || fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		!is_plain_of_root(&st))
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0 || !is_plain_of_root(&st))
		return -1;
	return nest_take_fd(fd);
}

int nest_image_sources_fd(struct nest_image_sources *sources, uint64_t id)
{
	for (size_t i = 0; i < sources->n; i++) {
		struct nest_image_source *source = &sources->list[i];

		if (source->id != id)
			continue;
		if (source->path)
			source->fd = open_source(source->path);
		free(source->path);
		source->path = NULL;
		return source->fd;
	}
	return -1;
}

void nest_image_sources_done(struct nest_image_sources *sources)
{
	for (size_t i = 0; i < sources->n; i++) {
		if (sources->list[i].ours && sources->list[i].fd >= 0)
			close(sources->list[i].fd);
		free(sources->list[i].path);
	}
	free(sources->list);
}
