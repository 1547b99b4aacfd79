/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/privilege.h"

#include <errno.h>
#include <grp.h>
#include <stddef.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/err.h"

#define KEEP(capability, why)                                         \
	{                                                             \
		.cap = capability, .name = #capability, .reason = why \
	}

static const struct nest_privilege kept[] = {
	KEEP(CAP_SYS_ADMIN, "makes namespaces and mounts, and names a cell's host"),
	KEEP(CAP_SYS_CHROOT, "enters the agent's mount namespace to clone a code directory"),
	KEEP(CAP_SETUID, "gives a worker its uid"),
	KEEP(CAP_SETGID, "gives a worker its gid, and no other groups"),
	KEEP(CAP_SETPCAP, "empties a worker's bounding set"),
	KEEP(CAP_KILL, "kills cells, which run as other users"),
	KEEP(CAP_NET_ADMIN, "brings lo up in a network namespace of a cell's own"),
	KEEP(CAP_DAC_OVERRIDE,
		"removes the host's cgroup at the end: kernels make its parent 0555"),
	{ .name = NULL },
};

static const struct nest_privilege kept_for_snapshots[] = {
	KEEP(CAP_SYS_ADMIN, "makes namespaces and mounts, and names a cell's host"),
	KEEP(CAP_SYS_CHROOT, "enters the agent's mount namespace to clone a code directory"),
	KEEP(CAP_SETUID, "gives a worker its uid"),
	KEEP(CAP_SETGID, "gives a worker its gid, and no other groups"),
	KEEP(CAP_SETPCAP, "empties a worker's bounding set"),
	KEEP(CAP_KILL, "kills cells, which run as other users"),
	KEEP(CAP_NET_ADMIN, "brings lo up in a network namespace of a cell's own"),
	KEEP(CAP_DAC_OVERRIDE, "removes the host's cgroup at the end: kernels make its parent "
			       "0555; CRIU opens files"),
	KEEP(CAP_SYS_PTRACE, "CRIU reads a worker's memory and steers it while it is dumped"),
	KEEP(CAP_CHECKPOINT_RESTORE, "CRIU gives a clone its pids"),
	KEEP(CAP_SYS_TIME, "CRIU has a clone's monotonic clock go on where the snapshot stood"),
	KEEP(CAP_SYS_RESOURCE, "CRIU reads limits, and sets the places of a clone's areas"),
	KEEP(CAP_CHOWN, "CRIU gives a clone's files their owner"),
	KEEP(CAP_FOWNER, "CRIU gives a clone's files their mode"),
	{ .name = NULL },
};

static const struct nest_privilege killer[] = {
	KEEP(CAP_KILL, "ends what runs in the cell, as another user"),
	{ .name = NULL },
};

const struct nest_privilege *nest_privilege_killer(void)
{
	return killer;
}

const struct nest_privilege *nest_privilege_kept(bool snapshots)
{
	return snapshots ? kept_for_snapshots : kept;
}

static void free_caps(cap_t *caps)
{
	if (*caps)
		cap_free(*caps);
}
#define autocaps __attribute__((cleanup(free_caps)))

bool nest_privilege_has(int cap)
{
	autocaps cap_t caps = cap_get_proc();
	cap_flag_value_t value = CAP_CLEAR;

	if (!caps || cap_get_flag(caps, cap, CAP_EFFECTIVE, &value) < 0)
		return false;
	return value == CAP_SET;
}

static bool is_listed(const struct nest_privilege *list, int cap)
{
	for (; list && list->name; list++)
		if (list->cap == cap)
			return true;
	return false;
}

/*
 * The kernel knows where capabilities end: it refuses to read the first that is none. Without
 * CAP_SETPCAP the bounding set can't shrink, and needn't: no_new_privs keeps a worker from ever
 * drawing on it.
 */
