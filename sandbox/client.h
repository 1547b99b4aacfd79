/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_CLIENT_H
#define NEST_SANDBOX_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <uv.h>

/* a map that can't grow says so instead of ending the process */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "sandbox/message.h"
#include "sandbox/sandbox.h"
#include "sandbox/snapshot.h"

/* What sandbox.c and cell.c share of the agent's end of the spawner. */

struct nest_sandbox_terms {
	uint32_t have; /* enum nest_footing_bit */
	uint32_t max_cells;
	struct nest_message_range uids;
	char *runtimes_dir;
	char missing[NEST_MESSAGE_MISSING_MAX];
	char no_snapshots[256]; /* why there are none, or "" */
	char criu[256];		/* the program that makes them */
	char no_images[256];	/* why none is mounted, or "" */
	bool zstd_images;	/* the kernel reads zstd in images */
};

/* A message that the socket had no room for yet, with copies of its descriptors. */
struct nest_client_pending {
	struct nest_client_pending *next;
	int fds[NEST_MESSAGE_FD_COUNT];
	size_t nfds;
	size_t size;
	char bytes[];
};

struct nest_cell {
	uint64_t id;
	struct nest_sandbox *sandbox;
	struct nest_cell_events events;
	void *arg;
	bool kill_asked;
	void (*measured)(struct nest_cell *cell, const struct nest_cell_usage *usage, void *arg);
	void *measured_arg;
	bool measuring; /* the spawner has been asked; while it is not, the cell waits in a list */
	struct nest_cell *prev, *next;
	void (*wired)(struct nest_cell *cell, const struct nest_snapshot_wires *wires, void *arg);
	void (*dumped)(
		struct nest_cell *cell, uint64_t bytes, const struct nest_err *err, void *arg);
	void *dumped_arg;
	UT_hash_handle hh;
};

struct nest_image {
	uint64_t id;
	struct nest_sandbox *sandbox; /* NULL: the sandbox has been closed before */
	void (*cb)(void *arg, const struct nest_err *err); /* NULL once called */
	void *arg;
	bool abandoned; /* unmounted before it was mounted */
	struct nest_image *prev, *next;
};

struct nest_sandbox {
	int fd;
	int pidfd;
	pid_t pid;
	struct nest_sandbox_terms *terms;
	uv_poll_t socket;
	uv_poll_t process;
	uv_poll_cb on_socket; /* of @socket */
	int open_handles;
	bool writable_wanted;
	bool over;    /* no word will come from the spawner any more */
	bool closing; /* by nest_sandbox_close() */
	bool handles_closed;
	struct nest_err why; /* it is over, if not by closing */
	void (*on_lost)(void *arg, const struct nest_err *why);
	void (*on_remark)(void *arg, const char *remark);
	void *remark_arg;
	void (*on_closed)(void *arg);
	void *lost_arg;
	void *closed_arg;
	uint32_t prepared;
	uint64_t next_id;
	struct nest_cell *cells; /* by id */
	struct nest_cell *to_measure;
	unsigned measuring; /* cells that the spawner has been asked to measure */
	uint64_t next_image;
	struct nest_image *images;
	struct nest_client_pending *pending;
	void (*listed)(void *arg, const struct nest_snapshot_view *view);
	void (*list_done)(void *arg);
	void *listed_arg;
	void (*exchanged)(
		void *arg, const struct nest_snapshot_view *view, const struct nest_err *err);
	void *exchanged_arg;
};

/*
 * Sends @message (which a head begins) now or, when the socket is full, later; @fds are borrowed.
 * -EPIPE: the spawner is lost.
 */
int nest_client_send(struct nest_sandbox *sandbox, const void *message, const int *fds, size_t nfds,
	struct nest_err *err);

/* Gives up the connection: the spawner then ends, and that is reported as its loss. */
void nest_client_break(struct nest_sandbox *sandbox, const struct nest_err *why);

/* Sends what waits, as far as the socket takes it; for when it is writable again. */
void nest_client_send_pending(struct nest_sandbox *sandbox);

/* Forgets what waits. */
void nest_client_drop_pending(struct nest_sandbox *sandbox);

/* Handles the spawner's word on an image. -EBADMSG: it is none. */
int nest_image_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	struct nest_err *err);

/* No word will come on any image: ends those that wait for one. */
void nest_image_end_all(struct nest_sandbox *sandbox, const struct nest_err *why);

/* The sandbox goes: images that are still held stand alone. */
void nest_image_orphan_all(struct nest_sandbox *sandbox);
/*
 * Sends the START or RESTORE (when @key) of a new cell; see nest_cell_start(), nest_snapshot_start()
 * and nest_snapshot_restore().
 */
int nest_cell_begin(struct nest_sandbox *sandbox, const struct nest_cell_spec *spec,
	const char *key, const struct nest_cell_events *events, void *arg, struct nest_cell **ret,
	struct nest_err *err);

/* Handles what the spawner says of snapshots; @fds are taken. 1: it isn't of snapshots. */
int nest_snapshot_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	int *fds, size_t nfds, struct nest_err *err);

/* Takes @cell out of the map, reports its end and frees it. */
void nest_cell_end(struct nest_cell *cell, const struct nest_cell_exit *how);

/* Handles a message of @n bytes that is meant for a cell. -EBADMSG: it is none. */
int nest_cell_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	struct nest_err *err);

#endif
