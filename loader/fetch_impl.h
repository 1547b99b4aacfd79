/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_FETCH_IMPL_H
#define NEST_LOADER_FETCH_IMPL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <curl/curl.h>
#include <uv.h>

#include "base/err.h"
#include "loader/fetch.h"
#include "loader/fetcher.h"
#include "loader/reference.h"

struct nest_curl;

/* The inside of downloads, for loader/fetch*.c. */

#define NEST_FETCH_UNKNOWN UINT64_MAX

/* What the loop tells the reader. */
struct nest_fetch_shared {
	pthread_mutex_t lock;
	pthread_cond_t moved;
	uint64_t watermark; /* all bytes before it are in the file */
	uint64_t total;	    /* NEST_FETCH_UNKNOWN until the server, or the end, says */
	bool done;
	struct nest_err err; /* of a download that failed */
};

/* What an answer's headers say. */
struct nest_fetch_head {
	char etag[256]; /* with its quotes and W/; "" when there is none, or a longer one */
	char modified[64];
	bool has_range;
	uint64_t first; /* of Content-Range */
	uint64_t last;
	uint64_t total;	 /* NEST_FETCH_UNKNOWN: '*', or no such header */
	uint64_t length; /* Content-Length; NEST_FETCH_UNKNOWN without one */
};

enum nest_fetch_part_state {
	NEST_FETCH_PART_IDLE,	 /* has no range */
	NEST_FETCH_PART_RUNNING, /* a connection works on it */
	NEST_FETCH_PART_WAITING, /* for the time of its next attempt */
};

/* One range under way: bytes [at, end) are missing. */
struct nest_fetch_part {
	struct nest_fetch *fetch;
	enum nest_fetch_part_state state;
	uint64_t at;  /* all before it is in the file; what is held comes next */
	uint64_t end; /* NEST_FETCH_UNKNOWN: the artifact's, whatever it is */
	char *held;   /* bytes that arrived and aren't in the file yet */
	size_t n_held;
	uint64_t began_at;   /* where this attempt began */
	uint64_t skip;	     /* bytes of the answer that are there already */
	uint64_t started_us; /* when it did */
	uint64_t reached_us; /* since when the server could answer; 0: its name isn't known yet */
	bool asked;	     /* the request is on its way */
	uint64_t retry_at_us;
	uint32_t attempts; /* in a row without progress */
	unsigned hop;	   /* the redirects that led to the url it asked */
	CURL *easy;
	struct curl_slist *headers;
	struct nest_fetch_head head;
	bool answered; /* the headers were accepted: the body is the artifact's */
	bool dropped;  /* another's answer is the whole file: this one isn't wanted any more */
	struct nest_err err; /* why a callback ended the transfer */
	char curl_text[CURL_ERROR_SIZE];
};

struct nest_fetch {
	struct nest_fetcher *fetcher;
	struct nest_fetch_events events;
	void *arg;
	char *url; /* that is asked now: the reference's, or where it was redirected to */
	struct nest_reference_parts server;
	int fd;
	uint64_t size; /* that the reference says; 0: it says none */
	struct nest_fetch_shared shared;
	struct nest_fetch_part parts[NEST_FETCHER_CONNECTIONS_MAX];
	bool far;		      /* the server isn't next door, or is slow */
	bool settled;		      /* one answer was accepted */
	bool ranges;		      /* and the server has ranges */
	uint64_t frontier;	      /* no part was made for what lies behind it */
	struct nest_fetch_head first; /* what the first answer said, which all must agree with */
	double bytes_per_us;	      /* of one connection, as measured */
	double round_trip_us;
	unsigned redirects;
	uint64_t opened_us;
	uint64_t ended_us; /* 0 until then */
	uint64_t deadline_us;
	bool told_begun;
	bool told_done;
	struct nest_fetch_totals totals;
	struct nest_fetch *prev, *next; /* in the fetcher's list */
};

struct nest_fetcher {
	uv_loop_t *loop;
	struct nest_fetcher_config config; /* the strings are ours */
	struct nest_curl *curl;
	uv_timer_t wake;  /* for the next retry or deadline */
	unsigned handles; /* wake and curl, that are open */
	struct nest_fetch *fetches;
	uint64_t idle_since_us; /* 0 while there are any */
	void (*on_idle)(void *arg);
	void *idle_arg;
	void (*close_cb)(void *arg);
	void *close_arg;
};

/* loader/fetcher.c: something is to be done on the loop's next turn. */
void nest_fetcher_wake(struct nest_fetcher *fetcher);

/* How many connections work for @server now. */
unsigned nest_fetcher_busy(
	const struct nest_fetcher *fetcher, const struct nest_reference_parts *server);

/* loader/fetch.c, for the fetcher: ends one whose time is over. */
void nest_fetch_expire(struct nest_fetch *fetch, uint64_t now_us);

/* Starts one transfer if there is one to be started now, and says whether. */
bool nest_fetch_start_one(struct nest_fetch *fetch, uint64_t now_us);

/* When it wants to be looked at again. */
uint64_t nest_fetch_due_us(const struct nest_fetch *fetch);

/* Calls the events that are due: it may be closed by then. Whether there were any. */
bool nest_fetch_deliver(struct nest_fetch *fetch);

/* Writes what the parts hold to the file. Not from within a callback of libcurl's. */
void nest_fetch_flush(struct nest_fetch *fetch);

/* A transfer of @part, which holds nothing, has ended. Not from within a callback of libcurl's. */
void nest_fetch_finish_part(struct nest_fetch_part *part, CURLcode code);

/* For the parts: bytes came, or the length is known: tells the readers. */
void nest_fetch_publish(struct nest_fetch *fetch);

/* Ends the whole download. Not from within a callback of libcurl's. */
void nest_fetch_fail(struct nest_fetch *fetch, const struct nest_err *err);

/* loader/fetch_part.c: asks the server for what @part misses. -errno: @part->err says why. */
int nest_fetch_part_start(struct nest_fetch_part *part);

/*
 * Since when @part's server could have answered, if that is a measure of how far away it is: 0 while it
 * isn't yet.
 */
uint64_t nest_fetch_part_reached_us(const struct nest_fetch_part *part);

/* Writes what @part holds to the file. -errno: @part->err says why. */
int nest_fetch_part_flush(struct nest_fetch_part *part);

/* Takes the transfer off, finished or not, and forgets what is held. */
void nest_fetch_part_stop(struct nest_fetch_part *part);

/*
 * What an ended transfer means: 0 the range is complete, 1 try again (part->err says why, and
 * *@ret_wait_ms is the server's own wish or 0), 2 ask the url in *@ret_url (owned by the transfer)
 * instead, -errno it never will be: part->err says why.
 */
int nest_fetch_part_judge(
	struct nest_fetch_part *part, CURLcode code, uint64_t *ret_wait_ms, const char **ret_url);

/* loader/fetch_head.c: takes one header line, without its end, into @head. */
void nest_fetch_head_take(struct nest_fetch_head *head, const char *line, size_t n);

/* Whether @now can be another answer for the file that @first was for: 0, or -ESTALE with words. */
int nest_fetch_head_compare(const struct nest_fetch_head *first, const struct nest_fetch_head *now,
	struct nest_err *err);

/* What If-Range may hold: a strong ETag, else Last-Modified, else NULL. */
const char *nest_fetch_head_validator(const struct nest_fetch_head *head);

#endif
