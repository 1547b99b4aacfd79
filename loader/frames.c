/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/frames.h"

#include <errno.h>
#include <stdbool.h>

#include "base/err.h"

#define MAGIC_LEN 4u
#define MAGIC_ZSTD 0xfd2fb528u
#define MAGIC_LZ4 0x184d2204u
#define MAGIC_SKIP 0x184d2a50u /* and the 15 that follow */
#define ZSTD_BLOCK_MAX (128u << 10)
#define ZSTD_BLOCK_HEADER 3u
#define LZ4_BLOCK_HEADER 4u

static uint32_t le32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t le(const unsigned char *p, unsigned n)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < n; i++)
		value |= (uint64_t)p[i] << (8 * i);
	return value;
}

enum nest_frames_kind nest_frames_kind(const unsigned char *bytes, size_t n)
{
	uint32_t magic = n < MAGIC_LEN ? 0 : le32(bytes);

	if (magic == MAGIC_ZSTD)
		return NEST_FRAMES_ZSTD;
	if (magic == MAGIC_LZ4)
		return NEST_FRAMES_LZ4;
	return (magic & ~15u) == MAGIC_SKIP ? NEST_FRAMES_SKIP : NEST_FRAMES_NONE;
}

static int damaged(struct nest_err *err, const char *what)
{
	return nest_err_say(err, -EBADMSG, "damaged compressed data: %s", what);
}

static int refuse_dictionary(struct nest_err *err)
{
	return nest_err_say(err, -ENOTSUP,
		"it was compressed with a dictionary, which isn't there: compress it without one");
}

static int refuse_window(uint64_t window, struct nest_err *err)
{
	return nest_err_say(err, -ENOTSUP,
		"decompressing it takes a window of %llu bytes, and %u are allowed: compress it "
		"with "
		"zstd -19 or less, without --long or --ultra",
		(unsigned long long)window, NEST_FRAMES_MAX_WINDOW);
}

static int begin_skip(struct nest_frames *frames, const unsigned char *bytes, size_t n)
{
	frames->need = MAGIC_LEN + 4;
	if (n < frames->need)
		return 1;
	frames->need += le32(bytes + MAGIC_LEN);
	frames->at = frames->need;
	frames->last = true;
	return 0;
}

/* Bytes that the window descriptor of a zstd frame stands for. */
static uint64_t window_of(unsigned char descriptor)
{
	uint64_t base = UINT64_C(1) << (10 + (descriptor >> 3));

	return base + base / 8 * (descriptor & 7);
}

static int begin_zstd(
	struct nest_frames *frames, const unsigned char *bytes, size_t n, struct nest_err *err)
{
	static const unsigned content_lens[] = { 0, 2, 4, 8 };
	static const unsigned dictionary_lens[] = { 0, 1, 2, 4 };
	const unsigned char *p = bytes + MAGIC_LEN;
	unsigned char descriptor;
	unsigned content_len;
	unsigned dictionary_len;
	bool single;

	frames->need = MAGIC_LEN + 1;
	if (n < frames->need)
		return 1;
	descriptor = *p++;
	single = descriptor & 0x20;
	content_len = content_lens[descriptor >> 6];
	if (single && content_len == 0)
		content_len = 1;
	dictionary_len = dictionary_lens[descriptor & 3];
	if (descriptor & 8)
		return damaged(err, "a zstd frame header with its reserved bit set");
	frames->need += !single + dictionary_len + content_len;
	if (n < frames->need)
		return 1;
	frames->window = single ? 0 : window_of(*p++);
	if (le(p, dictionary_len) != 0)
		return refuse_dictionary(err);
	p += dictionary_len;
	frames->content = content_len ? le(p, content_len) : NEST_FRAMES_UNKNOWN;
	if (content_len == 2)
		frames->content += 256;
	if (single)
		frames->window = frames->content;
	if (frames->window > NEST_FRAMES_MAX_WINDOW)
		return refuse_window(frames->window, err);
	frames->block_max =
		frames->window < ZSTD_BLOCK_MAX ? (uint32_t)frames->window : ZSTD_BLOCK_MAX;
	frames->tail = descriptor & 4 ? 4 : 0;
	frames->at = frames->need;
	frames->need += ZSTD_BLOCK_HEADER;
	return 0;
}

