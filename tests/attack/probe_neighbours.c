/* SPDX-License-Identifier: Apache-2.0 */
/* Other cells' processes, and the network. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <mqueue.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "tests/attack/probe.h"

#define SHM_KEY 0x6e657374
#define QUEUE "/nest-attack"
#define SECRET "/tmp/nest-attack-secret"
#define SHM_SECRET "/dev/shm/nest-attack-secret"

static void make_file(const char *path)
{
	nest_autoclose int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);

	if (fd < 0 || fchmod(fd, 0666) < 0 || write(fd, "secret", 6) != 6)
		probe_broken("make %s: %s", path, strerror(errno));
}

/*
 * A neighbour: leaves in its cell what another might look for, says so, and then answers whoever
 * asks, until the driver hangs up.
 */
static void attack_neighbour(int argc, char **argv)
{
	mqd_t queue;

	(void)argc, (void)argv;
	make_file(SECRET);
	make_file(SHM_SECRET);
	if (shmget(SHM_KEY, 4096, IPC_CREAT | 0666) < 0)
		probe_broken("shmget: %s", strerror(errno));
	queue = mq_open(QUEUE, O_CREAT | O_RDWR, 0666, NULL);
	if (queue < 0)
		probe_broken("mq_open: %s", strerror(errno));
	probe_tell();
	while (probe_wait())
		probe_tell();
}

/* Counts the processes that /proc shows. */
static size_t count_processes(void)
{
	nest_autoclosedir DIR *dir = opendir("/proc");
	const struct dirent *entry;
	size_t n = 0;

	if (!dir)
		probe_broken("/proc: %s", strerror(errno));
	while (dir && (entry = readdir(dir)))
		if (atoi(entry->d_name) > 0)
			n++;
	return n;
}

/* argv: the neighbour's pids in the host's view. */
static void attack_processes(int argc, char **argv)
{
	size_t n = count_processes();

	if (argc == 0)
		probe_broken("no pids");
	probe_hold(n <= 2, "/proc shows %zu processes", n);
	for (int i = 0; i < argc; i++) {
		static const char *const below[] = { "", "/root", "/fd", "/environ", "/mem",
			"/cwd" };
		pid_t pid = atoi(argv[i]);

		if (pid <= 2) /* those are our own here */
			continue;
		probe_deny("kill", kill(pid, SIGKILL), ESRCH);
		probe_deny("pidfd_open", syscall(SYS_pidfd_open, pid, 0), ESRCH);
		for (size_t b = 0; b < NEST_ARRAY_SIZE(below); b++) {
			char path[64];

			snprintf(path, sizeof(path), "/proc/%d%s", pid, below[b]);
			probe_deny(path, open(path, O_RDONLY | O_CLOEXEC), ENOENT);
		}
	}
}

static void attack_neighbours_things(int argc, char **argv)
{
	(void)argc, (void)argv;
	probe_deny(SECRET, open(SECRET, O_RDONLY | O_CLOEXEC), ENOENT);
	probe_deny(SHM_SECRET, open(SHM_SECRET, O_RDONLY | O_CLOEXEC), ENOENT);
	probe_deny("shmget", shmget(SHM_KEY, 0, 0), ENOENT);
	probe_deny("mq_open", mq_open(QUEUE, O_RDWR), ENOENT);
}

/* The init has another user, and is outside of the worker's Landlock domain besides. */
static void attack_signal_init(int argc, char **argv)
{
	static const int signals[] = { 0, SIGKILL, SIGSTOP, SIGTERM, SIGHUP, SIGSEGV, SIGCHLD };

	(void)argc, (void)argv;
	for (size_t i = 0; i < NEST_ARRAY_SIZE(signals); i++)
		probe_deny("kill init", kill(1, signals[i]), EPERM);
	probe_deny_either("setpriority of init", syscall(SYS_setpriority, 0, 1, 10), EPERM, ESRCH);
}

/* Harms its own children only; the driver sees that everything else lives. */
static void attack_kill_all(int argc, char **argv)
{
	pid_t pid = fork();
	int status;

	(void)argc, (void)argv;
	if (pid == 0) {
		pause();
		_exit(0);
	}
	if (kill(-1, SIGKILL) < 0)
		probe_broken("kill(-1): %s", strerror(errno));
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		probe_broken("its own child lives");
}

static void deny_interfaces(void)
{
	struct ifaddrs *all = NULL;

	if (getifaddrs(&all) < 0)
		probe_broken("getifaddrs: %s", strerror(errno));
	for (struct ifaddrs *i = all; i; i = i->ifa_next)
		probe_hold(strcmp(i->ifa_name, "lo") == 0, "interface %s", i->ifa_name);
	freeifaddrs(all);
}

static long connect_inet(const char *address, unsigned short port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	nest_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		probe_broken("socket: %s", strerror(errno));
	inet_pton(AF_INET, address, &addr.sin_addr);
	return connect(fd, (struct sockaddr *)&addr, sizeof(addr));
}

/* argv[0]: a port on which the host listens on its loopback. */
static void attack_no_network(int argc, char **argv)
{
	if (argc < 1) {
		probe_broken("no port");
		return;
	}
	deny_interfaces();
	probe_deny("connect out", connect_inet("192.0.2.1", 80), ENETUNREACH);
	probe_deny("connect to the host", connect_inet("127.0.0.1", (unsigned short)atoi(argv[0])),
		ECONNREFUSED);
	probe_deny("bind below 1024",
		syscall(SYS_bind, socket(AF_INET, SOCK_STREAM, 0),
			&(struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(80) },
			sizeof(struct sockaddr_in)),
		EACCES);
}

/* What is left once the route netlink is open: looking, not changing. */
static void attack_change_network(int argc, char **argv)
{
	struct ifreq request = { .ifr_name = "lo" };
	nest_autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	nest_autoclose int route = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	/*
	 * struct nlmsghdr and struct ifinfomsg: RTM_NEWLINK, bring lo up, which it is: this may be
	 * the network of the machine that runs the test
	 */
	struct {
		unsigned length;
		unsigned short type, flags;
		unsigned sequence, pid;
		unsigned char family, pad;
		unsigned short device_type;
		int index;
		unsigned device_flags, change;
	} up = { .length = sizeof(up),
		.type = 16,
		.flags = 5,
		.index = 1,
		.device_flags = IFF_UP,
		.change = IFF_UP };
	int answer[64] = { 0 };

	(void)argc, (void)argv;
	probe_deny("SIOCSIFFLAGS", syscall(SYS_ioctl, fd, 0x8914, &request), ENOTTY);
	if (send(route, &up, sizeof(up), 0) != (ssize_t)sizeof(up) ||
		recv(route, answer, sizeof(answer), 0) < 20)
		probe_broken("the route netlink does not answer: %s", strerror(errno));
	probe_hold(answer[4] == -EPERM, "changed lo: %d", answer[4]);
}

const struct probe_case probe_neighbours_cases[] = {
	{ "neighbour", attack_neighbour },
	{ "processes", attack_processes },
	{ "neighbours-things", attack_neighbours_things },
	{ "signal-init", attack_signal_init },
	{ "kill-all", attack_kill_all },
	{ "no-network", attack_no_network },
	{ "change-network", attack_change_network },
	{ NULL, NULL },
};
