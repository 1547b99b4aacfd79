/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Preloaded into workers whose clones map the memory of their snapshot, and used by nothing else.
 *
 * To a program such memory is private and anonymous; to the kernel it is a private mapping of a
 * file. These differ where memory is given back or grows:
 *
 *	madvise(MADV_DONTNEED)   reads as zeros afterwards; of a file, as the file's bytes
 *	madvise(MADV_FREE)       is for anonymous memory only; of a file, EINVAL
 *	mremap() to a larger one has zeros at its end; of a file, what follows there
 *
 * So what is given back, or grows, gets fresh anonymous memory in its place, and is from then on what
 * the program takes it for. Which areas are the snapshot's /proc/self/maps says by their names.
 * That is read only where a trial, MADV_FREE of what is empty by now, has met memory that isn't
 * anonymous: for each byte of the snapshot once at most. All other calls cost that trial more.
 *
 * What the C library gives back for itself doesn't come here, nor do raw system calls. glibc relies on
 * no zeros there: it clears a calloc() from a heap that it has used before, and initialises a
 * thread's block on a stack that it has used before.
 *
 * Any thread, any time, and within malloc(): so it allocates nothing, looks nothing up, and changes
 * errno only as the system call does. It needs of the C library only what every one has, so that
 * it works under each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define CHUNK 2048

/* Where clones see the memory of their snapshot, and of the one that it was made upon. */
static const char files[][32] = { "/snapshot/memory", "/parent-snapshot/memory" };
#define FILES (sizeof(files) / sizeof(*files))

PUBLIC int madvise(void *start, size_t length, int advice);
PUBLIC void *mremap(void *old, size_t old_size, size_t new_size, int flags, ...);

/* ---- /proc/self/maps ---- */

/* "55d0c000-55d0e000 rw-p 00002000 fe:01 1234      /snapshot/memory\n" */
enum part {
	PART_START,
	PART_END,
	PART_PROTECTION,
	PART_OFFSET,
	PART_DEVICE,
	PART_INODE,
	PART_NAME
};

/* A line as far as it has been read. */
struct line {
	enum part part;
	uintptr_t start, end;
	int protection;
	size_t length; /* of the name */
	unsigned like; /* bit i: files[i] begins so */
	bool is;       /* the name is one of them, and more follows: " (deleted)" */
};

static unsigned digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

static void read_name(struct line *line, char c)
{
	if (line->length == 0 && c == ' ')
		return;
	for (unsigned i = 0; i < FILES; i++) {
		if (!(line->like & (1u << i)) || files[i][line->length] == c)
			continue;
		line->is |= files[i][line->length] == '\0' && c == ' ';
		line->like &= ~(1u << i);
	}
	line->length++;
}

static void read_protection(struct line *line, char c)
{
	if (c == 'r')
		line->protection |= PROT_READ;
	else if (c == 'w')
		line->protection |= PROT_WRITE;
	else if (c == 'x')
		line->protection |= PROT_EXEC;
}

/* Takes one character of a line, but for its end. */
static void read_char(struct line *line, char c)
{
	if (line->part == PART_NAME)
		read_name(line, c);
	else if (c == ' ' || (line->part == PART_START && c == '-'))
		line->part++;
	else if (line->part == PART_START)
		line->start = line->start << 4 | digit(c);
	else if (line->part == PART_END)
		line->end = line->end << 4 | digit(c);
	else if (line->part == PART_PROTECTION)
		read_protection(line, c);
}

static bool is_snapshot(const struct line *line)
{
	for (unsigned i = 0; i < FILES; i++)
		if ((line->like & (1u << i)) && files[i][line->length] == '\0')
			return true;
	return line->is;
}

