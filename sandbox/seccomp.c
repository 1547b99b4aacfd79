/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the table in seccomp.def to a BPF program.
 *
 * Every start of a cell installs the filter, every restore does so once per thread, and what that
 * costs is instructions: the kernel translates each of them, and runs the program once for each
 * system call number, to keep those that are allowed whatever their arguments in a bitmap (thanks
 * to which calling costs next to nothing). So the program is small: neighbouring numbers with the
 * same verdict are one range, a binary search finds the range in one instruction per inner node,
 * and all ways to the same verdict end in the same instruction. libseccomp's own generator, with a
 * leaf for each call, makes three times as many. It names the calls and the architecture here.
 *
 *	load arch; another one -> kill
 *	load nr
 *	search      nr >= ranges[mid].first ? ... : ...      -> verdict or check
 *	checks      load argument, compare, ...              -> verdict
 *	verdicts    allow, errno EPERM, errno ENOSYS, kill, ...
 *
 * Jumps only go forward, by at most 255 instructions: the whole program has to stay near that size.
 *
 * Only the low half of an argument is compared: every checked one is a 32-bit type for the kernel,
 * which drops the high half, so a filter that looked at it could be passed by setting it.
 */
#include "sandbox/seccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/random.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/err.h"

#define X32_FIRST 0x40000000u
#define NR_NONE 0xffffffffu /* what a tracer sets to skip a call; the kernel answers ENOSYS */
#define WHOLE 0xffffffffu   /* mask: compare all of the low half */
#define MAX_COMPARISONS 3
#define MAX_CHECKS 16
#define MAX_PROGRAM 512
#define MAX_BRANCHES (2 * MAX_PROGRAM)

/* Argument @arg, under @mask, is one of @values. */
struct comparison {
	const uint32_t *values;
	size_t n_values;
	uint32_t mask;
	unsigned arg;
};

/* All comparisons hold. A check passes if one of its clauses does. */
struct clause {
	struct comparison all[MAX_COMPARISONS]; /* those without values are none */
};

#define ONE_OF(arg_, mask_, ...)                                                                   \
	{                                                                                          \
		.values = (const uint32_t[]){ __VA_ARGS__ },                                       \
		.n_values = NEST_ARRAY_SIZE(((const uint32_t[]){ __VA_ARGS__ })), .mask = (mask_), \
		.arg = (arg_)                                                                      \
	}
#define CLAUSE(...)                    \
	{                              \
		.all = { __VA_ARGS__ } \
	}

#define NEW_NAMESPACE                                                                          \
	((uint32_t)(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | \
		    CLONE_NEWNET | CLONE_NEWCGROUP))

static const struct clause clone_clauses[] = {
	CLAUSE(ONE_OF(0, NEW_NAMESPACE, 0)),
};

static const struct clause personality_clauses[] = {
	CLAUSE(ONE_OF(0, WHOLE, 0, 0xffffffff)),
};

/* Of the file types, devices (and symbolic links, which mknod does not make) have this bit. */
#define S_IFDEVICE 0020000u
_Static_assert(
	(S_IFCHR & S_IFDEVICE) != 0 && (S_IFBLK & S_IFDEVICE) != 0, "a device escapes the filter");
_Static_assert(!((S_IFREG | S_IFIFO | S_IFSOCK) & S_IFDEVICE), "a FIFO looks like a device");

static const struct clause mknod_clauses[] = {
	CLAUSE(ONE_OF(1, S_IFDEVICE, 0)),
};

static const struct clause mknodat_clauses[] = {
	CLAUSE(ONE_OF(2, S_IFDEVICE, 0)),
};

#define SOCK_TYPE 0xfu /* the rest are flags */

static const struct clause socket_clauses[] = {
	CLAUSE(ONE_OF(0, WHOLE, AF_INET, AF_INET6), ONE_OF(1, SOCK_TYPE, SOCK_STREAM, SOCK_DGRAM),
		ONE_OF(2, WHOLE, 0, IPPROTO_TCP, IPPROTO_UDP)),
	CLAUSE(ONE_OF(0, WHOLE, AF_UNIX)),
	CLAUSE(ONE_OF(0, WHOLE, AF_NETLINK), ONE_OF(2, WHOLE, NETLINK_ROUTE)),
};

static const struct clause socketpair_clauses[] = {
	CLAUSE(ONE_OF(0, WHOLE, AF_UNIX)),
};

#ifndef PR_SET_VMA /* Linux 5.17 */
#define PR_SET_VMA 0x53564d41
#endif

