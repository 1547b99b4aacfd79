/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "loader/loader.h"
#include "loader/reference.h"
#include "runtime/function.h"
#include "runtime/host_impl.h"

int nest_host_load_code(struct nest_host *host, const struct nest_function_code *const *codes,
	size_t n, nest_loader_cb *cb, void *arg, struct nest_err *err)
{
	struct nest_reference references[NEST_FUNCTION_LAYERS_MAX + 1];
	char digests[NEST_FUNCTION_LAYERS_MAX + 1][NEST_TREE_DIGEST_LEN];

	if (n > NEST_FUNCTION_LAYERS_MAX + 1)
		return nest_err_say(err, -EINVAL, "%zu layers are too many", n);
	for (size_t i = 0; i < n; i++) {
		const struct nest_function_code *code = codes[i];

		references[i] = (struct nest_reference){
			.url = code->url ? code->url : code->path,
			.digest = code->digest,
			.size = code->size,
			.format = (enum nest_reference_format)code->format,
		};
		if (!code->sha256)
			continue;
		snprintf(digests[i], sizeof(digests[i]), "sha256:%s", code->sha256);
		references[i].digest = digests[i];
	}
	return nest_loader_load(host->loader, references, n, cb, arg, err);
}

static void report(struct nest_host *host, const struct nest_err *err)
{
	char message[sizeof(err->text) + 16];

	if (!host->config.on_event || err->code == -ECANCELED)
		return;
	snprintf(message, sizeof(message), "preload: %s", nest_err_text(err));
	host->config.on_event(host->config.event_arg, NEST_LOG_WARN, message);
}

/* It stays in the cache for as long as there is room. */
static void on_preloaded(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	if (!tree)
		report(arg, err);
	nest_tree_unref(tree);
}

void nest_host_preload(struct nest_host *host)
{
	for (uint32_t i = 0; i < host->config.npreload; i++) {
		const struct nest_function_code *code = &host->config.preload[i];
		struct nest_err err = NEST_ERR_INIT;

		if (nest_host_load_code(host, &code, 1, on_preloaded, host, &err) < 0)
			report(host, &err);
	}
}
