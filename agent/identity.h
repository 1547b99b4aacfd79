/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_IDENTITY_H
#define NEST_AGENT_IDENTITY_H

#include <sys/types.h>

struct nest_err;

/*
 * Becomes the unprivileged user that the agent runs as, for good: user, group and groups are @uid and @gid
 * alone, every capability set is empty, and no_new_privs is set. A process that is not root only gets the last
 * two. Before any thread.
 */
int nest_identity_drop(uid_t uid, gid_t gid, struct nest_err *err);

/*
 * Makes @path (mode @mode) if it is missing and gives it to the user; refuses a directory that
 * somebody else could write to. Before nest_identity_drop().
 */
int nest_identity_own_dir(
	const char *path, mode_t mode, uid_t uid, gid_t gid, struct nest_err *err);

#endif
