/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that a worker may not make, and privileges that it may not gain. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/attack/probe.h"

#define DENY(errnum, nr, ...) probe_deny(#nr, syscall(nr, ##__VA_ARGS__), errnum)

static void attack_mounts(int argc, char **argv)
{
	(void)argc, (void)argv;
	DENY(EPERM, SYS_mount, "tmpfs", "/tmp", "tmpfs", 0, NULL);
	DENY(EPERM, SYS_mount, "/etc", "/tmp", NULL, 4096 /* MS_BIND */, NULL);
	DENY(EPERM, SYS_mount, NULL, "/", NULL, 32 /* MS_REMOUNT */, NULL);
	DENY(EPERM, SYS_mount, "proc", "/tmp", "proc", 0, NULL);
	DENY(EPERM, SYS_umount2, "/tmp", 0);
	DENY(EPERM, SYS_umount2, "/proc", 2 /* MNT_DETACH */);
	DENY(EPERM, SYS_pivot_root, "/tmp", "/tmp");
	DENY(EPERM, SYS_chroot, "/tmp");
	DENY(EPERM, SYS_open_tree, AT_FDCWD, "/", 1);
	DENY(EPERM, SYS_open_tree, AT_FDCWD, "/", 0);
	DENY(EPERM, SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/etc", 0);
	DENY(EPERM, SYS_fsopen, "tmpfs", 0);
	DENY(EPERM, SYS_fsconfig, -1, 0, NULL, NULL, 0);
	DENY(EPERM, SYS_fsmount, -1, 0, 0);
	DENY(EPERM, SYS_fspick, AT_FDCWD, "/", 0);
	DENY(EPERM, SYS_mount_setattr, AT_FDCWD, "/", 0, NULL, 0);
	DENY(EPERM, 467 /* open_tree_attr */, AT_FDCWD, "/", 1, NULL, 0);
}

static void attack_ptrace(int argc, char **argv)
{
	static char secret[] = "x";
	struct iovec local = { secret, 1 }, remote = { secret, 1 };
	pid_t pid = fork();

	(void)argc, (void)argv;
	if (pid == 0) {
		pause();
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		pid_t target = i ? 1 : pid;

		DENY(EPERM, SYS_ptrace, PTRACE_ATTACH, target, 0, 0);
		DENY(EPERM, SYS_ptrace, PTRACE_SEIZE, target, 0, 0);
		DENY(EPERM, SYS_process_vm_readv, target, &local, 1, &remote, 1, 0);
		DENY(EPERM, SYS_process_vm_writev, target, &local, 1, &remote, 1, 0);
		DENY(EPERM, SYS_kcmp, getpid(), target, 0, 0, 0);
		DENY(EPERM, SYS_pidfd_getfd, (int)syscall(SYS_pidfd_open, target, 0), 0, 0);
	}
	DENY(EPERM, SYS_ptrace, PTRACE_TRACEME, 0, 0, 0);
	probe_deny_either("open /proc/1/mem", open("/proc/1/mem", O_RDWR), EACCES, ENOENT);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void attack_interfaces(int argc, char **argv)
{
	(void)argc, (void)argv;
	DENY(EPERM, SYS_bpf, 0, NULL, 0);
	DENY(EPERM, SYS_perf_event_open, NULL, 0, -1, -1, 0);
	DENY(EPERM, SYS_keyctl, 0, -3, 0, 0, 0);
	DENY(EPERM, SYS_add_key, "user", "a", "b", 1, -2);
	DENY(EPERM, SYS_request_key, "user", "a", "b", -2);
	DENY(EPERM, SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */);
	DENY(ENOSYS, 425 /* io_uring_setup */, 1, NULL);
	DENY(ENOSYS, 426 /* io_uring_enter */, 0, 0, 0, 0, NULL, 0);
	DENY(ENOSYS, 427 /* io_uring_register */, 0, 0, NULL, 0);
	DENY(EPERM, SYS_seccomp, 1, 8 /* SECCOMP_FILTER_FLAG_NEW_LISTENER */, NULL);
	DENY(EINVAL, SYS_prctl, PR_SET_SECCOMP, 1, 0, 0, 0);
	DENY(EINVAL, SYS_prctl, PR_SET_MM, 1, 0, 0, 0);
	DENY(EPERM, SYS_fanotify_init, 0, 0);
	DENY(EPERM, SYS_name_to_handle_at, AT_FDCWD, "/", NULL, NULL, 0);
	DENY(EPERM, SYS_open_by_handle_at, AT_FDCWD, NULL, 0);
	DENY(EPERM, SYS_quotactl, 0, NULL, 0, NULL);
	DENY(EPERM, SYS_personality, ADDR_NO_RANDOMIZE);
	DENY(EPERM, SYS_process_madvise, -1, NULL, 0, 0, 0);
}

static void attack_machine(int argc, char **argv)
{
	(void)argc, (void)argv;
	DENY(EPERM, SYS_reboot, 0xfee1dead, 672274793, 0, NULL); /* 0: only the key */
	DENY(EPERM, SYS_kexec_load, 0, 0, NULL, 0);
	DENY(EPERM, SYS_init_module, NULL, 0, "");
	DENY(EPERM, SYS_finit_module, -1, "", 0);
	DENY(EPERM, SYS_delete_module, "nothing", 0);
	DENY(EPERM, SYS_swapon, "/tmp/nothing", 0);
	DENY(EPERM, SYS_swapoff, "/tmp/nothing");
	DENY(EPERM, SYS_acct, NULL);
	DENY(EPERM, SYS_settimeofday, NULL, NULL);
	DENY(EPERM, SYS_clock_settime, 0, NULL);
	DENY(EPERM, SYS_adjtimex, NULL);
	DENY(EPERM, SYS_syslog, 10 /* size of the buffer */, NULL, 0);
	DENY(EPERM, SYS_sethostname, "other", 5);
	DENY(EPERM, SYS_vhangup);
#ifdef __x86_64__
	DENY(EPERM, SYS_iopl, 3);
	DENY(EPERM, SYS_ioperm, 0, 1, 1);
	DENY(EPERM, SYS_modify_ldt, 0, NULL, 0);
#endif
}

static void deny_clone(int flag)
{
	long pid = syscall(SYS_clone, flag | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	probe_deny("clone", pid, EPERM);
}

static void attack_namespaces(int argc, char **argv)
{
	static const int flags[] = { CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER,
		CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP, 0x80 /* CLONE_NEWTIME */ };
	static const char *const names[] = { "mnt", "uts", "ipc", "user", "pid", "net", "cgroup" };

	(void)argc, (void)argv;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(flags); i++) {
		DENY(EPERM, SYS_unshare, flags[i]);
		DENY(EPERM, SYS_unshare, flags[i] | CLONE_NEWUSER);
		if (flags[i] != 0x80) /* in clone these bits are the exit signal */
			deny_clone(flags[i]);
	}
	for (size_t i = 0; i < NEST_ARRAY_SIZE(names); i++) {
		char path[64];
		nest_autoclose int fd = -1;

		snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			probe_broken("open %s: %s", path, strerror(errno));
		DENY(EPERM, SYS_setns, fd, 0);
		snprintf(path, sizeof(path), "/proc/1/ns/%s", names[i]);
		probe_deny_either(path, open(path, O_RDONLY | O_CLOEXEC), EACCES, ENOENT);
	}
	DENY(ENOSYS, SYS_clone3, NULL, 0);
}

static void attack_devices(int argc, char **argv)
{
	struct stat st;

	(void)argc, (void)argv;
	DENY(EPERM, SYS_mknodat, AT_FDCWD, "/tmp/mem", S_IFCHR | 0666, makedev(1, 1));
	DENY(EPERM, SYS_mknodat, AT_FDCWD, "/tmp/disk", S_IFBLK | 0666, makedev(8, 0));
	DENY(EPERM, SYS_mknodat, AT_FDCWD, "/tmp/null", S_IFCHR | 0666, makedev(1, 3));
	if (mkfifo("/tmp/fifo", 0600) < 0 || stat("/tmp/fifo", &st) < 0 || !S_ISFIFO(st.st_mode))
		probe_broken("a FIFO can't be made: %s", strerror(errno));
}

static uint64_t status_field(const char *name)
{
	nest_autofclose FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	size_t len = strlen(name);

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, len) == 0 && line[len] == ':')
			return strtoull(line + len + 1, NULL, 16);
	probe_broken("/proc/self/status has no %s", name);
	return UINT64_MAX;
}

