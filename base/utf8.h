/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_BASE_UTF8_H
#define NEST_BASE_UTF8_H

#include <stddef.h>

/*
 * The length (1 to 4) of the well-formed character that @n bytes begin with, after the table 3-7
 * of the Unicode standard: no overlong form, no surrogate, nothing above U+10FFFF. 0 when they
 * begin with none, or @n is 0. Any thread.
 */
size_t nest_utf8_char(const char *bytes, size_t n);

/*
 * How many of @n bytes may stay so that no character is cut: @n, or up to 3 less where a
 * character begins that does not fit. Any thread.
 */
size_t nest_utf8_cut(const char *bytes, size_t n);

#endif
