/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker for the tests, which does to the host what it is told: FAKE_START in its environment
 * chooses how it starts, the first line of a request's body what it does with the request.
 *
 *   echo\n...        answers with the rest of the body
 *   hold             answers "held" when "release" comes, or ERROR on CANCEL
 *   never            answers never, whatever is sent
 *   release          answers all that is held, then "released"
 *   most             answers the greatest number of requests that it ever had open at once
 *   sink\n...        takes the body, giving credit; answers with its length at the end
 *   stingy\n...      takes the body but gives no credit until "release"; then as sink
 *   first\n...       answers how many more bytes came with the request, and whether that was all
 *   source N         answers N bytes, within its credit
 *   error            answers ERROR
 *   env NAME         answers the variable
 *   log TEXT         sends TEXT as LOG, writes it to stdout, then answers
 *   half             begins a response, then exits with code 7
 *   exit N, raise N, hog, block
 *   bad WHAT         breaks the protocol
 *   random N         sends many frames that look likely, from seed N
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/worker.h"

#define MAX_STREAMS 4096
#define CREDIT 262144u

struct stream {
	uint32_t id;
	bool http;
	bool held;
	bool deaf; /* never */
	bool sink;
	bool stingy;
	bool body_done;
	bool heading; /* its response has begun */
	uint64_t source;
	bool sourcing;
	uint64_t taken;
	uint64_t owed; /* credit not given back yet */
	uint32_t credit;
};

static struct stream streams[MAX_STREAMS];
static unsigned nstreams, most;
static bool draining;

static void put(const void *bytes, size_t n)
{
	const char *p = bytes;

	while (n > 0) {
		ssize_t done = write(WORKER_CHANNEL, p, n);

		if (done < 0)
			_exit(90);
		p += done;
		n -= (size_t)done;
	}
}

static void raw(uint32_t length, unsigned type, unsigned flags, uint32_t id)
{
	char h[WORKER_HEAD];

	worker_put_head(h, length, (unsigned char)type, (unsigned char)flags, id);
	put(h, sizeof(h));
}

static void frame(unsigned type, bool fin, uint32_t id, const void *bytes, uint32_t n)
{
	raw(n, type, fin, id);
	put(bytes, n);
}

static void respond(struct stream *s, const char *body, uint32_t n, bool fin)
{
	char head[8] = { 0 };
	uint16_t status = s->http ? 200 : 0;

	memcpy(head, &status, 2);
	raw((uint32_t)sizeof(head) + n, WORKER_RESPONSE, fin, s->id);
	put(head, sizeof(head));
	put(body, n);
}

static struct stream *find(uint32_t id)
{
	for (unsigned i = 0; i < nstreams; i++) {
		if (streams[i].id == id)
			return &streams[i];
	}
	return NULL;
}

static void drop(struct stream *s)
{
	*s = streams[--nstreams];
	if (draining && nstreams == 0)
		_exit(0);
}

static void answer(struct stream *s, const char *text)
{
	respond(s, text, (uint32_t)strlen(text), true);
	drop(s);
}

static void pour(struct stream *s)
{
	static char block[65536];

	if (!s->heading) {
		respond(s, "", 0, false);
		s->heading = true;
	}
	while (s->source > 0 && s->credit > 0) {
		uint32_t n = sizeof(block);

		if (n > s->source)
			n = (uint32_t)s->source;
		if (n > s->credit)
			n = s->credit;
		memset(block, 'a', n);
		s->source -= n;
		s->credit -= n;
		frame(WORKER_BODY, s->source == 0, s->id, block, n);
	}
	if (s->source == 0)
		drop(s);
}

static void give_back(struct stream *s)
{
	uint32_t n = (uint32_t)s->owed;

	if (n > 0)
		frame(WORKER_MORE, false, s->id, &n, 4);
	s->owed = 0;
}

static void drink(struct stream *s, uint32_t n, bool fin)
{
	char text[32];

	s->taken += n;
	s->owed += n;
	if (fin) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)s->taken);
		answer(s, text);
	} else if (!s->stingy && s->owed >= 65536) {
		give_back(s);
	}
}

static void release_all(void)
{
	for (unsigned i = nstreams; i-- > 0;) {
		if (streams[i].stingy) {
			streams[i].stingy = false;
			give_back(&streams[i]);
		} else if (streams[i].held) {
			answer(&streams[i], "held");
		}
	}
}

