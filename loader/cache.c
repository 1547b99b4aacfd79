/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory:
 *
 *	trees/<hex>/		a tree, complete and durable from the moment it has this name
 *	trees/<hex>.json	what is known of it; comes after the tree and goes after it
 *	staging/		all else: uploads, drafts, and "dead-*", which waits for a sweep
 *
 * The invariant: a tree with its metadata beside it in trees/ is whole. Publishing has two steps.
 * Placing renames the tree, which can be used from then on. Settling writes the metadata in
 * staging, makes all of it durable, tree and metadata, and renames the metadata then. Evicting
 * renames the tree into staging first, then removes the metadata. So after a crash at any point,
 * whatever lacks one of the two was never whole or is on its way out, and is removed at open
 * along with all of staging. Between the steps a tree is whole for whoever runs, and gone after a
 * crash: enough for what can be downloaded again, and 0.1 s earlier (150 MB on ext4). The file
 * system may not turn the order of renames in one directory around, which none with a journal does.
 *
 * Durable means one syncfs(2) of the file system, not an fsync of each file: 2,000 files of 8 KB
 * on ext4 took 0.02 s that way and 0.4 s the other. It also waits for what others have written
 * there, which only a load pays for, never a request to a function that is loaded.
 *
 * The lock is flock(2) on the directory: it goes with its holder, however that ends.
 */
#include "loader/cache.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "base/json.h"
#include "loader/draft.h"
#include "loader/tree.h"

#define META_MAX 1024u
#define META_SUFFIX ".json"
#define DEAD "dead"

struct nest_cache {
	int dir_fd;
	int trees_fd;
	int staging_fd;
	uint64_t max_bytes;
	unsigned refs; /* the opener, and each tree in use */
	struct nest_tree *trees;
	struct nest_tree *unused; /* least recently used first */
	struct nest_cache_totals totals;
	void (*over_cb)(void *arg);
	void *over_arg;
	atomic_uint next_name;
	pthread_mutex_t sweep_lock; /* two sweeps would stumble over each other's files */
};

int nest_cache_staging_fd(const struct nest_cache *cache)
{
	return cache->staging_fd;
}

int nest_cache_trees_fd(const struct nest_cache *cache)
{
	return cache->trees_fd;
}

void nest_cache_name(struct nest_cache *cache, const char *kind, char ret[NEST_CACHE_NAME_CAP])
{
	snprintf(ret, NEST_CACHE_NAME_CAP, "%s-%u", kind, atomic_fetch_add(&cache->next_name, 1));
}

void nest_cache_totals(const struct nest_cache *cache, struct nest_cache_totals *ret)
{
	*ret = cache->totals;
}

void nest_cache_set_over_cb(struct nest_cache *cache, void (*cb)(void *arg), void *arg)
{
	cache->over_cb = cb;
	cache->over_arg = arg;
}

static void forget(struct nest_cache *cache, struct nest_tree *tree)
{
	HASH_DELETE(hh, cache->trees, tree);
	cache->totals.trees--;
	cache->totals.disk -= tree->disk;
	free(tree);
}

static void free_cache(struct nest_cache *cache)
{
	struct nest_tree *tree;
	struct nest_tree *next;

	HASH_ITER(hh, cache->trees, tree, next)
		forget(cache, tree);
	nest_cleanup_close(&cache->staging_fd);
	nest_cleanup_close(&cache->trees_fd);
	nest_cleanup_close(&cache->dir_fd);
	pthread_mutex_destroy(&cache->sweep_lock);
	free(cache);
}

void nest_cache_unref(struct nest_cache *cache)
{
	if (cache && --cache->refs == 0)
		free_cache(cache);
}

static void meta_name(const char *hex, char ret[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)])
{
	snprintf(ret, NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX), "%.64s" META_SUFFIX, hex);
}

void nest_cache_begin_use(struct nest_cache *cache, struct nest_tree *tree)
{
	char name[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];
	struct timespec times[2];

	DL_DELETE(cache->unused, tree);
	cache->refs++;
	/*
	 * The order of use outlives the process in the metadata's time; losing it costs little. The
	 * clock is read here, because the kernel's own "now" is of one tick for many uses.
	 */
	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[1] = times[0];
	meta_name(nest_tree_hex(tree), name);
	(void)utimensat(cache->trees_fd, name, times, AT_SYMLINK_NOFOLLOW);
}

