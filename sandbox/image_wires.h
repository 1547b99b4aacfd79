/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_SANDBOX_IMAGE_WIRES_H
#define NEST_SANDBOX_IMAGE_WIRES_H

#include <stdint.h>

#include "sandbox/criu_rpc.h"

struct nest_err;

/*
 * CRIU knows a worker's wires by their inode numbers. Renumbers them in the images in directory
 * @images: @inos become NEST_CRIU_RPC_WIRE_INO(i), which every restorer gives its own wires for, so that
 * one can be told of them before there is a snapshot. Blocks on the disk; any thread. -EBADMSG: an
 * image isn't as CRIU 4 writes it.
 */
int nest_image_wires_renumber(
	int images, const uint64_t inos[NEST_CRIU_RPC_WIRES], struct nest_err *err);

#endif
