/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/err.h"

#define SCRATCH_SIZE (256u * 1024)

struct nest_wire {
	uv_prepare_t before; /* for what is queued in timers and by closing handles */
	uv_check_t after;    /* for what is queued while I/O is handled: nearly all */
	struct nest_wire_link *waiting;
	bool watching;
	unsigned open_handles;
	void (*closed)(void *arg);
	void *closed_arg;
	char scratch[SCRATCH_SIZE];
};

static void flush_all(struct nest_wire *wire)
{
	struct nest_wire_link *link;

	while ((link = wire->waiting))
		link->flush(link);
	if (wire->watching) {
		uv_prepare_stop(&wire->before);
		uv_check_stop(&wire->after);
		wire->watching = false;
	}
}

static void on_before(uv_prepare_t *handle)
{
	flush_all(handle->data);
}

static void on_after(uv_check_t *handle)
{
	flush_all(handle->data);
}

int nest_wire_open(uv_loop_t *loop, struct nest_wire **ret, struct nest_err *err)
{
	struct nest_wire *wire = malloc(sizeof(*wire));

	if (!wire)
		return nest_err_set(err, -ENOMEM, "open the workers' wire");
	/* the scratch stays untouched, and so without memory, until the first read */
	memset(wire, 0, offsetof(struct nest_wire, scratch));
	uv_prepare_init(loop, &wire->before);
	uv_check_init(loop, &wire->after);
	wire->before.data = wire;
	wire->after.data = wire;
	wire->open_handles = 2;
	*ret = wire;
	return 0;
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct nest_wire *wire = handle->data;
	void (*cb)(void *arg) = wire->closed;
	void *arg = wire->closed_arg;

	if (--wire->open_handles > 0)
		return;
	free(wire);
	cb(arg);
}

void nest_wire_close(struct nest_wire *wire, void (*cb)(void *arg), void *arg)
{
	wire->closed = cb;
	wire->closed_arg = arg;
	uv_close((uv_handle_t *)&wire->before, on_handle_closed);
	uv_close((uv_handle_t *)&wire->after, on_handle_closed);
}

char *nest_wire_scratch(struct nest_wire *wire, size_t *ret_size)
{
	*ret_size = sizeof(wire->scratch);
	return wire->scratch;
}

uv_loop_t *nest_wire_loop(const struct nest_wire *wire)
{
	return wire->before.loop;
}

void nest_wire_wait(struct nest_wire *wire, struct nest_wire_link *link)
{
	if (link->waiting)
		return;
	link->waiting = true;
	DL_APPEND(wire->waiting, link);
	if (wire->watching)
		return;
	wire->watching = true;
	uv_prepare_start(&wire->before, on_before);
	uv_check_start(&wire->after, on_after);
}

void nest_wire_forget(struct nest_wire *wire, struct nest_wire_link *link)
{
	if (link->waiting)
		DL_DELETE(wire->waiting, link);
	link->waiting = false;
}