void nest_cache_end_use(struct nest_cache *cache, struct nest_tree *tree)
{
	DL_APPEND(cache->unused, tree);
	if (cache->totals.disk > cache->max_bytes && cache->over_cb)
		cache->over_cb(cache->over_arg);
	nest_cache_unref(cache);
}

struct nest_tree *nest_cache_find(struct nest_cache *cache, const char *hex)
{
	struct nest_tree *tree;

	HASH_FIND(hh, cache->trees, hex, NEST_DIGEST_HEX_LEN - 1, tree);
	return tree;
}

void nest_cache_each(
	struct nest_cache *cache, bool (*cb)(void *arg, struct nest_tree *tree), void *arg)
{
	struct nest_tree *tree, *next;

	DL_FOREACH_SAFE(cache->unused, tree, next)
		if (!cb(arg, tree))
			return;
	HASH_ITER(hh, cache->trees, tree, next)
		if (tree->refs > 0 && !cb(arg, tree))
			return;
}

/* Indexes a tree as unused. */
static int insert(struct nest_cache *cache, const char *hex, const struct nest_draft_totals *totals,
	struct nest_tree **ret, struct nest_err *err)
{
	struct nest_tree *tree = calloc(1, sizeof(*tree));

	if (!tree)
		return nest_err_set(err, -ENOMEM, "index a code tree");
	snprintf(tree->digest, sizeof(tree->digest), NEST_DIGEST_PREFIX "%s", hex);
	tree->cache = cache;
	tree->bytes = totals->bytes;
	tree->entries = totals->entries;
	tree->disk = totals->disk;
	tree->image = totals->image;
	tree->made = totals->made;
	if (totals->self_named)
		snprintf(tree->content, sizeof(tree->content), "%s", hex);
	HASH_ADD_KEYPTR(hh, cache->trees, nest_tree_hex(tree), NEST_DIGEST_HEX_LEN - 1, tree);
	if (!tree->hh.tbl) {
		free(tree);
		return nest_err_set(err, -ENOMEM, "index a code tree");
	}
	DL_APPEND(cache->unused, tree);
	cache->totals.trees++;
	cache->totals.disk += tree->disk;
	*ret = tree;
	return 0;
}

int nest_cache_add(struct nest_cache *cache, const char *hex,
	const struct nest_draft_totals *totals, struct nest_tree **ret, struct nest_err *err)
{
	struct nest_tree *tree;
	int rc = insert(cache, hex, totals, &tree, err);

	if (rc < 0)
		return rc;
	*ret = nest_tree_ref(tree);
	return 0;
}

/* The names of dead things sort them out for the sweep, and are never used again. */
static int bury(struct nest_cache *cache, int dir_fd, const char *name)
{
	char dead[NEST_CACHE_NAME_CAP];

	nest_cache_name(cache, DEAD, dead);
	return renameat(dir_fd, name, cache->staging_fd, dead) < 0 ? -errno : 0;
}

void nest_cache_discard(struct nest_cache *cache, const char *name)
{
	/* What can't be renamed is removed at the next open. */
	(void)bury(cache, cache->staging_fd, name);
}

static void evict(struct nest_cache *cache, struct nest_tree *tree)
{
	char name[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];

	bool buried = bury(cache, cache->trees_fd, nest_tree_hex(tree)) == 0;

	meta_name(nest_tree_hex(tree), name);
	(void)unlinkat(cache->trees_fd, name, 0);
	/* On a disk that is full to the last block even a rename may fail. */
	if (!buried)
		(void)nest_file_remove_tree(cache->trees_fd, nest_tree_hex(tree), NULL);
	DL_DELETE(cache->unused, tree);
	forget(cache, tree);
	cache->totals.evictions++;
}

int nest_cache_remove(struct nest_cache *cache, struct nest_tree *tree)
{
	if (tree->refs > 0)
		return -EBUSY;
	evict(cache, tree);
	return 0;
}

