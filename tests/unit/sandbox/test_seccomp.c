/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter is judged twice: every number and many arguments through an interpreter of the program
 * (the kernel's answer can't be asked for "reboot"), and the real thing in a child.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/err.h"
#include "sandbox/seccomp.h"
#include "tests/unit/suite.h"

#define ERRNO(e) (SECCOMP_RET_ERRNO | (e))
#define ALLOWED SECCOMP_RET_ALLOW
#define KILLED SECCOMP_RET_KILL_PROCESS
#define CHECKED 1u /* no verdict has this value */
#define NUMBERS 1024u

struct entry {
	const char *name;
	uint32_t verdict;
	const char *reason;
};

#define ALLOW(name_) { #name_, ALLOWED, NULL },
#define CHECK(name_, errno_, reason_) { #name_, CHECKED, reason_ },
#define REFUSE(name_, errno_, reason_) { #name_, ERRNO(errno_), reason_ },
#define ABSENT(name_, reason_) { #name_, ERRNO(ENOSYS), reason_ },

static const struct entry entries[] = {
#include "sandbox/seccomp.def"
};

/* What no worker may ever do: none of these may become an ALLOW, and each says why. */
static const char *const dangerous[] = {
	"ptrace",
	"process_vm_readv",
	"process_vm_writev",
	"process_madvise",
	"pidfd_getfd",
	"kcmp",
	"bpf",
	"perf_event_open",
	"keyctl",
	"add_key",
	"request_key",
	"userfaultfd",
	"seccomp",
	"unshare",
	"setns",
	"clone",
	"clone3",
	"mount",
	"umount2",
	"pivot_root",
	"chroot",
	"open_tree",
	"move_mount",
	"fsopen",
	"fsconfig",
	"fsmount",
	"fspick",
	"mount_setattr",
	"open_by_handle_at",
	"name_to_handle_at",
	"fanotify_init",
	"fanotify_mark",
	"quotactl",
	"quotactl_fd",
	"io_uring_setup",
	"io_uring_enter",
	"io_uring_register",
	"kexec_load",
	"kexec_file_load",
	"init_module",
	"finit_module",
	"delete_module",
	"reboot",
	"swapon",
	"swapoff",
	"acct",
	"nfsservctl",
	"settimeofday",
	"clock_settime",
	"clock_adjtime",
	"adjtimex",
	"iopl",
	"ioperm",
	"syslog",
	"vhangup",
	"modify_ldt",
	"lookup_dcookie",
	"move_pages",
	"migrate_pages",
	"mknod",
	"mknodat",
	"personality",
	"prctl",
	"ioctl",
	"socket",
	"uselib",
	"memfd_secret",
	"sethostname",
	"setdomainname",
	"process_mrelease",
};

static struct nest_seccomp *seccomp_;
static const struct sock_filter *program;
static size_t program_n;

static void setup(void)
{
	struct nest_err err = NEST_ERR_INIT;

	ck_assert_msg(nest_seccomp_new(&seccomp_, &err) == 0, "%s", nest_err_text(&err));
	program = nest_seccomp_program(seccomp_, &program_n);
}

static void teardown(void)
{
	nest_seccomp_free(seccomp_);
}

static bool branches(const struct sock_filter *i, uint32_t a)
{
	switch (BPF_OP(i->code)) {
	case BPF_JEQ:
		return a == i->k;
	case BPF_JGE:
		return a >= i->k;
	default:
		ck_abort_msg("unexpected jump 0x%x", i->code);
	}
	return false;
}

/* What the program says to @data; *@steps grows by the instructions that ran. */
static uint32_t interpret(const struct seccomp_data *data, size_t *steps)
{
	uint32_t a = 0;

	for (size_t pc = 0; pc < program_n; pc++) {
		const struct sock_filter *i = &program[pc];

		++*steps;
		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
			ck_assert_uint_le(i->k + sizeof(a), sizeof(*data));
			memcpy(&a, (const char *)data + i->k, sizeof(a));
			break;
		case BPF_ALU:
			ck_assert_uint_eq(BPF_OP(i->code), BPF_AND);
			a &= i->k;
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA)
				pc += i->k;
			else
				pc += branches(i, a) ? i->jt : i->jf;
			break;
		case BPF_RET:
			return i->k;
		default:
			ck_abort_msg("unexpected instruction 0x%x", i->code);
		}
	}
	ck_abort_msg("the program ends without a verdict");
	return 0;
}

