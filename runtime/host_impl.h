/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_RUNTIME_HOST_IMPL_H
#define NEST_RUNTIME_HOST_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/loader.h"
#include "runtime/host.h"
#include "runtime/lineage.h"
#include "runtime/services.h"

struct nest_capacity;
struct nest_deployment;
struct nest_features;
struct nest_funclog_store;
struct nest_loader;
struct nest_manifests;
struct nest_routes;
struct nest_uids;

/* The inside of a host, for the files that its face is spread over. */
struct nest_host {
	struct nest_services services;
	struct nest_host_config config;
	struct nest_lineage *lineages; /* by name, in its order */
	struct nest_routes *routes;    /* of the live versions; NULL: to be made anew */
	uint32_t splits;	       /* names whose live alias shares its requests out */
	struct nest_loader *loader;
	struct nest_manifests *manifests;
	struct nest_funclog_store *logs;
	struct nest_uids *uids;
	struct nest_log_reader *readers;
	struct nest_features *features;
	struct nest_capacity *capacity;
	struct nest_deadline close_deadline;
	unsigned closing_parts;
	uint64_t measured_us; /* when all workers were last asked for their use */
	void (*on_closed)(void *arg);
	void *on_closed_arg;
	void (*on_lost)(void *arg, const struct nest_err *why);
	void *on_lost_arg;
};

/* The lineage of @name, or NULL. */
struct nest_lineage *nest_host_lineage(const struct nest_host *host, const char *name);

/* Frees a version that is empty, and its lineage with its log if that was the last. */
void nest_host_drop(struct nest_host *host, struct nest_lineage_version *version, bool removed);

/* Forgets the table of routes: a live version, or what shares its requests, has changed. */
void nest_host_reroute(struct nest_host *host);

/* Loads @n artifacts of code, lowest layer first, as nest_loader_load() does. */
int nest_host_load_code(struct nest_host *host, const struct nest_function_code *const *codes,
	size_t n, nest_loader_cb *cb, void *arg, struct nest_err *err);

/* Begins to load what the config names to be there before it is asked for; failures are events. */
void nest_host_preload(struct nest_host *host);

/* Ends all readers of logs. */
void nest_host_logs_end(struct nest_host *host);

#endif
