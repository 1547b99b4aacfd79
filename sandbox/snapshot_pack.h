/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SNAPSHOT_PACK_H
#define NEST_SANDBOX_SNAPSHOT_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "sandbox/snapshot_store.h"

struct nest_err;

/*
 * A snapshot on its way between hosts: its files in a tar, and beside them "seal", the HMAC-SHA256 of
 * key and contents under a secret that the operator's hosts share. An image holds the identity and
 * the privileges of processes, so what is not sealed by such a host is not even looked at.
 */
struct nest_snapshot_pack_secret {
	size_t n; /* 0: there is none */
	uint8_t bytes[256];
};

#define NEST_SNAPSHOT_PACK_SECRET_MIN 32u

/*
 * Reads the secret from the file @path: NEST_SNAPSHOT_PACK_SECRET_MIN to 256 bytes, in a file that
 * is root's and that nobody else can read (-EPERM). Blocks on the disk.
 */
int nest_snapshot_pack_read_secret(
	const char *path, struct nest_snapshot_pack_secret *ret, struct nest_err *err);

/* Writes the snapshot @key, which lies in @dir, to @out as a tar. Blocks on both. */
int nest_snapshot_pack_write(int dir, const char *key,
	const struct nest_snapshot_pack_secret *secret, int out, struct nest_err *err);

/*
 * Copies the unpacked files in @from, which others may write to at any time, into the empty @draft,
 * syncs them and gives their contents. -EBADMSG: the seal is not that of @key, or a file is not what
 * the contents say; -EFBIG: more than @max_bytes (0: no bound). Blocks on the disk.
 */
int nest_snapshot_pack_take(int from, const char *key,
	const struct nest_snapshot_pack_secret *secret, uint64_t max_bytes, int draft,
	struct nest_snapshot_store_contents *ret, struct nest_err *err);

#endif
