/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "sandbox/cgroup_file.h"
#include "sandbox/cgroup_find.h"

#define PATIENCE_STEPS 500 /* of PAUSE_NS: 5 s */
#define OPEN_TRIES 5	   /* a former life takes its directories away once */
#define PAUSE_NS 10000000

const char *nest_cgroup_controller_name(enum nest_cgroup_controller controller)
{
	static const char *const names[NEST_CGROUP_CONTROLLERS] = {
		[NEST_CGROUP_MEMORY] = "memory",
		[NEST_CGROUP_PIDS] = "pids",
		[NEST_CGROUP_CPU] = "cpu",
		[NEST_CGROUP_CPUACCT] = "cpuacct",
		[NEST_CGROUP_FREEZER] = "freezer",
	};

	return names[controller];
}

static void pause_briefly(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
}

struct cell_name {
	char text[32];
};

static struct cell_name name_of(uint64_t serial)
{
	struct cell_name name;

	snprintf(name.text, sizeof(name.text), "cell-%llu", (unsigned long long)serial);
	return name;
}

static int open_dir(int at, const char *name)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* Makes the instance's directory, or finds it; a former life may take it away in between. */
static int make_own_dir(int base, const char *name, struct nest_err *err)
{
	int dir = -ENOENT;

	for (int i = 0; i < OPEN_TRIES && dir == -ENOENT; i++) {
		if (mkdirat(base, name, 0755) < 0 && errno != EEXIST)
			return nest_err_set(err, -errno, "make cgroup '%s'", name);
		dir = open_dir(base, name);
	}
	return dir < 0 ? nest_err_set(err, dir, "open cgroup '%s'", name) : dir;
}

int nest_cgroup_add(struct nest_cgroup *cgroup, const struct nest_cgroup_ops *ops,
	unsigned controllers, int base, struct nest_err *err)
{
	struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[cgroup->n];
	nest_autoclose int own = base;
	int dir;

	if (cgroup->n == NEST_CGROUP_MAX_HIERARCHIES)
		return nest_err_say(err, -ENOSPC, "more than %d cgroup hierarchies",
			NEST_CGROUP_MAX_HIERARCHIES);
	dir = make_own_dir(own, cgroup->name, err);
	if (dir < 0)
		return dir;
	/* one that a privileged host left behind is of no use to one without privilege */
	if (faccessat(dir, ".", W_OK, AT_EACCESS) < 0) {
		int code = -errno;

		close(dir);
		return nest_err_set(err, code, "write to cgroup '%s'", cgroup->name);
	}
	*h = (struct nest_cgroup_hierarchy){
		.ops = ops,
		.controllers = ops->enable(cgroup, own, dir, controllers),
		.base = nest_take_fd(own),
		.dir = dir,
	};
	cgroup->controllers |= h->controllers;
	cgroup->n++;
	return 0;
}