/* What an unknown option answers is what the rest get, so that programs do without. */
static const struct clause prctl_clauses[] = {
	CLAUSE(ONE_OF(0, WHOLE, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_SET_PDEATHSIG,
		PR_GET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_DUMPABLE, PR_SET_CHILD_SUBREAPER,
		PR_GET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP,
		PR_CAPBSET_READ, PR_SET_TIMERSLACK, PR_GET_TIMERSLACK, PR_SET_THP_DISABLE,
		PR_GET_THP_DISABLE, PR_GET_TID_ADDRESS)),
#ifdef __aarch64__
	CLAUSE(ONE_OF(0, WHOLE, PR_SVE_SET_VL, PR_SVE_GET_VL, PR_PAC_RESET_KEYS,
		PR_GET_TAGGED_ADDR_CTRL)),
#endif
};

/*
 * ARCH_SET_GS 0x1001 to ARCH_GET_GS 0x1004, and ARCH_GET_XCOMP_SUPP 0x1021 to ARCH_REQ_XCOMP_PERM
 * 0x1023; by number, so that the table compiles for other machines, which have no such call.
 */
static const struct clause arch_prctl_clauses[] = {
	CLAUSE(ONE_OF(0, ~0x27u, 0x1000)),
};

/*
 * No terminal is among them: a cell has none, so ENOTTY is the truth. Walked from the top, so in
 * the order of use.
 */
static const struct clause ioctl_clauses[] = {
	CLAUSE(ONE_OF(1, WHOLE, FIONBIO, FIOCLEX, FIONCLEX, FIONREAD, FIOASYNC, TCGETS, TIOCGWINSZ,
		TIOCOUTQ, FICLONE, RNDGETENTCNT, SIOCATMARK, SIOCGIFNAME, SIOCGIFCONF, SIOCGIFFLAGS,
		SIOCGIFADDR, SIOCGIFDSTADDR, SIOCGIFBRDADDR, SIOCGIFNETMASK, SIOCGIFMTU,
		SIOCGIFHWADDR, SIOCGIFINDEX)),
};

enum verdict {
	VERDICT_ALLOW,
	VERDICT_CHECK,
	VERDICT_ERRNO,
};

struct rule {
	const char *name;
	const struct clause *clauses;
	size_t n_clauses;
	enum verdict verdict;
	uint32_t errnum; /* for ERRNO; for CHECK where no clause holds */
};