static void attack_ids(int argc, char **argv)
{
	static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { 1u << CAP_SETUID, 1u << CAP_SETUID, 0 } };
	gid_t group = 0;

	(void)argc, (void)argv;
	probe_hold(getuid() != 0 && geteuid() != 0 && getgid() != 0 && getegid() != 0, "is root");
	probe_hold(getgroups(0, NULL) == 0, "has supplementary groups");
	for (size_t i = 0; i < NEST_ARRAY_SIZE(sets); i++)
		probe_hold(status_field(sets[i]) == 0, "%s is not empty", sets[i]);
	probe_hold(status_field("NoNewPrivs") == 1, "no_new_privs is not set");
	probe_hold(status_field("Seccomp") == 2, "no filter");
	DENY(EPERM, SYS_setuid, 0);
	DENY(EPERM, SYS_setresuid, 0, 0, 0);
	DENY(EPERM, SYS_setresuid, -1, 0, -1);
	DENY(EPERM, SYS_setgid, 0);
	DENY(EPERM, SYS_setresgid, 0, 0, 0);
	DENY(EPERM, SYS_setgroups, 1, &group);
	DENY(EPERM, SYS_setgroups, 0, NULL);
	DENY(EPERM, SYS_capset, &header, data);
}

/* argv[0]: a copy of this program that is set-uid root; its case below tells what it became. */
static void attack_setuid_program(int argc, char **argv)
{
	struct stat st;
	pid_t pid;
	int status;

	if (argc < 1 || stat(argv[0], &st) < 0 || !(st.st_mode & S_ISUID) || st.st_uid != 0) {
		probe_broken("no set-uid program to run");
		return;
	}
	pid = fork();
	if (pid == 0) {
		execl(argv[0], argv[0], "am-i-root", (char *)NULL);
		_exit(PROBE_BROKEN);
	}
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) == PROBE_BROKEN)
		probe_broken("the set-uid program ended with 0x%x", status);
	else
		probe_hold(WEXITSTATUS(status) == 0, "a set-uid program gained root");
}