/* Kills what is in one leftover and removes it; both take effect with a delay. */
static int sweep_one(const struct nest_cgroup_hierarchy *h, const char *name, struct nest_err *err)
{
	for (int i = 0; i < PATIENCE_STEPS; i++) {
		nest_autoclose int dir = -1;

		if (unlinkat(h->dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY)
			return nest_err_set(err, -errno, "remove leftover cgroup '%s'", name);
		dir = open_dir(h->dir, name);
		if (dir >= 0)
			h->ops->kill(dir);
		pause_briefly();
	}
	return nest_err_say(
		err, -EBUSY, "leftover cgroup '%s' still has processes: kill them", name);
}

int nest_cgroup_sweep(const struct nest_cgroup_hierarchy *h, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(h->dir, ".");
	struct dirent *entry;

	if (!list)
		return nest_err_set(err, -errno, "list leftover cgroups");
	while ((entry = readdir(list))) {
		int r = 0;

		if (strncmp(entry->d_name, "cell-", 5) == 0)
			r = sweep_one(h, entry->d_name, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/*
 * Two hosts of one name would sweep each other's cells. The lock lives on the directory, so that
 * it goes with its last holder; a former life that is just cleaning up is waited for.
 */
static int lock_instance(const struct nest_cgroup *cgroup, struct nest_err *err)
{
	for (int i = 0; i < PATIENCE_STEPS; i++) {
		if (flock(cgroup->hierarchies[0].dir, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			return nest_err_set(err, -errno, "lock cgroup '%s'", cgroup->name);
		pause_briefly();
	}
	return nest_err_say(err, -EBUSY,
		"cgroup '%s' is in use: another host of this instance name is running",
		cgroup->name);
}

void nest_cgroup_explain(struct nest_cgroup *cgroup, unsigned controllers, const char *why)
{
	for (int c = 0; c < NEST_CGROUP_CONTROLLERS; c++)
		if (controllers & (1u << c))
			snprintf(cgroup->why[c], sizeof(cgroup->why[c]), "%s", why);
}

/*
 * A former life may have moved whoever started us into its leaf "nestlet-<instance>/host": then our
 * own cgroup is the one above that, or each restart would nest one deeper.
 */
static void leave_leaf(char *own)
{
	static const char leaf[] = "/" NEST_CGROUP_LEAF;
	size_t len = strlen(own);
	char *parent;

	if (len < sizeof(leaf) || strcmp(own + len - (sizeof(leaf) - 1), leaf) != 0)
		return;
	own[len - (sizeof(leaf) - 1)] = '\0';
	parent = strrchr(own, '/');
	if (parent && strncmp(parent + 1, "nestlet-", 8) == 0)
		*parent = '\0';
	else
		own[len - (sizeof(leaf) - 1)] = '/';
}

static void add_place(struct nest_cgroup *cgroup, struct nest_cgroup_find_place *place)
{
	const struct nest_cgroup_ops *ops =
		place->version == 2 ? &nest_cgroup_v2_ops : &nest_cgroup_v1_ops;
	struct nest_err why = NEST_ERR_INIT;
	char path[2 * PATH_MAX];
	int base;

	leave_leaf(place->own);
	snprintf(path, sizeof(path), "%s%s", place->mount, place->own);
	base = open_dir(AT_FDCWD, path);
	if (base < 0)
		base = open_dir(AT_FDCWD, place->mount);
	if (base < 0)
		nest_err_set(&why, base, "open '%s'", place->mount);
	else if (nest_cgroup_add(cgroup, ops, place->controllers, base, &why) == 0)
		return;
	nest_cgroup_explain(
		cgroup, place->version == 2 ? ~0u : place->controllers, nest_err_text(&why));
}

static int find_hierarchies(struct nest_cgroup *cgroup, struct nest_err *err)
{
	nest_autofree struct nest_cgroup_find_place *places = NULL;
	nest_autofree char *mounts = NULL;
	nest_autofree char *own = NULL;
	size_t n;
	int r;

	places = calloc(NEST_CGROUP_MAX_HIERARCHIES, sizeof(*places));
	if (!places)
		return nest_err_set(err, -ENOMEM, "look for cgroups");
	r = nest_file_read(AT_FDCWD, "/proc/self/mountinfo", 1 << 20, &mounts, NULL, err);
	if (r == 0)
		r = nest_file_read(AT_FDCWD, "/proc/self/cgroup", 1 << 16, &own, NULL, err);
	if (r < 0)
		return nest_err_wrap(err, "look for cgroups");
	n = nest_cgroup_find_places(mounts, own, places, NEST_CGROUP_MAX_HIERARCHIES);
	for (size_t i = 0; i < n; i++)
		add_place(cgroup, &places[i]);
	return 0;
}

/* Whether all directories are still what their name leads to. */
static bool all_stand(const struct nest_cgroup *cgroup)
{
	for (size_t i = 0; i < cgroup->n; i++) {
		const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];
		struct stat ours, named;

		if (fstat(h->dir, &ours) < 0 ||
			fstatat(h->base, cgroup->name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
			ours.st_dev != named.st_dev || ours.st_ino != named.st_ino)
			return false;
	}
	return true;
}

/* Closes without removing: without the lock they are another's. */
static void let_go(struct nest_cgroup *cgroup)
{
	while (cgroup->n > 0) {
		cgroup->n--;
		close(cgroup->hierarchies[cgroup->n].dir);
		close(cgroup->hierarchies[cgroup->n].base);
	}
}

/*
 * Has the directories and their lock. 1: the former life whose lock was waited for has removed
 * them, and what is held are not the instance's any more.
 */
static int take_hold(const char *instance, struct nest_cgroup *ret, struct nest_err *err)
{
	int r;

	*ret = (struct nest_cgroup){ .n = 0 };
	snprintf(ret->name, sizeof(ret->name), "nestlet-%s", instance);
	nest_cgroup_explain(ret, ~0u,
		"no mounted cgroup hierarchy has it, or it is not delegated to this cgroup");
	r = find_hierarchies(ret, err);
	if (r == 0 && ret->n > 0)
		r = lock_instance(ret, err);
	if (r == 0 && !all_stand(ret))
		r = 1;
	if (r != 0)
		let_go(ret);
	return r;
}

/* Frozen ones first: until they are thawed they die in none. */
static int sweep_all(const struct nest_cgroup *cgroup, struct nest_err *err)
{
	int r = 0;

	for (int can_freeze = 1; can_freeze >= 0; can_freeze--) {
		for (size_t i = 0; r == 0 && i < cgroup->n; i++) {
			const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];
			bool can = h->controllers & (1u << NEST_CGROUP_FREEZER);

			if (can == can_freeze)
				r = nest_cgroup_sweep(h, err);
		}
	}
	return r;
}

int nest_cgroup_open(const char *instance, struct nest_cgroup *ret, struct nest_err *err)
{
	int r = 1;

	for (int i = 0; i < OPEN_TRIES && r == 1; i++)
		r = take_hold(instance, ret, err);
	if (r == 1)
		return nest_err_say(
			err, -EBUSY, "cgroup 'nestlet-%s' is removed by somebody else", instance);
	if (r == 0)
		r = sweep_all(ret, err);
	if (r < 0) {
		let_go(ret);
		return r;
	}
	for (int c = 0; c < NEST_CGROUP_CONTROLLERS; c++)
		if (ret->controllers & (1u << c))
			ret->why[c][0] = '\0';
	return 0;
}

/* The first hierarchy's directory, which bears the lock, goes last. */
void nest_cgroup_close(struct nest_cgroup *cgroup)
{
	while (cgroup->n > 0) {
		struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[--cgroup->n];

		h->ops->disable(h->base, h->dir);
		/* stays where a v2 leaf can't be emptied; the next life uses it again */
		unlinkat(h->base, cgroup->name, AT_REMOVEDIR);
		close(h->dir);
		close(h->base);
	}
}

int nest_cgroup_create(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err)
{
	struct cell_name name = name_of(serial);

	for (size_t i = 0; i < cgroup->n; i++) {
		int code;

		if (mkdirat(cgroup->hierarchies[i].dir, name.text, 0755) == 0)
			continue;
		code = -errno;
		while (i-- > 0)
			unlinkat(cgroup->hierarchies[i].dir, name.text, AT_REMOVEDIR);
		return nest_err_set(err, code, "make cgroup '%s/%s'", cgroup->name, name.text);
	}
	return 0;
}

int nest_cgroup_join(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err)
{
	struct cell_name name = name_of(serial);
	char path[64];

	snprintf(path, sizeof(path), "%s/cgroup.procs", name.text);
	for (size_t i = 0; i < cgroup->n; i++) {
		int r = nest_cgroup_file_write(cgroup->hierarchies[i].dir, path, err, "0");

		if (r < 0)
			return r;
	}
	return 0;
}

/* The controllers whose limit isn't the one that is set. */
static unsigned differing(
	const struct nest_cgroup_limits *limits, const struct nest_cgroup_limits *set)
{
	const unsigned all =
		1u << NEST_CGROUP_MEMORY | 1u << NEST_CGROUP_PIDS | 1u << NEST_CGROUP_CPU;

	if (!set)
		return all;
	return (unsigned)(limits->memory_bytes != set->memory_bytes) << NEST_CGROUP_MEMORY |
	       (unsigned)(limits->pids != set->pids) << NEST_CGROUP_PIDS |
	       (unsigned)(limits->cpu_milli != set->cpu_milli) << NEST_CGROUP_CPU;
}

int nest_cgroup_limit(const struct nest_cgroup *cgroup, uint64_t serial,
	const struct nest_cgroup_limits *limits, const struct nest_cgroup_limits *set,
	struct nest_err *err)
{
	struct cell_name name = name_of(serial);
	unsigned wanted = differing(limits, set);

	for (size_t i = 0; i < cgroup->n; i++) {
		const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];
		nest_autoclose int dir = -1;
		int r;

		if (!(h->controllers & wanted))
			continue;
		dir = open_dir(h->dir, name.text);
		r = dir < 0 ? nest_err_set(err, dir, "open cgroup '%s'", name.text)
			    : h->ops->limit(dir, h->controllers & wanted, limits, err);
		if (r < 0)
			return r;
	}
	return 0;
}

void nest_cgroup_usage(
	const struct nest_cgroup *cgroup, uint64_t serial, struct nest_cgroup_usage *ret)
{
	struct cell_name name = name_of(serial);

	*ret = (struct nest_cgroup_usage){ .pids = 0 };
	for (size_t i = 0; i < cgroup->n; i++) {
		const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];
		nest_autoclose int dir = open_dir(h->dir, name.text);

		if (dir >= 0)
			h->ops->usage(dir, h->controllers, ret);
	}
}

int nest_cgroup_kill(const struct nest_cgroup *cgroup, uint64_t serial)
{
	struct cell_name name = name_of(serial);

	for (size_t i = 0; i < cgroup->n; i++) {
		const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];
		nest_autoclose int dir = -1;

		if (h->ops != &nest_cgroup_v2_ops)
			continue;
		dir = open_dir(h->dir, name.text);
		return dir < 0 ? dir : h->ops->kill(dir);
	}
	return 1;
}

int nest_cgroup_freeze(
	const struct nest_cgroup *cgroup, uint64_t serial, bool frozen, struct nest_err *err)
{
	const struct nest_cgroup_hierarchy *best = NULL;
	struct cell_name name = name_of(serial);
	nest_autoclose int dir = -1;

	for (size_t i = 0; i < cgroup->n; i++) {
		const struct nest_cgroup_hierarchy *h = &cgroup->hierarchies[i];

		if (h->controllers & (1u << NEST_CGROUP_FREEZER) &&
			(!best || h->ops == &nest_cgroup_v2_ops))
			best = h;
	}
	if (!best)
		return 1;
	dir = open_dir(best->dir, name.text);
	if (dir < 0)
		return nest_err_set(err, dir, "open cgroup '%s'", name.text);
	return best->ops->freeze(dir, frozen, err);
}

int nest_cgroup_remove(const struct nest_cgroup *cgroup, uint64_t serial, struct nest_err *err)
{
	struct cell_name name = name_of(serial);
	bool busy = false;

	for (size_t i = 0; i < cgroup->n; i++) {
		if (unlinkat(cgroup->hierarchies[i].dir, name.text, AT_REMOVEDIR) == 0 ||
			errno == ENOENT)
			continue;
		if (errno != EBUSY)
			return nest_err_set(
				err, -errno, "remove cgroup '%s/%s'", cgroup->name, name.text);
		busy = true;
	}
	return busy ? 1 : 0;
}