static int shrink_bounding_set(const struct nest_privilege *list, struct nest_err *err)
{
	if (!nest_privilege_has(CAP_SETPCAP))
		return 0;
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
		if (is_listed(list, cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap) < 0)
			return nest_err_set(
				err, -errno, "drop capability %d from the bounding set", cap);
	}
	return 0;
}

int nest_privilege_gain_none(struct nest_err *err)
{
	return shrink_bounding_set(NULL, err);
}

uint64_t nest_privilege_hand_on(void)
{
	autocaps cap_t caps = cap_get_proc();
	uint64_t mask = 0;

	for (int cap = 0; caps && prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
		cap_flag_value_t value = CAP_CLEAR;

		if (cap_get_flag(caps, cap, CAP_PERMITTED, &value) < 0 || value == CAP_CLEAR)
			continue;
		mask |= UINT64_C(1) << cap;
		(void)cap_set_flag(caps, CAP_INHERITABLE, 1, &cap, CAP_SET);
	}
	/* root needs none of this, and others who may not do it go on with less */
	if (caps && cap_set_proc(caps) == 0)
		for (int cap = 0; cap < 64; cap++)
			if (mask >> cap & 1)
				(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0);
	return mask;
}

int nest_privilege_limit(uint64_t mask, struct nest_err *err)
{
	autocaps cap_t caps = cap_init();

	if (!caps)
		return nest_err_set(err, -ENOMEM, "list capabilities");
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++) {
		if (!(mask >> cap & 1) || !nest_privilege_has(cap))
			continue;
		if (cap_set_flag(caps, CAP_PERMITTED, 1, &cap, CAP_SET) < 0 ||
			cap_set_flag(caps, CAP_EFFECTIVE, 1, &cap, CAP_SET) < 0)
			return nest_err_set(err, -errno, "keep capability %d", cap);
	}
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (cap_set_proc(caps) < 0)
		return nest_err_set(err, -errno, "give up capabilities");
	return 0;
}

int nest_privilege_reduce(const struct nest_privilege *list, struct nest_err *err)
{
	autocaps cap_t caps = cap_init();
	int r;

	if (!caps)
		return nest_err_set(err, -ENOMEM, "list capabilities");
	for (const struct nest_privilege *p = list; p->name; p++) {
		cap_value_t value = p->cap;

		if (!nest_privilege_has(p->cap))
			continue;
		if (cap_set_flag(caps, CAP_PERMITTED, 1, &value, CAP_SET) < 0 ||
			cap_set_flag(caps, CAP_EFFECTIVE, 1, &value, CAP_SET) < 0)
			return nest_err_set(err, -errno, "keep %s", p->name);
	}
	r = shrink_bounding_set(list, err);
	if (r < 0)
		return r;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return nest_err_set(err, -errno, "clear ambient capabilities");
	if (cap_set_proc(caps) < 0)
		return nest_err_set(err, -errno, "give up capabilities");
	return 0;
}

static int change_user(uid_t uid, struct nest_err *err)
{
	gid_t gid = uid;

	if (setgroups(0, NULL) < 0)
		return nest_err_set(err, -errno, "give up supplementary groups");
	if (setresgid(gid, gid, gid) < 0)
		return nest_err_set(err, -errno, "become group %u", gid);
	if (setresuid(uid, uid, uid) < 0)
		return nest_err_set(err, -errno, "become user %u", uid);
	return 0;
}

int nest_privilege_drop(bool change_ids, uid_t uid, struct nest_err *err)
{
	autocaps cap_t none = cap_init();
	int r;

	if (!none)
		return nest_err_set(err, -ENOMEM, "list capabilities");
	r = shrink_bounding_set(NULL, err);
	if (r == 0 && change_ids)
		r = change_user(uid, err);
	if (r < 0)
		return r;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return nest_err_set(err, -errno, "clear ambient capabilities");
	if (cap_set_proc(none) < 0)
		return nest_err_set(err, -errno, "give up all capabilities");
	return 0;
}