#define ALLOW(name_) { .name = #name_, .verdict = VERDICT_ALLOW },
#define CHECK(name_, errno_, reason_)                          \
	{                                                      \
		.name = #name_,                                \
		.clauses = name_##_clauses,                    \
		.n_clauses = NEST_ARRAY_SIZE(name_##_clauses), \
		.verdict = VERDICT_CHECK,                      \
		.errnum = (errno_),                            \
	},
#define REFUSE(name_, errno_, reason_) \
	{ .name = #name_, .verdict = VERDICT_ERRNO, .errnum = (errno_) },
#define ABSENT(name_, reason_) REFUSE(name_, ENOSYS, reason_)

static const struct rule rules[] = {
#include "sandbox/seccomp.def"
};

/*
 * Calls younger than the oldest libseccomp that this builds with (2.5, Linux 5.17): from 424 on,
 * all architectures share their numbers.
 */
static const struct {
	const char *name;
	uint32_t nr;
} young[] = {
	{ "futex_waitv", 449 },
	{ "set_mempolicy_home_node", 450 },
	{ "cachestat", 451 },
	{ "fchmodat2", 452 },
	{ "map_shadow_stack", 453 },
	{ "futex_wake", 454 },
	{ "futex_wait", 455 },
	{ "futex_requeue", 456 },
	{ "statmount", 457 },
	{ "listmount", 458 },
	{ "lsm_get_self_attr", 459 },
	{ "lsm_set_self_attr", 460 },
	{ "lsm_list_modules", 461 },
	{ "mseal", 462 },
	{ "setxattrat", 463 },
	{ "getxattrat", 464 },
	{ "listxattrat", 465 },
	{ "removexattrat", 466 },
	{ "open_tree_attr", 467 },
};

/* Where a way through the program leads: to the code of a check, or else to a verdict. */
struct target {
	uint32_t ret;
	const struct rule *check;
};

/* From @first up to the next range, every number goes the same way. */
struct range {
	uint32_t first;
	struct target to;
};

/* One side of the conditional jump at @at, to be set when the place of its target is known. */
struct branch {
	size_t at;
	bool taken; /* the side of a condition that holds */
	struct target to;
};

struct compiler {
	struct sock_filter program[MAX_PROGRAM];
	size_t n;
	struct range ranges[2 * NEST_ARRAY_SIZE(rules) + 4];
	size_t n_ranges;
	struct branch branches[MAX_BRANCHES];
	size_t n_branches;
	struct {
		const struct rule *rule;
		size_t at; /* its first instruction */
	} checks[MAX_CHECKS];
	size_t n_checks;
	bool overflow; /* something did not fit: the table has outgrown this file */
};

struct nest_seccomp {
	struct sock_fprog fprog;
	struct sock_filter program[];
};

/* The number of @rule here; false where this architecture has no such call. */
static bool resolve(const struct rule *rule, uint32_t *ret)
{
	int nr = seccomp_syscall_resolve_name(rule->name);

	if (nr >= 0) {
		*ret = (uint32_t)nr;
		return true;
	}
	if (nr != __NR_SCMP_ERROR)
		return false;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(young); i++) {
		if (strcmp(rule->name, young[i].name) == 0) {
			*ret = young[i].nr;
			return true;
		}
	}
	return false;
}

static const struct target target_allow = { .ret = SECCOMP_RET_ALLOW };
static const struct target target_kill = { .ret = SECCOMP_RET_KILL_PROCESS };
static const struct target target_unknown = { .ret = SECCOMP_RET_ERRNO | ENOSYS };

static struct target target_errno(const struct rule *rule)
{
	return (struct target){ .ret = SECCOMP_RET_ERRNO | (rule->errnum & SECCOMP_RET_DATA) };
}

static struct target target_of(const struct rule *rule)
{
	if (rule->verdict == VERDICT_ALLOW)
		return target_allow;
	if (rule->verdict == VERDICT_CHECK)
		return (struct target){ .check = rule };
	return target_errno(rule);
}

static void add_range(struct compiler *c, uint32_t first, struct target to)
{
	const struct range *last = c->n_ranges ? &c->ranges[c->n_ranges - 1] : NULL;

	if (last && last->to.check == to.check && last->to.ret == to.ret)
		return;
	c->ranges[c->n_ranges++] = (struct range){ .first = first, .to = to };
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = ((const struct range *)a)->first, y = ((const struct range *)b)->first;

	return x < y ? -1 : x > y;
}

/* Lays all numbers out as ranges: what the table says, and ENOSYS between. */
static int collect(struct compiler *c, struct nest_err *err)
{
	struct range known[NEST_ARRAY_SIZE(rules)];
	uint32_t next = 0, nr;
	size_t n = 0;

	for (size_t i = 0; i < NEST_ARRAY_SIZE(rules); i++)
		if (resolve(&rules[i], &nr))
			known[n++] = (struct range){ .first = nr, .to = target_of(&rules[i]) };
	qsort(known, n, sizeof(*known), compare_numbers);
	for (size_t i = 0; i < n; i++) {
		if (i > 0 && known[i].first == known[i - 1].first)
			return nest_err_say(err, -EEXIST,
				"compile the seccomp filter: system call %u has two entries",
				known[i].first);
		if (known[i].first > next)
			add_range(c, next, target_unknown);
		add_range(c, known[i].first, known[i].to);
		next = known[i].first + 1;
	}
	add_range(c, next, target_unknown);
	if (seccomp_arch_native() == SCMP_ARCH_X86_64) {
		add_range(c, X32_FIRST, target_kill);
		add_range(c, NR_NONE, target_unknown);
	}
	return 0;
}

static size_t emit(struct compiler *c, uint16_t code, uint32_t k)
{
	if (c->n == MAX_PROGRAM) {
		c->overflow = true;
		return 0;
	}
	c->program[c->n] = (struct sock_filter){ .code = code, .k = k };
	return c->n++;
}

/* Makes one side of the jump at @at land on instruction @to. */
static void land(struct compiler *c, size_t at, bool taken, size_t to)
{
	size_t distance = to - at - 1;

	if (distance > UINT8_MAX)
		c->overflow = true;
	if (taken)
		c->program[at].jt = (uint8_t)distance;
	else
		c->program[at].jf = (uint8_t)distance;
}

static void branch(struct compiler *c, size_t at, bool taken, struct target to)
{
	if (c->n_branches == MAX_BRANCHES)
		c->overflow = true;
	else
		c->branches[c->n_branches++] =
			(struct branch){ .at = at, .taken = taken, .to = to };
}

static void emit_search(struct compiler *c, const struct range *ranges, size_t n);

static void emit_half(struct compiler *c, size_t at, bool taken, const struct range *half, size_t n)
{
	if (n == 1) {
		branch(c, at, taken, half->to);
		return;
	}
	land(c, at, taken, c->n);
	emit_search(c, half, n);
}

/* @n is 2 or more; as deep as its logarithm. */
static void emit_search(struct compiler *c, const struct range *ranges, size_t n)
{
	size_t mid = n / 2;
	size_t at = emit(c, BPF_JMP | BPF_JGE | BPF_K, ranges[mid].first);

	emit_half(c, at, false, ranges, mid);
	emit_half(c, at, true, ranges + mid, n - mid);
}

static uint32_t arg_offset(unsigned arg)
{
	uint32_t offset = (uint32_t)(offsetof(struct seccomp_data, args) + arg * sizeof(uint64_t));

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	offset += sizeof(uint32_t);
#endif
	return offset;
}

/*
 * Falls through to the next instruction if @cmp holds, unless it is the @last of its clause: then
 * the call is allowed. Returns the instruction whose other side is for when it doesn't hold.
 */
static size_t emit_comparison(struct compiler *c, const struct comparison *cmp, bool last)
{
	size_t first, at = 0;

	emit(c, BPF_LD | BPF_W | BPF_ABS, arg_offset(cmp->arg));
	if (cmp->mask != WHOLE)
		emit(c, BPF_ALU | BPF_AND | BPF_K, cmp->mask);
	first = c->n;
	for (size_t i = 0; i < cmp->n_values; i++) {
		at = emit(c, BPF_JMP | BPF_JEQ | BPF_K, cmp->values[i]);
		if (last)
			branch(c, at, true, target_allow);
		else
			land(c, at, true, first + cmp->n_values);
	}
	return at;
}

static void emit_clause(struct compiler *c, const struct rule *rule, const struct clause *clause)
{
	bool last_clause = clause == &rule->clauses[rule->n_clauses - 1];
	size_t fails[MAX_COMPARISONS], n = 0;

	while (n < MAX_COMPARISONS && clause->all[n].n_values) {
		bool last = n + 1 == MAX_COMPARISONS || !clause->all[n + 1].n_values;

		fails[n] = emit_comparison(c, &clause->all[n], last);
		n++;
	}
	for (size_t i = 0; i < n; i++) {
		if (last_clause)
			branch(c, fails[i], false, target_errno(rule));
		else
			land(c, fails[i], false, c->n);
	}
}

static void emit_checks(struct compiler *c)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(rules); i++) {
		if (rules[i].verdict != VERDICT_CHECK)
			continue;
		if (c->n_checks == MAX_CHECKS) {
			c->overflow = true;
			return;
		}
		c->checks[c->n_checks].rule = &rules[i];
		c->checks[c->n_checks++].at = c->n;
		for (size_t k = 0; k < rules[i].n_clauses; k++)
			emit_clause(c, &rules[i], &rules[i].clauses[k]);
	}
}

