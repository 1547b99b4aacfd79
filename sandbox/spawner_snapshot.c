/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner_snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "sandbox/breakpoint.h"
#include "sandbox/selftest.h"
#include "sandbox/snapshot_dump.h"
#include "sandbox/spawner_cell.h"
#include "sandbox/working_set.h"

#define PROOF_MS 5000

/* What the child that dumps sends home; smaller than PIPE_BUF, so in one piece. */
struct outcome {
	struct nest_err err;
	struct nest_snapshot_store_contents contents;
};

/* Cells run CRIU as they see it. */
static int check_visible(const char *path, const char *const *root_paths, struct nest_err *err)
{
	for (; *root_paths; root_paths++) {
		size_t n = strlen(*root_paths);

		if (strncmp(path, *root_paths, n) == 0 && path[n] == '/')
			return 0;
	}
	return nest_err_say(err, -ENOENT,
		"CRIU at '%s' is below none of cells.rootPaths, so that cells can't run it", path);
}

void nest_spawner_snapshot_open(
	struct nest_spawner *spawner, const struct nest_sandbox_config *config)
{
	const uint32_t needed = NEST_FOOTING_MOUNT | NEST_FOOTING_PID | NEST_FOOTING_IDS;
	struct nest_err err = NEST_ERR_INIT, slow = NEST_ERR_INIT;
	int r = 0;

	spawner->store.dir = -1;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(spawner->jobs); i++)
		spawner->jobs[i].pipe = -1;
	if (!config->snapshots)
		r = nest_err_say(&err, -EPERM, "snapshots are off");
	else if ((spawner->footing.have & needed) != needed)
		r = nest_err_say(&err, -EPERM,
			"cells have no root file system, pids and users of their own");
	if (r == 0)
		r = nest_criu_rpc_find(config->criu, &spawner->criu, &err);
	if (r == 0)
		r = check_visible(spawner->criu.path, config->root_paths, &err);
	if (r == 0)
		r = nest_snapshot_store_open(
			config->state_dir, config->snapshots_bytes, &spawner->store, &err);
	if (r == 0 && nest_breakpoint_hold(&slow) < 0)
		nest_log(NEST_LOG_DEBUG, "spawner", "restores take longer: %s",
			nest_err_text(&slow));
	if (r < 0)
		snprintf(spawner->no_snapshots, sizeof(spawner->no_snapshots), "%.255s",
			nest_err_text(&err));
}

/* ---- stand-ins for libraries of CRIU's ---- */

static _Noreturn void prove_and_exit(const char *criu, int out)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t us;
	int r = 0;

	nest_fd_close_but(&out, 1);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || setpriority(PRIO_PROCESS, 0, 19) < 0)
		r = nest_err_set(&err, -errno, "step back");
	if (r == 0)
		r = nest_selftest_run(criu, true, PROOF_MS, &us, &err);
	err.code = r;
	_exit(write(out, &err, sizeof(err)) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

void nest_spawner_snapshot_prove(struct nest_spawner *spawner, const char *criu)
{
	nest_autoclose int in = -1;
	nest_autoclose int out = -1;
	int pipe[2];

	if (spawner->store.dir < 0 || !spawner->criu.standins[0])
		return;
	memcpy(spawner->prover.standins, spawner->criu.standins, sizeof(spawner->prover.standins));
	spawner->criu.standins[0] = '\0';
	if (nest_fd_pipe(0, pipe, NULL) < 0)
		return;
	in = pipe[0];
	out = pipe[1];
	if (nest_spawner_cell_watch(spawner, in, NEST_SPAWNER_EVENT_PROVED, 0, NULL) < 0)
		return;
	spawner->prover.pid = _Fork(); /* no handler of the agent's libraries shall run */
	if (spawner->prover.pid == 0)
		prove_and_exit(criu, out);
	spawner->prover.pipe = nest_take_fd(in); /* without a child it has its end to tell */
}

void nest_spawner_snapshot_proved_standins(struct nest_spawner *spawner)
{
	struct nest_message_failed remark = { .err = NEST_ERR_INIT };
	struct nest_err err = NEST_ERR_INIT;
	ssize_t n = read(spawner->prover.pipe, &err, sizeof(err));

	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, spawner->prover.pipe, NULL);
	close(nest_take_fd(spawner->prover.pipe));
	if (spawner->prover.pid > 0)
		waitpid(spawner->prover.pid, NULL, 0); /* it has only its exit left */
	if (n != (ssize_t)sizeof(err))
		nest_err_say(&err, -EIO, "nothing could try it");
	if (err.code == 0) {
		memcpy(spawner->criu.standins, spawner->prover.standins,
			sizeof(spawner->criu.standins));
		return;
	}
	err.text[sizeof(err.text) - 1] = '\0';
	nest_err_say(&remark.err, err.code,
		"restores take longer: CRIU does not work with the libraries in '%s': %s",
		spawner->prover.standins, nest_err_text(&err));
	nest_message_begin(&remark.head, NEST_MESSAGE_REMARK, sizeof(remark), 0);
	nest_message_send(spawner->agent, &remark);
}

