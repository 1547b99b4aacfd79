# SPDX-License-Identifier: Apache-2.0
"""What a worker does about its own snapshot: it comes to rest before it is frozen, and each clone,
before its first request, becomes one of its own (docs/worker-protocol.md, "Snapshots").

os.urandom, secrets and uuid4 ask the kernel each time. The generators of random and of ssl go on in
a clone where its siblings' do, and are reseeded. The seed of str's hash is the interpreter's for
life: clones share it.
"""

import inspect
import json
import os
import sys
import threading
import time
from types import ModuleType

from . import connections
from .errors import RuntimeFault

# Python 3.11 specialises a function's code when it runs for the eighth time.
_REHEARSALS = 10

_before = []
_after = []
_born = {}


def install_module():
    """What functions import as nestlet."""
    module = ModuleType("nestlet", "What a function may tell the host that runs it.")

    def before_snapshot(hook):
        """Registers a hook that runs before this worker is frozen. Also a decorator."""
        _before.append(hook)
        return hook

    def after_restore(hook):
        """Registers a hook that runs in each clone before its first request. Also a decorator."""
        _after.append(hook)
        return hook

    module.before_snapshot = before_snapshot
    module.after_restore = after_restore
    sys.modules.setdefault("nestlet", module)


def remember_environment():
    """What the process was born with, to tell the host's variables from those that code sets."""
    _born.update(os.environ)


def adopt(module):
    """The hooks that a handler's module has by name run before those that were registered."""
    for hooks, name in ((_before, "before_snapshot"), (_after, "after_restore")):
        hook = vars(module).get(name)
        if inspect.isfunction(hook) and hook not in hooks and hook.__module__ == module.__name__:
            hooks.insert(0, hook)


def hooks_before():
    """Those to run before the freeze, the latest first."""
    return _before[::-1]


def hooks_after():
    """Those to run in each clone, in the order of their registration."""
    return list(_after)


def collect():
    """Garbage would lie in every clone."""
    import gc

    gc.collect()


def rehearse(bare):
    """What a clone does first has the interpreter rewrite its code for what it meets: once for all clones.

    The host tells the environment only where it isn't what it was at the freeze: to the bare runtime."""
    for _ in range(_REHEARSALS):
        told = {"entropy": os.urandom(64).hex(), "hookTimeoutMs": 0}
        if bare:
            told["env"] = dict(_born)
        _renew(json.loads(json.dumps(told).encode()))


def refresh(told):
    """Makes this clone one of its own."""
    _renew(told)
    connections.announce()


def _renew(told):
    reseed(bytes.fromhex(told["entropy"]))
    if "env" in told:
        _set_environment(told["env"])
    time.tzset()


class Watchdog:
    """Ends the process when hooks take too long: nothing can interrupt what runs on a thread."""

    def __init__(self, name, limit_ms, late):
        self._text = f"the {name} hooks were not done within {limit_ms} ms"
        self._timer = threading.Timer(limit_ms / 1000, self._expire)
        self._late = late

    def _expire(self):
        self._late(RuntimeFault("Runtime.HookTimeout", self._text))

    def __enter__(self):
        self._timer.start()

    def __exit__(self, *_exc):
        """Also ends the thread: a frozen process had better have few."""
        self._timer.cancel()
        self._timer.join()


def run(hooks):
    """On a thread without an event loop."""
    for hook in hooks:
        result = hook()
        if inspect.iscoroutine(result):
            import asyncio

            asyncio.run(result)


async def run_async(hooks):
    for hook in hooks:
        result = hook()
        if inspect.iscoroutine(result):
            await result


def reseed(entropy):
    """Modules that nobody has loaded draw their seed when they are."""
    if "random" in sys.modules:
        sys.modules["random"].seed(os.urandom(32))
    if "_ssl" in sys.modules:
        sys.modules["_ssl"].RAND_add(entropy, float(len(entropy)))
    if "tempfile" in sys.modules:
        sys.modules["tempfile"]._name_sequence = None
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(int.from_bytes(os.urandom(4), "little"))


def _set_environment(env):
    for name, value in _born.items():
        if name not in env and os.environ.get(name) == value:
            del os.environ[name]
    for name, value in env.items():
        if _born.get(name) != value:
            os.environ[name] = value
    _born.clear()
    _born.update(env)
