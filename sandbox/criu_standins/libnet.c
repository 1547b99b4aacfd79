/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stands in for libnet, by which CRIU sends the packet that half closes a TCP connection again.
 * Nestlet always has CRIU close connections, so that it restores none. Were that not so, the first
 * call would be the one for a context, which fails, and CRIU says so with the text below.
 */
#define ERRBUF_SIZE 0x100 /* LIBNET_ERRBUF_SIZE */

/* What would follow, in the one type for all, for aliases share it. */
#define REFUSES(name) long name(void) __attribute__((alias("refuse")))

void *libnet_init(int type, const char *device, char *ret_error);
const char *libnet_geterror(void *context);
void libnet_destroy(void *context);
long refuse(void);

static const char why[ERRBUF_SIZE] =
	"this CRIU was started without libnet, by Nestlet's stand-in for it";

void *libnet_init(int type, const char *device, char *ret_error)
{
	(void)type;
	(void)device;
	for (int i = 0; i < ERRBUF_SIZE; i++)
		ret_error[i] = why[i];
	return 0;
}

const char *libnet_geterror(void *context)
{
	(void)context;
	return why;
}

void libnet_destroy(void *context)
{
	(void)context;
}

long refuse(void)
{
	return -1;
}

REFUSES(libnet_build_ipv4);
REFUSES(libnet_build_ipv6);
REFUSES(libnet_build_tcp);
REFUSES(libnet_write);