/* ---- dumps ---- */

static void tell_dumped(
	struct nest_spawner *spawner, uint64_t id, uint64_t bytes, const struct nest_err *err)
{
	struct nest_message_dumped dumped = { .bytes = bytes, .err = *err };

	nest_message_begin(&dumped.head, NEST_MESSAGE_DUMPED, sizeof(dumped), id);
	nest_message_send(spawner->agent, &dumped);
}

static _Noreturn void dump_and_exit(const struct nest_snapshot_dump *dump, int out)
{
	int keep[] = { dump->store->dir, dump->draft, dump->proc, dump->cell, dump->dumper, out };
	struct outcome outcome = { .err = NEST_ERR_INIT };
	int r = 0;

	nest_fd_close_but(keep, NEST_ARRAY_SIZE(keep));
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		r = nest_err_set(&outcome.err, -errno, "set the parent death signal");
	if (r == 0)
		r = nest_snapshot_dump_run(dump, &outcome.contents, &outcome.err);
	if (r < 0) {
		nest_snapshot_store_drop(dump->store, dump->draft_name);
		outcome.err.code = r;
	}
	if (write(out, &outcome, sizeof(outcome)) < 0)
		_exit(EXIT_FAILURE);
	_exit(EXIT_SUCCESS);
}

static struct nest_spawner_job *find_job(struct nest_spawner *spawner, size_t *ret_n)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(spawner->jobs); i++) {
		*ret_n = i;
		if (spawner->jobs[i].pid == 0)
			return &spawner->jobs[i];
	}
	return NULL;
}

/* What its cell was restored from is what a dump is made upon, if that can be. */
static int name_parent(const struct nest_spawner_cell *cell,
	const struct nest_message_dump *request, struct nest_snapshot_dump *ret,
	struct nest_err *err)
{
	ret->parent = "";
	if (!cell->key[0])
		return 0;
	if (!cell->from_parent || request->is_parent)
		return nest_err_say(err, -EINVAL,
			"a clone of snapshot '%.12s' can't be frozen: it is no runtime's",
			cell->key);
	if (cell->from_mapped) {
		ret->parent = cell->key;
		ret->parent_sha256 = cell->sha256;
	}
	return 0;
}

static int begin_dump(struct nest_spawner *spawner, const struct nest_spawner_cell *cell,
	const struct nest_message_dump *request, struct nest_err *err)
{
	struct nest_snapshot_dump dump = {
		.store = &spawner->store,
		.key = request->key,
		.kind = { .memory = request->memory, .is_parent = request->is_parent },
		.proc = spawner->proc,
		.cell = cell->pidfd,
		.dumper = cell->dumper,
		.worker = cell->worker,
	};
	nest_autoclose int draft = -1;
	char name[32];
	int pipe[2];
	size_t n = 0;
	struct nest_spawner_job *job = find_job(spawner, &n);
	int r;

	if (!job)
		return nest_err_say(
			err, -EBUSY, "%zu dumps are under way", NEST_ARRAY_SIZE(spawner->jobs));
	r = name_parent(cell, request, &dump, err);
	if (r == 0)
		r = nest_snapshot_store_draft(&spawner->store, name, &draft, err);
	if (r == 0)
		r = nest_fd_pipe(0, pipe, err);
	if (r < 0)
		return r;
	dump.draft = draft;
	dump.draft_name = name;
	job->pid = _Fork(); /* no handler of the agent's libraries shall run */
	if (job->pid == 0)
		dump_and_exit(&dump, pipe[1]);
	close(pipe[1]);
	r = job->pid > 0 ? nest_spawner_cell_watch(spawner, pipe[0], NEST_SPAWNER_EVENT_JOB, n, err)
			 : nest_err_set(err, -errno, "fork");
	if (r < 0) {
		if (job->pid > 0) {
			kill(job->pid, SIGKILL);
			waitpid(job->pid, NULL, 0);
		}
		job->pid = 0;
		close(pipe[0]);
		nest_snapshot_store_discard(&spawner->store, name);
		return r;
	}
	job->pipe = pipe[0];
	job->cell = cell->id;
	memcpy(job->key, request->key, sizeof(job->key));
	memcpy(job->draft, name, sizeof(job->draft));
	return 0;
}