/* The instruction for @to, which is made if it is a verdict that has none. */
static size_t locate(struct compiler *c, struct target to, size_t verdicts)
{
	if (to.check) {
		for (size_t i = 0; i < c->n_checks; i++)
			if (c->checks[i].rule == to.check)
				return c->checks[i].at;
	}
	for (size_t i = verdicts; i < c->n; i++)
		if (c->program[i].k == to.ret)
			return i;
	return emit(c, BPF_RET | BPF_K, to.ret);
}

static void emit_program(struct compiler *c)
{
	size_t verdicts, at;

	emit(c, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	at = emit(c, BPF_JMP | BPF_JEQ | BPF_K, seccomp_arch_native());
	branch(c, at, false, target_kill);
	emit(c, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	emit_search(c, c->ranges, c->n_ranges);
	emit_checks(c);
	verdicts = c->n;
	for (size_t i = 0; i < c->n_branches && !c->overflow; i++) {
		const struct branch *b = &c->branches[i];

		land(c, b->at, b->taken, locate(c, b->to, verdicts));
	}
}

int nest_seccomp_new(struct nest_seccomp **ret, struct nest_err *err)
{
	nest_autofree struct compiler *c = calloc(1, sizeof(*c));
	struct nest_seccomp *seccomp;
	size_t bytes;
	int r;

	if (!c)
		return nest_err_set(err, -ENOMEM, "compile the seccomp filter");
	r = collect(c, err);
	if (r < 0)
		return r;
	emit_program(c);
	if (c->overflow)
		return nest_err_say(err, -E2BIG,
			"compile the seccomp filter: %zu ranges and %zu instructions are too many",
			c->n_ranges, c->n);
	bytes = c->n * sizeof(*c->program);
	seccomp = malloc(sizeof(*seccomp) + bytes);
	if (!seccomp)
		return nest_err_set(err, -ENOMEM, "compile the seccomp filter");
	memcpy(seccomp->program, c->program, bytes);
	seccomp->fprog.len = (unsigned short)c->n;
	seccomp->fprog.filter = seccomp->program;
	*ret = seccomp;
	return 0;
}

void nest_seccomp_free(struct nest_seccomp *seccomp)
{
	free(seccomp);
}

int nest_seccomp_install(const struct nest_seccomp *seccomp, struct nest_err *err)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return nest_err_set(err, -errno, "set no_new_privs");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &seccomp->fprog) < 0)
		return nest_err_set(err, -errno, "install the seccomp filter");
	return 0;
}

const struct sock_filter *nest_seccomp_program(const struct nest_seccomp *seccomp, size_t *ret_n)
{
	*ret_n = seccomp->fprog.len;
	return seccomp->program;
}
