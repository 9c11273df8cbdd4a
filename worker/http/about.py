"""Describes a worker by what stays the same while it runs: identity, settings in force, links.

Owns: the choice of what the page may show of the settings. Secrets never leave this module.
Thread: main builds it, before the server starts; any thread may read it.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from worker.settings import Loaded, Option, Settings, inline, options, plain

Json = dict[str, Any]

DOCS: Final = "https://streamlabel.github.io/streamlabel/"
HIDDEN: Final = "(hidden)"  # in place of a value that is or may hold a secret
_DEFAULT: Final = "default"
_CHANGED: Final = "changed while running"
# Settings that `streamlabel dead-letters replay` needs: the cluster and the topics.
_REPLAY: Final = (
    *("kafka.", "input.topic", "output.topic", "output.dead_letter_topic"),
    *("output.filtered_topic", "routes"),
)
# Names of this worker: a replay has a group of its own.
_OWN: Final = ("kafka.group_id", "kafka.group_instance_id", "kafka.client_id")


class About:
    """The page's facts that come from the settings.

    Args:
        loaded: the worker's settings, with the origin of each.
        started_ms: when its process started.

    Attributes:
        identity: topics, group, brokers, host, and when the process started.
        links: addresses that the page links to; None for one that is not known.
        replay: the command that replays this worker's dead letters, with the flags that it needs.
        replay_needs: variables of secrets that the command reads too.
    """

    def __init__(self, loaded: Loaded, started_ms: int) -> None:
        self._loaded = loaded
        self.identity = _identity(loaded.settings, started_ms)
        self.links: Json = {"docs": DOCS, "board": loaded.settings.http.board_url}
        self.replay = _replay(loaded)
        self.replay_needs = [
            option.env[0] for option, value in _needed(loaded) if _hidden(option, value)
        ]

    def in_force(self, now: Settings | None = None) -> list[Json]:
        """Return name, value and origin of each option, in the order of the declaration.

        Args:
            now: the settings with what has changed since the start; None if nothing has.
        """
        return list(_in_force(self._loaded, now or self._loaded.settings))


def _identity(settings: Settings, started_ms: int) -> Json:
    topics, kafka = settings.topics, settings.kafka
    return {
        "inputs": list(topics.inputs),
        "pattern": topics.pattern,
        "output": topics.output,
        "dead_letters": topics.dead_letters,
        "group": kafka.group_id,
        "brokers": kafka.bootstrap_servers.split(","),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started_at": started_ms,
        "delivery": settings.delivery,
        "processes": settings.processes,
        "mode": settings.output.mode,
        "cluster_name": None,
    }


def _in_force(loaded: Loaded, now: Settings) -> Iterator[Json]:
    for option in options():
        value = _value(now, option)
        origin = loaded.origins.get(option.path, _DEFAULT)
        if value != _value(loaded.settings, option):
            origin = _CHANGED
        if value and not option.quotable:
            value = _public(option, value)
        yield {"name": option.path, "value": _shown(value), "origin": origin}


def _value(settings: Settings, option: Option) -> Any:
    holder = getattr(settings, option.section) if option.section else settings
    return getattr(holder, option.path.rpartition(".")[2])


def _public(option: Option, value: Any) -> Any:
    """Return what may be shown of a value that may hold a secret: of an address, where it is."""
    return HIDDEN if _hidden(option, value) else _without_user(value)


def _hidden(option: Option, value: Any) -> bool:
    return option.secret or not (option.quotable or isinstance(value, str))


def _shown(value: Any) -> Any:
    """Return a value fit for JSON; an address loses its user and password."""
    value = plain(value)
    if isinstance(value, tuple | list):
        return [_shown(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _shown(one) for name, one in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, str) and "://" in value and "@" in value:
        return _without_user(value)
    return value


def _without_user(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:  # an unbalanced bracket
        return HIDDEN
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _needed(loaded: Loaded) -> Iterator[tuple[Option, Any]]:
    """Yield the options that a replay needs and that are set outside the settings file."""
    for option in options():
        origin = loaded.origins.get(option.path)
        if not origin or origin.startswith("file ") or option.path in _OWN:
            continue
        if option.path.startswith(_REPLAY):
            yield option, _value(loaded.settings, option)


def _replay(loaded: Loaded) -> str:
    words = ["streamlabel", "dead-letters", "replay"]
    if loaded.file:
        words += ["--config", str(loaded.file)]
    if "kafka.group_id" in loaded.origins:
        words += ["--group-id", f"{loaded.settings.kafka.group_id}-replay"]
    for option, value in _needed(loaded):
        if not _hidden(option, value):
            words += _flag(option, _shown(value if option.quotable else _without_user(value)))
    return shlex.join(words)


def _flag(option: Option, value: Any) -> list[str]:
    if option.is_switch:
        return [option.flag if value else f"--no-{option.flag.removeprefix('--')}"]
    if option.is_toml:
        value = inline(value)
    if isinstance(value, dict):
        value = [f"{name}={one}" for name, one in value.items()]
    if isinstance(value, list):
        value = ",".join(map(str, value))
    return [option.flag, str(value)]
