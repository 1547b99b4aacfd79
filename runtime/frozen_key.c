/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "runtime/frozen_key.h"

#include <assert.h>
#include <errno.h>
#include <fts.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/digest.h"
#include "runtime/function.h"
#include "runtime/services.h"
#include "runtime/worker.h"

/* Of what a snapshot holds and how a worker is told of it: a change makes all older ones unusable. */
#define FORMAT 4

static_assert(NEST_DIGEST_HEX_LEN == NEST_SNAPSHOT_KEY_CHARS + 1, "a key is a SHA-256");

/* Adds a text with its NUL, so that no two lists of texts come to the same. */
static int add(struct nest_digest *digest, struct nest_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int add(struct nest_digest *digest, struct nest_err *err, const char *fmt, ...)
{
	nest_autofree char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		text = NULL;
		return nest_err_set(err, -ENOMEM, "make a snapshot's key");
	}
	return nest_digest_update(digest, text, (size_t)n + 1, err);
}

static int add_all(struct nest_digest *digest, const char *const *texts, struct nest_err *err)
{
	int r = 0;

	for (; *texts && r == 0; texts++)
		r = add(digest, err, "%s", *texts);
	return r < 0 ? r : add(digest, err, "%s", "");
}

/* The line of /proc/cpuinfo that names the first processor's features. */
static int add_features(struct nest_digest *digest, struct nest_err *err)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	nest_autofree char *line = NULL;
	size_t room = 0;
	int r = 0;

	if (!file)
		return nest_err_set(err, -errno, "open '/proc/cpuinfo'");
	while (getline(&line, &room, file) > 0) {
		if (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)
			continue;
		r = add(digest, err, "%s", line);
		break;
	}
	fclose(file);
	return r;
}

static int add_machine(struct nest_digest *digest, struct nest_err *err)
{
	struct utsname machine;
	int r;

	if (uname(&machine) < 0)
		return nest_err_set(err, -errno, "ask for the kernel's version");
	r = add(digest, err, "%d %s %s %s", FORMAT, PACKAGE_VERSION, machine.release,
		machine.machine);
	return r < 0 ? r : add_features(digest, err);
}

static int add_file(
	struct nest_digest *digest, const char *path, const struct stat *st, struct nest_err *err)
{
	return add(digest, err, "%s %lld %lld.%09ld", path, (long long)st->st_size,
		(long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* Every file of @dir by name, size and time. Byte code that the interpreter left there is no part. */
static int add_dir(struct nest_digest *digest, char *dir, struct nest_err *err)
{
	char *roots[] = { dir, NULL };
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
	FTSENT *entry;
	int r = 0;

	if (!walk)
		return nest_err_set(err, -errno, "read '%s'", dir);
	while (r == 0 && (entry = fts_read(walk))) {
		if (entry->fts_info == FTS_D && strcmp(entry->fts_name, "__pycache__") == 0)
			fts_set(walk, entry, FTS_SKIP);
		else if (entry->fts_info == FTS_F)
			r = add_file(digest, entry->fts_path, entry->fts_statp, err);
		else if (entry->fts_info == FTS_ERR || entry->fts_info == FTS_DNR)
			r = nest_err_set(err, -entry->fts_errno, "read '%s'", entry->fts_path);
	}
	fts_close(walk);
	return r;
}

/* CRIU's version is that of its program's file: whoever updates the one replaces the other. */
static int add_criu(
	struct nest_digest *digest, const struct nest_services *services, struct nest_err *err)
{
	const char *path = nest_snapshot_program(services->sandbox);
	struct stat st;

	if (stat(path, &st) < 0)
		return nest_err_set(err, -errno, "look at '%s'", path);
	return add_file(digest, path, &st, err);
}

/* The directories of /runtime that @words name behind @before. */
static int add_named(struct nest_digest *digest, const char *const *words, const char *before,
	const char *runtimes_dir, struct nest_err *err)
{
	static const char prefix[] = "/runtime/";
	size_t n = strlen(before);
	int r = 0;

	for (; *words && r == 0; words++) {
		nest_autofree char *dir = NULL;
		const char *name = *words + n;

		if (strncmp(*words, before, n) != 0 ||
			strncmp(name, prefix, sizeof(prefix) - 1) != 0)
			continue;
		name += sizeof(prefix) - 1;
		if (asprintf(&dir, "%s/%.*s", runtimes_dir, (int)strcspn(name, "/"), name) < 0) {
			dir = NULL;
			return nest_err_set(err, -ENOMEM, "make a snapshot's key");
		}
		r = add_dir(digest, dir, err);
	}
	return r;
}

/* The program, and what its command line names; and what is preloaded, which no function says. */
static int add_runtime(struct nest_digest *digest, const struct nest_worker_plan *plan,
	const char *runtimes_dir, struct nest_err *err)
{
	struct stat st;
	int r = 0;

	if (stat(plan->argv[0], &st) == 0)
		r = add_file(digest, plan->argv[0], &st, err);
	if (r == 0)
		r = add_named(digest, plan->argv, "", runtimes_dir, err);
	if (r == 0)
		r = add_named(digest, plan->envp, "LD_PRELOAD=", runtimes_dir, err);
	return r;
}

static int add_worker(
	struct nest_digest *digest, const struct nest_worker_plan *plan, struct nest_err *err)
{
	const struct nest_function_spec *spec = plan->spec;
	int r = add_all(digest, plan->argv, err);

	if (r == 0)
		r = add_all(digest, plan->envp, err);
	if (r == 0)
		r = add(digest, err, "%s", spec->warmup ? spec->warmup : "");
	if (r == 0)
		r = add(digest, err, "%u %llu %llu %u %u %u %d %d",
			plan->init ? (unsigned)plan->uid : 0,
			(unsigned long long)plan->memory_bytes, (unsigned long long)spec->tmp_bytes,
			spec->pids, spec->nofile, spec->cpu_milli, spec->network_none,
			plan->mapped);
	return r;
}

int nest_frozen_key_make(const struct nest_worker_plan *plan, const char *code_digest,
	const char *init, const char *parent, const struct nest_services *services,
	char ret[static NEST_SNAPSHOT_KEY_CHARS + 1], struct nest_err *err)
{
	nest_autodigest struct nest_digest *digest = NULL;
	int r = nest_digest_new(&digest, err);

	if (r == 0)
		r = add_machine(digest, err);
	if (r == 0)
		r = add_criu(digest, services, err);
	if (r == 0)
		r = add_runtime(digest, plan, services->config->runtimes_dir, err);
	if (r == 0)
		r = add(digest, err, "%s", code_digest ? code_digest : "");
	if (r == 0)
		r = add(digest, err, "%s", init ? init : "");
	if (r == 0)
		r = add(digest, err, "%s", parent ? parent : "");
	if (r == 0)
		r = add_worker(digest, plan, err);
	return r < 0 ? r : nest_digest_final(digest, ret, err);
}