/* Puts fresh memory in the place of what of the line's area lies in [start, end). */
static int renew(const struct line *line, uintptr_t start, uintptr_t end)
{
	uintptr_t from = line->start > start ? line->start : start;
	uintptr_t to = line->end < end ? line->end : end;

	if (from >= to || !is_snapshot(line))
		return 0;
	return mmap((void *)from, to - from, line->protection,
		       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
		       ? -1
		       : 0;
}

/*
 * Makes what the snapshot has of [start, end) fresh memory. The areas are sorted, and what is changed has
 * been read before. -1: it is not known, or could not be done; errno says why.
 */
static int renew_all(uintptr_t start, uintptr_t end)
{
	const struct line none = { .like = (1u << FILES) - 1 };
	struct line line = none;
	char chunk[CHUNK];
	long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	long n = 0;
	int r = 0;

	if (fd < 0)
		return -1;
	while (r == 0 && line.start < end && (n = syscall(SYS_read, fd, chunk, CHUNK)) > 0) {
		for (long i = 0; r == 0 && i < n; i++) {
			if (chunk[i] != '\n') {
				read_char(&line, chunk[i]);
				continue;
			}
			r = renew(&line, start, end);
			line = none;
		}
	}
	syscall(SYS_close, fd);
	return n < 0 ? -1 : r;
}

/* ---- what programs call ---- */

static uintptr_t round_up(uintptr_t n)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	return (n + page - 1) & ~(page - 1);
}

/* Makes sure that [start, start + length), which holds nothing, reads as zeros. */
static int clear(uintptr_t start, size_t length)
{
	if (syscall(SYS_madvise, start, length, MADV_FREE) == 0 || errno != EINVAL ||
		renew_all(start, start + length) == 0)
		return 0;
	errno = EAGAIN;
	return -1;
}

static int discard(void *start, size_t length)
{
	int before = errno;
	int r = (int)syscall(SYS_madvise, start, length, MADV_DONTNEED);
	int after = errno;

	/* ENOMEM: part of it is no memory at all; the rest is done */
	if (r < 0 && after != ENOMEM)
		return r;
	/* rather an error than bytes that the program has given back */
	if (clear((uintptr_t)start, round_up(length)) < 0)
		return -1;
	errno = r < 0 ? after : before;
	return r;
}

/* As it may lose the bytes at once, it does where they are the snapshot's. */
static int release(void *start, size_t length)
{
	int before = errno;

	if (syscall(SYS_madvise, start, length, MADV_FREE) == 0)
		return 0;
	if (errno != EINVAL || (uintptr_t)start != round_up((uintptr_t)start) ||
		renew_all((uintptr_t)start, (uintptr_t)start + round_up(length)) < 0)
		return -1;
	errno = before;
	return (int)syscall(SYS_madvise, start, length, MADV_FREE);
}

int madvise(void *start, size_t length, int advice)
{
	if (advice == MADV_DONTNEED)
		return discard(start, length);
	if (advice == MADV_FREE)
		return release(start, length);
	return (int)syscall(SYS_madvise, start, length, advice);
}

static void *grow(void *old, size_t old_size, size_t new_size, int flags, void *wanted)
{
	uintptr_t had = round_up(old_size);
	uintptr_t has = round_up(new_size);
	int before = errno;
	void *new = (void *)syscall(SYS_mremap, old, old_size, new_size, flags, wanted);

	if (new == MAP_FAILED || had == 0 || has <= had)
		return new;
	if (clear((uintptr_t) new + had, has - had) < 0) {
		/* back to where and what it was */
		syscall(SYS_mremap, new, has, had, new == old ? 0 : MREMAP_MAYMOVE | MREMAP_FIXED,
			old);
		errno = EAGAIN;
		return MAP_FAILED;
	}
	errno = before;
	return new;
}

void *mremap(void *old, size_t old_size, size_t new_size, int flags, ...)
{
	void *wanted = NULL;

	if (flags & MREMAP_FIXED) {
		va_list args;

		va_start(args, flags);
		wanted = va_arg(args, void *);
		va_end(args);
	}
	return grow(old, old_size, new_size, flags, wanted);
}
