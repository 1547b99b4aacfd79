/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/services.h"

#include <stdarg.h>
#include <stdio.h>

void nest_services_hold(struct nest_services *services)
{
	services->handles++;
}

void nest_services_release(struct nest_services *services)
{
	if (--services->handles == 0 && services->closing && services->on_closed)
		services->on_closed(services->on_closed_arg);
}

/*
 * An open call adds now - start, whatever now is: so its start is taken off once, its end added
 * once, and only who asks multiplies. Differences that wrap around come out right.
 */
void nest_services_call_opened(struct nest_services *services, uint64_t now_us)
{
	services->calls++;
	services->load_us -= now_us;
}

uint64_t nest_services_load_us(const struct nest_services *services, uint64_t now_us)
{
	return services->load_us + services->calls * now_us;
}

void nest_services_call_closed(struct nest_services *services, uint64_t now_us)
{
	services->calls_total++;
	services->load_us += now_us;
	if (--services->calls == 0 && services->draining && services->on_idle)
		services->on_idle(services->on_idle_arg);
}

void nest_services_stir(struct nest_services *services)
{
	void (*on_stir)(void *arg) = services->on_stir;

	services->on_stir = NULL;
	if (on_stir)
		on_stir(services->on_stir_arg);
}

void nest_services_event(
	struct nest_services *services, enum nest_log_level level, const char *fmt, ...)
{
	char text[768];
	va_list ap;

	if (!services->config->on_event)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	services->config->on_event(services->config->event_arg, level, text);
}
