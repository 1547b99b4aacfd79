/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/record.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "loader/cache.h"
#include "loader/copy.h"
#include "loader/draft.h"
#include "loader/threads.h"
#include "loader/tree.h"

struct nest_record {
	uv_loop_t *loop;
	struct nest_cache *cache;
	struct nest_draft_limits limits;
	atomic_bool cancel;
	uv_async_t read; /* the thread has read a tree */
	uv_work_t work;	 /* its digest is being written down */
	pthread_t thread;
	bool busy;
	bool closing;
	int fd; /* of the tree's directory; -1: none */
	char hex[NEST_DIGEST_HEX_LEN];
	char found[NEST_DIGEST_HEX_LEN];
	int rc;
	struct nest_tree *tree; /* referenced while its digest is being written down */
	void (*close_cb)(void *arg);
	void *close_arg;
};

static void on_closed(uv_handle_t *handle)
{
	struct nest_record *record = handle->data;
	void (*cb)(void *) = record->close_cb;
	void *arg = record->close_arg;

	free(record);
	cb(arg);
}

static void run_lowest(void)
{
	/* Of this thread only, and what fails costs others some time. */
	(void)setpriority(PRIO_PROCESS, 0, 19);
	(void)syscall(
		SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

static void *read_tree(void *arg)
{
	struct nest_record *record = arg;
	char path[32];

	run_lowest();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", record->fd);
	record->rc = nest_copy_dir(path, &record->limits, NULL, record->found, NULL);
	uv_async_send(&record->read);
	return NULL;
}

/* The tree that was read, if it is still there and lacks its digest. */
static struct nest_tree *find_read(const struct nest_record *record)
{
	struct nest_tree *tree = nest_cache_find(record->cache, record->hex);
	int trees_fd = nest_cache_trees_fd(record->cache);
	struct stat read;
	struct stat now;
	bool same = tree && !tree->content[0] && fstat(record->fd, &read) == 0 &&
		    fstatat(trees_fd, record->hex, &now, AT_SYMLINK_NOFOLLOW) == 0 &&
		    read.st_dev == now.st_dev && read.st_ino == now.st_ino;

	return same ? tree : NULL;
}

static void go_on(struct nest_record *record)
{
	record->busy = false;
	uv_unref((uv_handle_t *)&record->read);
	if (record->closing)
		uv_close((uv_handle_t *)&record->read, on_closed);
	else
		nest_record_start(record);
}

static void write_on_pool(uv_work_t *work)
{
	struct nest_record *record = work->data;

	record->rc = nest_cache_write_content(record->cache, record->tree, record->found, NULL);
}

static void after_write(uv_work_t *work, int status)
{
	struct nest_record *record = work->data;

	if (status == 0 && record->rc == 0)
		nest_cache_note_content(record->tree, record->found);
	nest_tree_unref(nest_take_ptr(record->tree));
	go_on(record);
}

/* What couldn't be read is found by the next verification, or is gone. */
static void on_read(uv_async_t *async)
{
	struct nest_record *record = async->data;
	struct nest_tree *tree;

	pthread_join(record->thread, NULL);
	tree = record->rc == 0 ? find_read(record) : NULL;
	close(nest_take_fd(record->fd));
	if (!tree) {
		go_on(record);
		return;
	}
	record->tree = nest_tree_ref(tree);
	record->work.data = record;
	if (uv_queue_work(record->loop, &record->work, write_on_pool, after_write) < 0)
		after_write(&record->work, UV_ENOMEM);
}

/* Each tree is tried once in a host's life. */
static bool take_next(void *arg, struct nest_tree *tree)
{
	struct nest_record *record = arg;

	if (tree->content[0] || (tree->image && !tree->made) || tree->unsettled || tree->tried)
		return true;
	tree->tried = true;
	if (nest_tree_open(tree, &record->fd, NULL) < 0)
		return true;
	strcpy(record->hex, nest_tree_hex(tree));
	return false;
}

void nest_record_start(struct nest_record *record)
{
	if (record->busy || record->closing)
		return;
	nest_cache_each(record->cache, take_next, record);
	if (record->fd < 0)
		return;
	if (nest_threads_start(&record->thread, read_tree, record, "record", NULL) < 0) {
		close(nest_take_fd(record->fd));
		return;
	}
	record->busy = true;
	uv_ref((uv_handle_t *)&record->read);
}

int nest_record_open(uv_loop_t *loop, struct nest_cache *cache,
	const struct nest_draft_limits *limits, struct nest_record **ret, struct nest_err *err)
{
	struct nest_record *record = calloc(1, sizeof(*record));
	int rc;

	if (!record)
		return nest_err_set(err, -ENOMEM, "open the code cache's records");
	record->loop = loop;
	record->cache = cache;
	record->limits = *limits;
	record->limits.cancel = &record->cancel;
	record->fd = -1;
	record->read.data = record;
	rc = uv_async_init(loop, &record->read, on_read);
	if (rc < 0) {
		free(record);
		return nest_err_set(err, rc, "open the code cache's records");
	}
	uv_unref((uv_handle_t *)&record->read);
	*ret = record;
	return 0;
}

void nest_record_close(struct nest_record *record, void (*cb)(void *arg), void *arg)
{
	record->closing = true;
	record->close_cb = cb;
	record->close_arg = arg;
	atomic_store(&record->cancel, true);
	if (!record->busy)
		uv_close((uv_handle_t *)&record->read, on_closed);
}
