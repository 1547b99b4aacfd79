# SPDX-License-Identifier: Apache-2.0
"""TCP connections of a worker that is about to be frozen.

They can't be its clones', so park() ends them, and puts a connection that its peer has closed in the
place of each. Whoever waits for one in an epoll does not notice yet, else it would connect anew, and
be frozen with that; announce(), in the clone, has them notice. Reading then ends, writing fails with
EPIPE: what every program that keeps connections expects of them.
"""

import errno
import os
import re

_parked = []
_WATCH = re.compile(r"tfd:\s*(\d+) events:\s*([0-9a-f]+)")


def park(own):
    """@own is the channel. Only a worker that has sockets pays for what follows."""
    links = _links()
    found = [fd for fd, link in links.items() if link.startswith("socket:") and fd != own]
    connections = {fd for fd in found if _is_connection(fd)}
    if not connections:
        return
    for epoll in (fd for fd, link in links.items() if link == "anon_inode:[eventpoll]"):
        with open(f"/proc/self/fdinfo/{epoll}", encoding="ascii") as info:
            for fd, events in _WATCH.findall(info.read()):
                if int(fd) in connections:
                    _parked.append((epoll, int(fd), int(events, 16)))
    for fd in connections:
        _replace(fd)


def announce():
    if not _parked:
        return
    import select

    for epoll, fd, events in _parked:
        try:
            select.epoll.fromfd(os.dup(epoll)).register(fd, events)
        except OSError:
            pass  # one that was closed since has nobody who waits for it
    _parked.clear()


def _links():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # the directory's own
    return found


def _is_connection(fd):
    """One that was begun, and has perhaps ended: a socket that never was one says ENOTCONN, and may
    be used yet."""
    import socket

    sock = socket.socket(fileno=fd)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
            return False
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 7:  # TCP_CLOSE
            return True
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return True
    except OSError as error:
        return error.errno != errno.ENOTCONN
    finally:
        sock.detach()


def _replace(fd):
    import socket

    ended, peer = socket.socketpair()
    peer.close()
    os.set_blocking(ended.fileno(), os.get_blocking(fd))
    os.dup2(ended.fileno(), fd, inheritable=os.get_inheritable(fd))
    ended.close()
