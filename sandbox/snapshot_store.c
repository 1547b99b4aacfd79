/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/snapshot_store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <utlist.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/file.h"
#include "sandbox/image_rewrite.h"
#include "sandbox/message.h"

#define DIRECTORY "snapshots"
#define CONTENTS NEST_SNAPSHOT_STORE_CONTENTS
#define DRAFT_PREFIX "tmp-"
#define GARBAGE_PREFIX "gone-"
#define CHUNK (256u << 10)

static const char magic[8] = "NESTSNP4";

/* ---- digests ---- */

static void free_digest(EVP_MD_CTX **digest)
{
	EVP_MD_CTX_free(*digest);
}
#define autodigest __attribute__((cleanup(free_digest)))

static int digest_fd(int fd, uint64_t bytes, uint8_t ret[32], struct nest_err *err)
{
	autodigest EVP_MD_CTX *digest = EVP_MD_CTX_new();
	nest_autofree char *chunk = malloc(CHUNK);
	ssize_t n;

	if (!digest || !chunk || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		return nest_err_set(err, -ENOMEM, "digest a file");
	for (uint64_t left = bytes; left > 0; left -= (uint64_t)n) {
		do
			n = read(fd, chunk, left < CHUNK ? left : CHUNK);
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			return nest_err_set(err, n < 0 ? -errno : -EBADMSG, "read a file");
		if (EVP_DigestUpdate(digest, chunk, (size_t)n) != 1)
			return nest_err_set(err, -ENOMEM, "digest a file");
	}
	return EVP_DigestFinal_ex(digest, ret, NULL) == 1
		       ? 0
		       : nest_err_set(err, -ENOMEM, "digest a file");
}

/* The size of what file @name holds: room behind the pages of memory is none of it. */
static int open_file(int dir, const char *name, int *ret, uint64_t *ret_bytes, struct nest_err *err)
{
	nest_autoclose int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return nest_err_set(err, -errno, "open '%s'", name);
	if (!S_ISREG(st.st_mode))
		return nest_err_say(err, -EBADMSG, "'%s' is no file", name);
	*ret_bytes = (uint64_t)st.st_size;
	if (*ret_bytes >= NEST_IMAGE_REWRITE_ROOM && strcmp(name, NEST_IMAGE_REWRITE_FILE) == 0)
		*ret_bytes -= NEST_IMAGE_REWRITE_ROOM;
	*ret = nest_take_fd(fd);
	return 0;
}

/* Digests file @ret->name of a draft, and has it on disk. */
static int note_file(int dir, struct nest_snapshot_store_row *ret, struct nest_err *err)
{
	nest_autoclose int fd = -1;
	int r = open_file(dir, ret->name, &fd, &ret->bytes, err);

	if (r == 0)
		r = digest_fd(fd, ret->bytes, ret->sha256, err);
	if (r == 0 && fsync(fd) < 0)
		r = nest_err_set(err, -errno, "sync");
	return r < 0 ? nest_err_wrap(err, "'%s'", ret->name) : 0;
}

static int check_file(int dir, const struct nest_snapshot_store_row *row, struct nest_err *err)
{
	nest_autoclose int fd = -1;
	uint64_t bytes = 0;
	uint8_t sum[32];
	int r = open_file(dir, row->name, &fd, &bytes, err);

	if (r == 0 && bytes == row->bytes)
		r = digest_fd(fd, bytes, sum, err);
	if (r == 0 && (bytes != row->bytes || memcmp(sum, row->sha256, sizeof(sum)) != 0))
		r = nest_err_say(err, -EBADMSG, "'%s' was changed", row->name);
	return r;
}

/* Of the whole table of contents, its own digest taken as zeros. */
static int digest_contents(const struct nest_snapshot_store_contents *contents,
	const struct nest_snapshot_store_row *rows, uint8_t ret[32])
{
	autodigest EVP_MD_CTX *digest = EVP_MD_CTX_new();
	struct nest_snapshot_store_contents head = *contents;

	memset(head.sha256, 0, sizeof(head.sha256));
	if (!digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1 ||
		EVP_DigestUpdate(digest, &head, sizeof(head)) != 1 ||
		EVP_DigestUpdate(digest, rows, contents->nrows * sizeof(*rows)) != 1 ||
		EVP_DigestFinal_ex(digest, ret, NULL) != 1)
		return -ENOMEM;
	return 0;
}

/* ---- contents ---- */

int nest_snapshot_store_contents(int dir, struct nest_snapshot_store_contents *ret,
	struct nest_snapshot_store_row **ret_rows, struct nest_err *err)
{
	nest_autofree char *bytes = NULL;
	uint8_t sum[32];
	size_t len = 0;
	int r = nest_file_read(dir, CONTENTS, NEST_SNAPSHOT_STORE_CONTENTS_MAX, &bytes, &len, err);

	if (r < 0)
		return r;
	if (len >= sizeof(*ret))
		memcpy(ret, bytes, sizeof(*ret));
	if (len < sizeof(*ret) || memcmp(ret->magic, magic, sizeof(magic)) != 0 ||
		ret->nrows > NEST_SNAPSHOT_STORE_FILES_MAX || ret->memory > NEST_SNAPSHOT_MAPPED ||
		ret->is_parent > 1 ||
		(ret->parent[0] && (ret->is_parent || !nest_message_check_key(ret->parent))) ||
		len != sizeof(*ret) + ret->nrows * sizeof(**ret_rows))
		return nest_err_say(err, -EBADMSG, "'%s' is malformed", CONTENTS);
	memmove(bytes, bytes + sizeof(*ret), len - sizeof(*ret));
	*ret_rows = (struct nest_snapshot_store_row *)nest_take_ptr(bytes);
	if (digest_contents(ret, *ret_rows, sum) < 0 ||
		memcmp(sum, ret->sha256, sizeof(sum)) != 0) {
		free(nest_take_ptr(*ret_rows));
		return nest_err_say(err, -EBADMSG, "'%s' was changed", CONTENTS);
	}
	return 0;
}

/* Digests all files of @dir into *@rows, which the caller frees. */
static int gather(
	int dir, struct nest_snapshot_store_row **ret, uint32_t *ret_n, struct nest_err *err)
{
	nest_autofree struct nest_snapshot_store_row *rows =
		calloc(NEST_SNAPSHOT_STORE_FILES_MAX, sizeof(*rows));
	nest_autoclosedir DIR *list = nest_file_open_dir(dir, ".");
	struct dirent *entry;
	uint32_t n = 0;

	if (!rows || !list)
		return nest_err_set(err, rows ? -errno : -ENOMEM, "list the draft");
	while ((entry = readdir(list))) {
		int r;

		if (entry->d_name[0] == '.')
			continue;
		if (n == NEST_SNAPSHOT_STORE_FILES_MAX ||
			strlen(entry->d_name) >= sizeof(rows[n].name))
			return nest_err_say(err, -EFBIG, "the snapshot has more than %d files",
				NEST_SNAPSHOT_STORE_FILES_MAX);
		strcpy(rows[n].name, entry->d_name);
		r = note_file(dir, &rows[n], err);
		if (r < 0)
			return r;
		n++;
	}
	*ret = nest_take_ptr(rows);
	*ret_n = n;
	return 0;
}

/* What the files take on the disk, where they are by now: memory is mostly holes. */
static uint64_t room_taken(int dir, const struct nest_snapshot_store_row *rows, uint32_t n)
{
	uint64_t bytes = 0;
	struct stat st;

	for (uint32_t i = 0; i < n; i++)
		if (fstatat(dir, rows[i].name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			bytes += (uint64_t)st.st_blocks * 512;
	return bytes;
}

int nest_snapshot_store_seal(
	int draft, struct nest_snapshot_store_contents *contents, struct nest_err *err)
{
	nest_autofree struct nest_snapshot_store_row *rows = NULL;
	nest_autoclose int fd = -1;
	int r = gather(draft, &rows, &contents->nrows, err);

	if (r < 0)
		return r;
	memcpy(contents->magic, magic, sizeof(magic));
	contents->made_s = (uint64_t)time(NULL);
	contents->bytes = room_taken(draft, rows, contents->nrows);
	if (digest_contents(contents, rows, contents->sha256) < 0)
		return nest_err_set(err, -ENOMEM, "digest the contents");
	fd = openat(draft, CONTENTS, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return nest_err_set(err, -errno, "make '%s'", CONTENTS);
	r = nest_fd_write_all(fd, contents, sizeof(*contents), err);
	if (r == 0)
		r = nest_fd_write_all(fd, rows, contents->nrows * sizeof(*rows), err);
	if (r == 0 && (fsync(fd) < 0 || fsync(draft) < 0))
		r = nest_err_set(err, -errno, "sync the snapshot");
	return r;
}

int nest_snapshot_store_verify(int dir, struct nest_err *err)
{
	nest_autofree struct nest_snapshot_store_row *rows = NULL;
	struct nest_snapshot_store_contents contents;
	int r = nest_snapshot_store_contents(dir, &contents, &rows, err);

	for (uint32_t i = 0; r == 0 && i < contents.nrows; i++) {
		rows[i].name[sizeof(rows[i].name) - 1] = '\0';
		r = check_file(dir, &rows[i], err);
	}
	/* whatever is wrong with it, it is no snapshot */
	if (r < 0 && err)
		err->code = -EBADMSG;
	return r < 0 ? -EBADMSG : 0;
}

/* ---- the store ---- */

struct nest_snapshot_store_entry *nest_snapshot_store_find(
	struct nest_snapshot_store *store, const char *key)
{
	struct nest_snapshot_store_entry *entry;

	DL_FOREACH(store->entries, entry)
		if (strcmp(entry->view.key, key) == 0)
			return entry;
	return NULL;
}

/* A name that an earlier life's garbage has is passed over. */
void nest_snapshot_store_discard(struct nest_snapshot_store *store, const char *name)
{
	char gone[48];

	for (int tries = 0; tries < 1000; tries++) {
		snprintf(gone, sizeof(gone), GARBAGE_PREFIX "%llu",
			(unsigned long long)++store->drafts);
		if (renameat2(store->dir, name, store->dir, gone, RENAME_NOREPLACE) == 0) {
			store->garbage = true;
			return;
		}
		if (errno != EEXIST)
			return;
	}
}

void nest_snapshot_store_sweep(const struct nest_snapshot_store *store)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(store->dir, ".");
	struct dirent *entry;

	while (list && (entry = readdir(list)))
		if (strncmp(entry->d_name, GARBAGE_PREFIX, strlen(GARBAGE_PREFIX)) == 0)
			nest_file_remove_tree(store->dir, entry->d_name, NULL);
}

static void remove_one(struct nest_snapshot_store *store, struct nest_snapshot_store_entry *entry)
{
	nest_snapshot_store_discard(store, entry->view.key);
	store->bytes -= entry->view.bytes;
	DL_DELETE(store->entries, entry);
	free(entry);
}

/* Only a parent that nobody may use any more goes with its last child. */
static void leave_parent(struct nest_snapshot_store *store, struct nest_snapshot_store_entry *entry)
{
	struct nest_snapshot_store_entry *parent = entry->parent;

	entry->parent = NULL;
	if (parent && --parent->children == 0 && parent->forgotten)
		remove_one(store, parent);
}

static void remove_children(
	struct nest_snapshot_store *store, struct nest_snapshot_store_entry *parent)
{
	struct nest_snapshot_store_entry *entry, *next;

	DL_FOREACH_SAFE(store->entries, entry, next) {
		if (entry->parent != parent)
			continue;
		entry->parent = NULL;
		parent->children--;
		remove_one(store, entry);
	}
}

static void remove_entry(struct nest_snapshot_store *store, struct nest_snapshot_store_entry *entry)
{
	remove_children(store, entry);
	leave_parent(store, entry);
	remove_one(store, entry);
}

void nest_snapshot_store_remove(struct nest_snapshot_store *store, const char *key)
{
	struct nest_snapshot_store_entry *entry = nest_snapshot_store_find(store, key);

	if (entry)
		remove_entry(store, entry);
}

void nest_snapshot_store_forget(struct nest_snapshot_store *store, const char *key)
{
	struct nest_snapshot_store_entry *entry = nest_snapshot_store_find(store, key);

	if (entry && entry->children > 0)
		entry->forgotten = true;
	else if (entry)
		remove_entry(store, entry);
}

static void evict(struct nest_snapshot_store *store, const struct nest_snapshot_store_entry *keep)
{
	while (store->max_bytes > 0 && store->bytes > store->max_bytes) {
		struct nest_snapshot_store_entry *entry, *oldest = NULL;

		DL_FOREACH(store->entries, entry)
			if (entry != keep && entry->users == 0 && entry->children == 0 &&
				(!oldest || entry->used < oldest->used))
				oldest = entry;
		if (!oldest)
			return;
		remove_entry(store, oldest);
	}
}

/* What snapshot @contents was made upon: one of the same key may be another's work. */
static int find_parent(struct nest_snapshot_store *store,
	const struct nest_snapshot_store_contents *contents, struct nest_snapshot_store_entry **ret,
	struct nest_err *err)
{
	struct nest_snapshot_store_entry *parent = NULL;

	*ret = NULL;
	if (!contents->parent[0])
		return 0;
	parent = nest_snapshot_store_find(store, contents->parent);
	if (!parent || memcmp(parent->sha256, contents->parent_sha256, sizeof(parent->sha256)) != 0)
		return nest_err_say(err, -ESTALE,
			"the runtime snapshot '%.12s' that it was made upon is not here",
			contents->parent);
	*ret = parent;
	return 0;
}

/* The entry of snapshot @key, new or of one that this takes the place of. */
static struct nest_snapshot_store_entry *renew_entry(
	struct nest_snapshot_store *store, const char *key)
{
	struct nest_snapshot_store_entry *entry = nest_snapshot_store_find(store, key);

	if (entry) {
		remove_children(store, entry);
		leave_parent(store, entry);
		entry->forgotten = false;
		entry->verified = false;
		entry->ino = 0;
		return entry;
	}
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	memcpy(entry->view.key, key, sizeof(entry->view.key));
	DL_APPEND(store->entries, entry);
	return entry;
}

int nest_snapshot_store_note(struct nest_snapshot_store *store, const char *key,
	const struct nest_snapshot_store_contents *contents, struct nest_err *err)
{
	struct nest_snapshot_store_entry *entry, *parent;
	int r = find_parent(store, contents, &parent, err);

	if (r < 0) {
		nest_snapshot_store_remove(store, key);
		nest_snapshot_store_discard(store, key);
		return r;
	}
	entry = renew_entry(store, key);
	if (!entry) {
		nest_snapshot_store_discard(store, key);
		return nest_err_set(err, -ENOMEM, "note a snapshot");
	}
	entry->parent = parent;
	if (parent)
		parent->children++;
	memcpy(entry->sha256, contents->sha256, sizeof(entry->sha256));
	memcpy(entry->view.parent, contents->parent, sizeof(entry->view.parent));
	entry->view.is_parent = contents->is_parent;
	store->bytes += contents->bytes - entry->view.bytes;
	entry->view.bytes = contents->bytes;
	entry->view.memory = contents->memory;
	entry->view.made_s = contents->made_s;
	entry->used = ++store->clock;
	evict(store, entry);
	return 0;
}

static int open_named(const struct nest_snapshot_store *store, const char *key, int *ret_dir,
	ino_t *ret_ino, struct nest_err *err)
{
	struct stat st;
	int dir = openat(store->dir, key, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (dir < 0 || fstat(dir, &st) < 0) {
		nest_err_set(err, -errno, "open snapshot '%.12s'", key);
		if (dir >= 0)
			close(dir);
		return err->code;
	}
	*ret_dir = dir;
	*ret_ino = st.st_ino;
	return 0;
}

static int read_named(
	int dir, const char *key, struct nest_snapshot_store_contents *ret, struct nest_err *err)
{
	nest_autofree struct nest_snapshot_store_row *rows = NULL;
	int r = nest_snapshot_store_contents(dir, ret, &rows, err);

	if (r == 0 && strncmp(ret->key, key, sizeof(ret->key)) != 0)
		r = nest_err_say(err, -EBADMSG, "it was made under another key");
	return r < 0 ? nest_err_wrap(err, "snapshot '%.12s'", key) : 0;
}

int nest_snapshot_store_read(const struct nest_snapshot_store *store, const char *key, int *ret_dir,
	struct nest_snapshot_store_contents *ret, struct nest_err *err)
{
	nest_autoclose int dir = -1;
	ino_t ino;
	int r = open_named(store, key, &dir, &ino, err);

	if (r == 0)
		r = read_named(dir, key, ret, err);
	if (r == 0)
		*ret_dir = nest_take_fd(dir);
	return r;
}

int nest_snapshot_store_use(const struct nest_snapshot_store *store,
	struct nest_snapshot_store_entry *entry, int *ret_dir, struct nest_err *err)
{
	struct nest_snapshot_store_contents contents;
	const char *key = entry->view.key;
	nest_autoclose int dir = -1;
	ino_t ino;
	int r = open_named(store, key, &dir, &ino, err);

	if (r == 0 && !(entry->verified && entry->ino == ino)) {
		r = read_named(dir, key, &contents, err);
		/* what the entry says was read when this was noted */
		if (r == 0 && memcmp(contents.sha256, entry->sha256, sizeof(entry->sha256)) != 0)
			r = nest_err_say(err, -EBADMSG, "snapshot '%.12s' was changed", key);
	}
	if (r < 0)
		return r;
	entry->verified = entry->verified && (entry->ino == ino || entry->ino == 0);
	entry->ino = ino;
	*ret_dir = nest_take_fd(dir);
	return 0;
}

/* One name of the store's directory; those that were made upon others come in a second round. */
static void load_one(struct nest_snapshot_store *store, const char *name, bool children)
{
	struct nest_snapshot_store_contents contents;
	nest_autoclose int dir = -1;

	if (strncmp(name, GARBAGE_PREFIX, strlen(GARBAGE_PREFIX)) == 0)
		store->garbage = true;
	else if (!nest_message_check_key(name) ||
		 nest_snapshot_store_read(store, name, &dir, &contents, NULL) < 0)
		nest_snapshot_store_discard(store, name);
	else if (children == (contents.parent[0] != '\0'))
		nest_snapshot_store_note(store, name, &contents, NULL);
}

/* What an earlier life left: whole snapshots are noted, all else is removed. */
static int load(struct nest_snapshot_store *store, bool children, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(store->dir, ".");
	struct dirent *entry;

	if (!list)
		return nest_err_set(err, -errno, "list the snapshots");
	while ((entry = readdir(list)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			load_one(store, entry->d_name, children);
	return 0;
}

int nest_snapshot_store_open(const char *state_dir, uint64_t max_bytes,
	struct nest_snapshot_store *ret, struct nest_err *err)
{
	nest_autoclose int state = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	nest_autoclose int dir = -1;
	struct stat st;
	int r;

	if (state < 0)
		return nest_err_set(err, -errno, "open '%s'", state_dir);
	if (mkdirat(state, DIRECTORY, 0700) < 0 && errno != EEXIST)
		return nest_err_set(err, -errno, "make '%s/%s'", state_dir, DIRECTORY);
	dir = openat(state, DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) < 0)
		return nest_err_set(err, -errno, "open '%s/%s'", state_dir, DIRECTORY);
	if (st.st_uid != geteuid() || (st.st_mode & 077))
		return nest_err_say(err, -EPERM,
			"'%s/%s' must belong to user %u alone (mode 0700): remove it", state_dir,
			DIRECTORY, geteuid());
	*ret = (struct nest_snapshot_store){ .dir = dir, .max_bytes = max_bytes };
	r = load(ret, false, err);
	if (r == 0)
		r = load(ret, true, err);
	if (r < 0) {
		ret->dir = -1;
		return r;
	}
	dir = -1;
	return 0;
}

int nest_snapshot_store_draft(
	struct nest_snapshot_store *store, char name[32], int *ret, struct nest_err *err)
{
	snprintf(name, 32, DRAFT_PREFIX "%llu", (unsigned long long)++store->drafts);
	if (mkdirat(store->dir, name, 0700) < 0)
		return nest_err_set(err, -errno, "make a directory for the snapshot");
	*ret = openat(store->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*ret < 0) {
		int r = nest_err_set(err, -errno, "open the snapshot's directory");

		unlinkat(store->dir, name, AT_REMOVEDIR);
		return r;
	}
	return 0;
}

void nest_snapshot_store_drop(const struct nest_snapshot_store *store, const char *name)
{
	nest_file_remove_tree(store->dir, name, NULL);
}

int nest_snapshot_store_publish(const struct nest_snapshot_store *store, const char *name,
	const char *key, struct nest_err *err)
{
	nest_autoclose int dir =
		openat(store->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int r = dir < 0 ? nest_err_set(err, -errno, "open '%s'", name)
			: nest_image_rewrite_add_room(dir, err);

	if (r < 0)
		return r;
	if (renameat2(store->dir, name, store->dir, key, RENAME_EXCHANGE) == 0)
		nest_file_remove_tree(store->dir, name, NULL);
	else if (errno != ENOENT || renameat(store->dir, name, store->dir, key) < 0)
		return nest_err_set(err, -errno, "name snapshot '%.12s'", key);
	if (fsync(store->dir) < 0)
		return nest_err_set(err, -errno, "sync the store");
	return 0;
}
