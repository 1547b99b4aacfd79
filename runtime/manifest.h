/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_MANIFEST_H
#define NEST_RUNTIME_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;
struct nest_function_spec;
struct nest_schema;

/*
 * How one runtime is started, as its manifest file says (nestlet-function(5), "RUNTIME MANIFESTS").
 * Immutable; lives as long as its set.
 */
struct nest_manifest {
	const char *name;
	const char *description;
	const char *file;	 /* that it was read from */
	const char *const *argv; /* NULL-terminated, placeholders unexpanded; argv[0] is absolute */
	const char *const *env;	 /* "K=V", NULL-terminated, placeholders unexpanded */
	const char *const *probe;    /* command that prints the runtime's version; empty: none */
	uint32_t interfaces;	     /* bit 1u << enum nest_function_interface */
	const char *default_handler; /* "": a function must name its own */
	uint32_t concurrency_default;
	uint32_t concurrency_max;
	uint64_t memory_default_bytes;
	uint64_t memory_min_bytes;
	unsigned memory;	/* of its clones: 0 copied, 1 mapped */
	bool memory_shim;	/* that mapped memory is to be like any other in every respect */
	const char *preload;	/* the library that makes it so, as a cell sees it; NULL: none */
	bool snapshots;		/* its workers take CHECKPOINT and RESTORED */
	bool runtime_snapshots; /* before INIT, too */
	const char *const
		*start_env; /* beginnings of names that it reads at its start, and "!" before one
			       that it doesn't; NULL-terminated */
	const char *unavailable; /* why it can't run on this machine; NULL: it can */
};

/* The table of a manifest's keys, in the manual's order. Any thread. */
const struct nest_schema *nest_manifest_schema(void);

/* All manifests of one host, by name. */
struct nest_manifests;

/*
 * Reads "*.json" in <@runtimes_dir>/manifests (NULL: none), then in each of @dirs (NULL-terminated,
 * or NULL), in the order of file names; a later directory's manifest replaces an earlier one's of
 * the same name. Two of one name in one directory, unknown keys, wrong types and unknown
 * placeholders are -EINVAL with file, line and key; a directory that can't be read is an error.
 * argv[0] is looked up in /usr/local/bin, /usr/bin and /bin when it is a bare name;
 * "/runtime/..." is looked up below @runtimes_dir, and "/function/..." is the function's own. One
 * that isn't there leaves its runtime unavailable, which is no error.
 * Blocks on the disk. The caller owns *@ret. Any thread.
 */
int nest_manifests_load(const char *runtimes_dir, const char *const *dirs,
	struct nest_manifests **ret, struct nest_err *err);

/* Frees the set and its manifests. NULL is fine. */
void nest_manifests_free(struct nest_manifests *manifests);

/* The manifest of runtime @name, or NULL. Lives with the set. Any thread. */
const struct nest_manifest *nest_manifests_find(
	const struct nest_manifests *manifests, const char *name);

/* All names in alphabetical order, NULL-terminated. Lives with the set. Any thread. */
const char *const *nest_manifests_names(const struct nest_manifests *manifests);

/* What a manifest's placeholders stand for; spec and manifest settled against each other. */
struct nest_manifest_values {
	const char *function;  /* ${function} */
	const char *version;   /* ${version} */
	const char *handler;   /* ${handler} */
	uint32_t concurrency;  /* ${concurrency} */
	uint64_t memory_bytes; /* ${memoryMb} is this in MiB */
};

/*
 * Settles @spec's open values (handler, concurrency, memory) with its runtime's defaults. 0 and
 * *@ret, whose strings are borrowed from both; -EINVAL when the runtime can't run it so (interface,
 * concurrency, memory, no handler); -ENOENT when the set has no such runtime (the error lists those
 * there are); -ENOEXEC when it is unavailable here. *@ret_manifest (may be NULL) lives with the
 * set. Any thread.
 */
int nest_manifests_settle(const struct nest_manifests *manifests,
	const struct nest_function_spec *spec, const struct nest_manifest **ret_manifest,
	struct nest_manifest_values *ret, struct nest_err *err);

/* A worker's command line and environment: one block, released by one free(). */
struct nest_manifest_command {
	const char *const *argv; /* NULL-terminated */
	const char *const *envp; /* NULL-terminated */
};

/*
 * Expands the placeholders. envp is the manifest's environment, overridden by @function_env (a
 * spec's env), overridden by @host_env; both "K=V", NULL-terminated, or NULL. What the manifest
 * preloads comes before what its own LD_PRELOAD names. 0 and *@ret (caller frees), or -ENOMEM. Any
 * thread.
 */
int nest_manifest_expand(const struct nest_manifest *manifest,
	const struct nest_manifest_values *values, const char *const *function_env,
	const char *const *host_env, struct nest_manifest_command **ret, struct nest_err *err);

/*
 * Runs the probe with an empty environment and gives its first line of output ("v20.1.0"); the
 * caller frees *@ret_line. 1: the manifest has none. -ETIMEDOUT after @timeout_ms (the probe is
 * killed); -EIO when it ends otherwise than with 0. Blocks.
 */
int nest_manifest_probe(const struct nest_manifest *manifest, uint32_t timeout_ms, char **ret_line,
	struct nest_err *err);

#endif
