/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounting an image means that the kernel's EROFS driver reads what a tenant wrote, page by page, for
 * as long as the mount lasts. What stands between:
 *
 *  - It happens only on hosts whose config names sources of images; the spawner was told before the
 *    agent gave up its privilege, and refuses otherwise whatever the agent says.
 *  - The bytes can't change under the driver. The agent made the file, so the spawner makes it root's,
 *    and has the kernel tell of anybody who could write to it; where it can't, it mounts a nameless copy
 *    (shared blocks where the file system can). What fs-verity has made immutable is mounted as it is.
 *  - The superblock is checked in that copy: known features, one device, LZ4 or zstd.
 *  - The mount is read-only, without devices and set-uid programs, and lives in a mount namespace
 *    where no process runs: cells get detached clones, each of its own function's image only. All
 *    of it goes with the spawner.
 *
 * Copying and mounting wait for the disk, so a child does both, and the spawner goes on serving:
 *
 *	MOUNT --fork--> child: freeze, check, mount, attach --pipe--> MOUNTED
 */
#include "sandbox/spawner_image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utlist.h>

#include "base/cleanup.h"
#include "base/erofs.h"
#include "base/err.h"
#include "base/fd.h"
#include "sandbox/mount.h"
#include "sandbox/spawner.h"
#include "sandbox/spawner_cell.h"

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define IMAGES_MAX 1024u
#define LOOP_TRIES 64 /* another process may take the free device first */
#define MOUNT_ROOT "/tmp"

struct nest_spawner_image {
	uint64_t id;
	dev_t dev; /* of the agent's file, by which a START names the image */
	ino_t ino;
	int file;   /* the agent's: while it is open nothing else has this number */
	int own;    /* the same, opened once more, so that the agent has no part in its lease */
	int result; /* pipe from the child; -1: it has ended */
	pid_t child;
	bool mounted;
	struct nest_spawner_image *prev, *next;
};

/* ---- in the child ---- */

static bool is_sealed(int file)
{
	struct statx stx;

	return statx(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx) == 0 &&
	       (stx.stx_attributes & STATX_ATTR_VERITY);
}

/*
 * Makes @file one that nobody but root could open for writing, if it is the agent's, and says whether
 * nobody has: the kernel grants a read lease only then. The lease stays as long as the file is open.
 * An open(2) that was past the check of permissions when the file became root's waits until the lease
 * is broken, 45 s by default (fs.lease-break-time), and @watcher is told before. (Without a lease that
 * stays, one in 10,000 of such a race's rounds gave a descriptor that could write.)
 */
static bool take_over(int file, const struct stat *st, uid_t agent, pid_t watcher)
{
	bool roots = st->st_uid == 0 && !(st->st_mode & 0222);

	/* root as an agent could open it again */
	if (watcher == 0 || agent == 0 || (!roots && st->st_uid != agent))
		return false;
	if (!roots && (fchown(file, 0, 0) < 0 || fchmod(file, 0444) < 0))
		return false;
	return fcntl(file, F_SETOWN, watcher) == 0 &&
	       fcntl(file, F_SETSIG, NEST_SPAWNER_ENDING) == 0 &&
	       fcntl(file, F_SETLEASE, F_RDLCK) == 0;
}

/* Whether nothing in @file can change any more. */
static bool is_frozen(int dir, int file, const struct stat *st, uid_t agent, pid_t watcher)
{
	struct stat dir_st;

	/* on a file system of the agent's making none of this would mean anything */
	return fstat(dir, &dir_st) == 0 && dir_st.st_dev == st->st_dev &&
	       (is_sealed(file) || take_over(file, st, agent, watcher));
}