static void break_protocol(struct stream *s, const char *how)
{
	static char big[65536];
	char head[24] = { 0 };
	uint32_t n;

	if (strcmp(how, "type") == 0)
		raw(0, 77, 0, s->id);
	else if (strcmp(how, "length") == 0)
		raw(0x7fffffff, WORKER_BODY, 0, s->id);
	else if (strcmp(how, "flags") == 0)
		raw(0, WORKER_BODY, 0x80, s->id);
	else if (strcmp(how, "stream") == 0)
		frame(WORKER_ERROR, true, s->id + 100000, "{}", 2);
	else if (strcmp(how, "twice") == 0)
		respond(s, "", 0, false), respond(s, "", 0, false);
	else if (strcmp(how, "status") == 0)
		s->http = !s->http, respond(s, "", 0, true);
	else if (strcmp(how, "body-first") == 0)
		frame(WORKER_BODY, true, s->id, "x", 1);
	else if (strcmp(how, "ready") == 0)
		frame(WORKER_READY, false, 0, "{}", 2);
	else if (strcmp(how, "credit") == 0)
		n = 1000000, frame(WORKER_MORE, false, s->id, &n, 4);
	else if (strcmp(how, "flood") == 0) {
		respond(s, "", 0, false);
		for (int i = 0; i < 5; i++)
			frame(WORKER_BODY, false, s->id, big, sizeof(big));
	} else if (strcmp(how, "header") == 0) {
		/* one field: "a" with the value "\r\n" */
		memcpy(head,
			(char[]){
				0, 0, 1, 0, 11, 0, 0, 0, 6, 0, 1, 0, 2, 0, 0, 0, 'a', '\r', '\n' },
			19);
		if (s->http)
			head[0] = (char)200;
		frame(WORKER_RESPONSE, true, s->id, head, 19);
	} else if (strcmp(how, "garbage") == 0) {
		memset(big, 0xa5, sizeof(big));
		put(big, 1000);
	}
}

/* Likely types, streams and lengths, so that it gets past the first checks. */
static void send_random(unsigned seed)
{
	static const unsigned char types[] = { WORKER_RESPONSE, WORKER_BODY, WORKER_ERROR,
		WORKER_MORE, WORKER_LOG, WORKER_PONG };
	char bytes[64];

	srand(seed);
	for (int i = 0; i < 400; i++) {
		unsigned type = types[(unsigned)rand() % sizeof(types)];
		uint32_t n = (uint32_t)rand() % sizeof(bytes);

		memset(bytes, 0, sizeof(bytes));
		for (int k = rand() % 8; k > 0; k--)
			bytes[rand() % (int)sizeof(bytes)] = (char)rand();
		if (type == WORKER_MORE)
			n = 4;
		else if (type == WORKER_PONG)
			n = 8;
		else if (type == WORKER_LOG)
			bytes[0] = (char)(1 + rand() % 2), bytes[1] = 0, bytes[2] = bytes[3] = 0,
			n += 4;
		frame(type,
			rand() % 4 == 0 && (type == WORKER_RESPONSE || type == WORKER_BODY ||
						   type == WORKER_ERROR),
			type == WORKER_PONG ? 0 : 1 + (uint32_t)rand() % 12, bytes,
			n % sizeof(bytes));
	}
	_exit(0);
}

static void log_text(struct stream *s, const char *text)
{
	char bytes[256] = { 1, 3, 0, 0 };
	size_t n = strlen(text);

	memcpy(bytes + 4, text, n < 250 ? n : 250);
	frame(WORKER_LOG, false, s->id, bytes, (uint32_t)(4 + (n < 250 ? n : 250)));
	if (write(1, text, n) < 0 || write(1, "\n", 1) < 0)
		_exit(91);
}

static void hog(void)
{
	for (;;) {
		char *p = malloc(1 << 20);

		if (p)
			memset(p, 1, 1 << 20);
	}
}

static void act(struct stream *s, char *word, const char *rest, uint32_t n)
{
	char *arg = strchr(word, ' ');
	char text[64];

	if (arg)
		*arg++ = '\0';
	else
		arg = word + strlen(word);
	if (strcmp(word, "echo") == 0) {
		respond(s, rest, n, true);
		drop(s);
	} else if (strcmp(word, "hold") == 0) {
		s->held = true;
	} else if (strcmp(word, "never") == 0) {
		s->deaf = true;
	} else if (strcmp(word, "release") == 0) {
		uint32_t id = s->id;

		release_all();
		answer(find(id), "released");
	} else if (strcmp(word, "most") == 0) {
		snprintf(text, sizeof(text), "%u", most);
		answer(s, text);
	} else if (strcmp(word, "sink") == 0 || strcmp(word, "stingy") == 0) {
		s->sink = true;
		s->stingy = word[1] == 't';
		drink(s, n, s->body_done);
	} else if (strcmp(word, "first") == 0) {
		snprintf(text, sizeof(text), "%u%s", n, s->body_done ? "" : " of more");
		answer(s, text);
	} else if (strcmp(word, "source") == 0) {
		s->sourcing = true;
		s->source = strtoull(arg, NULL, 10);
		pour(s);
	} else if (strcmp(word, "error") == 0) {
		static const char error[] = "{\"errorType\":\"Oops\",\"errorMessage\":\"no\"}";

		frame(WORKER_ERROR, true, s->id, error, sizeof(error) - 1);
		drop(s);
	} else if (strcmp(word, "env") == 0) {
		answer(s, getenv(arg) ? getenv(arg) : "");
	} else if (strcmp(word, "log") == 0) {
		log_text(s, arg);
		answer(s, "logged");
	} else if (strcmp(word, "half") == 0) {
		respond(s, "half", 4, false);
		_exit(7);
	} else if (strcmp(word, "last") == 0) {
		respond(s, "last words", 10, true);
		_exit(0);
	} else if (strcmp(word, "exit") == 0) {
		_exit(atoi(arg));
	} else if (strcmp(word, "raise") == 0) {
		signal(atoi(arg), SIG_DFL);
		abort();
	} else if (strcmp(word, "hog") == 0) {
		hog();
	} else if (strcmp(word, "block") == 0) {
		for (;;)
			pause();
	} else if (strcmp(word, "bad") == 0) {
		break_protocol(s, arg);
	} else if (strcmp(word, "random") == 0) {
		send_random((unsigned)atoi(arg));
	}
}

