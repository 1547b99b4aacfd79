/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/image_stack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_area.h"
#include "tests/unit/sandbox/images.h"
#include "tests/unit/suite.h"

/* The numbers of CRIU's messages, once more: a slip in the tested file's shall be seen. */
#define X86_64 1
#define AARCH64 4

#define START (0x200 * (uint64_t)IMAGES_PAGE)
#define PAGES 8
static const struct nest_image_area stack = { .start = START,
	.end = START + PAGES * IMAGES_PAGE,
	.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN };

static void put_message(struct nest_buf *out, uint32_t number, struct nest_buf *message)
{
	ck_assert_int_eq(
		nest_wire_put_bytes(out, number, nest_buf_bytes(message), message->len), 0);
	nest_buf_done(message);
}

static void write_core(int tid, unsigned machine, uint64_t sp)
{
	struct nest_buf out = NEST_BUF_INIT, core = NEST_BUF_INIT, thread = NEST_BUF_INIT,
			registers = NEST_BUF_INIT;
	char name[32];
	int fd;

	images_put(&registers, 17, 0x1234); /* ip */
	images_put(&registers, 20, sp);
	images_put(&registers, 21, 0x2b); /* ss */
	images_put(&thread, 1, 0x5678);	  /* clear_tid_addr */
	put_message(&thread, 2, &registers);
	images_put(&core, 1, machine);
	put_message(&core, 2, &thread);
	ck_assert_int_eq(nest_criu_image_begin(&out, NEST_CRIU_IMAGE_CORE), 0);
	images_put_entry(&out, &core);
	snprintf(name, sizeof(name), "core-%d.img", tid);
	fd = openat(images_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, nest_buf_bytes(&out), out.len), (ssize_t)out.len);
	close(fd);
	nest_buf_done(&out);
}

/* How many pages of the stack are in use, counted from its start. */
static uint64_t useless(void)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t top = 0;

	ck_assert_msg(nest_image_stack_top(images_fd, "1001.img", &stack, &top, &err) == 0, "%s",
		nest_err_text(&err));
	ck_assert_uint_eq(top % IMAGES_PAGE, 0);
	return (top - START) / IMAGES_PAGE;
}

START_TEST(what_lies_below_the_stack_pointer_is_useless)
{
	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 0x100);
	ck_assert_uint_eq(useless(), 5);
	/* with what a function may use below it */
	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 127);
	ck_assert_uint_eq(useless(), 4);
	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 128);
	ck_assert_uint_eq(useless(), 5);
}
END_TEST

START_TEST(the_lowest_thread_on_it_counts)
{
	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 0x100);
	write_core(1002, X86_64, START + 2 * IMAGES_PAGE + 0x100);
	write_core(1003, X86_64, 0x7f0000000000);
	ck_assert_uint_eq(useless(), 2);
}
END_TEST

START_TEST(where_the_main_thread_is_elsewhere_all_may_be_in_use)
{
	write_core(1001, X86_64, 0x7f0000000000);
	write_core(1002, X86_64, START + 2 * IMAGES_PAGE + 0x100);
	ck_assert_uint_eq(useless(), 0);
	write_core(1001, X86_64, START);
	ck_assert_uint_eq(useless(), 0);
	write_core(1001, X86_64, stack.end);
	ck_assert_uint_eq(useless(), 0);
}
END_TEST

START_TEST(of_other_machines_nothing_is_known)
{
	write_core(1001, AARCH64, START + 5 * IMAGES_PAGE + 0x100);
	ck_assert_uint_eq(useless(), 0);
	ck_assert_int_eq(unlinkat(images_fd, "core-1001.img", 0), 0);
	ck_assert_uint_eq(useless(), 0);
}
END_TEST

START_TEST(a_core_that_can_not_be_read_is_refused)
{
	struct nest_err err = NEST_ERR_INIT;
	uint64_t top;
	int fd;

	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 0x100);
	fd = openat(images_fd, "core-1001.img", O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(ftruncate(fd, 20), 0);
	close(fd);
	ck_assert_int_eq(nest_image_stack_top(images_fd, "1001.img", &stack, &top, &err), -EBADMSG);
	ck_assert_str_eq(nest_err_text(&err), "image 'core-1001.img' is not as CRIU 4 writes it");
}
END_TEST

/* The pages of the image that lie below are not among those that a clone gets. */
START_TEST(useless_pages_are_left_out_of_the_images)
{
	const struct images_area areas[] = { { .first = 0x200,
		.pages = PAGES,
		.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN,
		.status = IMAGES_STATUS_REGULAR | IMAGES_STATUS_ANON_PRIVATE } };
	const struct images_run runs[] = { IMAGES_RUN(0x201, 2, IMAGES_PRESENT),
		IMAGES_RUN(0x204, 4, IMAGES_PRESENT) };
	struct images_area after[1];
	struct images_run left[2];

	images_write_process(areas, 1, runs, 2);
	write_core(1001, X86_64, START + 5 * IMAGES_PAGE + 0x100);
	images_rewrite();
	ck_assert_uint_eq(images_read_mm(1001, after, 1), 1);
	images_check_left(&areas[0], &after[0]);
	ck_assert_uint_eq(images_read_runs(1001, left, 2), 1);
	images_check_run(&left[0], 0x205, 3, IMAGES_PRESENT);
	ck_assert_uint_eq(images_size_of("pages-1.img"), 3 * IMAGES_PAGE);
	images_check_page("pages-1.img", 0, 0x205);
	images_check_page("pages-1.img", 2 * IMAGES_PAGE, 0x207);
}
END_TEST

NEST_SUITE_WITH("sandbox/image_stack", images_enter, images_leave,
	what_lies_below_the_stack_pointer_is_useless, the_lowest_thread_on_it_counts,
	where_the_main_thread_is_elsewhere_all_may_be_in_use, of_other_machines_nothing_is_known,
	a_core_that_can_not_be_read_is_refused, useless_pages_are_left_out_of_the_images)
