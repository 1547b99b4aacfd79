# SPDX-License-Identifier: Apache-2.0
"""Where running handlers report and wait: a test then knows what runs, and decides when it goes on."""

import socket
import threading

from host import wait_for

NODE = """
const net = require('node:net');
const beacon = (word) => new Promise((go, no) => {
    const socket = net.connect(%(port)d, '127.0.0.1', () => socket.write(`${word}\\n`));
    socket.on('data', () => { socket.destroy(); go(); });
    socket.on('error', no);
});
const meet = (word) => beacon(`meet ${word}`);
const tell = (word) => beacon(`tell ${word}`);
"""

PYTHON = """
import socket

def beacon(word):
    with socket.create_connection(("127.0.0.1", %(port)d)) as sock:
        sock.sendall(word.encode() + b"\\n")
        sock.recv(1)

def meet(word):
    beacon("meet " + word)

def tell(word):
    beacon("tell " + word)
"""


class Beacon:
    """A handler that calls meet(word) stays until release(); tell(word) goes on at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.told = []
        self.waiting = []  # (word, connection) of those who are here now
        self.most = 0
        self.is_open = False
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open()
        self.listener.close()

    def node(self):
        return NODE % {"port": self.port}

    def python(self):
        return PYTHON % {"port": self.port}

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.greet, args=(connection,), daemon=True).start()

    def greet(self, connection):
        with connection.makefile() as file:
            kind, _, word = file.readline().strip().partition(" ")
        with self.lock:
            self.told.append(word)
            if kind == "meet" and not self.is_open:
                self.waiting.append((word, connection))
                self.most = max(self.most, len(self.waiting))
                return
        self.let_go(connection)

    @staticmethod
    def let_go(connection):
        try:
            connection.sendall(b"g")
        except OSError:
            pass  # the handler has gone
        connection.close()

    def here(self):
        return len(self.waiting)

    def wait(self, n):
        """Waits until n handlers are here at once."""
        wait_for(lambda: self.here() == n, f"{n} handlers wait, {self.here()} do")

    def wait_told(self, word, times=1):
        wait_for(lambda: self.told.count(word) >= times, f"a handler tells {word!r}")

    def release(self, n=None):
        """Lets the first n handlers go on, by default all that are here."""
        with self.lock:
            n = len(self.waiting) if n is None else n
            going, self.waiting = self.waiting[:n], self.waiting[n:]
        for _, connection in going:
            self.let_go(connection)
        return [word for word, _ in going]

    def open(self):
        """From now on nobody has to wait."""
        with self.lock:
            self.is_open = True
        self.release()
