/* SPDX-License-Identifier: Apache-2.0 */
#include <utlist.h>

#include "runtime/dispatch.h"
#include "runtime/host_impl.h"
#include "runtime/target.h"

/* What the autoscaler sees of the functions, and what it says to them. */

void nest_host_each_load(struct nest_host *host,
	void (*cb)(void *arg, const struct nest_target_load *load), void *arg)
{
	struct nest_lineage *lineage, *next;

	HASH_ITER(hh, host->lineages, lineage, next) {
		struct nest_lineage_version *version;

		DL_FOREACH(lineage->versions, version) {
			struct nest_target_load load;

			if (!nest_dispatch_load(nest_target_dispatch(version->target), &load))
				continue;
			load.target = version->target;
			cb(arg, &load);
		}
	}
}

void nest_host_on_stir(struct nest_host *host, void (*cb)(void *arg), void *arg)
{
	host->services.on_stir = cb;
	host->services.on_stir_arg = arg;
}