void nest_spawner_snapshot_dump(struct nest_spawner *spawner, const struct nest_message_dump *dump)
{
	struct nest_spawner_cell *cell = nest_spawner_cell_find(spawner, dump->head.cell);
	struct nest_err err = NEST_ERR_INIT;
	int r = 0;

	if (!cell || cell->state != NEST_SPAWNER_CELL_RUNNING || cell->starting)
		r = nest_err_say(&err, -ESRCH, "the cell does not run");
	else if (spawner->store.dir < 0)
		r = nest_err_say(&err, -ENOSYS, "no snapshots: %s", spawner->no_snapshots);
	else if (!nest_message_check_key(dump->key) || dump->memory > NEST_SNAPSHOT_MAPPED ||
		 dump->is_parent > 1)
		r = nest_err_say(&err, -EINVAL, "the key or the kind of memory is none");
	else if (cell->dumper < 0)
		r = nest_err_say(&err, -EINVAL, "the cell was not started to be dumped");
	if (r == 0)
		r = begin_dump(spawner, cell, dump, &err);
	if (r < 0)
		tell_dumped(spawner, dump->head.cell, 0, &err);
}

void nest_spawner_snapshot_hear(struct nest_spawner *spawner, size_t n)
{
	struct nest_spawner_job *job = &spawner->jobs[n];
	struct outcome outcome = { .err = NEST_ERR_INIT };
	ssize_t got = read(job->pipe, &outcome, sizeof(outcome));

	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, job->pipe, NULL);
	close(nest_take_fd(job->pipe));
	waitpid(job->pid, NULL, 0); /* it has only its exit left */
	job->pid = 0;
	if (got != (ssize_t)sizeof(outcome)) {
		nest_err_say(&outcome.err, -EIO, "the dump was killed");
		nest_snapshot_store_discard(&spawner->store, job->draft);
	}
	outcome.err.text[sizeof(outcome.err.text) - 1] = '\0';
	if (outcome.err.code == 0) {
		nest_snapshot_store_note(
			&spawner->store, job->key, &outcome.contents, &outcome.err);
		nest_spawner_snapshot_proved(spawner, job->key);
	}
	tell_dumped(spawner, job->cell, outcome.contents.bytes, &outcome.err);
}

/* ---- the store ---- */

void nest_spawner_snapshot_sweep(struct nest_spawner *spawner)
{
	int pipe[2];

	if (!spawner->store.garbage || spawner->sweeper.pid > 0 || spawner->stopping ||
		nest_fd_pipe(0, pipe, NULL) < 0)
		return;
	spawner->store.garbage = false;
	spawner->sweeper.pid = _Fork(); /* no handler of the agent's libraries shall run */
	if (spawner->sweeper.pid == 0) {
		int keep[] = { spawner->store.dir, pipe[1] };

		nest_fd_close_but(keep, NEST_ARRAY_SIZE(keep));
		/* what it leaves when it is killed goes with the next sweep */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && setpriority(PRIO_PROCESS, 0, 19) == 0)
			nest_snapshot_store_sweep(&spawner->store);
		_exit(EXIT_SUCCESS);
	}
	close(pipe[1]);
	if (spawner->sweeper.pid < 0 ||
		nest_spawner_cell_watch(spawner, pipe[0], NEST_SPAWNER_EVENT_SWEPT, 0, NULL) < 0) {
		close(pipe[0]);
		if (spawner->sweeper.pid > 0)
			waitpid(spawner->sweeper.pid, NULL, 0);
		spawner->sweeper.pid = 0;
		return;
	}
	spawner->sweeper.pipe = pipe[0];
}

void nest_spawner_snapshot_swept(struct nest_spawner *spawner)
{
	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, spawner->sweeper.pipe, NULL);
	close(nest_take_fd(spawner->sweeper.pipe));
	waitpid(spawner->sweeper.pid, NULL, 0); /* it has only its exit left */
	spawner->sweeper.pid = 0;
}

void nest_spawner_snapshot_forget(
	struct nest_spawner *spawner, const struct nest_message_dump *dump)
{
	if (spawner->store.dir >= 0 && nest_message_check_key(dump->key))
		nest_snapshot_store_forget(&spawner->store, dump->key);
}

