/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_CREDENTIALS_H
#define NEST_LOADER_CREDENTIALS_H

#include <stdint.h>

struct nest_err;

/* What one server wants to be shown: a bearer token, or a user and a password. */
struct nest_credentials {
	char *token; /* or NULL */
	char *login;
	char *password;
};

/*
 * Looks up @host and @port in the file @path, whose form is netrc's, with "token T" besides "login
 * L password P"; the first machine that matches counts:
 *
 *	machine registry.example.org token eyJhbGciOi...
 *	machine files.example.org:8443 login reader password secret
 *
 * 1: it has nothing for that server. -EPERM when others than its owner may read the file, -EINVAL
 * with the line for what isn't of that form. The caller wipes @ret with nest_credentials_done().
 * Blocks on the disk. Any thread.
 */
int nest_credentials_find(const char *path, const char *host, uint16_t port,
	struct nest_credentials *ret, struct nest_err *err);

/* Wipes and frees what is in @credentials. */
void nest_credentials_done(struct nest_credentials *credentials);

#endif
