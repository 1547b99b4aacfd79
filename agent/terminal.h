/* SPDX-License-Identifier: Apache-2.0 */
#ifndef NEST_AGENT_TERMINAL_H
#define NEST_AGENT_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Text for people: aligned tables, and colours where the stream is a terminal. */

enum nest_terminal_colour {
	NEST_TERMINAL_PLAIN,
	NEST_TERMINAL_BOLD,
	NEST_TERMINAL_DIM,
	NEST_TERMINAL_GREEN,
	NEST_TERMINAL_YELLOW,
	NEST_TERMINAL_RED,
};

/* Whether @stream gets colours: a terminal, NO_COLOR unset, and not switched off. */
bool nest_terminal_colours(FILE *stream);
/* Switches colours off for good (--no-color). */
void nest_terminal_no_colours(void);
/* Prints @text in @colour, if @stream gets colours. */
void nest_terminal_print(FILE *stream, enum nest_terminal_colour colour, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* A table: columns are as wide as their widest cell; numbers stand right. */
struct nest_table;
#define NEST_TABLE_COLUMNS 12

/* Headings are NULL-terminated; one that begins with '>' names a right-aligned column. NULL: no memory. */
struct nest_table *nest_terminal_table_new(const char *const *headings);
/* Adds a cell to the present row; rows begin by themselves. */
void nest_terminal_table_add(struct nest_table *table, enum nest_terminal_colour colour,
	const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Prints and frees. */
void nest_terminal_table_print(struct nest_table *table, FILE *stream);

#define NEST_TERMINAL_SHORT 24
/* "0", "512 B", "1.2 MB"; 1 MB = 2^20 bytes. */
const char *nest_terminal_bytes(double bytes, char ret[NEST_TERMINAL_SHORT]);
/* "12 ms", "3.4 s", "5m", "2h", "3d". */
const char *nest_terminal_age(double ms, char ret[NEST_TERMINAL_SHORT]);

#endif
