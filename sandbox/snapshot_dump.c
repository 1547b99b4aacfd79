/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/snapshot_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/descend.h"
#include "sandbox/image_gate.h"
#include "sandbox/image_program.h"
#include "sandbox/image_rewrite.h"
#include "sandbox/image_wires.h"
#include "sandbox/tmp_image.h"

#define STATUS_MAX 16384
#define LOG_MAX (1u << 20)

struct worker {
	uid_t uid;
	pid_t pid;			     /* in the cell */
	pid_t parent;			     /* the cell's PID 1, in our view */
	uint64_t wires[NEST_CRIU_RPC_WIRES]; /* inode numbers */
};

/* The number behind "\n@label:" in a process's status; 0: it isn't there. */
static unsigned long read_number(const char *status, const char *label)
{
	const char *at = strstr(status, label);

	return at ? strtoul(at + strlen(label), NULL, 10) : 0;
}

static int look_at_worker(
	const struct nest_snapshot_dump *dump, struct worker *ret, struct nest_err *err)
{
	static const int fds[NEST_CRIU_RPC_WIRES] = { 3, 1, 2 };
	nest_autofree char *status = NULL;
	char path[64];
	const char *at;
	struct stat st;
	int r;

	snprintf(path, sizeof(path), "%d/status", dump->worker);
	r = nest_file_read(dump->proc, path, STATUS_MAX, &status, NULL, err);
	if (r < 0)
		return r;
	ret->uid = (uid_t)read_number(status, "\nUid:\t");
	ret->parent = (pid_t)read_number(status, "\nPPid:\t");
	at = strstr(status, "\nNSpid:\t");
	at = at ? at + 1 : "";
	for (at += strcspn(at, "\t\n"); *at == '\t'; at += strcspn(at + 1, "\t\n") + 1)
		ret->pid = (pid_t)strtol(at + 1, NULL, 10);
	if (ret->uid == 0 || ret->pid <= 1)
		return nest_err_say(err, -ESRCH, "the worker is no worker any more");
	for (int i = 0; i < NEST_CRIU_RPC_WIRES; i++) {
		snprintf(path, sizeof(path), "%d/fd/%d", dump->worker, fds[i]);
		if (fstatat(dump->proc, path, &st, 0) < 0)
			return nest_err_set(
				err, -errno, "look at the worker's descriptor %d", fds[i]);
		ret->wires[i] = st.st_ino;
	}
	return 0;
}

struct search {
	const struct nest_snapshot_dump *dump;
	const struct worker *worker;
	pid_t dumper;
	struct nest_err *err;
	int r;
};

/* The dumper is a child of PID 1 too, and is root's; what has ended is being reaped. */
static void judge_child(int proc, pid_t child, void *arg)
{
	struct search *search = arg;
	nest_autofree char *status = NULL;
	char path[64];
	const char *name;

	snprintf(path, sizeof(path), "%d/status", child);
	if (search->r < 0 || child == search->dump->worker ||
		nest_file_read(proc, path, STATUS_MAX, &status, NULL, NULL) < 0 ||
		strstr(status, "\nState:\tZ"))
		return;
	if (read_number(status, "\nUid:\t") != search->worker->uid) {
		search->dumper = child;
		return;
	}
	name = strncmp(status, "Name:\t", 6) == 0 ? status + 6 : "";
	search->r = nest_err_say(search->err, -EBUSY,
		"process '%.*s' runs in the background, no longer a child of the worker's: clones "
		"would be without it",
		(int)strcspn(name, "\n"), name);
}

/*
 * CRIU dumps the worker and all below it. What has left that tree would be missing in clones. *@ret is
 * a pidfd of the cell's dumper.
 */
static int look_at_others(const struct nest_snapshot_dump *dump, const struct worker *worker,
	int *ret, struct nest_err *err)
{
	struct search search = { .dump = dump, .worker = worker, .err = err };

	nest_descend_children(dump->proc, worker->parent, judge_child, &search);
	if (search.r < 0)
		return search.r;
	if (search.dumper == 0)
		return nest_err_say(err, -ESRCH, "the cell's dumper has ended");
	*ret = pidfd_open(search.dumper, 0);
	return *ret < 0 ? nest_err_set(err, -errno, "watch the cell's dumper") : 0;
}

