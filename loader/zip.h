/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_LOADER_ZIP_H
#define NEST_LOADER_ZIP_H

struct nest_err;
struct nest_unpack_source;

/*
 * Whether the entries that a zip's directory lists lie apart from each other: 0, or -EBADMSG where
 * two of them share bytes, as in a bomb, or where it has no directory. @source can seek, and stands
 * at its beginning afterwards. Blocks on it. Any thread.
 */
int nest_zip_check(const struct nest_unpack_source *source, struct nest_err *err);

#endif
