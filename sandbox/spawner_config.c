/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "sandbox/spawner_config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/message.h"
#include "sandbox/sandbox.h"

#define STRINGS 5
#define ROOT_PATHS_MAX 1024u

/* What the file begins with. Strings follow, each with its NUL: those that there are, then the root
 * paths. The config's own pointers mean nothing there. */
struct head {
	char version[32];
	uint32_t config_bytes;
	uint32_t message_bytes;
	struct nest_sandbox_config config;
	uint32_t nroot_paths;
	bool has[STRINGS];
};

static void fill_head(struct head *head)
{
	memset(head, 0, sizeof(*head));
	strncpy(head->version, PACKAGE_VERSION, sizeof(head->version) - 1);
	head->config_bytes = sizeof(struct nest_sandbox_config);
	head->message_bytes = sizeof(union nest_message);
}

/* The places of a config's strings. */
static void list_strings(struct nest_sandbox_config *config, const char **ret[STRINGS])
{
	ret[0] = &config->instance;
	ret[1] = &config->state_dir;
	ret[2] = &config->runtimes_dir;
	ret[3] = &config->criu;
	ret[4] = &config->snapshots_secret;
}

static int put(struct nest_buf *buf, const char *text)
{
	return text ? nest_buf_append(buf, text, strlen(text) + 1) : 0;
}

int nest_spawner_config_write(
	const struct nest_sandbox_config *config, int *ret_fd, struct nest_err *err)
{
	__attribute__((cleanup(nest_buf_done))) struct nest_buf strings = NEST_BUF_INIT;
	nest_autoclose int fd = memfd_create("nestlet-spawner", MFD_CLOEXEC);
	const char **places[STRINGS];
	struct head head;
	int r = 0;

	fill_head(&head);
	head.config = *config;
	list_strings(&head.config, places);
	for (size_t i = 0; r == 0 && i < STRINGS; i++) {
		head.has[i] = *places[i] != NULL;
		r = put(&strings, *places[i]);
	}
	for (const char *const *path = config->root_paths; r == 0 && path && *path; path++) {
		head.nroot_paths++;
		r = put(&strings, *path);
	}
	if (r < 0)
		return nest_err_set(err, -ENOMEM, "pass the config on");
	if (fd < 0)
		return nest_err_set(err, -errno, "make a file in memory");
	r = nest_fd_write_all(fd, &head, sizeof(head), err);
	if (r == 0)
		r = nest_fd_write_all(fd, nest_buf_bytes(&strings), strings.len, err);
	if (r == 0)
		*ret_fd = nest_take_fd(fd);
	return r;
}

static int refuse(struct nest_err *err)
{
	return nest_err_say(err, -EINVAL,
		"nestlet-spawner and nestletd are not of one build: install both of one version");
}

/* The next of the strings before @end, or NULL. */
static const char *take(const char **at, const char *end)
{
	const char *text = *at;
	const char *nul = memchr(text, '\0', (size_t)(end - text));

	if (!nul)
		return NULL;
	*at = nul + 1;
	return text;
}

static int read_strings(struct head *head, const char *at, const char *end)
{
	const char **places[STRINGS];
	const char **paths;

	list_strings(&head->config, places);
	for (size_t i = 0; i < STRINGS; i++) {
		*places[i] = NULL;
		if (head->has[i] && !(*places[i] = take(&at, end)))
			return -EINVAL;
	}
	if (head->nroot_paths > ROOT_PATHS_MAX)
		return -EINVAL;
	paths = calloc(head->nroot_paths + 1, sizeof(*paths));
	if (!paths)
		return -ENOMEM;
	head->config.root_paths = paths;
	for (uint32_t i = 0; i < head->nroot_paths; i++)
		if (!(paths[i] = take(&at, end))) {
			free(paths);
			return -EINVAL;
		}
	return 0;
}

static bool is_of_this_build(const struct head *head)
{
	struct head expected;

	fill_head(&expected);
	return memcmp(head->version, expected.version, sizeof(head->version)) == 0 &&
	       head->config_bytes == expected.config_bytes &&
	       head->message_bytes == expected.message_bytes;
}

int nest_spawner_config_read(int fd, struct nest_sandbox_config *ret, struct nest_err *err)
{
	struct head head;
	struct stat st;
	char *bytes;
	int r;

	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(head))
		return refuse(err);
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return nest_err_set(err, -errno, "read the config");
	memcpy(&head, bytes, sizeof(head));
	r = is_of_this_build(&head) ? read_strings(&head, bytes + sizeof(head), bytes + st.st_size)
				    : -EINVAL;
	if (r < 0) {
		munmap(bytes, (size_t)st.st_size);
		return r == -EINVAL ? refuse(err) : nest_err_set(err, r, "read the config");
	}
	*ret = head.config;
	return 0;
}
