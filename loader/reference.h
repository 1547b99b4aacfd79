/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_REFERENCE_H
#define NEST_LOADER_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nest_err;

/* Where code is, and what it must be. The strings are borrowed. */
enum nest_reference_format {
	NEST_REFERENCE_AUTO, /* what the content says it is */
	NEST_REFERENCE_TAR,
	NEST_REFERENCE_TAR_GZ,
	NEST_REFERENCE_TAR_ZST,
	NEST_REFERENCE_TAR_LZ4,
	NEST_REFERENCE_ZIP,
	NEST_REFERENCE_EROFS,
};

struct nest_reference {
	const char *url;    /* https://, http://, file:// or an absolute path; NULL: in the cache */
	const char *digest; /* "sha256:" and 64 hex digits of the artifact; or NULL */
	uint64_t size;	    /* the artifact's bytes; 0: not known */
	enum nest_reference_format format;
	bool sealed; /* what is in it is proved otherwise, before it is used: it needs no digest */
};

enum nest_reference_kind {
	NEST_REFERENCE_PATH,
	NEST_REFERENCE_HTTP,
	NEST_REFERENCE_HTTPS,
};

#define NEST_REFERENCE_PATH_CAP 4096
#define NEST_REFERENCE_HOST_CAP 256

/* A reference's url taken apart. */
struct nest_reference_parts {
	enum nest_reference_kind kind;
	uint16_t port;			    /* 0 for a path */
	char host[NEST_REFERENCE_HOST_CAP]; /* lower case, an IPv6 address without its brackets */
	char path[NEST_REFERENCE_PATH_CAP]; /* of a local file, decoded; "" for http */
};

/*
 * Takes @url apart: -EINVAL, with words, for what is none of the four forms, holds a control
 * character, a space, a user or a fragment, or names no host. Any thread.
 */
int nest_reference_parse(
	const char *url, struct nest_reference_parts *ret_parts, struct nest_err *err);

/* How many bytes of @url may be shown: a query may be a secret, and isn't. Any thread. */
size_t nest_reference_shown(const char *url);

/* Whether a transfer from @parts stays on this machine's own addresses. Any thread. */
bool nest_reference_is_loopback(const struct nest_reference_parts *parts);

/* The words of a spec for the formats, in their order: "auto|tar|...". */
#define NEST_REFERENCE_FORMATS "auto|tar|tar.gz|tar.zst|tar.lz4|zip|erofs"

#define NEST_REFERENCE_LOOK 1028 /* so many first bytes tell every format */

/*
 * Whether an artifact that begins with @n bytes (all, or NEST_REFERENCE_LOOK at least) is of
 * @format: 0, or -EBADMSG with the two names. Any thread.
 */
int nest_reference_check_format(
	enum nest_reference_format format, const void *bytes, size_t n, struct nest_err *err);

#endif