static uint32_t verdict_in(uint32_t arch, int nr, uint64_t a0, uint64_t a1, uint64_t a2)
{
	struct seccomp_data data = { .nr = nr, .arch = arch, .args = { a0, a1, a2 } };
	size_t steps = 0;

	return interpret(&data, &steps);
}

static uint32_t verdict(int nr, uint64_t a0, uint64_t a1, uint64_t a2)
{
	return verdict_in(seccomp_arch_native(), nr, a0, a1, a2);
}

static const struct entry *entry_named(const char *name)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(entries); i++)
		if (strcmp(entries[i].name, name) == 0)
			return &entries[i];
	return NULL;
}

START_TEST(every_entry_gets_its_verdict)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(entries); i++) {
		int nr = seccomp_syscall_resolve_name(entries[i].name);
		uint32_t got;

		if (nr < 0)
			continue;
		got = verdict(nr, UINT64_MAX - 1, UINT64_MAX - 1, UINT64_MAX - 1);
		if (entries[i].verdict == CHECKED)
			ck_assert_msg((got & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO,
				"%s with wild arguments: 0x%x", entries[i].name, got);
		else
			ck_assert_msg(got == entries[i].verdict, "%s: 0x%x, not 0x%x",
				entries[i].name, got, entries[i].verdict);
	}
}
END_TEST

START_TEST(numbers_without_an_entry_answer_enosys)
{
	for (int nr = 468; nr < (int)NUMBERS; nr++)
		ck_assert_uint_eq(verdict(nr, 0, 0, 0), ERRNO(ENOSYS));
	ck_assert_uint_eq(verdict(-1, 0, 0, 0), ERRNO(ENOSYS));
}
END_TEST

START_TEST(calls_younger_than_libseccomp_are_known_by_number)
{
	ck_assert_uint_eq(verdict(449, 0, 0, 0), ALLOWED);	 /* futex_waitv */
	ck_assert_uint_eq(verdict(452, 0, 0, 0), ALLOWED);	 /* fchmodat2 */
	ck_assert_uint_eq(verdict(454, 0, 0, 0), ALLOWED);	 /* futex_wake */
	ck_assert_uint_eq(verdict(451, 0, 0, 0), ERRNO(ENOSYS)); /* cachestat */
	ck_assert_uint_eq(verdict(462, 0, 0, 0), ERRNO(ENOSYS)); /* mseal */
	ck_assert_uint_eq(verdict(467, 0, 0, 0), ERRNO(EPERM));	 /* open_tree_attr */
}
END_TEST

START_TEST(no_call_that_libseccomp_names_is_undecided)
{
	for (int nr = 0; nr <= 467; nr++) {
		nest_autofree char *name =
			seccomp_syscall_resolve_num_arch(seccomp_arch_native(), nr);

		if (name)
			ck_assert_msg(
				entry_named(name) != NULL, "seccomp.def lacks %s (%d)", name, nr);
	}
}
END_TEST

START_TEST(what_is_not_simply_allowed_has_a_reason)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(entries); i++)
		if (entries[i].verdict != ALLOWED)
			ck_assert_msg(strlen(entries[i].reason) >= strlen("as fork"),
				"%s has no reason", entries[i].name);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(dangerous); i++) {
		const struct entry *entry = entry_named(dangerous[i]);

		ck_assert_msg(entry != NULL, "%s has no entry", dangerous[i]);
		ck_assert_msg(entry->verdict != ALLOWED, "%s is allowed", dangerous[i]);
	}
}
END_TEST

/* A reason "as x" leads to an entry that has its own. */
START_TEST(a_reason_that_refers_leads_to_a_reason)
{
	for (size_t i = 0; i < NEST_ARRAY_SIZE(entries); i++) {
		const struct entry *other;
		char name[64];

		if (!entries[i].reason || sscanf(entries[i].reason, "as %63[a-z0-9_]", name) != 1)
			continue;
		other = entry_named(name);
		ck_assert_msg(
			other && other->reason, "%s: as %s, which has none", entries[i].name, name);
		ck_assert_msg(strncmp(other->reason, "as ", 3) != 0, "%s: as %s, which refers on",
			entries[i].name, name);
	}
}
END_TEST

