/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_UNPACK_EROFS_H
#define NEST_LOADER_UNPACK_EROFS_H

struct nest_draft;
struct nest_err;

/*
 * Unpacks the EROFS image in @fd, a file that nobody else writes to, into @draft, without the
 * kernel's driver: under the same rules as an archive (loader/draft.h). Its forms are all that
 * mkfs.erofs makes with LZ4 or without compression, but those that share data between files
 * (-Efragments, -Ededupe): -ENOTSUP. Errors name the entry. Blocks on the disk. Any thread.
 */
int nest_unpack_erofs_file(int fd, struct nest_draft *draft, struct nest_err *err);

#endif