static int copy_bytes(int from, int to, uint64_t bytes, struct nest_err *err)
{
	loff_t offset = 0;

	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	while ((uint64_t)offset < bytes) {
		loff_t out = offset;
		ssize_t n = copy_file_range(from, &offset, to, &out, bytes - (uint64_t)offset, 0);

		if (n < 0 && errno == EINTR)
			continue;
		/* from a file system of another kind, or on one that can't */
		if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == EINVAL) &&
			lseek(to, offset, SEEK_SET) == offset)
			n = sendfile(to, from, &offset, bytes - (uint64_t)offset);
		if (n <= 0)
			return nest_err_set(err, n < 0 ? -errno : -EIO, "copy the image");
	}
	return 0;
}

/* Opens what @fd is, for reading only. */
static int reopen(int fd, int *ret, struct nest_err *err)
{
	char path[32];
	int again;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDONLY | O_CLOEXEC);
	if (again < 0)
		return nest_err_set(err, -errno, "open the copy of the image");
	*ret = again;
	return 0;
}

/*
 * Safe because the copy has no name, can't be given one (O_EXCL), and belongs to root: nobody but
 * this process can open it, and after the reopening no descriptor is left that could write.
 */
int nest_spawner_image_freeze(
	int dir, uid_t agent, int file, pid_t watcher, int *ret, struct nest_err *err)
{
	nest_autoclose int copy = -1;
	struct stat st;
	int fd;
	int r;

	if (fstat(file, &st) < 0)
		return nest_err_set(err, -errno, "look at the image");
	if (is_frozen(dir, file, &st, agent, watcher)) {
		fd = fcntl(file, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			return nest_err_set(err, -errno, "keep the image");
		*ret = fd;
		return 0;
	}
	copy = openat(dir, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0400);
	if (copy < 0)
		return nest_err_set(err, -errno, "make a copy of the image");
	r = copy_bytes(file, copy, (uint64_t)st.st_size, err);
	return r < 0 ? r : reopen(copy, ret, err);
}

/* A read-only loop device of @file, which goes with its last user. */
static int open_loop(int file, char ret_path[32], int *ret, struct nest_err *err)
{
	nest_autoclose int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	const struct loop_config config = {
		.fd = (uint32_t)file,
		.block_size = NEST_EROFS_BLOCK,
		.info.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
	};

	if (control < 0)
		return nest_err_set(err, -errno, "open '/dev/loop-control'");
	for (int i = 0; i < LOOP_TRIES; i++) {
		nest_autoclose int device = -1;
		int number = ioctl(control, LOOP_CTL_GET_FREE);

		if (number < 0)
			return nest_err_set(err, -errno, "find a free loop device");
		snprintf(ret_path, 32, "/dev/loop%d", number);
		device = open(ret_path, O_RDONLY | O_CLOEXEC);
		if (device < 0)
			return nest_err_set(err, -errno, "open '%s'", ret_path);
		if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
			*ret = nest_take_fd(device);
			return 0;
		}
		if (errno != EBUSY)
			return nest_err_set(err, -errno, "set up '%s'", ret_path);
	}
	return nest_err_say(err, -EBUSY, "set up a loop device: others take each one first");
}