START_TEST(another_architecture_is_killed)
{
	ck_assert_uint_eq(verdict_in(0, SYS_getpid, 0, 0, 0), KILLED);
	ck_assert_uint_eq(verdict_in(AUDIT_ARCH_I386, 20, 0, 0, 0), KILLED);
#ifdef __x86_64__
	ck_assert_uint_eq(verdict(0x40000000 | SYS_getpid, 0, 0, 0), KILLED);
	ck_assert_uint_eq(verdict(0x40000000, 0, 0, 0), KILLED);
	ck_assert_uint_eq(verdict(0x7fffffff, 0, 0, 0), KILLED);
	ck_assert_uint_eq(verdict(-2, 0, 0, 0), KILLED);
#endif
}
END_TEST

START_TEST(clone_makes_threads_and_processes_but_no_namespace)
{
	static const uint64_t namespaces[] = { CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC,
		CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP };
	const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
				CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
				CLONE_CHILD_CLEARTID;

	ck_assert_uint_eq(verdict(SYS_clone, thread, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_clone, SIGCHLD, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0), ALLOWED);
	for (size_t i = 0; i < NEST_ARRAY_SIZE(namespaces); i++) {
		ck_assert_uint_eq(verdict(SYS_clone, namespaces[i] | SIGCHLD, 0, 0), ERRNO(EPERM));
		ck_assert_uint_eq(verdict(SYS_clone, namespaces[i] | thread | 1ull << 40, 0, 0),
			ERRNO(EPERM));
	}
}
END_TEST

START_TEST(sockets_are_unix_tcp_udp_and_route)
{
	static const int others[] = { AF_UNSPEC, AF_PACKET, AF_VSOCK, AF_ALG, AF_BLUETOOTH, AF_CAN,
		AF_TIPC, AF_RDS, AF_KEY, AF_XDP, AF_X25, AF_APPLETALK, 0xffff };

	ck_assert_uint_eq(verdict(SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 6), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET6, SOCK_DGRAM, 17), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), ALLOWED);
	ck_assert_uint_eq(
		verdict(SYS_socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET, SOCK_RAW, 1), ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET, SOCK_RAW, 6), ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET, SOCK_STREAM, 132), ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET, SOCK_STREAM, 262), ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socket, AF_INET6, SOCK_DGRAM, 58), ERRNO(EAFNOSUPPORT));
	for (size_t i = 0; i < NEST_ARRAY_SIZE(others); i++)
		ck_assert_uint_eq(verdict(SYS_socket, (uint64_t)others[i], SOCK_STREAM, 0),
			ERRNO(EAFNOSUPPORT));
	ck_assert_uint_eq(verdict(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_socketpair, AF_TIPC, SOCK_STREAM, 0), ERRNO(EAFNOSUPPORT));
}
END_TEST

/* The kernel takes the low half of a command; a filter that compared all of it could be passed. */
START_TEST(ioctl_refuses_typing_into_a_terminal_whatever_the_high_half_says)
{
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, FIONBIO, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, TCGETS, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, SIOCGIFINDEX, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, TIOCSTI, 0), ERRNO(ENOTTY));
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, TIOCLINUX, 0), ERRNO(ENOTTY));
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, 1ull << 32 | TIOCSTI, 0), ERRNO(ENOTTY));
	ck_assert_uint_eq(verdict(SYS_ioctl, 0, 0xffffffffull << 32 | TIOCLINUX, 0), ERRNO(ENOTTY));
}
END_TEST

START_TEST(prctl_and_personality_only_do_what_runtimes_need)
{
	ck_assert_uint_eq(verdict(SYS_prctl, PR_SET_NAME, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_prctl, PR_SET_PDEATHSIG, 9, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_prctl, PR_SET_SECCOMP, 2, 0), ERRNO(EINVAL));
	ck_assert_uint_eq(verdict(SYS_prctl, PR_SET_MM, 0, 0), ERRNO(EINVAL));
	ck_assert_uint_eq(verdict(SYS_prctl, PR_CAP_AMBIENT, 2, 0), ERRNO(EINVAL));
	ck_assert_uint_eq(verdict(SYS_personality, 0, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_personality, 0xffffffff, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_personality, UINT64_MAX, 0, 0), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_personality, 0x0040000, 0, 0), ERRNO(EPERM));
	ck_assert_uint_eq(verdict(SYS_personality, 1ull << 32 | 0x0040000, 0, 0), ERRNO(EPERM));
}
END_TEST

