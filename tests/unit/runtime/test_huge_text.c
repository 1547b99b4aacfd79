/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/huge_text.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/unit/suite.h"

#define MB (1u << 20)
#define EXT4 0xEF53

/* In the build directory, which is on a disk; /tmp may be anything. */
static char path[] = "huge-text-XXXXXX";
static int fd = -1;

static void enter(void)
{
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
}

static void leave(void)
{
	close(fd);
	unlink(path);
}

/* A program of @size bytes, of which @code from @offset on are said to be code. */
static void write_program(uint16_t type, uint64_t offset, uint64_t code, size_t size)
{
	ElfW(Ehdr) head = { .e_type = type, .e_phnum = 2, .e_phentsize = sizeof(ElfW(Phdr)) };
	const ElfW(Phdr) segments[] = {
		{ .p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = 64 * MB },
		{ .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = offset, .p_filesz = code },
	};
	char *bytes = malloc(size);

	ck_assert_ptr_nonnull(bytes);
	memset(bytes, 'x', size);
	memcpy(head.e_ident, ELFMAG, SELFMAG);
	head.e_phoff = sizeof(head);
	memcpy(bytes, &head, sizeof(head));
	memcpy(bytes + sizeof(head), segments, sizeof(segments));
	ck_assert_int_eq(pwrite(fd, bytes, size, 0), (ssize_t)size);
	/* as a program lies there that was installed */
	ck_assert_int_eq(fsync(fd), 0);
	free(bytes);
}

static uint64_t load(uint64_t *ret_huge)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t bytes = 77;

	*ret_huge = 77;
	ck_assert_msg(
		nest_huge_text_load(path, &bytes, ret_huge, &err) == 0, "%s", nest_err_text(&err));
	return bytes;
}

/* Whether this machine's kernel is known to keep files of this directory so. */
static bool is_able(void)
{
	struct statfs fs;
	struct utsname name;
	int major = 0, minor = 0;
	char how[128] = "";
	FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");

	if (file) {
		ck_assert_ptr_nonnull(fgets(how, sizeof(how), file));
		fclose(file);
	}
	ck_assert_int_eq(uname(&name), 0);
	ck_assert_int_eq(sscanf(name.release, "%d.%d", &major, &minor), 2);
	ck_assert_int_eq(fstatfs(fd, &fs), 0);
	return fs.f_type == EXT4 && (major > 6 || (major == 6 && minor >= 16)) && how[0] &&
	       !strstr(how, "[never]");
}

START_TEST(code_is_kept_in_huge_pages)
{
	uint64_t huge, again;
	char is[4096];

	write_program(ET_EXEC, 3 * MB, 4 * MB, 9 * MB);
	/* from the page that holds its first byte to the one that holds its last */
	ck_assert_uint_eq(load(&huge), 6 * MB);
	if (is_able())
		ck_assert_uint_eq(huge, 6 * MB);
	ck_assert_uint_eq(load(&again), 6 * MB);
	ck_assert_uint_eq(again, huge);
	ck_assert_int_eq(pread(fd, is, sizeof(is), 5 * MB), sizeof(is));
	for (size_t i = 0; i < sizeof(is); i++)
		ck_assert_int_eq(is[i], 'x');
}
END_TEST

START_TEST(what_the_file_does_not_have_is_left_out)
{
	uint64_t huge;

	write_program(ET_EXEC, 2 * MB, 64 * MB, 7 * MB);
	ck_assert_uint_eq(load(&huge), 4 * MB);
	write_program(ET_EXEC, 1ull << 62, 4 * MB, 9 * MB);
	ck_assert_uint_eq(load(&huge), 0);
	write_program(ET_EXEC, UINT64_MAX - MB, 4 * MB, 9 * MB);
	ck_assert_uint_eq(load(&huge), 0);
}
END_TEST

START_TEST(little_code_is_left_as_it_is)
{
	uint64_t huge;

	write_program(ET_EXEC, 2 * MB, 2 * MB - 1, 9 * MB);
	ck_assert_uint_eq(load(&huge), 0);
	ck_assert_uint_eq(huge, 0);
}
END_TEST

START_TEST(what_is_put_anywhere_is_left_as_it_is)
{
	uint64_t huge;

	write_program(ET_DYN, 2 * MB, 4 * MB, 9 * MB);
	ck_assert_uint_eq(load(&huge), 0);
}
END_TEST

START_TEST(other_files_are_no_error)
{
	uint64_t huge;

	ck_assert_uint_eq(load(&huge), 0); /* empty */
	ck_assert_int_eq(write(fd, "#!/bin/sh\n", 10), 10);
	ck_assert_uint_eq(load(&huge), 0);
	unlink(path);
	ck_assert_uint_eq(load(&huge), 0);
}
END_TEST

START_TEST(a_file_that_can_not_be_read_is_named)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t bytes, huge;

	ck_assert_int_lt(nest_huge_text_load("/proc/self", &bytes, &huge, &err), 0);
	ck_assert_msg(strstr(nest_err_text(&err), "'/proc/self'"), "%s", nest_err_text(&err));
}
END_TEST

NEST_SUITE_WITH("runtime/huge_text", enter, leave, code_is_kept_in_huge_pages,
	what_the_file_does_not_have_is_left_out, little_code_is_left_as_it_is,
	what_is_put_anywhere_is_left_as_it_is, other_files_are_no_error,
	a_file_that_can_not_be_read_is_named)
