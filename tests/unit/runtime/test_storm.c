/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/runtime/kit.h"
#include "tests/unit/suite.h"

/*
 * Everything at once, from a fixed seed: requests that end in every way there is, callers that go,
 * versions that come and go, fewer cells than functions want. What must hold: every request ends
 * once, and nothing is left when the host is closed (kit_close() and the leak checker see to it).
 */
#define CALLS 24
#define TOTAL 1500
#define FUNCTIONS 3

static const char *const bodies[] = { "echo\nx", "echo\ny", "echo\nz", "hold", "release", "most",
	"source 300000", "source 10", "error", "log text", "half", "last", "exit 1", "raise 11",
	"bad twice", "bad garbage", "bad flood", "random 5", "never", "sink\nabc" };

static struct kit_call calls[CALLS];
static unsigned started, ended;
static int version;

static void deploy_next(void)
{
	char spec[256];

	snprintf(spec, sizeof(spec),
		"{\"name\":\"f%d\",\"version\":\"%d\",\"concurrency\":%d,\"timeoutMs\":150,"
		"\"workers\":{\"min\":%d,\"max\":2,\"idleMs\":20},\"queue\":{\"waitMs\":500}}",
		version % FUNCTIONS, version, 1 + version % 4, version % 2);
	version++;
	kit_deploy(spec);
}

static void change_functions(void)
{
	char name[8];

	snprintf(name, sizeof(name), "f%d", version % FUNCTIONS);
	if (rand() % 3 == 0)
		nest_host_remove(kit_host, name, NULL);
	deploy_next();
}

static void begin(struct kit_call *c)
{
	struct nest_target *target;
	char name[8];

	snprintf(name, sizeof(name), "f%d", rand() % FUNCTIONS);
	target = nest_host_find(kit_host, name, NULL);
	if (!target)
		return;
	c->hold_body = rand() % 8 == 0;
	c->request.want_log_tail = rand() % 4 == 0;
	kit_start(c, target, bodies[(size_t)rand() % (sizeof(bodies) / sizeof(bodies[0]))]);
	started++;
}

static bool step(void *arg)
{
	(void)arg;
	for (int i = 0; i < CALLS; i++) {
		struct kit_call *c = &calls[i];

		if (c->over) {
			ended++;
			kit_free(c);
		}
		if (c->call && rand() % 3000 == 0) {
			nest_call_cancel(c->call);
			ended++;
			kit_free(c);
		}
		if (!c->call && started < TOTAL)
			begin(c);
	}
	return ended == TOTAL || rand() % 300 == 0;
}

START_TEST(a_storm_of_everything_leaves_nothing_behind)
{
	srand(20);
	kit_prepare();
	kit_config.max_cells = 4;
	kit_config.cancel_grace_ms = 50;
	kit_config.ping_interval_ms = 40;
	kit_config.ping_timeout_ms = 40;
	kit_config.drain_grace_ms = 200;
	kit_open();
	for (int i = 0; i < FUNCTIONS; i++)
		deploy_next();
	while (ended < TOTAL) {
		kit_run_while_not(step, NULL, 15000);
		if (ended < TOTAL)
			change_functions();
	}
	kit_close();
}
END_TEST

START_TEST(closing_in_the_middle_of_it_ends_all)
{
	srand(21);
	kit_prepare();
	kit_open();
	for (int i = 0; i < FUNCTIONS; i++)
		deploy_next();
	while (ended < TOTAL / 4)
		kit_run_while_not(step, NULL, 15000);
	kit_close();
	for (int i = 0; i < CALLS; i++) {
		ck_assert(!calls[i].call);
		kit_free(&calls[i]);
	}
}
END_TEST

NEST_SUITE("runtime/storm", a_storm_of_everything_leaves_nothing_behind,
	closing_in_the_middle_of_it_ends_all)