int nest_spawner_image_mount_file(int file, bool by_loop, int *ret_mount, struct nest_err *err)
{
	nest_autoclose int context = fsopen("erofs", FSOPEN_CLOEXEC);
	nest_autoclose int device = -1; /* held until the mount holds it */
	char source[32];
	int fd;
	int r = 0;

	if (context < 0)
		return nest_err_set(err, -errno, "open file system 'erofs'");
	snprintf(source, sizeof(source), "/proc/self/fd/%d", file);
	if (by_loop)
		r = open_loop(file, source, &device, err);
	if (r < 0)
		return r;
	if (fsconfig(context, FSCONFIG_SET_FLAG, "ro", NULL, 0) < 0 ||
		fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0 ||
		fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return nest_err_set(err, -errno, "read the image as EROFS");
	fd = fsmount(context, FSMOUNT_CLOEXEC, READ_ONLY);
	if (fd < 0)
		return nest_err_set(err, -errno, "mount the image");
	*ret_mount = fd;
	return 0;
}

static int mount_either_way(int file, int *ret_mount, struct nest_err *err)
{
	int r = nest_spawner_image_mount_file(file, false, ret_mount, err);

	/* before Linux 6.12, or on a file system that the kernel can't mount files of, as tmpfs */
	if (r == -ENOTBLK || r == -EINVAL)
		r = nest_spawner_image_mount_file(file, true, ret_mount, err);
	return r;
}

/* An image of one empty directory, as fs/erofs/erofs_fs.h of Linux lays it out. */
static int write_empty(int fd, unsigned algorithms, struct nest_err *err)
{
	enum {
		ROOT = 40,
		ROOT_AT = ROOT * 32
	};
	static const struct {
		unsigned at;
		unsigned char bytes[4];
	} fields[] = {
		{ NEST_EROFS_OFFSET, { 0xe2, 0xe1, 0xf5, 0xe0 } },
		{ NEST_EROFS_OFFSET + 12, { 12, 0, ROOT } }, /* bits of a block's size, top inode */
		{ NEST_EROFS_OFFSET + 16, { 1 } },	     /* inodes */
		{ NEST_EROFS_OFFSET + 36, { 1 } },	     /* blocks */
		{ NEST_EROFS_OFFSET + 80, { 3 } },	     /* compression, with settings */
		{ ROOT_AT, { 4 } },			     /* a short inode, data behind it */
		{ ROOT_AT + 4, { 0xed, 0x41, 2 } },	     /* mode, links */
		{ ROOT_AT + 8, { 27 } },		     /* size */
		{ ROOT_AT + 20, { 1 } },		     /* inode number */
		{ ROOT_AT + 32, { ROOT } },		     /* "." is it */
		{ ROOT_AT + 40, { 24, 0, 2 } },
		{ ROOT_AT + 44, { ROOT } }, /* and ".." */
		{ ROOT_AT + 52, { 25, 0, 2 } },
		{ ROOT_AT + 56, { '.', '.', '.' } },
	};
	/* each algorithm's begin with their length; no distance, and a window of a megabyte */
	static const unsigned char lz4[] = { 14, 0 };
	static const unsigned char zstd[] = { 6, 0, 0, 10 };
	unsigned char image[NEST_EROFS_BLOCK] = { 0 };
	unsigned char *settings = image + NEST_EROFS_OFFSET + NEST_EROFS_BYTES;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(fields); i++)
		memcpy(image + fields[i].at, fields[i].bytes, sizeof(fields[i].bytes));
	image[NEST_EROFS_OFFSET + 84] = (unsigned char)algorithms;
	if (algorithms & NEST_EROFS_LZ4)
		memcpy(settings, lz4, sizeof(lz4));
	else
		memcpy(settings, zstd, sizeof(zstd));
	return nest_fd_write_all(fd, image, sizeof(image), err);
}

int nest_spawner_image_try(int dir, unsigned algorithms, struct nest_err *err)
{
	nest_autoclose int made = openat(dir, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0400);
	nest_autoclose int file = -1;
	nest_autoclose int mount = -1;
	int r = made < 0 ? nest_err_set(err, -errno, "make an image")
			 : write_empty(made, algorithms, err);

	if (r == 0)
		r = reopen(made, &file, err);
	return r < 0 ? r : mount_either_way(file, &mount, err);
}

static void mount_point(uint64_t id, char ret[32])
{
	snprintf(ret, 32, MOUNT_ROOT "/%llu", (unsigned long long)id);
}

