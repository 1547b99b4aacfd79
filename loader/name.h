/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_NAME_H
#define NEST_LOADER_NAME_H

#include <stddef.h>

struct nest_err;

/*
 * Names of entries as an archive or a directory gives them: bytes, in no particular encoding,
 * from a stranger. A *clean* name is relative, has no empty, "." or ".." component and no slash
 * at its ends; "" is the tree itself.
 */
#define NEST_NAME_CAP 4096 /* the longest clean name and its NUL: PATH_MAX */

/*
 * Cleans @raw. -EINVAL when it is empty, absolute or has a ".." component, -ENAMETOOLONG when it
 * doesn't fit; @err then names it. Any thread.
 */
int nest_name_clean(const char *raw, char ret_clean[NEST_NAME_CAP], struct nest_err *err);

/*
 * Whether a symbolic link that lies at @clean may point to @target: 0, or -EINVAL with @err naming
 * the link. It may when every way of resolving it stays in the tree: relative, ".." only at its
 * beginning, and not more of them than directories lie above the link. Any thread.
 */
int nest_name_check_target(const char *clean, const char *target, struct nest_err *err);

#define NEST_NAME_QUOTED_CAP 208
/*
 * @name in quotes for a message: what isn't printable ASCII as \xNN, the middle of a long one left
 * out. Returns @ret. Any thread.
 */
const char *nest_name_quote(const char *name, char ret[NEST_NAME_QUOTED_CAP]);

#endif
