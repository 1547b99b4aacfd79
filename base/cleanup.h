/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_CLEANUP_H
#define NEST_BASE_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Scope-bound release of locals. A local that carries one of these is initialised where it is
 * declared, and handed over with nest_take_ptr() or nest_take_fd().
 */
static inline void nest_cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void nest_cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd); /* never retried: on Linux the fd is gone even on EINTR */
}

static inline void nest_cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void nest_cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define nest_autofree __attribute__((cleanup(nest_cleanup_free)))
#define nest_autoclose __attribute__((cleanup(nest_cleanup_close)))
#define nest_autofclose __attribute__((cleanup(nest_cleanup_fclose)))
#define nest_autoclosedir __attribute__((cleanup(nest_cleanup_closedir)))

/* The value of pointer @p, which is NULL from then on. */
#define nest_take_ptr(p)                       \
	({                                     \
		__auto_type nest_taken_ = (p); \
		(p) = NULL;                    \
		nest_taken_;                   \
	})

/* The value of descriptor @fd, which is -1 from then on. */
#define nest_take_fd(fd)                \
	({                              \
		int nest_taken_ = (fd); \
		(fd) = -1;              \
		nest_taken_;            \
	})

#define NEST_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
