/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/terminal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool colours_off;

static const char *const codes[] = {
	[NEST_TERMINAL_PLAIN] = "",
	[NEST_TERMINAL_BOLD] = "\033[1m",
	[NEST_TERMINAL_DIM] = "\033[2m",
	[NEST_TERMINAL_GREEN] = "\033[32m",
	[NEST_TERMINAL_YELLOW] = "\033[33m",
	[NEST_TERMINAL_RED] = "\033[31m",
};

bool nest_terminal_colours(FILE *stream)
{
	const char *no_color = getenv("NO_COLOR");

	return !colours_off && !(no_color && *no_color) && isatty(fileno(stream));
}

void nest_terminal_no_colours(void)
{
	colours_off = true;
}

void nest_terminal_print(FILE *stream, enum nest_terminal_colour colour, const char *fmt, ...)
{
	bool on = colour != NEST_TERMINAL_PLAIN && nest_terminal_colours(stream);
	va_list ap;

	if (on)
		fputs(codes[colour], stream);
	va_start(ap, fmt);
	vfprintf(stream, fmt, ap);
	va_end(ap);
	if (on)
		fputs("\033[0m", stream);
}

struct table_cell {
	char *text;
	enum nest_terminal_colour colour;
};

struct nest_table {
	char *heading[NEST_TABLE_COLUMNS];
	bool right[NEST_TABLE_COLUMNS];
	size_t width[NEST_TABLE_COLUMNS];
	size_t columns;
	struct table_cell *cells;
	size_t ncells;
	size_t cap;
};

/* Columns of the terminal that @text takes: its characters, as continuation bytes take none. */
static size_t text_width(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

struct nest_table *nest_terminal_table_new(const char *const *headings)
{
	struct nest_table *table = calloc(1, sizeof(*table));

	for (; table && *headings && table->columns < NEST_TABLE_COLUMNS; headings++) {
		size_t i = table->columns++;

		table->right[i] = **headings == '>';
		table->heading[i] = strdup(*headings + table->right[i]);
		table->width[i] = table->heading[i] ? text_width(table->heading[i]) : 0;
	}
	return table;
}

void nest_terminal_table_add(
	struct nest_table *table, enum nest_terminal_colour colour, const char *fmt, ...)
{
	struct table_cell *cell;
	size_t column, width;
	va_list ap;

	if (!table)
		return;
	if (table->ncells == table->cap) {
		size_t cap = table->cap ? table->cap * 2 : 64;
		void *grown = realloc(table->cells, cap * sizeof(*table->cells));

		if (!grown)
			return;
		table->cells = grown;
		table->cap = cap;
	}
	column = table->ncells % table->columns;
	cell = &table->cells[table->ncells++];
	cell->colour = colour;
	cell->text = NULL;
	va_start(ap, fmt);
	if (vasprintf(&cell->text, fmt, ap) < 0)
		cell->text = NULL;
	va_end(ap);
	width = cell->text ? text_width(cell->text) : 0;
	if (width > table->width[column])
		table->width[column] = width;
}

static void print_cell(const struct nest_table *table, size_t column, const char *text,
	enum nest_terminal_colour colour, FILE *stream)
{
	size_t pad = table->width[column] - text_width(text);
	bool last = column + 1 == table->columns;

	if (table->right[column])
		fprintf(stream, "%*s", (int)pad, "");
	nest_terminal_print(stream, colour, "%s", text);
	if (last)
		fputc('\n', stream);
	else
		fprintf(stream, "%*s", (int)(table->right[column] ? 2 : pad + 2), "");
}

void nest_terminal_table_print(struct nest_table *table, FILE *stream)
{
	if (!table)
		return;
	for (size_t i = 0; i < table->columns; i++) {
		print_cell(table, i, table->heading[i] ? table->heading[i] : "", NEST_TERMINAL_BOLD,
			stream);
		free(table->heading[i]);
	}
	for (size_t i = 0; i < table->ncells; i++) {
		struct table_cell *cell = &table->cells[i];

		print_cell(table, i % table->columns, cell->text ? cell->text : "", cell->colour,
			stream);
		free(cell->text);
	}
	free(table->cells);
	free(table);
}

const char *nest_terminal_bytes(double bytes, char ret[NEST_TERMINAL_SHORT])
{
	static const char *const units[] = { "B", "KB", "MB", "GB", "TB" };
	size_t unit = 0;

	while (bytes >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		bytes /= 1024;
		unit++;
	}
	snprintf(ret, NEST_TERMINAL_SHORT, unit == 0 || bytes >= 100 ? "%.0f %s" : "%.1f %s", bytes,
		units[unit]);
	return ret;
}

const char *nest_terminal_age(double ms, char ret[NEST_TERMINAL_SHORT])
{
	if (ms < 1000)
		snprintf(ret, NEST_TERMINAL_SHORT, "%.0f ms", ms);
	else if (ms < 60e3)
		snprintf(ret, NEST_TERMINAL_SHORT, "%.1f s", ms / 1e3);
	else if (ms < 3600e3)
		snprintf(ret, NEST_TERMINAL_SHORT, "%.0fm", ms / 60e3);
	else if (ms < 48 * 3600e3)
		snprintf(ret, NEST_TERMINAL_SHORT, "%.0fh", ms / 3600e3);
	else
		snprintf(ret, NEST_TERMINAL_SHORT, "%.0fd", ms / 86400e3);
	return ret;
}
