/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/err.h"
#include "base/log.h"
#include "sandbox/client.h"

/* The agent's end of what spawner_image.c does. */

static void free_image(struct nest_image *image)
{
	if (image->sandbox)
		DL_DELETE(image->sandbox->images, image);
	free(image);
}

/* Numbers go up to 2^32 - 1, which the spawner's table of events can hold; 0 is none. */
static uint64_t take_number(struct nest_sandbox *sandbox)
{
	return ++sandbox->next_image;
}

int nest_image_mount(struct nest_sandbox *sandbox, int file,
	void (*cb)(void *arg, const struct nest_err *err), void *arg, struct nest_image **ret,
	struct nest_err *err)
{
	struct nest_image *image = calloc(1, sizeof(*image));
	struct nest_message_head head;
	int r;

	if (!image)
		return nest_err_set(err, -ENOMEM, "mount an image");
	image->id = take_number(sandbox);
	image->cb = cb;
	image->arg = arg;
	nest_message_begin(&head, NEST_MESSAGE_MOUNT, sizeof(head), image->id);
	r = nest_client_send(sandbox, &head, &file, 1, err);
	if (r < 0) {
		free(image);
		return r;
	}
	image->sandbox = sandbox;
	DL_APPEND(sandbox->images, image);
	*ret = image;
	return 0;
}

static void unmount(struct nest_image *image)
{
	struct nest_err err = NEST_ERR_INIT;
	struct nest_message_head head;

	nest_message_begin(&head, NEST_MESSAGE_UNMOUNT, sizeof(head), image->id);
	/* what can't be said stays mounted, unused, until the spawner ends */
	if (nest_client_send(image->sandbox, &head, NULL, 0, &err) < 0 && err.code != -EPIPE)
		nest_log(NEST_LOG_DEBUG, "sandbox", "an image stays mounted: %s",
			nest_err_text(&err));
	free_image(image);
}

void nest_image_unmount(struct nest_image *image)
{
	if (!image)
		return;
	if (!image->sandbox)
		free_image(image);
	else if (image->cb)
		image->abandoned = true;
	else
		unmount(image);
}

/* The end of mounting: @err is NULL when it is mounted. */
static void settle(struct nest_image *image, const struct nest_err *err)
{
	void (*cb)(void *arg, const struct nest_err *err) = image->cb;
	void *arg = image->arg;
	bool abandoned = image->abandoned;

	image->cb = NULL;
	if (err)
		free_image(image);
	else if (abandoned)
		unmount(image);
	if (!abandoned)
		cb(arg, err);
}

int nest_image_hear(struct nest_sandbox *sandbox, const union nest_message *message, size_t n,
	struct nest_err *err)
{
	struct nest_image *image;
	int r = nest_message_check(message, n, NEST_MESSAGE_MOUNTED, sizeof(message->failed), err);

	if (r < 0)
		return r;
	DL_FOREACH(sandbox->images, image) {
		if (image->id == message->head.cell)
			break;
	}
	if (!image || !image->cb)
		return nest_err_say(err, -EBADMSG, "the spawner speaks of an unknown image");
	settle(image, message->failed.err.code < 0 ? &message->failed.err : NULL);
	return 0;
}

void nest_image_end_all(struct nest_sandbox *sandbox, const struct nest_err *why)
{
	struct nest_image *image, *next;

	DL_FOREACH_SAFE(sandbox->images, image, next) {
		if (image->cb)
			settle(image, why);
	}
}

void nest_image_orphan_all(struct nest_sandbox *sandbox)
{
	while (sandbox->images) {
		struct nest_image *image = sandbox->images;

		DL_DELETE(sandbox->images, image);
		image->sandbox = NULL;
	}
}