unsigned nest_cache_evict(struct nest_cache *cache, uint64_t keep_bytes)
{
	unsigned n = 0;

	for (; cache->unused && cache->totals.disk > keep_bytes; n++)
		evict(cache, cache->unused);
	return n;
}

unsigned nest_cache_shrink(struct nest_cache *cache)
{
	return nest_cache_evict(cache, cache->max_bytes);
}

/* Calls @visit for each name in a directory but "." and "..". */
static int each_name(int dir_fd, int (*visit)(struct nest_cache *, const char *, struct nest_err *),
	struct nest_cache *cache, struct nest_err *err)
{
	nest_autoclosedir DIR *stream = nest_file_open_dir(dir_fd, ".");
	const struct dirent *entry;
	int rc = 0;

	if (!stream)
		return nest_err_set(err, -errno, "list the cache directory");
	while (rc == 0 && (entry = readdir(stream)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			rc = visit(cache, entry->d_name, err);
	return rc;
}

static int sweep_name(struct nest_cache *cache, const char *name, struct nest_err *err)
{
	(void)err;
	/* A file that can't be removed now is tried again at the next sweep. */
	if (strncmp(name, DEAD "-", sizeof(DEAD)) == 0)
		(void)nest_file_remove_tree(cache->staging_fd, name, NULL);
	return 0;
}

void nest_cache_sweep(struct nest_cache *cache)
{
	pthread_mutex_lock(&cache->sweep_lock);
	(void)each_name(cache->staging_fd, sweep_name, cache, NULL);
	pthread_mutex_unlock(&cache->sweep_lock);
}

static int meta_text(
	const struct nest_draft_totals *totals, const char *content, char ret[META_MAX])
{
	return snprintf(ret, META_MAX,
		"{\"format\":1,\"bytes\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"disk\":%" PRIu64
		",\"image\":%s,\"made\":%s,\"content\":\"%s\"}\n",
		totals->bytes, totals->entries, totals->disk, totals->image ? "true" : "false",
		totals->made ? "true" : "false", content);
}

int nest_cache_write_content(struct nest_cache *cache, const struct nest_tree *tree,
	const char *content, struct nest_err *err)
{
	const struct nest_draft_totals totals = { .bytes = tree->bytes,
		.entries = tree->entries,
		.disk = tree->disk,
		.image = tree->image,
		.made = tree->made };
	char name[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];
	char text[META_MAX];
	int n = meta_text(&totals, content, text);

	meta_name(nest_tree_hex(tree), name);
	return nest_file_write_atomic(cache->trees_fd, name, text, (size_t)n, 0600, err);
}

void nest_cache_note_content(struct nest_tree *tree, const char *content)
{
	snprintf(tree->content, sizeof(tree->content), "%s", content);
}

static int write_meta(struct nest_cache *cache, const char *name, const char *hex,
	const struct nest_draft_totals *totals, struct nest_err *err)
{
	char text[META_MAX];
	int n = meta_text(totals, totals->self_named ? hex : "", text);
	nest_autoclose int fd = openat(cache->staging_fd, name,
		O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return nest_err_set(err, -errno, "create staging file '%s'", name);
	errno = 0;
	if (write(fd, text, (size_t)n) != n)
		return nest_err_set(err, errno ? -errno : -ENOSPC, "write staging file '%s'", name);
	/* Also covers the draft beside it, which is on the same file system. */
	if (syncfs(fd) < 0)
		return nest_err_set(err, -errno, "make a code tree durable");
	return 0;
}

int nest_cache_place(
	struct nest_cache *cache, const char *name, const char *hex, struct nest_err *err)
{
	char meta[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];

	/* What the index doesn't know, because there was no memory for it, gives way. */
	meta_name(hex, meta);
	if (bury(cache, cache->trees_fd, hex) == 0)
		(void)unlinkat(cache->trees_fd, meta, 0);
	if (renameat(cache->staging_fd, name, cache->trees_fd, hex) < 0)
		return nest_err_set(err, -errno, "publish code tree '%s'", hex);
	return 0;
}

int nest_cache_settle(struct nest_cache *cache, const char *hex,
	const struct nest_draft_totals *totals, struct nest_err *err)
{
	char final_meta[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];
	char meta[NEST_CACHE_NAME_CAP];
	int rc;

	nest_cache_name(cache, "meta", meta);
	meta_name(hex, final_meta);
	rc = write_meta(cache, meta, hex, totals, err);
	if (rc == 0 && renameat(cache->staging_fd, meta, cache->trees_fd, final_meta) < 0)
		rc = nest_err_set(err, -errno, "make code tree '%s' durable", hex);
	if (rc < 0) {
		(void)unlinkat(cache->staging_fd, meta, 0);
		return rc;
	}
	/* Whoever is told of the tree may write that down, and must find it after a power cut. */
	if (fsync(cache->trees_fd) < 0)
		return nest_err_set(err, -errno, "make code tree '%s' durable", hex);
	return 0;
}

int nest_cache_publish(struct nest_cache *cache, const char *name, const char *hex,
	const struct nest_draft_totals *totals, struct nest_err *err)
{
	int rc = nest_cache_place(cache, name, hex, err);

	if (rc == 0) {
		rc = nest_cache_settle(cache, hex, totals, err);
		if (rc < 0)
			(void)bury(cache, cache->trees_fd, hex);
	}
	return rc;
}

static int scrub_name(struct nest_cache *cache, const char *name, struct nest_err *err)
{
	if (nest_file_remove_tree(cache->staging_fd, name, err) < 0)
		return nest_err_wrap(err, "remove what was left in staging");
	return 0;
}

static int read_meta(struct nest_cache *cache, const char *name, struct nest_draft_totals *ret,
	char ret_content[NEST_DIGEST_HEX_LEN])
{
	const char *content = "";
	nest_autofree char *text = NULL;
	nest_autojson cJSON *json = NULL;
	int64_t numbers[4];
	size_t n;

	if (nest_file_read(cache->trees_fd, name, META_MAX, &text, &n, NULL) < 0 ||
		nest_json_parse(text, n, &json, NULL) < 0 ||
		nest_json_get_int(json, "format", 1, 1, &numbers[0], NULL) != 0 ||
		nest_json_get_int(json, "bytes", 0, INT64_MAX, &numbers[1], NULL) != 0 ||
		nest_json_get_int(json, "entries", 0, INT64_MAX, &numbers[2], NULL) != 0 ||
		nest_json_get_int(json, "disk", 0, INT64_MAX, &numbers[3], NULL) != 0 ||
		nest_json_get_bool(json, "image", &ret->image, NULL) < 0 ||
		nest_json_get_bool(json, "made", &ret->made, NULL) < 0 ||
		nest_json_get_string(json, "content", &content, NULL) < 0 ||
		(*content && nest_digest_check_hex(content) < 0))
		return -EINVAL;
	snprintf(ret_content, NEST_DIGEST_HEX_LEN, "%s", content);
	ret->bytes = (uint64_t)numbers[1];
	ret->entries = (uint64_t)numbers[2];
	ret->disk = (uint64_t)numbers[3];
	return 0;
}

/* A tree with its metadata goes into the index; everything else that lies in trees/ goes away. */
static int index_name(struct nest_cache *cache, const char *name, struct nest_err *err)
{
	char hex[NEST_DIGEST_HEX_LEN] = "";
	char meta[NEST_DIGEST_HEX_LEN + sizeof(META_SUFFIX)];
	struct nest_draft_totals totals = { .image = false };
	char content[NEST_DIGEST_HEX_LEN];
	struct nest_tree *tree;
	struct stat st;
	struct stat meta_st;
	bool whole;

	strncpy(hex, name, sizeof(hex) - 1);
	meta_name(hex, meta);
	whole = nest_digest_check_hex(hex) == 0 &&
		(strcmp(name, hex) == 0 || strcmp(name, meta) == 0) &&
		fstatat(cache->trees_fd, hex, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISDIR(st.st_mode) &&
		fstatat(cache->trees_fd, meta, &meta_st, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISREG(meta_st.st_mode) && read_meta(cache, meta, &totals, content) == 0;
	if (!whole) {
		if (nest_file_remove_tree(cache->trees_fd, name, err) < 0)
			return nest_err_wrap(err, "remove what a crash left");
		return 0;
	}
	if (strcmp(name, hex) != 0)
		return 0;
	if (insert(cache, hex, &totals, &tree, err) < 0)
		return err ? err->code : -ENOMEM;
	snprintf(tree->content, sizeof(tree->content), "%s", content);
	tree->used_ns = meta_st.st_mtim.tv_sec * INT64_C(1000000000) + meta_st.st_mtim.tv_nsec;
	return 0;
}

static int compare_use(struct nest_tree *a, struct nest_tree *b)
{
	return (a->used_ns > b->used_ns) - (a->used_ns < b->used_ns);
}

static int open_subdir(int dir_fd, const char *name, int *ret_fd, struct nest_err *err)
{
	int fd;

	if (mkdirat(dir_fd, name, 0700) < 0 && errno != EEXIST)
		return nest_err_set(err, -errno, "make '%s'", name);
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return nest_err_set(err, -errno, "open '%s'", name);
	*ret_fd = fd;
	return 0;
}

/* What others may write to or look into is no place for code that runs as many users. */
static int check_dir(int fd, struct nest_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "look at it");
	if (st.st_uid != geteuid())
		return nest_err_say(err, -EPERM, "it belongs to uid %u, not to us (uid %u)",
			(unsigned)st.st_uid, (unsigned)geteuid());
	if ((st.st_mode & 07777) != 0700)
		return nest_err_say(err, -EPERM, "its mode is %04o and must be 0700",
			(unsigned)st.st_mode & 07777);
	return 0;
}

/*
 * ext4 doesn't give out an inode soon after it was freed, and looks at each of those in a block
 * group for every file it makes there: unpacking next to where a large tree was just removed took
 * ten times as long. With this flag every draft begins in a group of its own.
 */
static void spread(int dir_fd)
{
	int flags;

	if (ioctl(dir_fd, FS_IOC_GETFLAGS, &flags) < 0)
		return;
	flags |= FS_TOPDIR_FL;
	(void)ioctl(dir_fd, FS_IOC_SETFLAGS, &flags); /* other file systems have no such thing */
}

static int open_all(struct nest_cache *cache, const char *dir, struct nest_err *err)
{
	int rc;

	cache->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cache->dir_fd < 0)
		return nest_err_set(err, -errno, "open it");
	rc = check_dir(cache->dir_fd, err);
	if (rc < 0)
		return rc;
	if (flock(cache->dir_fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? nest_err_say(err, -EBUSY, "another process uses it")
					    : nest_err_set(err, -errno, "lock it");
	rc = open_subdir(cache->dir_fd, "trees", &cache->trees_fd, err);
	if (rc == 0)
		rc = open_subdir(cache->dir_fd, "staging", &cache->staging_fd, err);
	if (rc == 0)
		spread(cache->staging_fd);
	if (rc == 0)
		rc = each_name(cache->staging_fd, scrub_name, cache, err);
	if (rc == 0)
		rc = each_name(cache->trees_fd, index_name, cache, err);
	if (rc < 0)
		return rc;
	DL_SORT(cache->unused, compare_use);
	if (nest_cache_shrink(cache) > 0)
		nest_cache_sweep(cache);
	return 0;
}

int nest_cache_open(
	const char *dir, uint64_t max_bytes, struct nest_cache **ret, struct nest_err *err)
{
	struct nest_cache *cache = calloc(1, sizeof(*cache));
	struct nest_err cause = NEST_ERR_INIT;
	int rc;

	if (!cache)
		return nest_err_set(err, -ENOMEM, "open the code cache");
	cache->dir_fd = cache->trees_fd = cache->staging_fd = -1;
	cache->max_bytes = max_bytes;
	cache->refs = 1;
	pthread_mutex_init(&cache->sweep_lock, NULL);
	rc = open_all(cache, dir, &cause);
	if (rc < 0) {
		free_cache(cache);
		nest_err_wrap(&cause, "open code cache '%s'", dir);
		if (err)
			*err = cause;
		return rc;
	}
	*ret = cache;
	return 0;
}
