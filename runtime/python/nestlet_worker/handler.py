# SPDX-License-Identifier: Apache-2.0
"""Finds and loads the function's handler, "path/module.name"."""

import importlib
import os

from . import snapshot
from .errors import RuntimeFault

# Tried where an application is wanted and the named one is not there.
_APPLICATIONS = ("app", "application")
_CO_COROUTINE = 0x80
_CO_ASYNC_GENERATOR = 0x200


def load(code_dir, handler, interface):
    """Returns the handler, a callable. Raises RuntimeFault, which names the file and what was
    looked for, or what user code raised."""
    module_name, name = _split(handler)
    module = _import(code_dir, handler, module_name)
    snapshot.adopt(module)
    names = (name,) if interface == "event" else (name, *_APPLICATIONS)
    for candidate in names:
        found = _look_up(module, candidate)
        if found is not None:
            return _checked(found, handler, module, candidate)
    has = ", ".join([n for n in vars(module) if not n.startswith("_")][:16])
    wanted = " or ".join(f"'{n}'" for n in dict.fromkeys(names))
    raise RuntimeFault(
        "Runtime.HandlerNotFound",
        f"no handler '{handler}': '{_file_of(module)}' has no {wanted}; it has: {has or 'nothing'}",
    )


def _split(handler):
    text = handler.replace(":", ".")
    module_name, dot, name = text.rpartition(".")
    parts = module_name.replace("/", ".").split(".")
    if not dot or not name or "" in parts:
        raise RuntimeFault(
            "Runtime.MalformedHandlerName",
            f"the handler '{handler}' is not of the form 'path/module.name'",
        )
    return ".".join(parts), name


def _import(code_dir, handler, module_name):
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except SyntaxError as error:
        raise RuntimeFault(
            "Runtime.UserCodeSyntaxError",
            f"load '{error.filename or module_name}': {error.msg}, line {error.lineno}",
        ) from error
    except ModuleNotFoundError as error:
        stem = os.path.join(code_dir, *module_name.split("."))
        own = error.name and (module_name == error.name or module_name.startswith(error.name + "."))
        why = f"looked for {stem}.py and {stem}/__init__.py" if own else str(error)
        raise RuntimeFault(
            "Runtime.ImportModuleError", f"load the handler '{handler}': {why}"
        ) from error
    except ImportError as error:
        raise RuntimeFault(
            "Runtime.ImportModuleError", f"load the handler '{handler}': {error}"
        ) from error
    except SystemExit as error:
        raise RuntimeFault(
            "Runtime.ExitError", f"load the handler '{handler}': exited with {error.code}"
        ) from error


def _look_up(module, name):
    return getattr(module, name, None)


def _checked(found, handler, module, name):
    if callable(found):
        return found
    raise RuntimeFault(
        "Runtime.HandlerNotFound",
        f"no handler '{handler}': '{name}' in '{_file_of(module)}' is of type "
        f"{type(found).__name__}, not callable",
    )


def _file_of(module):
    return getattr(module, "__file__", None) or module.__name__


def is_async(handler):
    """Whether calling @handler gives a coroutine or an asynchronous generator."""
    while hasattr(handler, "func") and hasattr(handler, "keywords"):
        handler = handler.func  # functools.partial
    code = getattr(handler, "__code__", None)
    if code is None:
        code = getattr(getattr(type(handler), "__call__", None), "__code__", None)
    return code is not None and bool(code.co_flags & (_CO_COROUTINE | _CO_ASYNC_GENERATOR))
