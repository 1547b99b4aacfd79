/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_BENEATH_H
#define NEST_LOADER_BENEATH_H

/*
 * Opens @clean (a clean name, see loader/name.h; "" is @root_fd's directory itself) beneath the
 * directory @root_fd with open flags @flags, which can't include O_CREAT; O_CLOEXEC and
 * O_NOFOLLOW are added. No component may be a symbolic link. Returns the descriptor, which the
 * caller owns, or -errno: -ELOOP or -ENOTDIR where a link or a file stands in the way. Blocks on
 * the disk. Any thread.
 */
int nest_beneath_open(int root_fd, const char *clean, int flags);

#endif
