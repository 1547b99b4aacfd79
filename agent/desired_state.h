/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_DESIRED_STATE_H
#define NEST_AGENT_DESIRED_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

struct nest_err;
struct nest_function_spec;

/* What a reply of the scaler says (docs/scaler-protocol.md), or the file that the last one is kept in. */
struct nest_desired_function {
	char *name; /* "" where it could not be read */
	char *version;
	struct nest_function_spec *spec; /* NULL: @why */
	char *why;
};

struct nest_desired_bounds {
	char *name;
	uint32_t min;
	uint32_t max; /* 0: @why */
	char *why;
};

struct nest_desired_state {
	uint64_t generation;
	bool unchanged; /* nothing else is said */
	bool drain;
	struct nest_desired_function *functions;
	size_t nfunctions;
	struct nest_desired_bounds *bounds;
	size_t nbounds;
};

/*
 * Reads @n bytes. Of a reply whose generation is not above @held, or that says "unchanged", the
 * functions and bounds are not looked at. A function or bound that is wrong bears its reason, and
 * does not keep the others from being read; -EINVAL: the reply as a whole is wrong. @defaults is the
 * config's "functionDefaults", or NULL. @kept: it was in force before, see nest_function_parse_kept().
 * The caller owns *@ret. Any thread.
 */
int nest_desired_state_parse(const char *text, size_t n, const cJSON *defaults, uint64_t held,
	bool kept, struct nest_desired_state **ret, struct nest_err *err);

void nest_desired_state_free(struct nest_desired_state *state); /* NULL is fine */

#endif
