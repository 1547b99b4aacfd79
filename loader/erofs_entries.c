/* SPDX-License-Identifier: Apache-2.0 */
#define HASH_NONFATAL_OOM 1
#include "loader/erofs_entries.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "loader/name.h"

/* Of all entries. A tree whose names and links take more is better off on the disk. */
#define MEMORY_MAX (24u << 20)
#define KEY_CAP (sizeof(uint32_t) + NEST_NAME_CAP)

struct nest_erofs_entries {
	struct nest_erofs_entry *all; /* in the order of their making */
	struct nest_erofs_entry *top;
	uint64_t max;
	size_t memory;
};

static void free_entry(struct nest_erofs_entry *entry)
{
	free(entry->target);
	free(entry);
}

/* The key of @n bytes of name in the directory with @number; how long it is. */
static size_t make_key(uint32_t number, const char *name, size_t n, char ret[KEY_CAP])
{
	memcpy(ret, &number, sizeof(number));
	memcpy(ret + sizeof(number), name, n);
	return sizeof(number) + n;
}

/* @parent NULL: the top directory. */
static int insert(struct nest_erofs_entries *entries, struct nest_erofs_entry *parent,
	const char *name, size_t n, enum nest_erofs_entry_type type, struct nest_erofs_entry **ret)
{
	size_t size = sizeof(struct nest_erofs_entry) + sizeof(uint32_t) + n + 1;
	struct nest_erofs_entry *entry;
	char key[KEY_CAP];
	size_t key_n = make_key(parent ? parent->number : UINT32_MAX, name, n, key);

	if (n > NAME_MAX)
		return -ENAMETOOLONG;
	if (parent && nest_erofs_entries_count(entries) >= entries->max)
		return -EFBIG;
	if (size > MEMORY_MAX - entries->memory)
		return -E2BIG;
	entry = calloc(1, size);
	if (!entry)
		return -ENOMEM;
	memcpy(entry->key, key, key_n);
	entry->name = entry->key + sizeof(uint32_t);
	entry->name_n = n;
	entry->type = type;
	entry->number = HASH_COUNT(entries->all);
	entry->parent = parent ? parent : entry;
	entry->links = type == NEST_EROFS_ENTRY_FILE;
	HASH_ADD(hh, entries->all, key, key_n, entry);
	if (!entry->hh.tbl) {
		free(entry);
		return -ENOMEM;
	}
	entries->memory += size;
	if (parent && type == NEST_EROFS_ENTRY_DIR)
		parent->links++;
	*ret = entry;
	return 0;
}

int nest_erofs_entries_new(uint64_t max, struct nest_erofs_entries **ret)
{
	struct nest_erofs_entries *entries = calloc(1, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	/* numbers of entries have 32 bits, of which one stands for no directory */
	entries->max = max < UINT32_MAX / 2 ? max : UINT32_MAX / 2;
	if (insert(entries, NULL, "", 0, NEST_EROFS_ENTRY_DIR, &entries->top) < 0) {
		free(entries);
		return -ENOMEM;
	}
	*ret = entries;
	return 0;
}

void nest_erofs_entries_free(struct nest_erofs_entries *entries)
{
	struct nest_erofs_entry *entry, *next;

	if (!entries)
		return;
	HASH_ITER(hh, entries->all, entry, next) {
		HASH_DELETE(hh, entries->all, entry);
		free_entry(entry);
	}
	free(entries);
}

uint64_t nest_erofs_entries_count(const struct nest_erofs_entries *entries)
{
	return HASH_COUNT(entries->all) - 1;
}

static struct nest_erofs_entry *find_in(struct nest_erofs_entries *entries,
	const struct nest_erofs_entry *dir, const char *name, size_t n)
{
	struct nest_erofs_entry *entry;
	char key[KEY_CAP];
	size_t key_n = make_key(dir->number, name, n, key);

	HASH_FIND(hh, entries->all, key, key_n, entry);
	return entry;
}

struct nest_erofs_entry *nest_erofs_entries_find(
	struct nest_erofs_entries *entries, const char *clean)
{
	struct nest_erofs_entry *entry = entries->top;

	while (entry && *clean) {
		size_t n = strcspn(clean, "/");

		entry = find_in(entries, entry, clean, n);
		clean += n + (clean[n] == '/');
	}
	return entry;
}

int nest_erofs_entries_add(struct nest_erofs_entries *entries, const char *clean,
	enum nest_erofs_entry_type type, struct nest_erofs_entry **ret)
{
	struct nest_erofs_entry *entry = entries->top;
	bool made = false;

	while (*clean) {
		size_t n = strcspn(clean, "/");
		struct nest_erofs_entry *dir = entry;
		bool last = clean[n] == '\0';
		int rc;

		if (dir->type != NEST_EROFS_ENTRY_DIR)
			return -ENOTDIR;
		/* counted before it is made, as where it is made on the disk */
		if (last && type != NEST_EROFS_ENTRY_DIR &&
			nest_erofs_entries_count(entries) >= entries->max)
			return -EFBIG;
		entry = find_in(entries, dir, clean, n);
		made = !entry;
		rc = made ? insert(entries, dir, clean, n, last ? type : NEST_EROFS_ENTRY_DIR,
				    &entry)
			  : 0;
		if (rc < 0)
			return rc;
		clean += n + !last;
	}
	/* what was there already may be a directory, and only if one is wanted */
	if (!made && entry->type != NEST_EROFS_ENTRY_DIR && type == NEST_EROFS_ENTRY_DIR)
		return -ENOTDIR;
	if (!made && type != NEST_EROFS_ENTRY_DIR)
		return -EEXIST;
	*ret = entry;
	return 0;
}

int nest_erofs_entries_set_target(
	struct nest_erofs_entries *entries, struct nest_erofs_entry *link, const char *target)
{
	size_t size = strlen(target) + 1;

	if (size > MEMORY_MAX - entries->memory)
		return -E2BIG;
	link->target = strdup(target);
	if (!link->target)
		return -ENOMEM;
	entries->memory += size;
	return 0;
}

/* The top first, then by directory, then by name. */
static int compare(const void *a, const void *b)
{
	const struct nest_erofs_entry *x = *(struct nest_erofs_entry *const *)a;
	const struct nest_erofs_entry *y = *(struct nest_erofs_entry *const *)b;
	size_t n = x->name_n < y->name_n ? x->name_n : y->name_n;
	int rc;

	if (x->number == 0 || y->number == 0)
		return (x->number > 0) - (y->number > 0);
	if (x->parent != y->parent)
		return x->parent->number < y->parent->number ? -1 : 1;
	rc = memcmp(x->name, y->name, n);
	return rc != 0 ? rc : (x->name_n > y->name_n) - (x->name_n < y->name_n);
}

int nest_erofs_entries_sort(
	struct nest_erofs_entries *entries, struct nest_erofs_entry ***ret, size_t *ret_n)
{
	size_t n = HASH_COUNT(entries->all);
	struct nest_erofs_entry **order = calloc(n, sizeof(struct nest_erofs_entry *));
	struct nest_erofs_entry *entry, *next;
	size_t i = 0;

	if (!order)
		return -ENOMEM;
	HASH_ITER(hh, entries->all, entry, next)
		order[i++] = entry;
	qsort(order, n, sizeof(struct nest_erofs_entry *), compare);
	for (i = 1; i < n; i++) {
		struct nest_erofs_entry *dir = order[i]->parent;

		if (dir->n++ == 0)
			dir->first = i;
	}
	*ret = order;
	*ret_n = n;
	return 0;
}