/* What was written so far is still there. CRIU may have had no room to say so, even. */
static void name_cause(int draft, struct nest_err *err)
{
	nest_autofree char *log = NULL;
	struct statvfs disk;

	if (fstatvfs(draft, &disk) == 0 && disk.f_bavail == 0)
		nest_err_say(err, -ENOSPC, "the file system that snapshots are kept on is full");
	else if (nest_file_read(draft, NEST_CRIU_RPC_LOG, LOG_MAX, &log, NULL, NULL) == 0)
		nest_criu_rpc_name_cause(log, err);
}

/* Has the cell's dumper become CRIU, and CRIU dump the worker. */
static int run_criu(const struct nest_snapshot_dump *dump, int pidfd, pid_t pid, uint64_t channel,
	struct nest_err *err)
{
	int r = nest_fd_send(dump->dumper, "d", 1, &dump->draft, 1);

	if (r < 0)
		return nest_err_set(err, r, "wake the cell's dumper");
	r = nest_criu_rpc_dump(dump->dumper, pidfd, pid, channel, err);
	if (r < 0)
		name_cause(dump->draft, err);
	unlinkat(dump->draft, NEST_CRIU_RPC_LOG, 0);
	return r;
}

static int map_memory(const struct nest_snapshot_dump *dump, struct nest_err *err)
{
	nest_autoclose int parent = -1;

	if (dump->kind.is_parent)
		return nest_image_rewrite_map(dump->draft, NEST_IMAGE_REWRITE_PARENT_PATH, -1, err);
	if (dump->parent[0]) {
		parent = open(NEST_IMAGE_REWRITE_PARENT_PATH, O_RDONLY | O_CLOEXEC);
		if (parent < 0)
			return nest_err_set(
				err, -errno, "open '%s'", NEST_IMAGE_REWRITE_PARENT_PATH);
	}
	return nest_image_rewrite_map(dump->draft, NEST_IMAGE_REWRITE_PATH, parent, err);
}

int nest_snapshot_dump_run(const struct nest_snapshot_dump *dump,
	struct nest_snapshot_store_contents *ret, struct nest_err *err)
{
	struct worker worker = { .uid = 0 };
	nest_autoclose int dumper = -1;
	int r = look_at_worker(dump, &worker, err);

	if (r == 0)
		r = look_at_others(dump, &worker, &dumper, err);
	if (r < 0)
		return r;
	/* safe: a cell's mounts show less than ours, and only its PID 1 has a say in them */
	if (setns(dump->cell, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the cell's mounts");
	r = run_criu(dump, dumper, worker.pid, worker.wires[NEST_CRIU_RPC_CHANNEL], err);
	/* the worker is stopped now, and changes nothing any more */
	if (r == 0)
		r = nest_image_wires_renumber(dump->draft, worker.wires, err);
	if (r == 0)
		r = nest_image_program_note(dump->draft, err);
	if (r == 0)
		r = nest_tmp_image_save(dump->draft, err);
	if (r == 0 && dump->kind.memory == NEST_SNAPSHOT_MAPPED)
		r = map_memory(dump, err);
	if (r == 0)
		r = nest_image_gate_note(dump->draft, err);
	ret->memory = dump->kind.memory;
	ret->is_parent = dump->kind.is_parent;
	if (dump->parent[0]) {
		memcpy(ret->parent, dump->parent, NEST_SNAPSHOT_KEY_CHARS);
		memcpy(ret->parent_sha256, dump->parent_sha256, sizeof(ret->parent_sha256));
	}
	memcpy(ret->key, dump->key, NEST_SNAPSHOT_KEY_CHARS);
	if (r == 0)
		r = nest_snapshot_store_seal(dump->draft, ret, err);
	if (r == 0)
		r = nest_snapshot_store_publish(dump->store, dump->draft_name, dump->key, err);
	return r;
}
