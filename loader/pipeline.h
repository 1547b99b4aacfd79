/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_PIPELINE_H
#define NEST_LOADER_PIPELINE_H

#include <sys/types.h>

struct nest_err;
struct nest_frames;
struct nest_unpack_source;

/* Who wants to see the frames themselves. */
struct nest_pipeline_sink {
	/*
	 * The next frame as it came, of which @head tells the length and the content's; @bytes is
	 * NULL for one that isn't had in one piece. Called in the order of the stream, by a thread
	 * of the pipeline's, before the frame's content is given out. -errno ends the stream.
	 */
	int (*take)(
		void *arg, const struct nest_frames *head, const void *bytes, struct nest_err *err);
	void *arg;
};

/*
 * A stream of zstd or LZ4 frames that is being decompressed by threads of its own, ahead of the one
 * that reads it.
 */
struct nest_pipeline;

/*
 * Starts the threads, which call @source and @sink (NULL: none), both borrowed, from now on until the
 * pipeline is freed. The caller owns @ret. Any thread.
 */
int nest_pipeline_new(const struct nest_unpack_source *source,
	const struct nest_pipeline_sink *sink, struct nest_pipeline **ret, struct nest_err *err);

/* Stops and joins the threads; blocks while the source does. NULL is fine. Any thread. */
void nest_pipeline_free(struct nest_pipeline *pipeline);

/*
 * The next bytes, valid until the next call: their count, 0 at the end, or -errno with @err. Blocks
 * on the source. Any thread, one at a time.
 */
ssize_t nest_pipeline_read(
	struct nest_pipeline *pipeline, const void **ret_bytes, struct nest_err *err);

/*
 * What the last read gave, or NULL, for nest_pipeline_hold(): it stays valid, whatever is read next,
 * until it was let go as often as it was held, which must come before the pipeline is freed.
 */
void *nest_pipeline_bytes(const struct nest_pipeline *pipeline);

/* While it is valid. Any thread. */
void nest_pipeline_hold(void *bytes);
void nest_pipeline_let_go(void *bytes);

#endif
