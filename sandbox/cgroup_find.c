/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup_find.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "sandbox/cgroup.h"

/* The fields of a line of mountinfo that matter here. */
struct mount_line {
	char root[PATH_MAX];
	char point[PATH_MAX];
	char type[32];
	char options[512]; /* of the super block */
};

/* mountinfo writes blanks and backslashes of paths as \ooo. */
static void unescape(char *path)
{
	char *to = path;

	for (const char *from = path; *from; to++) {
		if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
			from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
			*to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

/* Copies the next word of @at; NULL when there is none or it is too long, else what follows it. */
static const char *take_word(const char *at, char *ret, size_t cap)
{
	size_t len;

	at += strspn(at, " ");
	len = strcspn(at, " \n");
	if (len == 0 || len >= cap)
		return NULL;
	memcpy(ret, at, len);
	ret[len] = '\0';
	return at + len;
}

static bool parse_mount(const char *line, struct mount_line *ret)
{
	char word[PATH_MAX];
	const char *at = line;

	for (int i = 0; at && i < 3; i++) /* id, parent, device */
		at = take_word(at, word, sizeof(word));
	at = at ? take_word(at, ret->root, sizeof(ret->root)) : NULL;
	at = at ? take_word(at, ret->point, sizeof(ret->point)) : NULL;
	do /* options, then any number of tags, then "-" */
		at = at ? take_word(at, word, sizeof(word)) : NULL;
	while (at && strcmp(word, "-") != 0);
	at = at ? take_word(at, ret->type, sizeof(ret->type)) : NULL;
	at = at ? take_word(at, word, sizeof(word)) : NULL; /* source */
	at = at ? take_word(at, ret->options, sizeof(ret->options)) : NULL;
	if (!at)
		return false;
	unescape(ret->root);
	unescape(ret->point);
	return true;
}

/* The mask of our controllers in a comma-separated list. */
static unsigned controllers_of(const char *list, size_t len)
{
	unsigned mask = 0;

	while (len > 0) {
		const char *comma = memchr(list, ',', len);
		size_t n = comma ? (size_t)(comma - list) : len;

		for (int c = 0; c < NEST_CGROUP_CONTROLLERS; c++) {
			const char *name = nest_cgroup_controller_name(c);

			if (strlen(name) == n && memcmp(list, name, n) == 0)
				mask |= 1u << c;
		}
		n += comma ? 1 : 0;
		list += n;
		len -= n;
	}
	return mask;
}

/* Our path in the hierarchy with @controllers (0: v2), from lines "4:memory:/a/b". */
static bool own_path(const char *own, unsigned controllers, char *ret, size_t cap)
{
	for (const char *line = own; *line; line += *line ? 1 : 0) {
		size_t len = strcspn(line, "\n");
		const char *list = memchr(line, ':', len);
		const char *path =
			list ? memchr(list + 1, ':', len - (size_t)(list + 1 - line)) : NULL;

		if (path) {
			size_t names = (size_t)(path - list - 1);
			bool hit = controllers
					   ? (controllers_of(list + 1, names) & controllers) != 0
					   : names == 0;
			size_t n = len - (size_t)(path + 1 - line);

			if (hit && n < cap) {
				memcpy(ret, path + 1, n);
				ret[n] = '\0';
				return true;
			}
		}
		line += len;
	}
	return false;
}

/*
 * Where @path (ours, from the hierarchy's root) lies below a mount that shows @root. A mount of
 * another subtree, or a path above our cgroup namespace ("/.."), leaves the mount itself: what a
 * container sees there is its own.
 */
static const char *below(const char *path, const char *root)
{
	size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);

	if (strstr(path, "/..") || strncmp(path, root, n) != 0 ||
		(path[n] != '/' && path[n] != '\0'))
		return "";
	return strcmp(path + n, "/") == 0 ? "" : path + n;
}

static bool find_place(
	const struct mount_line *mount, const char *own, struct nest_cgroup_find_place *ret)
{
	char path[PATH_MAX];

	ret->version = strcmp(mount->type, "cgroup2") == 0 ? 2 : 1;
	ret->controllers = 0;
	if (ret->version == 1) {
		if (strcmp(mount->type, "cgroup") != 0)
			return false;
		ret->controllers = controllers_of(mount->options, strlen(mount->options));
		if (ret->controllers == 0)
			return false;
	}
	if (!own_path(own, ret->controllers, path, sizeof(path)))
		return false;
	snprintf(ret->mount, sizeof(ret->mount), "%s", mount->point);
	snprintf(ret->own, sizeof(ret->own), "%s", below(path, mount->root));
	return true;
}

/* A hierarchy may be mounted twice; the first mount serves. */
static bool is_known(const struct nest_cgroup_find_place *place,
	const struct nest_cgroup_find_place *known, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (known[i].version == place->version &&
			known[i].controllers == place->controllers)
			return true;
	return false;
}

size_t nest_cgroup_find_places(
	const char *mountinfo, const char *own, struct nest_cgroup_find_place *ret, size_t max)
{
	struct mount_line mount;
	size_t n = 0;

	for (const char *line = mountinfo; *line && n < max; line += *line ? 1 : 0) {
		if (parse_mount(line, &mount) && find_place(&mount, own, &ret[n]) &&
			!is_known(&ret[n], ret, n))
			n++;
		line += strcspn(line, "\n");
	}
	return n;
}
