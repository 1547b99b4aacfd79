/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/snapshot.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/client.h"
#include "sandbox/criu_rpc.h"

bool nest_snapshot_available(const struct nest_sandbox *sandbox, const char **ret_why)
{
	*ret_why = sandbox->terms->no_snapshots;
	return sandbox->terms->no_snapshots[0] == '\0';
}

const char *nest_snapshot_program(const struct nest_sandbox *sandbox)
{
	return sandbox->terms->criu;
}

static int check_key(const char *key, struct nest_err *err)
{
	if (nest_message_check_key(key))
		return 0;
	return nest_err_say(
		err, -EINVAL, "a snapshot's key has %d hex digits", NEST_SNAPSHOT_KEY_CHARS);
}

static int send_keyed(struct nest_sandbox *sandbox, uint32_t type, uint64_t cell, const char *key,
	const struct nest_snapshot_kind *kind, int fd, struct nest_err *err)
{
	struct nest_message_dump message = {
		.memory = kind ? kind->memory : NEST_SNAPSHOT_COPIED,
		.is_parent = kind && kind->is_parent,
	};
	int r = check_key(key, err);

	if (r < 0)
		return r;
	memcpy(message.key, key, NEST_SNAPSHOT_KEY_CHARS);
	nest_message_begin(&message.head, type, sizeof(message), cell);
	return nest_client_send(sandbox, &message, fd < 0 ? NULL : &fd, fd < 0 ? 0 : 1, err);
}

int nest_snapshot_dump(struct nest_cell *cell, const char *key,
	const struct nest_snapshot_kind *kind,
	void (*cb)(struct nest_cell *cell, uint64_t bytes, const struct nest_err *err, void *arg),
	void *arg)
{
	int r;

	if (cell->dumped)
		return -EALREADY;
	r = send_keyed(cell->sandbox, NEST_MESSAGE_DUMP, cell->id, key, kind, -1, NULL);
	if (r < 0)
		return r;
	cell->dumped = cb;
	cell->dumped_arg = arg;
	return 0;
}

int nest_snapshot_start(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const struct nest_cell_events *events,
	void (*wired)(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg),
	void *arg, struct nest_cell **ret, struct nest_err *err)
{
	int r;

	if (!spec->snapshot)
		return nest_err_say(err, -EINVAL, "this worker isn't to be dumped");
	r = nest_cell_begin(sandbox, spec, NULL, events, arg, ret, err);
	if (r == 0)
		(*ret)->wired = wired;
	return r;
}

int nest_snapshot_restore(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const char *key, const struct nest_cell_events *events,
	void (*wired)(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg),
	void *arg, struct nest_cell **ret, struct nest_err *err)
{
	int r = check_key(key, err);

	if (r == 0)
		r = nest_cell_begin(sandbox, spec, key, events, arg, ret, err);
	if (r == 0)
		(*ret)->wired = wired;
	return r;
}

int nest_snapshot_learn(struct nest_cell *cell)
{
	struct nest_message_head head;

	nest_message_begin(&head, NEST_MESSAGE_LEARN, sizeof(head), cell->id);
	return nest_client_send(cell->sandbox, &head, NULL, 0, NULL);
}

int nest_snapshot_forget(struct nest_sandbox *sandbox, const char *key, struct nest_err *err)
{
	return send_keyed(sandbox, NEST_MESSAGE_FORGET, 0, key, NULL, -1, err);
}

int nest_snapshot_list(struct nest_sandbox *sandbox,
	void (*each)(void *arg, const struct nest_snapshot_view *view), void (*done)(void *arg),
	void *arg)
{
	struct nest_message_head head;
	int r;

	if (sandbox->listed)
		return -EALREADY;
	nest_message_begin(&head, NEST_MESSAGE_LIST, sizeof(head), 0);
	r = nest_client_send(sandbox, &head, NULL, 0, NULL);
	if (r < 0)
		return r;
	sandbox->listed = each;
	sandbox->list_done = done;
	sandbox->listed_arg = arg;
	return 0;
}

static int exchange(struct nest_sandbox *sandbox, uint32_t type, const char *key, int fd,
	nest_snapshot_exchanged_cb *cb, void *arg, struct nest_err *err)
{
	int r;

	if (sandbox->exchanged)
		return -EALREADY;
	r = send_keyed(sandbox, type, 0, key, NULL, fd, err);
	if (r < 0)
		return r;
	sandbox->exchanged = cb;
	sandbox->exchanged_arg = arg;
	return 0;
}

