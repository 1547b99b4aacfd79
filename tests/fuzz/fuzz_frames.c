/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a frame: the walk never goes back, never past what is there, and always ends. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/err.h"
#include "loader/frames.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
	struct nest_frames whole = { 0 };
	struct nest_frames steps = { 0 };
	struct nest_err err = NEST_ERR_INIT;
	int rc = nest_frames_walk(&whole, bytes, n, &err);
	int stepped = 1;
	uint64_t have = 0;

	if ((rc < 0) != (err.code < 0) || (rc == 0 && whole.need > n) ||
		(rc == 1 && whole.need <= n))
		abort();
	while (stepped == 1 && steps.need <= n) {
		have = steps.need;
		stepped = nest_frames_walk(&steps, bytes, (size_t)have, NULL);
		if (stepped == 1 && steps.need <= have)
			abort();
	}
	if (stepped != rc || (rc == 0 && (steps.need != whole.need || steps.bound != whole.bound)))
		abort();
	return 0;
}
