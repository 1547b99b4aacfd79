/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_FUZZ_DRAFT_CHECK_H
#define NEST_TESTS_FUZZ_DRAFT_CHECK_H

struct nest_draft;
struct nest_draft_limits;
struct nest_err;

/*
 * What the targets share that fill a draft: its directory, in memory where /dev/shm is, holds the
 * draft and nothing else before and after each run.
 */

/* Makes a draft in the directory, whose descriptor it returns; the caller owns both. */
int draft_check_begin(const struct nest_draft_limits *limits, struct nest_draft **ret);

/*
 * Aborts if @rc and @err don't fit, if the draft passed a limit, or if anything else is where it
 * was made; then removes it.
 */
void draft_check_end(int top, const struct nest_draft *draft,
	const struct nest_draft_limits *limits, int rc, const struct nest_err *err);

#endif
