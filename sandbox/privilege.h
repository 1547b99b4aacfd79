/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_PRIVILEGE_H
#define NEST_SANDBOX_PRIVILEGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct nest_err;

/* One capability that a process keeps. */
struct nest_privilege {
	int cap; /* CAP_... */
	const char *name;
	const char *reason;
};

/*
 * The spawner's list, ended by a NULL name; a longer one with @snapshots. docs/SECURITY.md shows the
 * same. Any thread.
 */
const struct nest_privilege *nest_privilege_kept(bool snapshots);

/*
 * What a cell's PID 1 keeps where no pid namespace ends the cell with it: a list as above. It then
 * must kill processes of another user itself. Any thread.
 */
const struct nest_privilege *nest_privilege_killer(void);

/* Whether @cap is in the effective set of the caller. Any thread. */
bool nest_privilege_has(int cap);

/*
 * Has the caller's permitted capabilities outlive an execve(2), whoever the user is, and returns
 * their mask. Root may get more of them by it: the program then has to call nest_privilege_limit().
 */
uint64_t nest_privilege_hand_on(void);

/* Takes from the calling process all capabilities that are not in @mask. */
int nest_privilege_limit(uint64_t mask, struct nest_err *err);

/*
 * Empties the caller's bounding set, as nest_privilege_drop() does: programs that it executes, or its children, from
 * now on gain no capability. It keeps those that it has.
 */
int nest_privilege_gain_none(struct nest_err *err);

/*
 * Leaves the calling process only those capabilities of @list that it has, in its permitted,
 * effective and bounding sets; nothing is inheritable or ambient. Fine without any.
 */
int nest_privilege_reduce(const struct nest_privilege *list, struct nest_err *err);

/*
 * Takes every capability from the calling process for ever: bounding, ambient, inheritable,
 * permitted and effective. With @change_ids also changes to @uid (and the group of the same number,
 * without supplementary groups) in all their real, effective and saved forms.
 */
int nest_privilege_drop(bool change_ids, uid_t uid, struct nest_err *err);

#endif