static int attach(
	const struct nest_spawner_images *images, uint64_t id, int mount, struct nest_err *err)
{
	char path[32];

	mount_point(id, path);
	if (setns(images->mounts, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the images' mount namespace");
	if (mkdir(path, 0700) < 0)
		return nest_err_set(err, -errno, "make mount point '%s'", path);
	return nest_mount_attach(mount, AT_FDCWD, path, err);
}

static int mount_image(const struct nest_spawner *spawner, uint64_t id, int file, pid_t parent,
	struct nest_err *err)
{
	nest_autoclose int frozen = -1;
	nest_autoclose int mount = -1;
	uint64_t bytes;
	int r;

	/* what follows names things of the host: /proc and /dev */
	if (setns(spawner->rootfs.host_mounts, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the host's mount namespace");
	r = nest_spawner_image_freeze(
		spawner->images.dir, spawner->agent_uid, file, parent, &frozen, err);
	if (r == 0)
		r = nest_erofs_check_file(frozen, NEST_EROFS_LZ4 | NEST_EROFS_ZSTD, &bytes, err);
	if (r == 1)
		r = nest_err_say(err, -EINVAL, "it is no EROFS image");
	if (r < 0)
		return r;
	r = mount_either_way(frozen, &mount, err);
	return r < 0 ? r : attach(&spawner->images, id, mount, err);
}

/* Safe: it is this very program, with the spawner's privilege, and runs nothing of anybody's. */
static _Noreturn void run_child(
	const struct nest_spawner *spawner, uint64_t id, int file, int out, pid_t parent)
{
	int keep[] = { file, out, spawner->images.dir, spawner->images.mounts,
		spawner->rootfs.host_mounts };
	struct nest_err err = NEST_ERR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);
	/* cells must not be kept by it */
	nest_fd_close_but(keep, NEST_ARRAY_SIZE(keep));
	mount_image(spawner, id, file, parent, &err);
	_exit(nest_fd_write_all(out, &err, sizeof(err), NULL) < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* ---- in the spawner ---- */

int nest_spawner_image_open_dir(
	struct nest_spawner_images *images, const char *state_dir, struct nest_err *err)
{
	images->dir = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return images->dir < 0 ? nest_err_set(err, -errno, "open '%s'", state_dir) : 0;
}

static int fill_namespace(struct nest_err *err)
{
	nest_autoclose int room = -1;
	int r = nest_mount_new_tmpfs(IMAGES_MAX * 1024, IMAGES_MAX * 2, 0700,
		MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, &room, err);

	return r < 0 ? r : nest_mount_attach(room, AT_FDCWD, MOUNT_ROOT, err);
}

static int return_to(int own_mounts, int r, struct nest_err *err)
{
	/* in another namespace no cell may be born */
	if (setns(own_mounts, CLONE_NEWNS) < 0)
		return nest_err_set(
			err, -ENOTRECOVERABLE, "return from the images' mount namespace");
	return r;
}

int nest_spawner_image_enable(
	struct nest_spawner_images *images, int proc, int own_mounts, struct nest_err *err)
{
	int r;

	if (unshare(CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "make a mount namespace for images");
	images->mounts = openat(proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
	r = images->mounts < 0 ? nest_err_set(err, -errno, "open '/proc/self/ns/mnt'")
			       : fill_namespace(err);
	images->enabled = r == 0;
	return return_to(own_mounts, r, err);
}

static struct nest_spawner_image *find_id(const struct nest_spawner *spawner, uint64_t id)
{
	struct nest_spawner_image *image;

	DL_FOREACH(spawner->images.list, image)
		if (image->id == id)
			return image;
	return NULL;
}

static struct nest_spawner_image *find_file(const struct nest_spawner *spawner, int file)
{
	struct nest_spawner_image *image;
	struct stat st;

	if (fstat(file, &st) < 0 || !S_ISREG(st.st_mode))
		return NULL;
	DL_FOREACH(spawner->images.list, image)
		if (image->mounted && image->dev == st.st_dev && image->ino == st.st_ino)
			return image;
	return NULL;
}

bool nest_spawner_image_is_mounted(const struct nest_spawner *spawner, int file)
{
	return find_file(spawner, file) != NULL;
}

static void tell(struct nest_spawner *spawner, uint64_t id, const struct nest_err *err)
{
	struct nest_message_failed mounted = { .err = *err };

	nest_message_begin(&mounted.head, NEST_MESSAGE_MOUNTED, sizeof(mounted), id);
	nest_message_send(spawner->agent, &mounted);
}

static void close_files(struct nest_spawner_image *image)
{
	nest_cleanup_close(&image->file);
	nest_cleanup_close(&image->own);
}

/* Keeps the agent's @file, and opens it for ourselves. */
static int keep_file(const struct nest_spawner *spawner, struct nest_spawner_image *image, int file,
	struct nest_err *err)
{
	char name[32];

	image->own = -1;
	image->file = fcntl(file, F_DUPFD_CLOEXEC, 0);
	if (image->file < 0)
		return nest_err_set(err, -errno, "keep the image");
	snprintf(name, sizeof(name), "self/fd/%d", image->file);
	image->own = openat(spawner->proc, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return image->own < 0 ? nest_err_set(err, -errno, "open the image") : 0;
}

/* Forgets @image, whose child has ended and whose mount is gone. */
static void forget(struct nest_spawner *spawner, struct nest_spawner_image *image)
{
	DL_DELETE(spawner->images.list, image);
	spawner->images.count--;
	close_files(image);
	free(image);
}

/* The agent's file, as it may be: no directory, no device, and nobody's but the agent's. */
static int check_file(
	const struct nest_spawner *spawner, int file, struct stat *ret, struct nest_err *err)
{
	if (fstat(file, ret) < 0)
		return nest_err_set(err, -errno, "look at the image");
	if (!S_ISREG(ret->st_mode) || fcntl(file, F_GETFL) & O_PATH)
		return nest_err_say(err, -EINVAL, "the image is not an open file");
	if (ret->st_uid != spawner->agent_uid && ret->st_uid != 0)
		return nest_err_say(err, -EINVAL,
			"the image belongs to user %u, not to the agent or root", ret->st_uid);
	return 0;
}

/* Starts the child; @image is watched from then on. */
static int start_child(
	struct nest_spawner *spawner, struct nest_spawner_image *image, struct nest_err *err)
{
	nest_autoclose int in = -1;
	nest_autoclose int out = -1;
	int pair[2] = { -1, -1 };
	pid_t parent = getpid();
	int r = nest_fd_pipe(0, pair, err);

	in = pair[0];
	out = pair[1];
	if (r == 0)
		r = nest_spawner_cell_watch(
			spawner, in, NEST_SPAWNER_EVENT_IMAGE, (size_t)image->id, err);
	if (r < 0)
		return r;
	image->child = fork();
	if (image->child == 0)
		run_child(spawner, image->id, image->own, out, parent);
	if (image->child < 0) {
		r = nest_err_set(err, -errno, "fork");
		epoll_ctl(spawner->poll, EPOLL_CTL_DEL, in, NULL);
		return r;
	}
	image->result = nest_take_fd(in);
	return 0;
}

int nest_spawner_image_mount(
	struct nest_spawner *spawner, uint64_t id, int file, struct nest_err *err)
{
	struct nest_spawner_image *image;
	struct stat st;
	int r;

	if (!spawner->images.enabled)
		return nest_err_say(err, -EOPNOTSUPP, "this host mounts no images: %s",
			spawner->images.missing);
	if (id == 0 || id > UINT32_MAX || find_id(spawner, id))
		return nest_err_say(err, -EINVAL, "image number %llu is none, or is in use",
			(unsigned long long)id);
	if (spawner->images.count >= IMAGES_MAX)
		return nest_err_say(err, -EAGAIN, "%u images are mounted already", IMAGES_MAX);
	r = check_file(spawner, file, &st, err);
	if (r < 0)
		return r;
	image = calloc(1, sizeof(*image));
	if (!image)
		return nest_err_set(err, -ENOMEM, "mount an image");
	*image = (struct nest_spawner_image){
		.id = id, .dev = st.st_dev, .ino = st.st_ino, .result = -1
	};
	r = keep_file(spawner, image, file, err);
	if (r == 0)
		r = start_child(spawner, image, err);
	if (r < 0) {
		close_files(image);
		free(image);
		return r;
	}
	DL_APPEND(spawner->images.list, image);
	spawner->images.count++;
	return 0;
}

/* Reads what the child said, and buries it. */
static void end_child(
	struct nest_spawner *spawner, struct nest_spawner_image *image, struct nest_err *ret)
{
	ssize_t n;

	do
		n = read(image->result, ret, sizeof(*ret));
	while (n < 0 && errno == EINTR);
	if (n != sizeof(*ret))
		nest_err_say(ret, -EIO, "mounting an image ended without a word");
	ret->text[sizeof(ret->text) - 1] = '\0';
	epoll_ctl(spawner->poll, EPOLL_CTL_DEL, image->result, NULL);
	close(nest_take_fd(image->result));
	waitpid(image->child, NULL, __WALL);
}

void nest_spawner_image_hear(struct nest_spawner *spawner, uint64_t id)
{
	struct nest_spawner_image *image = find_id(spawner, id);
	struct nest_err err = NEST_ERR_INIT;

	if (!image || image->result < 0)
		return;
	end_child(spawner, image, &err);
	image->mounted = err.code == 0;
	tell(spawner, id, &err);
	if (!image->mounted)
		forget(spawner, image);
}

static int detach(const struct nest_spawner *spawner, uint64_t id, struct nest_err *err)
{
	char path[32];
	int r = 0;

	mount_point(id, path);
	if (setns(spawner->images.mounts, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the images' mount namespace");
	if (umount2(path, MNT_DETACH) < 0 || rmdir(path) < 0)
		r = nest_err_set(err, -errno, "unmount image %llu", (unsigned long long)id);
	return return_to(spawner->rootfs.own_mounts, r, err);
}

int nest_spawner_image_unmount(struct nest_spawner *spawner, uint64_t id, struct nest_err *err)
{
	struct nest_spawner_image *image = find_id(spawner, id);
	int r;

	/* the agent unmounts only what it was told is mounted */
	if (!image || !image->mounted)
		return nest_err_say(
			err, -EINVAL, "image number %llu is not mounted", (unsigned long long)id);
	r = detach(spawner, id, err);
	if (r != -ENOTRECOVERABLE)
		forget(spawner, image);
	return r;
}

/*
 * The kernel clones only what lies in the caller's mount namespace, so we step over there for one
 * system call, as for a directory. Safe since the path is made of a number of ours, and no process
 * but our children was ever in there.
 */
int nest_spawner_image_clone(
	const struct nest_spawner *spawner, int file, int *ret_mount, struct nest_err *err)
{
	const struct nest_spawner_image *image = find_file(spawner, file);
	nest_autoclose int mount = -1;
	char path[32];
	int r;

	if (!image)
		return nest_err_say(err, -EINVAL, "the code's image is not mounted");
	mount_point(image->id, path);
	if (setns(spawner->images.mounts, CLONE_NEWNS) < 0)
		return nest_err_set(err, -errno, "enter the images' mount namespace");
	r = nest_mount_clone(AT_FDCWD, path, false, &mount, err);
	r = return_to(spawner->rootfs.own_mounts, r, err);
	if (r == 0)
		r = nest_mount_restrict(mount, READ_ONLY, false, err);
	if (r < 0)
		return r == -ENOTRECOVERABLE ? r : nest_err_wrap(err, "mount the code");
	*ret_mount = nest_take_fd(mount);
	return 0;
}

void nest_spawner_image_close(struct nest_spawner *spawner)
{
	struct nest_spawner_image *image, *next;

	DL_FOREACH_SAFE(spawner->images.list, image, next) {
		if (image->result >= 0) {
			kill(image->child, SIGKILL);
			waitpid(image->child, NULL, __WALL);
			close(image->result);
		}
		forget(spawner, image);
	}
}
