/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads one artifact into a cold cache and says how long it took until its directory was ready, how
 * much CPU time of all threads, and how much memory at most:
 *
 *	load_tree CACHE_DIR URL SHA256 SIZE [MOUNTPOINT]
 *
 * SIZE is the artifact's in bytes, or 0 if that isn't to be known.
 * With MOUNTPOINT what can be is kept as an image, and mounted there, which is part of the time, and
 * unmounted before the end; without, all is unpacked.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include <uv.h>

#include "base/err.h"
#include "loader/loader.h"
#include "loader/reference.h"

struct run {
	struct nest_loader *loader;
	const char *mountpoint;
	uint64_t begun_us;
	uint64_t ready_us;
	uint64_t cpu_us; /* until then */
	bool mounted;
	int rc;
};

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

static uint64_t cpu_us(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
}

/* File-backed EROFS mounts want the file by name. */
static int mount_image(const struct nest_tree *tree, const char *mountpoint, struct nest_err *err)
{
	char path[64];
	int fd;
	int rc = nest_tree_open_image(tree, &fd, err);

	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (mount(path, mountpoint, "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		rc = nest_err_set(err, -errno, "mount the image on '%s'", mountpoint);
	close(fd);
	return rc;
}

static void on_load(void *arg, struct nest_tree *tree, const struct nest_err *err)
{
	struct run *run = arg;
	struct nest_err cause = NEST_ERR_INIT;

	if (tree && nest_tree_kind(tree) == NEST_TREE_IMAGE && run->mountpoint) {
		run->rc = mount_image(tree, run->mountpoint, &cause);
		run->mounted = run->rc == 0;
		err = &cause;
	} else if (!tree) {
		run->rc = err->code;
	}
	run->ready_us = now_us();
	run->cpu_us = cpu_us() - run->cpu_us;
	if (run->rc < 0)
		fprintf(stderr, "load_tree: %s\n", nest_err_text(err));
	nest_tree_unref(tree);
	nest_loader_close(run->loader, NULL, NULL);
}

static int load(struct run *run, uv_loop_t *loop, char **argv, struct nest_err *err)
{
	static const char *const anywhere[] = { "*", NULL };
	const struct nest_loader_config config = {
		.dir = argv[1],
		.max_bytes = UINT64_C(8) << 30,
		.max_tree_bytes = UINT64_C(4) << 30,
		.max_tree_entries = 1000000,
		.image_sources = run->mountpoint ? anywhere : NULL,
		.zstd_images = true,
		.fetch = {
			.connections = 24,
			.timeout_ms = 300000,
			.connect_timeout_ms = 5000,
			.stall_ms = 10000,
			.retries = 3,
			.backoff_ms = 100,
			.max_bytes = UINT64_C(4) << 30,
			.ca_file = "",
			.credentials_file = "",
		},
	};
	const struct nest_reference reference = {
		.url = argv[2], .digest = argv[3], .size = strtoull(argv[4], NULL, 10)
	};
	int rc = nest_loader_open(loop, &config, &run->loader, err);

	if (rc < 0)
		return rc;
	run->begun_us = now_us();
	run->cpu_us = cpu_us();
	rc = nest_loader_load(run->loader, &reference, 1, on_load, run, err);
	if (rc < 0)
		nest_loader_close(run->loader, NULL, NULL);
	return rc;
}

/* Not getrusage(2), whose peak is also that of the process that this one was forked from. */
static long peak_kb(void)
{
	char line[256];
	long kb = 0;
	FILE *file = fopen("/proc/self/status", "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, "VmHWM:", 6) == 0)
			kb = strtol(line + 6, NULL, 10);
	if (file)
		fclose(file);
	return kb;
}

int main(int argc, char **argv)
{
	struct run run = { .mountpoint = argc > 5 ? argv[5] : NULL };
	struct nest_err err = NEST_ERR_INIT;
	uv_loop_t loop;
	int rc;

	if (argc < 5) {
		fprintf(stderr, "usage: load_tree CACHE_DIR URL SHA256 SIZE [MOUNTPOINT]\n");
		return 2;
	}
	uv_loop_init(&loop);
	rc = load(&run, &loop, argv, &err);
	if (rc < 0)
		fprintf(stderr, "load_tree: %s\n", nest_err_text(&err));
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	if (run.mounted && umount2(run.mountpoint, MNT_DETACH) < 0)
		perror("load_tree: unmount");
	printf("{\"ms\":%.3f,\"cpu_ms\":%.3f,\"memory_kb\":%ld}\n",
		(double)(run.ready_us - run.begun_us) / 1000, (double)run.cpu_us / 1000, peak_kb());
	return rc < 0 || run.rc < 0 ? 1 : 0;
}
