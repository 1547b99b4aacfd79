/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Preloaded into Node, which is cheaper to freeze, to restore and to keep then, and used by nothing else.
 *
 * Areas: V8 reserves each 256 KB of its heap at an address that it makes up, far from any other. Each is an
 * area for each clone to restore, and needs page tables of its own: with 400 MB of objects 1800 areas,
 * and 14 MB of tables where all are in use. The address is a hint that the kernel may ignore. So what V8
 * reserves for its heap is asked for without one, and the kernel puts it side by side, where neighbours
 * become one area. Large reservations keep theirs: that of the code wants to be near the program's own, and
 * each is one area wherever it lies.
 *
 * A thread: Node starts one that waits for SIGUSR1, to open the inspector then. In a cell nobody sends it, and
 * each thread is one more to stop, to make and to have run in every clone. Node is told that it runs, as if it
 * had come and gone. SIGUSR1 then posts a semaphore for which nobody waits.
 *
 * Both concern calls that Node's own code makes, in the form in which it makes them: not an addon's, which may
 * mean its hints, nor other programs', in which this does nothing.
 *
 * Any thread, any time, and within malloc() as far as mmap() goes. It needs of the C library only
 * what every one has, so that it works under each.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))
#define CALLER ((uintptr_t)__builtin_return_address(0))

/* Between the heap's reservations, also of large objects, and those of code (128 MiB and more). */
#define LARGE_BYTES ((size_t)64 << 20)

typedef void *routine(void *);
typedef int creator(pthread_t *, const pthread_attr_t *, routine *, void *);

PUBLIC void *mmap(void *start, size_t length, int protection, int flags, int fd, off_t offset);
PUBLIC void *mmap64(void *start, size_t length, int protection, int flags, int fd, off_t offset);
PUBLIC creator pthread_create;

/* node::Start(int, char **), where Node's code is: the program's, or a library's */
extern int node_start(int argc, char **argv) __asm__("_ZN4node5StartEiPPc") __attribute__((weak));
/* glibc before 2.34 has it in a library of its own, which not every program loads */
extern __typeof__(dlsym) dlsym __attribute__((weak));

/* Node's code; empty in other programs. Set before any thread is. */
static uintptr_t code_start, code_end;

static int find_code(struct dl_phdr_info *object, size_t size, void *arg)
{
	uintptr_t start = (uintptr_t)node_start;

	(void)size;
	(void)arg;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		uintptr_t at = object->dlpi_addr + segment->p_vaddr;

		if (segment->p_type != PT_LOAD || start - at >= segment->p_memsz)
			continue;
		code_start = at;
		code_end = at + segment->p_memsz;
		return 1;
	}
	return 0;
}

__attribute__((constructor)) static void begin(void)
{
	if (node_start)
		dl_iterate_phdr(find_code, NULL);
}

static bool is_code(uintptr_t address)
{
	return address >= code_start && address < code_end;
}

/* ---- areas ---- */

static void *map(void *start, size_t length, int protection, int flags, int fd, off_t offset,
	uintptr_t caller)
{
	if (protection == PROT_NONE && flags == (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE) &&
		length < LARGE_BYTES && is_code(caller))
		start = NULL;
	return (void *)syscall(SYS_mmap, start, length, protection, flags, fd, offset);
}

void *mmap(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
	return map(start, length, protection, flags, fd, offset, CALLER);
}

void *mmap64(void *start, size_t length, int protection, int flags, int fd, off_t offset)
{
	return map(start, length, protection, flags, fd, offset, CALLER);
}

/* ---- the thread ---- */

/* No other thread of Node's is detached, or started with SIGUSR1 blocked. */
static bool is_watcher(const pthread_attr_t *attributes, routine *run, const void *arg)
{
	int detached = PTHREAD_CREATE_JOINABLE;
	sigset_t blocked;

	return attributes && !arg && is_code((uintptr_t)run) &&
	       pthread_attr_getdetachstate(attributes, &detached) == 0 &&
	       detached == PTHREAD_CREATE_DETACHED && sigprocmask(SIG_BLOCK, NULL, &blocked) == 0 &&
	       sigismember(&blocked, SIGUSR1) == 1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, routine *run, void *arg)
{
	static _Atomic(creator *) next;
	creator *create = next;

	if (is_watcher(attributes, run, arg)) {
		/* what is detached and may have ended has a name that nobody can use */
		*thread = pthread_self();
		return 0;
	}
	if (!create && dlsym) {
		*(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
		next = create;
	}
	return create ? create(thread, attributes, run, arg) : EAGAIN;
}
