/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/err.h"

/*
 * The command is laid out twice by the same code: once without a block, to learn the sizes, once
 * into it. The block is the struct, then the pointers, then the texts.
 */
struct layout {
	const char **pointers; /* NULL while measuring */
	char *text;	       /* NULL while measuring */
	size_t npointers;
	size_t bytes;
};

struct placeholder {
	const char *name; /* "${function}" */
	const char *value;
};

#define PLACEHOLDERS 5
#define PRELOAD "LD_PRELOAD="

static void put(struct layout *out, const char *bytes, size_t n)
{
	if (out->text)
		memcpy(out->text + out->bytes, bytes, n);
	out->bytes += n;
}

static void begin(struct layout *out)
{
	if (out->pointers)
		out->pointers[out->npointers] = out->text + out->bytes;
	out->npointers++;
}

static void end_list(struct layout *out)
{
	if (out->pointers)
		out->pointers[out->npointers] = NULL;
	out->npointers++;
}

static const struct placeholder *placeholder_at(const struct placeholder *known, const char *text)
{
	for (size_t i = 0; i < PLACEHOLDERS; i++) {
		if (strncmp(text, known[i].name, strlen(known[i].name)) == 0)
			return &known[i];
	}
	return NULL;
}

/* Values are not expanded again: a handler named "${version}" stays that. */
static void expand_on(struct layout *out, const struct placeholder *known, const char *text)
{
	while (*text) {
		const struct placeholder *hit = placeholder_at(known, text);

		if (hit) {
			put(out, hit->value, strlen(hit->value));
			text += strlen(hit->name);
		} else {
			put(out, text++, 1);
		}
	}
	put(out, "", 1);
}

static void expand_text(struct layout *out, const struct placeholder *known, const char *text)
{
	begin(out);
	expand_on(out, known, text);
}

/* Whether @list sets the variable that @pair sets. */
static bool sets(const char *const *list, const char *pair)
{
	size_t n = strcspn(pair, "=") + 1;

	for (; list && *list; list++) {
		if (strncmp(*list, pair, n) == 0)
			return true;
	}
	return false;
}

static void put_pairs(struct layout *out, const char *const *pairs, const char *const *stronger)
{
	for (; pairs && *pairs; pairs++) {
		if (sets(stronger, *pairs))
			continue;
		begin(out);
		put(out, *pairs, strlen(*pairs) + 1);
	}
}

/* The manifest's own variable, with what it preloads without saying so. */
static void put_preload(
	struct layout *out, const struct nest_manifest *manifest, const struct placeholder *known)
{
	const char *own = NULL;

	for (const char *const *pair = manifest->env; *pair; pair++) {
		if (strncmp(*pair, PRELOAD, strlen(PRELOAD)) == 0)
			own = *pair + strlen(PRELOAD);
	}
	begin(out);
	put(out, PRELOAD, strlen(PRELOAD));
	put(out, manifest->preload, strlen(manifest->preload));
	if (own)
		put(out, ":", 1);
	expand_on(out, known, own ? own : "");
}

static void lay_out(struct layout *out, const struct nest_manifest *manifest,
	const struct placeholder *known, const char *const *function_env,
	const char *const *host_env, size_t *ret_envp)
{
	for (const char *const *arg = manifest->argv; *arg; arg++)
		expand_text(out, known, *arg);
	end_list(out);
	*ret_envp = out->npointers;
	for (const char *const *pair = manifest->env; *pair; pair++) {
		bool done = manifest->preload && strncmp(*pair, PRELOAD, strlen(PRELOAD)) == 0;

		if (!done && !sets(function_env, *pair) && !sets(host_env, *pair))
			expand_text(out, known, *pair);
	}
	if (manifest->preload)
		put_preload(out, manifest, known);
	put_pairs(out, function_env, host_env);
	put_pairs(out, host_env, NULL);
	end_list(out);
}

int nest_manifest_expand(const struct nest_manifest *manifest,
	const struct nest_manifest_values *values, const char *const *function_env,
	const char *const *host_env, struct nest_manifest_command **ret, struct nest_err *err)
{
	char concurrency[24], memory[24];
	const struct placeholder known[PLACEHOLDERS] = {
		{ "${function}", values->function },
		{ "${version}", values->version },
		{ "${handler}", values->handler },
		{ "${concurrency}", concurrency },
		{ "${memoryMb}", memory },
	};
	struct layout measure = { .pointers = NULL }, fill = { .pointers = NULL };
	struct nest_manifest_command *command;
	size_t envp;

	snprintf(concurrency, sizeof(concurrency), "%" PRIu32, values->concurrency);
	snprintf(memory, sizeof(memory), "%" PRIu64, values->memory_bytes >> 20);
	lay_out(&measure, manifest, known, function_env, host_env, &envp);
	command = malloc(sizeof(*command) + measure.npointers * sizeof(char *) + measure.bytes);
	if (!command)
		return nest_err_set(err, -ENOMEM, "start runtime '%s'", manifest->name);
	fill.pointers = (const char **)(command + 1);
	fill.text = (char *)(fill.pointers + measure.npointers);
	lay_out(&fill, manifest, known, function_env, host_env, &envp);
	command->argv = fill.pointers;
	command->envp = fill.pointers + envp;
	*ret = command;
	return 0;
}
