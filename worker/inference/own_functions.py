"""Finds the function that `prepare.function` names, in the environment that the worker runs in.

The current directory and the rest of Python's path are left out: a person who can write a file
there must not be able to run code in the worker.

Owns: where a function may come from, and the mark of its version.
Thread: the one that loads the model.
Must not import: torch, transformers.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from worker.core.decisions.own_function import OwnFunction
from worker.errors import Interrupted, SettingsError

_DIGITS: Final = 12  # of the digest in a mark
_PYTHONS_OWN: Final = "frozen"  # the origin of modules that Python has within itself

_DEFERS: Final = (
    inspect.iscoroutinefunction,
    inspect.isasyncgenfunction,
    inspect.isgeneratorfunction,
)


@cache
def own_function(name: str) -> OwnFunction:
    """Return the function, imported once in a process: a changed one needs a restart.

    Args:
        name: `package.module:name`.

    Raises:
        SettingsError: it is not installed, fails to import, or is no function.
    """
    module_name, _, member = name.partition(":")
    _require_installed(name, module_name.partition(".")[0])
    module = _imported(name, module_name)
    function: Any = getattr(module, member, None)
    if problem := _unusable(function):
        raise SettingsError(
            f"prepare.function = {name!r}: {member} of {module_name} {problem}: name a function "
            "that takes a text and returns one"
        )
    return OwnFunction(name, _mark(module, module_name), function)


def _unusable(function: object) -> str:
    """Return the reason why something can't prepare texts, or an empty string."""
    if function is None:
        return "does not exist"
    if not callable(function):
        return f"is no function but of the type {type(function).__name__}"
    if any(test(one) for test in _DEFERS for one in (function, type(function).__call__)):
        return "is a coroutine or a generator, which returns no text"
    return ""


def installed_folders() -> list[Path]:
    """Return the folders of the environment that hold installed packages, and Python's own."""
    paths = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib", "platstdlib")]
    paths += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        paths.append(site.getusersitepackages())
    return [Path(path).resolve() for path in dict.fromkeys(paths) if path]


def _require_installed(name: str, package: str) -> None:
    """Raise SettingsError unless the package would be imported from the environment."""
    if package in sys.builtin_module_names:
        return
    folders = [str(folder) for folder in installed_folders()]
    installed = PathFinder.find_spec(package, folders)
    if installed is None or not _places(installed):
        raise SettingsError(
            f"prepare.function = {name!r}: {package} is not installed in {sys.prefix}: install its "
            "package with pip (a file in the current directory is not used, nor an editable install)"
        )
    imported = importlib.util.find_spec(package) or installed
    if imported.origin == _PYTHONS_OWN:
        return
    for place in _places(imported):
        if place not in _places(installed):
            raise SettingsError(
                f"prepare.function = {name!r}: {place} hides the installed package {package}: "
                "start the worker in another directory, or rename that file"
            )


def _places(spec: ModuleSpec) -> list[Path]:
    """Return the file of a module, or the folders of a package without an `__init__.py`."""
    places = [spec.origin] if spec.has_location and spec.origin else []
    places = places or [*(spec.submodule_search_locations or ())]
    return [Path(place).resolve() for place in places]


def _imported(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except BaseException as error:
        if isinstance(error, Interrupted):
            raise
        raise SettingsError(
            f"prepare.function = {name!r}: the import of {module} fails with "
            f"{type(error).__name__}: {error}"
        ) from error


def _mark(module: ModuleType, name: str) -> str:
    """Return the version of the module's package, if it has one, and a digest of its file."""
    packages = packages_distributions().get(name.partition(".")[0], [])
    file = getattr(module, "__file__", None)  # modules in C have none
    source = Path(file).read_bytes() if file else b""
    digest = hashlib.sha256(source).hexdigest()[:_DIGITS]
    return f"{version(packages[0])}-{digest}" if packages else digest