static void on_request(uint32_t id, bool fin, char *payload, uint32_t n)
{
	struct stream *s = &streams[nstreams++];
	uint32_t fields, word = 0;
	char line[256] = { 0 };
	char *body;

	memcpy(&fields, payload + 4, 4);
	body = payload + 16 + fields;
	n -= 16 + fields;
	*s = (struct stream){
		.id = id, .http = payload[0] == 2, .body_done = fin, .credit = CREDIT
	};
	if (nstreams > most)
		most = nstreams;
	while (word < n && word < sizeof(line) - 1 && body[word] != '\n')
		word++;
	memcpy(line, body, word);
	if (word < n)
		word++; /* the newline */
	s->owed = word;
	act(s, line, body + word, n - word);
}

static void on_cancel(struct stream *s)
{
	static const char error[] = "{\"errorType\":\"Function.Cancelled\",\"errorMessage\":\"\"}";

	if (s->deaf)
		return;
	frame(WORKER_ERROR, true, s->id, error, sizeof(error) - 1);
	drop(s);
}

static void on_frame(unsigned type, bool fin, uint32_t id, char *payload, uint32_t n)
{
	struct stream *s = find(id);
	uint32_t more;

	switch (type) {
	case WORKER_REQUEST:
		on_request(id, fin, payload, n);
		break;
	case WORKER_BODY:
		if (s && s->sink)
			drink(s, n, fin);
		break;
	case WORKER_MORE:
		memcpy(&more, payload, 4);
		if (s && s->sourcing) {
			s->credit += more;
			pour(s);
		}
		break;
	case WORKER_CANCEL:
		if (s)
			on_cancel(s);
		break;
	case WORKER_PING:
		frame(WORKER_PONG, false, 0, payload, n);
		break;
	case WORKER_DRAIN:
		draining = true;
		if (nstreams == 0)
			_exit(0);
		break;
	}
}

static void take(void *bytes, size_t n)
{
	char *p = bytes;

	while (n > 0) {
		ssize_t done = read(WORKER_CHANNEL, p, n);

		if (done <= 0)
			_exit(0);
		p += done;
		n -= (size_t)done;
	}
}

static void start(const char *how)
{
	static const char hello[] =
		"{\"protocol\":1,\"runtime\":\"fake\",\"runtimeVersion\":\"1\"}";
	static const char error[] = "{\"errorType\":\"Syntax\",\"errorMessage\":\"line 1\"}";

	if (strcmp(how, "exit") == 0)
		_exit(3);
	if (strcmp(how, "hang") == 0)
		for (;;)
			pause();
	if (strcmp(how, "garbage") == 0)
		put("GET / HTTP/1.1\r\n\r\n", 18);
	if (strcmp(how, "early") == 0)
		frame(WORKER_READY, false, 0, "{}", 2);
	frame(WORKER_HELLO, false, 0, hello, sizeof(hello) - 1);
	if (strcmp(how, "error") == 0) {
		frame(WORKER_ERROR, true, 0, error, sizeof(error) - 1);
		_exit(1);
	}
	frame(WORKER_READY, false, 0, "{\"initMs\":1}", 12);
	if (strcmp(how, "quit") == 0)
		_exit(0);
	/* Reads nothing: what is sent to it stays in the socket, then in the host. */
	if (strcmp(how, "deaf") == 0)
		for (;;)
			pause();
}

int main(void)
{
	static char payload[1 << 20];
	const char *how = getenv("FAKE_START");

	start(how ? how : "");
	for (;;) {
		uint32_t n, id;
		char h[12];

		take(h, sizeof(h));
		memcpy(&n, h, 4);
		memcpy(&id, h + 8, 4);
		if (n > sizeof(payload))
			_exit(92);
		take(payload, n);
		on_frame((unsigned char)h[4], h[5] & WORKER_FIN, id, payload, n);
	}
}