START_TEST(mknod_makes_fifos_but_no_devices)
{
	ck_assert_uint_eq(verdict(SYS_mknodat, 0, 0, S_IFIFO | 0600), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_mknodat, 0, 0, S_IFREG | 0600), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_mknodat, 0, 0, S_IFSOCK), ALLOWED);
	ck_assert_uint_eq(verdict(SYS_mknodat, 0, 0, S_IFCHR | 0600), ERRNO(EPERM));
	ck_assert_uint_eq(verdict(SYS_mknodat, 0, 0, S_IFBLK | 0600), ERRNO(EPERM));
}
END_TEST

/*
 * The cost of an installation is the number of steps the kernel takes to learn every number's
 * verdict. That count is exact where the time isn't, so it is what is held; the time is printed.
 */
START_TEST(installing_takes_few_steps)
{
	size_t steps = 0, worst = 0;

	for (int nr = 0; nr < 470; nr++) {
		struct seccomp_data data = { .nr = nr, .arch = seccomp_arch_native() };
		size_t before = steps;

		interpret(&data, &steps);
		if (steps - before > worst)
			worst = steps - before;
	}
	printf("filter: %zu instructions, %zu steps for all numbers\n", program_n, steps);
	ck_assert_uint_le(program_n, 200);
	ck_assert_uint_le(steps, 470 * 12);
}
END_TEST

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

