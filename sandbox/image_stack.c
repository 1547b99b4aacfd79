/* SPDX-License-Identifier: Apache-2.0 */
/* core-<tid>.img, one for each thread, has its registers. */
#include "sandbox/image_stack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "base/file.h"
#include "sandbox/criu_image.h"
#include "sandbox/image_area.h"

/* Field numbers of CRIU's images/core.proto and core-x86.proto; other machines' are not looked for. */
enum {
	CORE_MACHINE = 1,
	CORE_X86 = 2
};
enum {
	MACHINE_X86_64 = 1
};
enum {
	X86_REGISTERS = 2
};
enum {
	REGISTER_SP = 20
};
/* What the ABI lets a function use below its stack pointer. */
#define RED_ZONE 128u

/* The message in field @number of @in, or the number there. */
static int find(struct nest_wire in, uint32_t number, struct nest_wire_field *ret)
{
	int r;

	while ((r = nest_wire_next(&in, ret)) > 0)
		if (ret->number == number)
			return 1;
	return r;
}

/* 0: it is another machine's. */
static int read_sp(struct nest_wire core, uint64_t *ret)
{
	struct nest_wire_field field;
	int r = find(core, CORE_MACHINE, &field);

	if (r <= 0 || field.value != MACHINE_X86_64)
		return r < 0 ? r : 0;
	r = find(core, CORE_X86, &field);
	if (r > 0)
		r = find(field.in, X86_REGISTERS, &field);
	if (r > 0)
		r = find(field.in, REGISTER_SP, &field);
	*ret = field.value;
	return r;
}

static int read_core(int dir, const char *name, uint64_t *ret, struct nest_err *err)
{
	nest_autocriuimage struct nest_criu_image core = NEST_CRIU_IMAGE_INIT;
	struct nest_wire entry;
	int r = nest_criu_image_open(dir, name, NEST_CRIU_IMAGE_CORE, &core, err);

	if (r < 0)
		return r;
	r = nest_criu_image_next(&core, &entry);
	if (r > 0)
		r = read_sp(entry, ret);
	return r < 0 ? nest_criu_image_malformed(name, err) : r;
}

static bool is_in(const struct nest_image_area *area, uint64_t sp)
{
	return sp >= area->start + RED_ZONE && sp < area->end;
}

/* The lowest of all that lie in it, those of other processes' threads too, which does no harm. */
static int find_lowest(
	int dir, const struct nest_image_area *area, uint64_t *lowest, struct nest_err *err)
{
	nest_autoclosedir DIR *list = nest_file_open_dir(dir, ".");
	struct dirent *entry;
	int r = 0;

	if (!list)
		return nest_err_set(err, -errno, "list the images");
	while (r >= 0 && (entry = readdir(list))) {
		uint64_t sp = 0;

		if (strncmp(entry->d_name, "core-", strlen("core-")) != 0)
			continue;
		r = read_core(dir, entry->d_name, &sp, err);
		if (r > 0 && is_in(area, sp) && sp < *lowest)
			*lowest = sp;
	}
	return r < 0 ? r : 0;
}

int nest_image_stack_top(int dir, const char *pid, const struct nest_image_area *area,
	uint64_t *ret, struct nest_err *err)
{
	char name[64];
	uint64_t sp = 0;
	int r;

	*ret = area->start;
	snprintf(name, sizeof(name), "core-%s", pid);
	/* without it, or on another stack just now, nothing is known of this one */
	if (faccessat(dir, name, F_OK, 0) < 0)
		return 0;
	r = read_core(dir, name, &sp, err);
	if (r <= 0 || !is_in(area, sp))
		return r < 0 ? r : 0;
	r = find_lowest(dir, area, &sp, err);
	if (r == 0)
		*ret = (sp - RED_ZONE) / NEST_IMAGE_PAGE * NEST_IMAGE_PAGE;
	return r;
}