int nest_snapshot_export(struct nest_sandbox *sandbox, const char *key, int pipe_fd,
	nest_snapshot_exchanged_cb *cb, void *arg, struct nest_err *err)
{
	return exchange(sandbox, NEST_MESSAGE_EXPORT, key, pipe_fd, cb, arg, err);
}

int nest_snapshot_import(struct nest_sandbox *sandbox, const char *key, int dir_fd,
	nest_snapshot_exchanged_cb *cb, void *arg, struct nest_err *err)
{
	return exchange(sandbox, NEST_MESSAGE_IMPORT, key, dir_fd, cb, arg, err);
}

/* ---- what the spawner says ---- */

static void on_exchanged(struct nest_sandbox *sandbox, const struct nest_message_exchanged *message)
{
	nest_snapshot_exchanged_cb *cb = sandbox->exchanged;
	struct nest_snapshot_view view = {
		.memory = message->view.memory,
		.bytes = message->view.bytes,
		.made_s = message->view.made_s,
	};

	sandbox->exchanged = NULL;
	memcpy(view.key, message->view.key, sizeof(view.key));
	view.key[sizeof(view.key) - 1] = '\0';
	if (cb)
		cb(sandbox->exchanged_arg, &view, message->err.code < 0 ? &message->err : NULL);
}

static void on_snapshot(struct nest_sandbox *sandbox, const struct nest_message_snapshot *message)
{
	struct nest_snapshot_view view = {
		.memory = message->memory,
		.bytes = message->bytes,
		.made_s = message->made_s,
		.is_parent = message->is_parent,
	};

	if (!sandbox->listed)
		return;
	if (nest_message_check_key(message->key)) {
		memcpy(view.key, message->key, sizeof(view.key));
		memcpy(view.parent, message->parent, sizeof(view.parent) - 1);
		sandbox->listed(sandbox->listed_arg, &view);
		return;
	}
	sandbox->listed = NULL;
	sandbox->list_done(sandbox->listed_arg);
}

static void on_dumped(struct nest_cell *cell, const struct nest_message_dumped *message)
{
	void (*cb)(struct nest_cell *, uint64_t, const struct nest_err *, void *) = cell->dumped;

	cell->dumped = NULL;
	if (cb)
		cb(cell, message->bytes, message->err.code < 0 ? &message->err : NULL,
			cell->dumped_arg);
}

static void on_wired(struct nest_cell *cell, const int *fds)
{
	struct nest_snapshot_wires wires = {
		.channel_fd = fds[NEST_CRIU_RPC_CHANNEL],
		.stdout_fd = fds[NEST_CRIU_RPC_STDOUT],
		.stderr_fd = fds[NEST_CRIU_RPC_STDERR],
	};

	cell->wired(cell, &wires, cell->arg);
}

/* A cell may have ended while its dump went on: then nobody is left to be told. */
static int hear_of_cell(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	const int *fds, size_t nfds, struct nest_err *err)
{
	bool is_wired = message->head.type == NEST_MESSAGE_WIRED;
	struct nest_cell *cell;
	int r = nest_message_check(message, n, message->head.type,
		is_wired ? sizeof(message->head) : sizeof(message->dumped), err);

	if (r < 0)
		return r;
	HASH_FIND(hh, sandbox->cells, &message->head.cell, sizeof(message->head.cell), cell);
	if (is_wired && (!cell || !cell->wired || nfds != NEST_CRIU_RPC_WIRES))
		return nest_err_say(err, -EBADMSG, "the spawner wired a cell that asked for none");
	if (is_wired)
		on_wired(cell, fds);
	else if (cell)
		on_dumped(cell, &message->dumped);
	return 0;
}

int nest_snapshot_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	int *fds, size_t nfds, struct nest_err *err)
{
	uint32_t type = message->head.type;
	int r = 1;

	if (type == NEST_MESSAGE_WIRED || type == NEST_MESSAGE_DUMPED) {
		r = hear_of_cell(sandbox, message, n, fds, nfds, err);
	} else if (type == NEST_MESSAGE_SNAPSHOT) {
		r = nest_message_check(message, n, type, sizeof(message->snapshot), err);
		if (r == 0)
			on_snapshot(sandbox, &message->snapshot);
	} else if (type == NEST_MESSAGE_EXCHANGED) {
		r = nest_message_check(message, n, type, sizeof(message->exchanged), err);
		if (r == 0)
			on_exchanged(sandbox, &message->exchanged);
	}
	/* the wires of a cell have an owner now */
	while (nfds > 0 && (r != 0 || type != NEST_MESSAGE_WIRED))
		close(fds[--nfds]);
	return r;
}