static int begin_lz4(
	struct nest_frames *frames, const unsigned char *bytes, size_t n, struct nest_err *err)
{
	const unsigned char *p = bytes + MAGIC_LEN;
	bool sized;

	frames->need = MAGIC_LEN + 3;
	if (n < frames->need)
		return 1;
	if ((p[0] & 0xc2) != 0x40 || (p[1] & 0x8f) != 0 || p[1] < 0x40)
		return damaged(err, "an LZ4 frame header of an unknown version");
	if (p[0] & 1)
		return refuse_dictionary(err);
	sized = p[0] & 8;
	frames->need += sized ? 8 : 0;
	if (n < frames->need)
		return 1;
	frames->content = sized ? le(p + 2, 8) : NEST_FRAMES_UNKNOWN;
	frames->block_max = 1u << (8 + 2 * (p[1] >> 4));
	frames->window = frames->block_max;
	frames->block_tail = p[0] & 0x10 ? 4 : 0;
	frames->tail = p[0] & 4 ? 4 : 0;
	frames->at = frames->need;
	frames->need += LZ4_BLOCK_HEADER;
	return 0;
}

/* Steps over one block, whose header is there. */
static int step_zstd(struct nest_frames *frames, const unsigned char *bytes, struct nest_err *err)
{
	uint32_t header = (uint32_t)le(bytes + frames->at, ZSTD_BLOCK_HEADER);
	unsigned type = header >> 1 & 3;
	uint32_t size = header >> 3;

	if (type == 3 || size > frames->block_max)
		return damaged(err, "a zstd block of an unknown type or above its size");
	frames->bound += type == 2 ? frames->block_max : size;
	frames->at += ZSTD_BLOCK_HEADER + (type == 1 ? 1 : size);
	frames->last = header & 1;
	frames->need = frames->at + (frames->last ? frames->tail : ZSTD_BLOCK_HEADER);
	return 0;
}

static int step_lz4(struct nest_frames *frames, const unsigned char *bytes, struct nest_err *err)
{
	uint32_t header = le32(bytes + frames->at);
	uint32_t size = header & 0x7fffffffu;

	frames->at += LZ4_BLOCK_HEADER;
	frames->need = frames->at + frames->tail;
	frames->last = header == 0;
	if (frames->last)
		return 0;
	if (size > frames->block_max)
		return damaged(err, "an LZ4 block above its size");
	frames->bound += header == size ? frames->block_max : size;
	frames->at += size + frames->block_tail;
	frames->need = frames->at + LZ4_BLOCK_HEADER;
	return 0;
}

/* The frame's own header: 1 for more bytes, 0 when `at` is behind it. */
static int begin(
	struct nest_frames *frames, const unsigned char *bytes, size_t n, struct nest_err *err)
{
	enum nest_frames_kind kind;

	frames->need = MAGIC_LEN;
	if (n < frames->need)
		return 1;
	kind = nest_frames_kind(bytes, n);
	if (kind == NEST_FRAMES_NONE)
		return damaged(err, "neither a zstd nor an LZ4 frame where one must begin");
	frames->kind = kind;
	if (kind == NEST_FRAMES_SKIP)
		return begin_skip(frames, bytes, n);
	return kind == NEST_FRAMES_ZSTD ? begin_zstd(frames, bytes, n, err)
					: begin_lz4(frames, bytes, n, err);
}

int nest_frames_walk(
	struct nest_frames *frames, const unsigned char *bytes, size_t n, struct nest_err *err)
{
	int rc = frames->at == 0 ? begin(frames, bytes, n, err) : 0;

	while (rc == 0 && !frames->last && frames->need <= n)
		rc = frames->kind == NEST_FRAMES_ZSTD ? step_zstd(frames, bytes, err)
						      : step_lz4(frames, bytes, err);
	return rc != 0 ? rc : frames->need > n;
}
