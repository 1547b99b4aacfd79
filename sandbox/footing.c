/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/footing.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "sandbox/cgroup.h"
#include "sandbox/privilege.h"

struct probe {
	uint32_t bit;
	unsigned long clone_flag;
	const char *name;
};

static const struct probe namespaces[] = {
	{ NEST_FOOTING_MOUNT, CLONE_NEWNS, "mount namespace" },
	{ NEST_FOOTING_PID, CLONE_NEWPID, "pid namespace" },
	{ NEST_FOOTING_IPC, CLONE_NEWIPC, "ipc namespace" },
	{ NEST_FOOTING_UTS, CLONE_NEWUTS, "uts namespace" },
	{ NEST_FOOTING_NET, CLONE_NEWNET, "network namespace" },
};

void nest_footing_lack(struct nest_footing *footing, const char *what, const char *why)
{
	size_t len = strlen(footing->missing);

	snprintf(footing->missing + len, sizeof(footing->missing) - len, "%s%s: %s",
		len > 0 ? "\n" : "", what, why);
}

/* Makes a child in a namespace of its own, which ends at once. */
static int try_clone(unsigned long flag)
{
	long pid = syscall(SYS_clone, flag | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(0);
	waitpid((pid_t)pid, NULL, __WALL);
	return 0;
}

void nest_footing_probe(struct nest_footing *ret)
{
	bool ids = nest_privilege_has(CAP_SETUID) && nest_privilege_has(CAP_SETGID) &&
		   nest_privilege_has(CAP_KILL);

	*ret = (struct nest_footing){ .have = 0 };
	for (size_t i = 0; i < NEST_ARRAY_SIZE(namespaces); i++) {
		const struct probe *p = &namespaces[i];
		int r = try_clone(p->clone_flag);

		if (r == 0)
			ret->have |= p->bit;
		else
			nest_footing_lack(ret, p->name, strerrordesc_np(-r));
	}
	if (ids)
		ret->have |= NEST_FOOTING_IDS;
	else
		nest_footing_lack(ret, "a user of each function's own",
			"needs CAP_SETUID, CAP_SETGID and CAP_KILL");
}

void nest_footing_note_cgroup(struct nest_footing *footing, const struct nest_cgroup *cgroup)
{
	if (cgroup->n > 0)
		footing->have |= NEST_FOOTING_CGROUP;
	if (cgroup->controllers & (1u << NEST_CGROUP_FREEZER))
		footing->have |= NEST_FOOTING_FREEZER;
	for (int c = 0; c < NEST_CGROUP_CONTROLLERS; c++) {
		char what[32];

		/* without the freezer nothing is weaker */
		if (c == NEST_CGROUP_FREEZER || (cgroup->controllers & (1u << c)))
			continue;
		snprintf(what, sizeof(what), "cgroup %s", nest_cgroup_controller_name(c));
		nest_footing_lack(footing, what, cgroup->why[c]);
	}
}
