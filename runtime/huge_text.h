/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_HUGE_TEXT_H
#define NEST_RUNTIME_HUGE_TEXT_H

#include <stdint.h>

struct nest_err;

/*
 * Has the kernel keep the code of ELF file @program in huge pages, where its file system can (ext4
 * since Linux 6.16, and before that XFS, Btrfs, EROFS): a process then takes one page fault for two
 * megabytes of it and not for 64 KiB, and fewer translations of the processor's. Nothing is copied:
 * it is the page cache, read from the disk once more in larger pieces, unless it is so already.
 * Pages that a process has mapped at this moment stay as they are, so this is for before the
 * first worker. Only for programs that are loaded where they were linked to be, such as Node: the kernel
 * puts others at addresses that huge pages don't fit.
 *
 * *@ret_bytes is how much code may be so kept (0: there is no such file, or it has less than two
 * megabytes of it, or it is no program of that kind), *@ret_huge how much is. Blocks on the disk.
 * Any thread.
 */
int nest_huge_text_load(
	const char *program, uint64_t *ret_bytes, uint64_t *ret_huge, struct nest_err *err);

#endif
