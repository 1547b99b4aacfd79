/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_UIDS_H
#define NEST_RUNTIME_UIDS_H

#include <stdint.h>
#include <sys/types.h>

struct nest_err;

/* The uids that functions run as: one each, from a range. */
struct nest_uids;

/* Makes the range [@base, @base + @count). -ENOMEM. */
int nest_uids_new(uid_t base, uint32_t count, struct nest_uids **ret);

void nest_uids_free(struct nest_uids *uids); /* NULL is fine */

/*
 * Takes a free uid for function @name: the one that the name's hash says, or the next free one, so that
 * all hosts give a function the same one nearly always: a snapshot is of one uid. -ENOSPC with an
 * error that says what to do.
 */
int nest_uids_take(struct nest_uids *uids, const char *name, uid_t *ret, struct nest_err *err);

/* Gives @uid back, once no process runs as it any more. */
void nest_uids_give(struct nest_uids *uids, uid_t uid);

#endif
