/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/spawner_exchange.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/spawner_cell.h"

/* What the child sends home; smaller than PIPE_BUF, so in one piece. */
struct outcome {
	struct nest_err err;
	struct nest_snapshot_store_contents contents;
};

/* What the child works with. */
struct work {
	const struct nest_spawner *spawner;
	bool import;
	int fd;	   /* the pipe, or the directory */
	int place; /* the snapshot's directory, or the draft */
	int out;
	pid_t parent;
};

static void tell(struct nest_spawner *spawner, const char *key,
	const struct nest_snapshot_store_contents *contents, const struct nest_err *err)
{
	struct nest_message_exchanged told = { .err = *err };

	memcpy(told.view.key, key, sizeof(told.view.key));
	if (contents) {
		told.view.bytes = contents->bytes;
		told.view.made_s = contents->made_s;
		told.view.memory = contents->memory;
	}
	nest_message_begin(&told.head, NEST_MESSAGE_EXCHANGED, sizeof(told), 0);
	nest_message_send(spawner->agent, &told);
}

/* ---- the child ---- */

static int import(
	const struct work *work, struct nest_snapshot_store_contents *ret, struct nest_err *err)
{
	const struct nest_spawner_exchange *exchange = &work->spawner->exchange;
	const struct nest_snapshot_store *store = &work->spawner->store;
	int r = nest_snapshot_pack_take(work->fd, exchange->key, &exchange->secret,
		store->max_bytes, work->place, ret, err);

	return r < 0 ? r : nest_snapshot_store_publish(store, exchange->draft, exchange->key, err);
}

static _Noreturn void run_child(const struct work *work)
{
	const struct nest_spawner_exchange *exchange = &work->spawner->exchange;
	int keep[] = { work->fd, work->place, work->out, work->spawner->store.dir };
	struct outcome outcome = { .err = NEST_ERR_INIT };
	int r = 0;

	/* no cell's socket shall live on in it */
	nest_fd_close_but(keep, NEST_ARRAY_SIZE(keep));
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != work->parent)
		_exit(EXIT_FAILURE);
	if (work->import)
		r = import(work, &outcome.contents, &outcome.err);
	else
		r = nest_snapshot_pack_write(
			work->place, exchange->key, &exchange->secret, work->fd, &outcome.err);
	outcome.err.code = r;
	_exit(write(work->out, &outcome, sizeof(outcome)) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* ---- the loop's side ---- */

static int check(const struct nest_spawner *spawner, const struct nest_message_dump *request,
	int fd, bool import, struct nest_err *err)
{
	struct stat st;

	if (spawner->store.dir < 0)
		return nest_err_say(err, -ENOSYS, "no snapshots: %s", spawner->no_snapshots);
	if (spawner->exchange.secret.n == 0)
		return nest_err_say(err, -EPERM, "this host exchanges no snapshots");
	if (spawner->exchange.child > 0)
		return nest_err_say(err, -EBUSY, "another snapshot is being exchanged");
	if (!nest_message_check_key(request->key))
		return nest_err_say(err, -EINVAL, "the key is none");
	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "look at the descriptor");
	if (import ? !S_ISDIR(st.st_mode) : !S_ISFIFO(st.st_mode))
		return nest_err_say(
			err, -EINVAL, "the descriptor is no %s", import ? "directory" : "pipe");
	return 0;
}

static int open_place(struct nest_spawner *spawner, bool import, int *ret, struct nest_err *err)
{
	struct nest_spawner_exchange *exchange = &spawner->exchange;
	struct nest_snapshot_store_contents contents;

	exchange->draft[0] = '\0';
	if (import)
		return nest_snapshot_store_draft(&spawner->store, exchange->draft, ret, err);
	return nest_snapshot_store_read(&spawner->store, exchange->key, ret, &contents, err);
}

static void drop_draft(struct nest_spawner *spawner)
{
	if (spawner->exchange.draft[0])
		nest_snapshot_store_discard(&spawner->store, spawner->exchange.draft);
}

static int start_child(
	struct nest_spawner *spawner, bool import, int fd, int place, struct nest_err *err)
{
	struct nest_spawner_exchange *exchange = &spawner->exchange;
	nest_autoclose int in = -1;
	nest_autoclose int out = -1;
	int pair[2] = { -1, -1 };
	struct work work = {
		.spawner = spawner, .import = import, .fd = fd, .place = place, .parent = getpid()
	};
	int r = nest_fd_pipe(0, pair, err);

	in = pair[0];
	out = pair[1];
	if (r == 0)
		r = nest_spawner_cell_watch(spawner, in, NEST_SPAWNER_EVENT_EXCHANGE, 0, err);
	if (r < 0)
		return r;
	work.out = out;
	exchange->child = _Fork(); /* no handler of the agent's libraries shall run */
	if (exchange->child == 0)
		run_child(&work);
	if (exchange->child < 0) {
		r = nest_err_set(err, -errno, "fork");
		epoll_ctl(spawner->poll, EPOLL_CTL_DEL, in, NULL);
		exchange->child = 0;
		return r;
	}
	exchange->result = nest_take_fd(in);
	return 0;
}

void nest_spawner_exchange_begin(
	struct nest_spawner *spawner, const struct nest_message_dump *request, int fd)
{
	bool import = request->head.type == NEST_MESSAGE_IMPORT;
	struct nest_err err = NEST_ERR_INIT;
	nest_autoclose int place = -1;
	int r = check(spawner, request, fd, import, &err);

	if (r < 0) {
		tell(spawner, request->key, NULL, &err);
		return;
	}
	memcpy(spawner->exchange.key, request->key, sizeof(spawner->exchange.key));
	r = open_place(spawner, import, &place, &err);
	if (r == 0)
		r = start_child(spawner, import, fd, place, &err);
	if (r == 0)
		return;
	drop_draft(spawner);
	tell(spawner, request->key, NULL, &err);
}

void nest_spawner_exchange_hear(struct nest_spawner *spawner)
{
	struct nest_spawner_exchange *exchange = &spawner->exchange;
	struct outcome outcome = { .err = NEST_ERR_INIT };
	ssize_t got = read(exchange->result, &outcome, sizeof(outcome));

	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, exchange->result, NULL);
	close(nest_take_fd(exchange->result));
	waitpid(exchange->child, NULL, 0); /* it has only its exit left */
	exchange->child = 0;
	outcome.err.text[sizeof(outcome.err.text) - 1] = '\0';
	if (got != (ssize_t)sizeof(outcome))
		nest_err_say(&outcome.err, -EIO, "the exchange was killed");
	if (outcome.err.code < 0)
		drop_draft(spawner);
	else if (exchange->draft[0])
		nest_snapshot_store_note(
			&spawner->store, exchange->key, &outcome.contents, &outcome.err);
	tell(spawner, exchange->key, &outcome.contents, &outcome.err);
}
