/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker that shows how a clone's memory differs from any other: before it is frozen it fills memory of
 * several kinds, and in a clone it gives some of it back, or has it grow, as the request says.
 * It answers how many bytes then aren't what a program may expect.
 *
 *   "discard"     MADV_DONTNEED by the C library's madvise()
 *   "raw"         the same by a bare system call
 *   "free"        MADV_FREE; an error counts as one byte
 *   "grow"        mremap() to a larger size
 *   "realloc"     realloc() of a block that malloc() has mapped
 *   "calloc"      calloc() of what malloc() has trimmed from its heaps, in threads
 *   "threads"     thread-local variables of threads on stacks that were used before
 *   "preload"     none: answers 1 if a library was preloaded
 */
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/worker.h"

#define REQUEST_HEAD 16

#define AREA (64u * 4096)
#define BLOCK (1u << 20)   /* so large that malloc() maps it */
#define GROWN (256u << 20) /* more than the whole snapshot has */
#define THREADS 4
#define PIECES 512
#define PIECE 4000 /* so small that it comes from a heap */
#define OLD 0xaa

static unsigned char *area, *block;
static _Thread_local unsigned char local[8192];

static void *must(void *memory)
{
	if (!memory || memory == MAP_FAILED)
		_exit(91);
	return memory;
}

static long count(const unsigned char *bytes, size_t n, unsigned char want)
{
	long wrong = 0;

	for (size_t i = 0; i < n; i++)
		wrong += bytes[i] != want;
	return wrong;
}

/* ---- what threads do ---- */

/* Fills the thread's own heap, stack and variables; then all goes back to where it came from. */
static void *use(void *arg)
{
	unsigned char *pieces[PIECES];

	(void)arg;
	memset(local, OLD, sizeof(local));
	for (int i = 0; i < PIECES; i++)
		pieces[i] = memset(must(malloc(PIECE)), OLD, PIECE);
	for (int i = 0; i < PIECES; i++)
		free(pieces[i]);
	return NULL;
}

static void *look_at_local(void *arg)
{
	*(long *)arg = count(local, sizeof(local), 0);
	return use(NULL);
}

static void *look_at_calloc(void *arg)
{
	unsigned char *pieces[PIECES];
	long wrong = 0;

	use(NULL);
	for (int i = 0; i < PIECES; i++) {
		pieces[i] = must(calloc(1, PIECE));
		wrong += count(pieces[i], PIECE, 0);
	}
	for (int i = 0; i < PIECES; i++)
		free(pieces[i]);
	*(long *)arg = wrong;
	return NULL;
}

static long in_threads(void *(*run)(void *))
{
	pthread_t threads[THREADS];
	long wrong[THREADS] = { 0 }, all = 0;

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, run, &wrong[i]) != 0)
			_exit(92);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		all += wrong[i];
	}
	return all;
}

/* ---- what requests ask for ---- */

static long discard(void)
{
	return madvise(area, AREA, MADV_DONTNEED) < 0 ? -errno : count(area, AREA, 0);
}

static long discard_raw(void)
{
	return syscall(SYS_madvise, area, AREA, MADV_DONTNEED) < 0 ? -errno : count(area, AREA, 0);
}

static long release(void)
{
	return madvise(area, AREA, MADV_FREE) < 0;
}

static long grow(void)
{
	unsigned char *grown = must(mremap(area, AREA, GROWN, MREMAP_MAYMOVE));

	return count(grown, AREA, OLD) + count(grown + AREA, GROWN - AREA, 0);
}

static long enlarge(void)
{
	block = must(realloc(block, GROWN));
	memset(block + BLOCK, 1, GROWN - BLOCK);
	return count(block, BLOCK, OLD);
}

static long look(void)
{
	return in_threads(look_at_calloc) + in_threads(look_at_calloc);
}

static long start_threads(void)
{
	return in_threads(look_at_local) + in_threads(look_at_local);
}

static long preload(void)
{
	return getenv("LD_PRELOAD") != NULL;
}

static const struct {
	const char *name;
	long (*run)(void);
} requests[] = {
	{ "\"discard\"", discard },
	{ "\"raw\"", discard_raw },
	{ "\"free\"", release },
	{ "\"grow\"", grow },
	{ "\"realloc\"", enlarge },
	{ "\"calloc\"", look },
	{ "\"threads\"", start_threads },
	{ "\"preload\"", preload },
};

static long answer(const char *request)
{
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
		if (strcmp(requests[i].name, request) == 0)
			return requests[i].run();
	return -1;
}

/* ---- the channel ---- */

static void get(void *ret, size_t n)
{
	char *at = ret;

	while (n > 0) {
		ssize_t got = read(WORKER_CHANNEL, at, n);

		if (got <= 0)
			_exit(got < 0 ? 93 : 0);
		at += got;
		n -= (size_t)got;
	}
}

static void put(
	unsigned char type, unsigned char flags, uint32_t stream, const void *bytes, uint32_t n)
{
	char frame[256];

	worker_put_head(frame, n, type, flags, stream);
	memcpy(frame + WORKER_HEAD, bytes, n);
	if (write(WORKER_CHANNEL, frame, WORKER_HEAD + n) != (ssize_t)(WORKER_HEAD + n))
		_exit(94);
}

static void tell(unsigned char type, const char *json)
{
	put(type, 0, 0, json, (uint32_t)strlen(json));
}

/* One request at a time; its body may come in pieces. */
static void hear(uint32_t stream, const char *body, bool whole)
{
	static char request[64];
	char response[64] = { 0 };
	int n;

	strncat(request, body, sizeof(request) - 1 - strlen(request));
	if (!whole)
		return;
	n = snprintf(response + 8, sizeof(response) - 8, "%ld", answer(request));
	put(WORKER_RESPONSE, WORKER_FIN, stream, response, 8 + (uint32_t)n);
	request[0] = '\0';
}

static void begin(void)
{
	area = must(mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	memset(area, OLD, AREA);
	block = memset(must(malloc(BLOCK)), OLD, BLOCK);
	in_threads(use);
}

int main(void)
{
	static char payload[65536];
	char head[WORKER_HEAD];
	uint32_t n, stream, fields;

	mallopt(M_MMAP_THRESHOLD, 128 << 10);
	tell(WORKER_HELLO, "{\"protocol\":1,\"runtime\":\"memory\",\"runtimeVersion\":\"1\"}");
	for (;;) {
		get(head, WORKER_HEAD);
		memcpy(&n, head, 4);
		memcpy(&stream, head + 8, 4);
		if (n >= sizeof(payload))
			_exit(95);
		get(payload, n);
		payload[n] = '\0';
		switch (head[4]) {
		case WORKER_INIT:
			begin();
			tell(WORKER_READY, "{\"initMs\":1}");
			break;
		case WORKER_CHECKPOINT:
			tell(WORKER_CHECKPOINT, "{}");
			break;
		case WORKER_RESTORED:
			tell(WORKER_READY, "{\"initMs\":0}");
			break;
		case WORKER_REQUEST:
			memcpy(&fields, payload + 4, 4);
			hear(stream, payload + REQUEST_HEAD + fields, head[5] & WORKER_FIN);
			break;
		case WORKER_BODY:
			hear(stream, payload, head[5] & WORKER_FIN);
			break;
		case WORKER_PING:
			put(WORKER_PONG, 0, 0, payload, n);
			break;
		case WORKER_DRAIN:
			return 0;
		}
	}
}
