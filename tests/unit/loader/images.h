/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_TESTS_UNIT_LOADER_IMAGES_H
#define NEST_TESTS_UNIT_LOADER_IMAGES_H

#include <stdbool.h>
#include <stddef.h>

#include <uv.h>

#include "base/err.h"
#include "loader/loader.h"
#include "tests/unit/loader/kit.h"
#include "tests/unit/loader/made.h"

/*
 * What the tests of images share that are made of archives: loaders that make them or don't, both
 * ways of loading compared, the kernel's view of what was made. One loader at a time.
 */

extern uv_loop_t images_loop;
extern struct nest_loader *images_loader;
extern struct nest_loader_config images_config;	 /* of the next one that is opened */
extern char images_digest[NEST_TREE_DIGEST_LEN]; /* of what was uploaded last */

struct images_result {
	unsigned calls;
	struct nest_tree *tree;
	struct nest_err err;
};

/* The fixture; kit_leave() ends it. */
void images_enter(void);

/* A loader of the cache @name, that makes images or doesn't. */
void images_open(const char *name, bool zstd_images);
void images_close(void);

/* A nest_loader_cb for a struct images_result. */
void images_on_load(void *arg, struct nest_tree *tree, const struct nest_err *err);

/* Uploads @artifact. The caller owns the result's tree, if there is one. */
void images_upload(const struct nest_buf *artifact, struct images_result *result);

/* The same, in the cache "made"; it must become an image. */
void images_load(const struct nest_buf *artifact, struct images_result *result);

/* The directory of a tree in the cache. */
const char *images_path(const struct nest_tree *tree);

/* The image mounted nowhere: its descriptor. Its structure is checked. */
int images_mount(const struct nest_tree *tree);

/* The digest of what is mounted, which is held against the directory @path (NULL: against none). */
void images_digest_mounted(int mounted, const char *path, char ret_hex[65]);

/* The digest of the directory that an image unpacks to. */
void images_unpack(struct nest_tree *tree, char ret_hex[65]);

/* Ways in which nestctl and others cut archives, that an image can hold. */
#define IMAGES_CUTS 7u
extern const struct made_cut images_cuts[IMAGES_CUTS];

/* A tar of all kinds of entries; its files, among which "large" is images_large, are @random. */
#define IMAGES_LARGE 3500000u
#define IMAGES_MEDIUM 40000u
extern char images_large[IMAGES_LARGE];
extern char images_medium[IMAGES_MEDIUM];
void images_everything(bool random, struct nest_buf *ret);
void images_fill(char *bytes, size_t n, bool random);

/* @tar compressed; the caller frees. */
void images_compress(const struct nest_buf *tar, const struct made_cut *cut, struct nest_buf *ret);

/* The directory that @artifact becomes in the cache "plain": its digest and path. */
const char *images_plain(const struct nest_buf *artifact, char ret_hex[65]);

/* Loads @artifact both ways: what the image shows, and what it unpacks to, is the directory. */
void images_check_both(const struct nest_buf *artifact, const char *what);

/* It becomes the directory that it becomes without images, and leaves nothing else. */
void images_check_refused(const struct nest_buf *artifact, const char *what);

/* Runs a command of the shell's. */
void images_run(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