START_TEST(installing_in_a_child_works_and_its_time_is_known)
{
	enum {
		ROUNDS = 51
	};
	uint64_t *us = mmap(NULL, ROUNDS * sizeof(*us), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	ck_assert_ptr_ne(us, MAP_FAILED);
	for (int i = 0; i < ROUNDS; i++) {
		pid_t pid = fork();
		int status;

		ck_assert_int_ge(pid, 0);
		if (pid == 0) {
			uint64_t start = nest_clock_mono_us();
			int r = nest_seccomp_install(seccomp_, NULL);

			us[i] = nest_clock_mono_us() - start;
			_exit(r < 0);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	qsort(us, ROUNDS, sizeof(*us), compare_u64);
	printf("install: %llu us median, %llu us p90\n", (unsigned long long)us[ROUNDS / 2],
		(unsigned long long)us[ROUNDS * 9 / 10]);
	munmap(us, ROUNDS * sizeof(*us));
}
END_TEST

/* Runs @body under the filter; returns the wait status. */
static int confined(void (*body)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (nest_seccomp_install(seccomp_, NULL) < 0)
			_exit(99);
		body();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

#define EXPECT_ERRNO(call, e)                                                  \
	do {                                                                   \
		errno = 0;                                                     \
		if ((call) != -1 || errno != (e)) {                            \
			dprintf(2, "%s: errno %d, not %d\n", #call, errno, e); \
			_exit(1);                                              \
		}                                                              \
	} while (0)

static void ask_for_what_is_refused(void)
{
	EXPECT_ERRNO(syscall(SYS_ptrace, 0, 0, 0, 0), EPERM);
	EXPECT_ERRNO(syscall(SYS_unshare, CLONE_NEWUSER), EPERM);
	EXPECT_ERRNO(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0), EPERM);
	EXPECT_ERRNO(syscall(SYS_clone3, 0, 0), ENOSYS);
	EXPECT_ERRNO(syscall(425, 1, 0), ENOSYS);
	EXPECT_ERRNO(syscall(SYS_bpf, 0, 0, 0), EPERM);
	EXPECT_ERRNO(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 0), EPERM);
	EXPECT_ERRNO(syscall(SYS_ioctl, 0, 1ull << 32 | TIOCSTI, 0), ENOTTY);
	EXPECT_ERRNO(syscall(SYS_socket, AF_VSOCK, SOCK_STREAM, 0), EAFNOSUPPORT);
	EXPECT_ERRNO(syscall(10000), ENOSYS);
	if (syscall(SYS_sync) != 0)
		_exit(1);
}

START_TEST(the_kernel_gives_the_same_answers)
{
	ck_assert_int_eq(confined(ask_for_what_is_refused), 0);
}
END_TEST

static void *run_thread(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

static void start_thread_and_child(void)
{
	pthread_t thread;
	int ran = 0, status;
	pid_t pid;

	if (pthread_create(&thread, NULL, run_thread, &ran) || pthread_join(thread, NULL) || !ran)
		_exit(1);
	pid = fork();
	if (pid == 0)
		_exit(7);
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		_exit(1);
}

START_TEST(threads_and_children_start_without_clone3)
{
	ck_assert_int_eq(confined(start_thread_and_child), 0);
}
END_TEST

#ifdef __x86_64__
static void call_as_i386(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
}

static void call_as_x32(void)
{
	syscall(0x40000000 | SYS_getpid);
}

START_TEST(calls_of_the_other_x86_abis_end_the_process)
{
	int status = confined(call_as_i386);

	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
	status = confined(call_as_x32);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}
END_TEST
#endif

static void run_node(void)
{
	static const char script[] =
		"const fs = require('fs'), os = require('os'), net = require('net');"
		"const { Worker } = require('worker_threads');"
		"os.networkInterfaces(); os.cpus(); process.memoryUsage();"
		"fs.readFile('/etc/passwd', () => {"
		" new Worker('process.exit(0)', { eval: true }).on('exit', () => {"
		"  const s = net.createServer().listen(0, () => {"
		"   require('child_process').execFileSync('/bin/true'); s.close(); }); }); });";

	execl("/usr/bin/node", "node", "-e", script, NULL);
	_exit(98);
}

static void run_python(void)
{
	static const char script[] =
		"import os, socket, subprocess, threading, tempfile, asyncio, mmap, time, uuid\n"
		"t = threading.Thread(target=lambda: time.sleep(0)); t.start(); t.join()\n"
		"subprocess.run(['/bin/true'], check=True)\n"
		"socket.if_nameindex(); socket.getaddrinfo('127.0.0.1', 80)\n"
		"async def f(): await asyncio.sleep(0)\n"
		"asyncio.run(f()); mmap.mmap(-1, 4096).close()\n";

	execl("/usr/bin/python3", "python3", "-I", "-c", script, NULL);
	_exit(98);
}

START_TEST(node_and_python_run)
{
	ck_assert_int_eq(confined(run_node), 0);
	ck_assert_int_eq(confined(run_python), 0);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("all");

	tcase_add_checked_fixture(tcase, setup, teardown);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, every_entry_gets_its_verdict);
	tcase_add_test(tcase, numbers_without_an_entry_answer_enosys);
	tcase_add_test(tcase, calls_younger_than_libseccomp_are_known_by_number);
	tcase_add_test(tcase, no_call_that_libseccomp_names_is_undecided);
	tcase_add_test(tcase, what_is_not_simply_allowed_has_a_reason);
	tcase_add_test(tcase, a_reason_that_refers_leads_to_a_reason);
	tcase_add_test(tcase, another_architecture_is_killed);
	tcase_add_test(tcase, clone_makes_threads_and_processes_but_no_namespace);
	tcase_add_test(tcase, sockets_are_unix_tcp_udp_and_route);
	tcase_add_test(tcase, ioctl_refuses_typing_into_a_terminal_whatever_the_high_half_says);
	tcase_add_test(tcase, prctl_and_personality_only_do_what_runtimes_need);
	tcase_add_test(tcase, mknod_makes_fifos_but_no_devices);
	tcase_add_test(tcase, installing_takes_few_steps);
	tcase_add_test(tcase, installing_in_a_child_works_and_its_time_is_known);
	tcase_add_test(tcase, the_kernel_gives_the_same_answers);
	tcase_add_test(tcase, threads_and_children_start_without_clone3);
#ifdef __x86_64__
	tcase_add_test(tcase, calls_of_the_other_x86_abis_end_the_process);
#endif
	tcase_add_test(tcase, node_and_python_run);
	return nest_suite_run_case("seccomp", tcase);
}
