"""Reads the settings file again, and begins a change of the model.

Owns: the triggers of a change: SIGHUP, POST /model, and a settings file that changes.
Thread: `settings` waits for signals and looks at the file; any thread may call `request` and
    `state`.
Must not import: kafka, inference, cli.

Only `[model]`, `[models.NAME]`, `[prepare]` and `[decision]` take effect while a worker runs.
Other settings that differ are named in the log: they need a restart. A request over HTTP changes
the members that it names, and lasts until the settings are read again.

A signal or a changed file is not lost while another change is under way: the file is read when that
has ended. A request over HTTP is refused instead, because its sender can repeat it.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from worker.errors import ChangeUnderway, SettingsError
from worker.http.model import ModelChange, ModelControl
from worker.logs import get_logger
from worker.settings import Loaded, Settings, changed_options, is_changeable, with_members

log = get_logger(__name__)

POST: Final = "POST /model"
FILE: Final = "settings file"

_LOOK: Final = 1.0  # seconds between looks at the settings file
_NONE: Final = ""
_END: Final = "end"


class SettingsReload:
    """Begins changes of the model, for the length of a `with` block.

    Args:
        loaded: the settings at the start, and how to read them again.
        control: changes the model.
        triggers: receives `signals.HANG_UP` for each SIGHUP; a signal handler may put it there at
            any time.
        look: seconds between looks at the settings file.
    """

    def __init__(
        self,
        loaded: Loaded,
        control: ModelControl,
        triggers: queue.SimpleQueue[str] | None = None,
        look: float = _LOOK,
    ) -> None:
        self._loaded, self._control, self._look = loaded, control, look
        self._triggers = queue.SimpleQueue[str]() if triggers is None else triggers
        self._file = FileWatch(loaded.file) if loaded.file else None
        self._thread = threading.Thread(target=self._run, name="settings", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._triggers.put(_END)
        self._thread.join()

    @property
    def settings(self) -> Settings:
        """The settings with the model in use."""
        return self._control.settings

    def request(self, members: Mapping[str, Any]) -> ModelChange:
        """Begin a change; see `ModelRequests`."""
        if not members:
            return self._control.change(self._read_again(), POST)
        settings = with_members(
            self._control.settings, {f"model.{name}": v for name, v in members.items()}, POST
        )
        return self._control.change(settings, POST)

    def state(self) -> dict[str, Any]:
        """Return the members `model` and `change` of GET /model."""
        return self._control.state()

    def _read_again(self) -> Settings:
        """Return the settings as they are now; name those that would need a restart.

        Raises:
            SettingsError: they are wrong, or there is no settings file.
        """
        if self._loaded.file is None:
            raise SettingsError(
                "this worker has no settings file to read again: start it with --config FILE, or "
                "send the members of [model] to change"
            )
        settings = self._loaded.again().settings
        waiting = [
            path
            for path in changed_options(self._loaded.settings, settings)
            if not is_changeable(path)
        ]
        if waiting:
            log.warning("changed settings need a restart to take effect", settings=waiting)
        return settings

    def _run(self) -> None:
        waiting = _NONE
        while True:
            try:
                trigger = self._triggers.get(timeout=self._look)
            except queue.Empty:
                trigger = FILE if self._file_changed() else waiting
            if trigger == _END:
                return
            if trigger == _NONE:
                continue
            begun = not self._is_loading() and self._begin(trigger)
            if not begun and waiting == _NONE:
                log.info(
                    "another change of the model is under way: this one waits for its end",
                    trigger=trigger,
                )
            waiting = _NONE if begun else trigger

    def _is_loading(self) -> bool:
        change = self._control.state()["change"]
        return bool(change and change["outcome"] == "loading")

    def _file_changed(self) -> bool:
        watched = self._control.settings.model.reload_on_change
        return bool(watched and self._file and self._file.changed())

    def _begin(self, trigger: str) -> bool:
        """Begin a change, or refuse it; return False if another one has begun meanwhile."""
        try:
            settings = self._read_again()
            log.info("settings read again", trigger=trigger, file=str(self._loaded.file))
            self._control.change(settings, trigger)
        except SettingsError as error:
            self._control.refuse(trigger, str(error))
        except ChangeUnderway:
            return False
        return True


class FileWatch:
    """Tells when a file's content has changed, whichever way it was replaced.

    Kubernetes replaces a link to the file's folder, editors rename another file to its name, and
    others write into it. So the content decides. It has to be the same at two looks, so that a file
    that is being written is not read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._seen = self._digest()

    def changed(self) -> bool:
        """Return True once for each new content. A file that can't be read has not changed."""
        digest, seen = self._digest(), self._seen
        self._seen = digest
        if digest is None or digest != seen or digest == self._known:
            return False
        self._known = digest
        return True

    def _digest(self) -> bytes | None:
        try:
            return hashlib.sha256(self._file.read_bytes()).digest()
        except OSError:
            return None
