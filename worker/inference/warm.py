"""Loads a model while the caller does something else, warms it up, and logs its facts.

Owns: the load thread, and the collector of garbage while it runs.
Thread: load; the caller's for `load`, and for the entry and the exit of `loading`.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from worker import exits
from worker.clock import SystemClock
from worker.core.decisions.treatment import Treatment
from worker.core.model import Classifier, Tokeniser
from worker.core.model_set import ModelSet
from worker.core.records import ModelCard
from worker.heap import return_free_memory
from worker.inference.load_all import load_all
from worker.inference.memory import require_base
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.settings import ModelSettings, Settings, models_named

if TYPE_CHECKING:
    from worker.inference.decided import LoadedClassifier

log = get_logger(__name__)

_SWITCH_INTERVAL = 0.000_5  # seconds
_NICE = 5  # a third of the usual weight (sched(7))
_RAISE_AGAIN = 0.1  # seconds; a library may have swallowed the exception
# Seconds for a load to end. A worker has then drained, and a platform kills it 15 seconds after
# `shutdown_timeout`, a pool's parent after 10. A shadow's load may take this time once more.
_PATIENCE = 3.0


def load(
    settings: ModelSettings,
    forward_tokens: int | None,
    processes: int = 1,
    treatment: Treatment = Treatment(),  # noqa: B008 - it is frozen
) -> tuple[Tokeniser, LoadedClassifier]:
    """Import what a model needs, and load it; arguments and errors as `loading.load`."""
    require_base(settings.name, processes)
    with _no_collections():
        from worker.inference.loading import load as load_now  # noqa: PLC0415 - it takes seconds

        return load_now(settings, forward_tokens, processes=processes, treatment=treatment)


@contextmanager
def loading(
    settings: Settings,
    metrics: Metrics,
    *,
    beside: bool = False,
    replaces: bool = False,
    unless: ModelCard | ModelSet | None = None,
) -> Iterator[Future[tuple[Tokeniser, Classifier]]]:
    """Load and warm up a model on a thread; abandon that at the end of the `with` block.

    A load that does not end then is given up: see `exits.leave`.

    The future raises StreamlabelError if the model can't be loaded.

    Args:
        settings: name the model.
        metrics: show it, unless it is loaded beside another one.
        beside: whether the process has another model, which labels meanwhile. This one is then
            loaded with little disturbance.
        replaces: whether this one then takes its place. Implies `beside`.
        unless: a model, or several; if these are the same, the future raises ModelUnchanged. Of
            several, those that stay the same are not loaded again.
    """
    # On a thread that ends, because OpenMP's threads belong to the thread that they compute for,
    # and end with it. If OpenMP has more threads than cores, those of the infer thread sleep at the
    # end of each step instead of spinning (GOMP_SPINCOUNT in libgomp's manual): up to twice the
    # time.
    log.info("loading model", model=models_named(settings))
    beside = beside or replaces
    loaded = Future[tuple[Tokeniser, Classifier]]()
    thread = _LoadThread(
        loaded,
        lambda: load_all(settings, metrics, beside=beside, replaces=replaces, unless=unless),
        beside=beside,
    )
    thread.start()
    try:
        yield loaded
    finally:
        _abandon(thread, models_named(settings))


class _LoadThread(threading.Thread):
    """The thread that loads; another one can end it.

    Python 3.11 keeps an exception for a thread that runs no more bytecode as pending for ever. Each
    other thread then looks for it at each call, and one that a debugger or a measurement of
    coverage traces never gets further. So `interrupt` raises none once the thread is at its end.
    """

    def __init__(
        self,
        loaded: Future[tuple[Tokeniser, Classifier]],
        load: Callable[[], tuple[Tokeniser, Classifier]],
        *,
        beside: bool,
    ) -> None:
        super().__init__(name="load")
        self._loaded, self._load, self._beside = loaded, load, beside
        self._ending = threading.Lock()
        self._ends = False

    def run(self) -> None:
        """Load, and keep the result or the exception."""
        try:
            self._keep_result()
        finally:
            with self._ending:
                self._ends = True

    def interrupt(self) -> None:
        """Any other thread: raise SystemExit at this thread's next bytecode."""
        with self._ending:
            if not self._ends:
                ident = ctypes.c_ulong(self.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))

    def _keep_result(self) -> None:
        try:
            with _in_the_background() if self._beside else _no_collections():
                result = self._load()
        except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits
            self._loaded.set_exception(error)
        else:
            self._loaded.set_result(result)


def _abandon(thread: _LoadThread, model: str) -> None:
    """End the thread at its next bytecode; give it up if it reaches none for a while.

    Otherwise the process would wait for it at its exit, for seconds, or for ever if the code of a
    library hangs. As a daemon it would wake up in an interpreter that is being destroyed, inside of
    a C++ destructor that must not unwind.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + _PATIENCE
    while thread.is_alive():
        if clock.monotonic() >= deadline:
            exits.give_up(thread)
            log.warning(
                "the load of a model does not end: this process will end without it",
                model=model,
                waited_seconds=_PATIENCE,
            )
            return
        thread.interrupt()
        thread.join(_RAISE_AGAIN)


@contextmanager
def _in_the_background() -> Iterator[None]:
    """Leave the processor and Python's lock to the threads that label.

    A pass of the model takes Python's lock hundreds of times. While this thread runs Python code,
    each of these waits for Python's switch interval: with the usual 5 ms a pass takes seconds.
    """
    from worker.inference.threads import few_threads  # noqa: PLC0415 - torch

    return_free_memory()  # of a model before; the check of memory counts what is in use
    with _short_turns:
        _yield_processor()
        with few_threads():
            yield


class _ShortTurns:
    """Shortens the turns of Python's lock while at least one thread is in its `with` block.

    A second model, a shadow, may still be loading when a change of the first one begins.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._usual = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._usual = sys.getswitchinterval()
                sys.setswitchinterval(_SWITCH_INTERVAL)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                sys.setswitchinterval(self._usual)


_short_turns = _ShortTurns()


def _yield_processor() -> None:
    """Give this thread a lower priority, for as long as it lives; Linux has one for each thread.

    Not lower still: a thread that holds Python's lock and gets no processor would keep others from
    it. And not beside OpenVINO, whose pools inherit the priority, and live as long as the model.
    """
    if sys.platform == "linux" and find_spec("openvino") is None:
        with suppress(OSError):  # a sandbox may forbid it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Collect no garbage meanwhile, and exempt what exists at the end from later collections.

    The imports make 600,000 objects, which all stay. Going through them again and again takes a
    quarter of the imports' time, and later 0.3 s for each full collection, in which no thread runs.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