static void attack_am_i_root(int argc, char **argv)
{
	(void)argc, (void)argv;
	probe_hold(geteuid() != 0, "root");
	probe_hold(status_field("CapEff") == 0, "capabilities");
}

/* Runs @call in a child; it has to be killed by the filter. */
static void deny_abi(const char *what, void (*call)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		call();
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		probe_broken("%s: %s", what, strerror(errno));
	else
		probe_hold(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS,
			"%s ran on: status 0x%x", what, status);
}

#ifdef __x86_64__
static void call_i386(void)
{
	long r;

	__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
}

static void call_x32(void)
{
	syscall(0x40000000 | SYS_getpid);
}
#endif

static void attack_other_abis(int argc, char **argv)
{
	(void)argc, (void)argv;
#ifdef __x86_64__
	deny_abi("an i386 system call", call_i386);
	deny_abi("an x32 system call", call_x32);
#else
	(void)deny_abi;
#endif
}

static void attack_sockets(int argc, char **argv)
{
	static const int families[] = { AF_PACKET, AF_VSOCK, AF_ALG, AF_BLUETOOTH, AF_CAN, AF_TIPC,
		AF_KEY, AF_XDP };

	(void)argc, (void)argv;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(families); i++)
		DENY(EAFNOSUPPORT, SYS_socket, families[i], SOCK_RAW, 0);
	DENY(EAFNOSUPPORT, SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP);
	DENY(EAFNOSUPPORT, SYS_socket, AF_INET6, SOCK_RAW, IPPROTO_TCP);
	DENY(EAFNOSUPPORT, SYS_socket, AF_INET, SOCK_STREAM, 132 /* SCTP */);
	for (int protocol = 1; protocol < 22; protocol++)
		DENY(EAFNOSUPPORT, SYS_socket, AF_NETLINK, SOCK_RAW, protocol);
}

static void attack_terminal(int argc, char **argv)
{
	(void)argc, (void)argv;
	for (int fd = 0; fd <= 3; fd++) {
		probe_hold(!isatty(fd), "descriptor %d is a terminal", fd);
		DENY(ENOTTY, SYS_ioctl, fd, TIOCSCTTY, 0);
		DENY(ENOTTY, SYS_ioctl, fd, TIOCSTI, "x");
		DENY(ENOTTY, SYS_ioctl, fd, 1ul << 32 | TIOCSTI, "x");
		DENY(ENOTTY, SYS_ioctl, fd, TIOCLINUX, "\2");
	}
	probe_deny("open /dev/ptmx", open("/dev/ptmx", O_RDWR), ENOENT);
	probe_deny_either("open /dev/tty", open("/dev/tty", O_RDWR), ENOENT, ENXIO);
}

static void attack_core_dumps(int argc, char **argv)
{
	struct rlimit limit = { .rlim_cur = 1 << 20, .rlim_max = 1 << 20 };
	pid_t pid;
	int status;

	(void)argc, (void)argv;
	probe_deny("raise RLIMIT_CORE", setrlimit(RLIMIT_CORE, &limit), EPERM);
	pid = fork();
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL);
		abort();
	}
	waitpid(pid, &status, 0);
	probe_hold(WIFSIGNALED(status) && !WCOREDUMP(status), "a crash dumped core");
}

static void attack_priority(int argc, char **argv)
{
	struct sched_param param = { .sched_priority = 1 };
	nest_autoclose int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	(void)argc, (void)argv;
	probe_deny("setpriority -20", setpriority(PRIO_PROCESS, 0, -20), EACCES);
	probe_deny("sched_setscheduler FIFO", sched_setscheduler(0, SCHED_FIFO, &param), EPERM);
	probe_deny("ioprio_set realtime", syscall(SYS_ioprio_set, 1, 0, 1 << 13), EPERM);
	if (fd < 0)
		probe_broken("open oom_score_adj: %s", strerror(errno));
	probe_deny("hide from the OOM killer", write(fd, "-1000", 5), EACCES);
}

const struct probe_case probe_kernel_cases[] = {
	{ "mounts", attack_mounts },
	{ "ptrace", attack_ptrace },
	{ "interfaces", attack_interfaces },
	{ "machine", attack_machine },
	{ "namespaces", attack_namespaces },
	{ "devices", attack_devices },
	{ "ids", attack_ids },
	{ "setuid-program", attack_setuid_program },
	{ "am-i-root", attack_am_i_root },
	{ "other-abis", attack_other_abis },
	{ "sockets", attack_sockets },
	{ "terminal", attack_terminal },
	{ "core-dumps", attack_core_dumps },
	{ "priority", attack_priority },
	{ NULL, NULL },
};
