"""Changes the model of a running worker: loads the new one beside the old one, then takes it over.

Owns: the change under way, and what is known of the last one.
Thread: any thread may request a change and read the state; the poll thread loads and takes over.
Must not import: kafka, inference, cli; the function that loads a model is passed in.

One change at a time. Until the new model is loaded, checked and warm, the old one labels. It takes
over between two micro-batches. If anything fails on the way, the old one stays.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any, Final, Protocol

from worker.clock import Clock
from worker.core.model import Classifier, Tokeniser
from worker.core.model_set import ModelSet
from worker.core.records import ModelCard
from worker.errors import ChangeUnderway, ModelUnchanged, SettingsError, StreamlabelError
from worker.heap import return_free_memory
from worker.http.model import ChangeOutcome, ModelChange
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.first_offsets import FirstOffsets
from worker.settings import Settings, models_named, with_models_of

Model = tuple[Tokeniser, Classifier]
# Checks that a model fits the worker, and puts it in place of the one in use. Raises SettingsError
# if it does not fit; then nothing has changed.
TakeOver = Callable[[Settings, Tokeniser, Classifier], None]

log = get_logger(__name__)

_LAST_BATCHES: Final = 15.0  # seconds; by then the model before has labelled its last ones


class LoadModel(Protocol):
    """Loads a model on a thread for the length of a `with` block; leaving it abandons the load.

    With `beside` the model is loaded beside the one in use, which goes on meanwhile. With
    `replaces` it is too, and then takes its place. With `unless` the future raises
    `ModelUnchanged` if it would be that same model again; of several, those that stay the same are
    not loaded again.
    """

    def __call__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        beside: bool = False,
        replaces: bool = False,
        unless: ModelCard | ModelSet | None = None,
    ) -> AbstractContextManager[Future[Model]]: ...


class ModelChanges:
    """The model of one worker, and its changes.

    Args:
        settings: of the worker, with the model of the start.
        load: loads a model.
        metrics: count the changes.
        clock: dates them.

    Attributes:
        first_offsets: where the results of each model begin.
        permit: asked, on the poll thread, before a model that is loaded takes over; it waits while
            that is False.
    """

    def __init__(self, settings: Settings, load: LoadModel, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._load, self._metrics, self._clock = settings, load, metrics, clock
        self._lock = threading.Lock()
        self._wanted: Settings | None = None
        self._last: ModelChange | None = None
        self._card: ModelCard | None = None
        self._since_ms = 0
        self._tidy_at = math.inf
        self._take_over: TakeOver | None = None
        self._in_use: Callable[[], Classifier | None] = lambda: None
        self._loading: Future[Model] | None = None
        self._load_block = ExitStack()
        self.permit: Callable[[], bool] = lambda: True
        self.first_offsets = FirstOffsets(metrics, clock.wall_ms)

    # -- any thread ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings with the model in use."""
        return self._settings

    def change(self, settings: Settings, trigger: str) -> ModelChange:
        """Request a change to the model of these settings. It begins in the main loop.

        Raises:
            ChangeUnderway: another change has not ended yet.
        """
        with self._lock:
            last = self._last
            if last is not None and last.outcome == "loading":
                raise ChangeUnderway(
                    f"a change to {last.name}, requested by {last.trigger}, is under way: try again "
                    "when it has ended, as GET /model and the log show"
                )
            now_ms, name = self._clock.wall_ms(), models_named(settings)
            self._wanted = with_models_of(self._settings, settings)
            revision = settings.model.revision
            self._last = ModelChange(trigger, name, revision, "loading", now_ms)
            return self._last

    def refuse(self, trigger: str, reason: str) -> None:
        """Note a request that can't be begun, because the settings can't be read."""
        now_ms = self._clock.wall_ms()
        with self._lock:
            if self._last is None or self._last.outcome != "loading":
                self._last = ModelChange(trigger, "", None, "refused", now_ms, now_ms, reason)
        self._count("refused", trigger, reason)

    def state(self) -> dict[str, Any]:
        """Return the members `model` and `change` of GET /model; each may be null."""
        card, last = self._card, self._last
        shown = card and _facts(card) | {"since": self._since_ms}
        if shown and card and card.members:
            shown["members"] = {name: _facts(one) for name, one in card.members}
        return {"model": shown, "change": last.as_json() if last else None}

    # -- the poll thread -----------------------------------------------------------------------

    def connect(
        self,
        card: ModelCard,
        take_over: TakeOver,
        in_use: Callable[[], Classifier | None] = lambda: None,
    ) -> None:
        """Begin to change the model of a worker that is complete.

        Args:
            card: of its model.
            take_over: puts another one in its place.
            in_use: returns it, or the one that has taken over since. It is not kept here, so that
                its memory is free once another one is in its place.
        """
        self._take_over, self._in_use = take_over, in_use
        self._note_in_use(card)

    def step(self) -> None:
        """Begin the change that was requested, or end one whose model is loaded. Never waits."""
        if self._clock.monotonic() >= self._tidy_at:
            self._tidy_at = math.inf
            return_free_memory()
        if self._take_over is None or self._wanted is None:
            return
        if self._loading is None:
            self._begin(self._wanted)
        elif self._loading.done() and (self._loading.exception() or self.permit()):
            self._end(self._wanted, self._loading, self._take_over)

    def close(self) -> None:
        """Abandon the change under way."""
        self._load_block.close()

    def _begin(self, wanted: Settings) -> None:
        self._loading = self._load_block.enter_context(
            self._load(wanted, self._metrics, replaces=True, unless=self._stays(wanted))
        )

    def _stays(self, wanted: Settings) -> ModelCard | ModelSet | None:
        """Return what need not be loaded again, if its weights are the same."""
        before = self._settings
        if wanted.models:
            in_use = self._in_use()
            return in_use if isinstance(in_use, ModelSet) else None
        watched = {"reload_on_change": wanted.model.reload_on_change}
        same = wanted.model == before.model.model_copy(update=watched) and not before.models
        return self._card if same else None

    def _end(self, wanted: Settings, loading: Future[Model], take_over: TakeOver) -> None:
        outcome, reason = _judged(loading.exception())
        if outcome == "changed":
            tokeniser, classifier = loading.result()
            try:
                take_over(wanted, tokeniser, classifier)
                self._note_in_use(classifier.card)
                self._tidy_at = self._clock.monotonic() + _LAST_BATCHES
            except (
                SettingsError
            ) as misfit:  # not kept: it refers to this frame, and so to the model
                outcome, reason = _judged(misfit)
        if outcome in ("changed", "unchanged"):
            self._settings = wanted
        self._loading = None
        self._load_block.close()  # releases what the future holds
        with self._lock:
            self._wanted = None
            if self._last is not None:
                self._last = replace(
                    self._last, outcome=outcome, reason=reason, ended_ms=self._clock.wall_ms()
                )
            trigger = self._last.trigger if self._last else ""
        self._count(outcome, trigger, reason)

    def _note_in_use(self, card: ModelCard) -> None:
        self._card, self._since_ms = card, self._clock.wall_ms()

    def _count(self, outcome: ChangeOutcome, trigger: str, reason: str) -> None:
        self._metrics.model_changes.labels(outcome).inc()
        card = self._card
        facts = {
            "trigger": trigger,
            "model": card.name if card else None,
            "revision": card.revision if card else None,
            "weights_sha256": card.weights_sha256 if card else None,
        }
        if outcome == "changed":
            log.info("model changed: it labels from the next micro-batch on", **facts)
        elif outcome == "unchanged":
            log.info("model not changed", reason=reason, **facts)
        else:
            log.error("model not changed: the one in use stays", reason=reason, **facts)


def _facts(card: ModelCard) -> dict[str, Any]:
    return {
        "name": card.name,
        "revision": card.revision,
        "weights_sha256": card.weights_sha256,
        "labels": list(card.labels),
        "engine": card.engine,
        "dtype": card.dtype,
        "device": card.device,
    }


def _judged(error: BaseException | None) -> tuple[ChangeOutcome, str]:
    """Return the outcome of a change that ended with this error, and its reason."""
    if error is None:
        return "changed", ""
    if isinstance(error, ModelUnchanged):
        return "unchanged", str(error)
    if isinstance(error, SettingsError):
        return "refused", str(error)
    # Whatever a library raised, sys.exit included, must not end the worker.
    expected = isinstance(error, StreamlabelError)
    return "failed", str(error) if expected else f"{type(error).__name__}: {error}"
