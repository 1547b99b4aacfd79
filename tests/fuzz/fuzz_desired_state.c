/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>

#include "agent/desired_state.h"
#include "base/err.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* A reply of the scaler, as it comes from the network. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct nest_desired_state *state = NULL;
	struct nest_err err = NEST_ERR_INIT;

	if (nest_desired_state_parse((const char *)bytes, n, NULL, 3, false, &state, &err) < 0)
		return 0;
	for (size_t i = 0; i < state->nfunctions; i++) {
		if (!state->functions[i].name ||
			!state->functions[i].spec == !state->functions[i].why)
			__builtin_trap();
	}
	for (size_t i = 0; i < state->nbounds; i++) {
		if (!state->bounds[i].max == !state->bounds[i].why)
			__builtin_trap();
	}
	nest_desired_state_free(state);
	return 0;
}