void nest_spawner_snapshot_list(struct nest_spawner *spawner)
{
	struct nest_message_snapshot message;
	struct nest_snapshot_store_entry *entry;

	for (entry = spawner->store.entries;; entry = entry->next) {
		message = (struct nest_message_snapshot){ .memory = 0 };
		nest_message_begin(&message.head, NEST_MESSAGE_SNAPSHOT, sizeof(message), 0);
		if (entry) {
			message.bytes = entry->view.bytes;
			message.made_s = entry->view.made_s;
			message.memory = entry->view.memory;
			message.is_parent = entry->view.is_parent;
			memcpy(message.parent, entry->view.parent, sizeof(message.parent) - 1);
			memcpy(message.key, entry->view.key, sizeof(message.key));
		}
		nest_message_send(spawner->agent, &message);
		if (!entry)
			return;
	}
}

void nest_spawner_snapshot_learn(struct nest_spawner *spawner, const struct nest_spawner_cell *cell)
{
	struct nest_snapshot_store_entry *entry =
		cell->key[0] ? nest_snapshot_store_find(&spawner->store, cell->key) : NULL;
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int dir = -1;
	int r;

	/* another one may have taken its name, whose memory lies elsewhere */
	if (!entry || entry->forgotten ||
		memcmp(entry->sha256, cell->sha256, sizeof(entry->sha256)) != 0)
		return;
	r = nest_snapshot_store_use(&spawner->store, entry, &dir, &err);
	if (r == 0)
		r = nest_working_set_learn(spawner->proc, cell->worker, dir, &err);
	if (r < 0)
		nest_log(NEST_LOG_DEBUG, "spawner", "%s", nest_err_text(&err));
}

/* A detached mount of the directory of @entry. */
static int mount_images(struct nest_spawner *spawner, struct nest_snapshot_store_entry *entry,
	int *ret_mount, struct nest_err *err)
{
	nest_autoclose int dir = -1;
	int r = nest_snapshot_store_use(&spawner->store, entry, &dir, err);

	return r < 0 ? r : nest_rootfs_clone_code(&spawner->rootfs, dir, ret_mount, err);
}

int nest_spawner_snapshot_use(struct nest_spawner *spawner, struct nest_message_start *start,
	struct nest_spawner_snapshot_mounts *ret, struct nest_err *err)
{
	struct nest_snapshot_store_entry *entry, *parent;
	int r;

	if (spawner->store.dir < 0)
		return nest_err_say(err, -ENOSYS, "no snapshots: %s", spawner->no_snapshots);
	entry = nest_snapshot_store_find(&spawner->store, start->key);
	if (!entry || entry->forgotten)
		return nest_err_say(err, -ENOENT, "there is no snapshot '%.12s'", start->key);
	parent = entry->parent;
	r = mount_images(spawner, entry, &ret->images, err);
	if (r < 0) {
		nest_snapshot_store_remove(&spawner->store, start->key);
		return r;
	}
	if (parent)
		r = mount_images(spawner, parent, &ret->parent, err);
	if (r < 0) {
		nest_snapshot_store_remove(&spawner->store, parent->view.key);
		return r;
	}
	start->verify = !entry->verified;
	start->verify_parent = parent && !parent->verified;
	start->parent = parent			? NEST_MESSAGE_PARENT_BESIDE
			: entry->view.is_parent ? NEST_MESSAGE_PARENT_ITSELF
						: NEST_MESSAGE_PARENT_NONE;
	entry->users++;
	entry->used = ++spawner->store.clock;
	if (parent)
		parent->used = entry->used;
	return 0;
}

void nest_spawner_snapshot_note_use(struct nest_spawner *spawner, struct nest_spawner_cell *cell,
	const struct nest_message_start *start)
{
	const struct nest_snapshot_store_entry *entry =
		nest_snapshot_store_find(&spawner->store, start->key);

	memcpy(cell->key, start->key, NEST_MESSAGE_KEY_CHARS);
	memcpy(cell->sha256, entry->sha256, sizeof(cell->sha256));
	cell->from_parent = entry->view.is_parent;
	cell->from_mapped = entry->view.memory == NEST_SNAPSHOT_MAPPED;
}

void nest_spawner_snapshot_proved(struct nest_spawner *spawner, const char *key)
{
	struct nest_snapshot_store_entry *entry = nest_snapshot_store_find(&spawner->store, key);

	if (!entry)
		return;
	entry->verified = true;
	if (entry->parent)
		entry->parent->verified = true;
}

void nest_spawner_snapshot_unuse(struct nest_spawner *spawner, const char *key, int why)
{
	struct nest_snapshot_store_entry *entry = nest_snapshot_store_find(&spawner->store, key);

	if (entry && entry->users > 0)
		entry->users--;
	if (why == -EBADMSG)
		nest_snapshot_store_remove(&spawner->store, key);
	else if (why == -ESTALE && entry && entry->parent)
		nest_snapshot_store_remove(&spawner->store, entry->parent->view.key);
}
