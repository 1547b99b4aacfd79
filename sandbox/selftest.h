/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_SELFTEST_H
#define NEST_SANDBOX_SELFTEST_H

#include <stdbool.h>
#include <stdint.h>

struct nest_err;

/*
 * Freezes a small process, and restores it with its memory mapped, as workers are; then has it answer.
 * Done with the CRIU at @criu (see nest_criu_rpc_find()), with its @standins or without, in namespaces
 * made for it, with the capabilities that the spawner keeps, of those that the caller has; nothing
 * outside is touched.
 * 0: snapshots work on this machine; *@ret_us is what freezing and restoring took. Blocks, at most
 * for @limit_ms: -ETIME.
 */
int nest_selftest_run(
	const char *criu, bool standins, uint32_t limit_ms, uint64_t *ret_us, struct nest_err *err);

#endif
