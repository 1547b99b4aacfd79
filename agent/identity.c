/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"

static int drop_capabilities(struct nest_err *err)
{
	cap_t none = cap_init();
	int r = 0;

	if (!none)
		return nest_err_set(err, -ENOMEM, "drop capabilities");
	if (cap_set_proc(none) != 0)
		r = nest_err_set(err, -errno, "drop capabilities");
	cap_free(none);
	if (r == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
		r = nest_err_set(err, -errno, "drop ambient capabilities");
	return r;
}

int nest_identity_drop(uid_t uid, gid_t gid, struct nest_err *err)
{
	if (geteuid() == 0) {
		if (setgroups(0, NULL) != 0)
			return nest_err_set(err, -errno, "drop groups");
		if (setresgid(gid, gid, gid) != 0)
			return nest_err_set(err, -errno, "become group %u", (unsigned)gid);
		if (setresuid(uid, uid, uid) != 0)
			return nest_err_set(err, -errno, "become user %u", (unsigned)uid);
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return nest_err_set(err, -errno, "set no_new_privs");
	return drop_capabilities(err);
}

int nest_identity_own_dir(const char *path, mode_t mode, uid_t uid, gid_t gid, struct nest_err *err)
{
	nest_autoclose int fd = -1;
	struct stat st;
	int r = nest_file_mkdirs(path, 0755, err);

	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) != 0)
		return nest_err_set(err, -errno, "open '%s'", path);
	if (st.st_uid != uid && st.st_uid != 0 && geteuid() == 0)
		return nest_err_say(err, -EPERM,
			"'%s' belongs to user %u, not to root or the host's user %u: move it away, "
			"or name that user in the config's \"user\"",
			path, (unsigned)st.st_uid, (unsigned)uid);
	if (geteuid() == 0 && fchown(fd, uid, gid) != 0)
		return nest_err_set(err, -errno, "give '%s' to user %u", path, (unsigned)uid);
	if (geteuid() == 0 || st.st_uid == geteuid()) {
		if (fchmod(fd, mode) != 0)
			return nest_err_set(err, -errno, "set the mode of '%s'", path);
	}
	return 0;
}
