/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "agent/report.h"
#include "agent/window.h"
#include "base/buf.h"
#include "base/clock.h"

/*
 * Knative's metrics.Stat (knative/serving, pkg/autoscaler/metrics/stat.proto), which its autoscaler
 * scrapes from every pod. Seven scalars need no generated code:
 *
 *	1 pod_name string, 2 average_concurrent_requests double,
 *	3 average_proxied_concurrent_requests double, 4 request_count double (a second),
 *	5 proxied_request_count double, 6 process_uptime double (s), 7 timestamp int64
 *
 * A field that is 0 is left out, as proto3 has it: so 3 and 5 always are, since nothing before the
 * host counts its requests too, and 7, which the queue-proxy leaves to who scrapes.
 */
#define POD_NAME_MAX 253

enum wire {
	FIXED64 = 1,
	BYTES = 2
};

struct message {
	unsigned char bytes[POD_NAME_MAX + 64];
	size_t n;
};

static void put_varint(struct message *message, uint64_t value)
{
	do {
		unsigned char low = value & 0x7f;

		value >>= 7;
		message->bytes[message->n++] = value ? low | 0x80 : low;
	} while (value);
}

static void put_tag(struct message *message, unsigned field, enum wire wire)
{
	put_varint(message, field << 3 | wire);
}

static void put_double(struct message *message, unsigned field, double value)
{
	uint64_t bits;

	if (value == 0)
		return;
	put_tag(message, field, FIXED64);
	memcpy(&bits, &value, sizeof(bits));
	for (size_t i = 0; i < sizeof(bits); i++)
		message->bytes[message->n++] = (unsigned char)(bits >> (8 * i));
}

int nest_report_stat(
	const struct nest_report_env *env, struct nest_window *window, struct nest_buf *ret_bytes)
{
	size_t len = strnlen(env->identity->name, POD_NAME_MAX);
	struct message message = { .n = 0 };
	struct nest_window_totals totals;
	struct nest_host_stats stats;
	uint64_t now_us = nest_clock_mono_us();

	nest_host_stats(env->host, &stats);
	nest_window_begin(window, now_us, stats.calls_total, stats.load_us, &totals);
	nest_window_end(window);
	put_tag(&message, 1, BYTES);
	put_varint(&message, len);
	memcpy(message.bytes + message.n, env->identity->name, len);
	message.n += len;
	put_double(&message, 2, (double)totals.concurrency_milli / 1e3);
	put_double(&message, 4, (double)totals.rps_milli / 1e3);
	put_double(&message, 6, (double)(now_us - env->identity->start_us) / 1e6);
	return nest_buf_append(ret_bytes, message.bytes, message.n);
}
