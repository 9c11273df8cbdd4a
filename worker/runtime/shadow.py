"""Labels a share of the texts with a second model, after the first, and compares the two.

Owns: the texts that wait for the second model, its time, and the comparison.
Thread: infer; the thread that loads the second model calls `use` or `give_up`, and the poll thread
    `give_up`.
Must not import: kafka, torch.

The second model runs on the infer thread, between two micro-batches, so that torch keeps one caller
and each pass finds all cores free. On a thread of its own, the passes of both models compete for
the cores, and together take more CPU time (measured: docs/shadow.md).

Its time is bounded as by a token bucket. It earns the time in which the first model does nothing,
and `shadow.max_cost` seconds for each second of the first model's work; it runs while it has some
left. So a backlog gets at most that much slower, and an idle worker spends what is free anyway.
Texts that don't fit are skipped and counted. A text waits here as a copy without its record, so
neither a micro-batch nor an offset waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from worker.clock import Clock
from worker.core.records import Classified, MicroBatch, ModelCard, Outcome
from worker.core.shadow import TextComparison, is_chosen
from worker.errors import StreamlabelError
from worker.logs import get_logger
from worker.metrics import Metrics, ShadowState
from worker.runtime.labelling import Labeller
from worker.runtime.shadow_figures import CountedComparison
from worker.settings import ShadowSettings

log = get_logger(__name__)

# Most texts that wait, and their characters: about one micro-batch.
_TEXTS, _CHARACTERS = 1_024, 1_000_000
# The same of a group that runs at once: about one forward pass, which a micro-batch may wait for.
_GROUP_TEXTS, _GROUP_CHARACTERS = 64, 16_000
_MOST_CREDIT: Final = 1.0  # seconds; an idle hour must not pay for a long stop of a new backlog

Publish = Callable[[Sequence[Classified]], None]


class Shadow:
    """Compares a second model with the first.

    Args:
        settings: which texts it sees, and what it may cost.
        metrics: of the comparison.
        clock: measures its time.
    """

    def __init__(self, settings: ShadowSettings, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self._labeller: Labeller | None = None
        self._publish: Publish = lambda _: None
        self._missing = "loading"  # why there is no labeller
        self._waiting: deque[Classified] = deque()
        self._characters = 0
        self._credit, self._model_seconds = 0.0, 0.0
        self._seen_at = clock.monotonic()
        self._comparison: CountedComparison | None = None
        metrics.shadow_share.set(settings.share)
        metrics.shadow_state.set(ShadowState.LOADING)

    # -- the thread that loads ----------------------------------------------------------------

    def use(self, labeller: Labeller, publish: Publish | None = None) -> None:
        """Begin to compare with this model; its results go to `publish`, if given."""
        if self._missing == "failed":  # given up while it was loading
            return
        self._publish = publish or self._publish
        self._labeller = labeller
        self._metrics.shadow_state.set(ShadowState.COMPARING)

    def give_up(self, reason: str) -> None:
        """Compare no more: the second model can't be loaded, fails, or has other texts."""
        log.error(
            "the shadow is off, the worker goes on without it",
            shadow=self._settings.name,
            reason=reason,
        )
        self._missing, self._labeller = "failed", None
        self._metrics.shadow_state.set(ShadowState.FAILED)

    # -- the infer thread ---------------------------------------------------------------------

    def note(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Keep the chosen texts of a micro-batch that the first model took `seconds` for."""
        self._model_seconds += seconds
        try:
            self._keep(outcomes)
        except Exception as error:  # noqa: BLE001 - no fault of the shadow may end a stage
            self.give_up(_reason(error))

    def _keep(self, outcomes: Sequence[Outcome]) -> None:
        chosen = [o for o in outcomes if isinstance(o, Classified) and self._chooses(o)]
        if not chosen:
            return
        if self._labeller is None:
            self._skip(self._missing, len(chosen))
            return
        skipped = 0
        for outcome in chosen:
            characters = len(outcome.item.text)
            full = self._characters + characters > _CHARACTERS or len(self._waiting) >= _TEXTS
            if full and self._waiting:
                skipped += 1
            else:
                self._waiting.append(_alone(outcome))
                self._characters += characters
        if skipped:
            self._skip("behind", skipped)

    def _chooses(self, outcome: Classified) -> bool:
        topic, partition, offset, _ = outcome.item.record.ref
        return is_chosen(topic, partition, offset, self._settings.share)

    def between(self) -> None:
        """Run the second model on the texts that wait, as long as there is time left for it."""
        self._earn()
        while self._waiting and self._credit > 0:
            labeller = self._labeller
            if labeller is None:
                self._skip(self._missing, len(self._waiting))
                self._waiting.clear()
                self._characters = 0
                return
            group = self._take_group()
            try:
                self._run(labeller, group)
            except Exception as error:  # noqa: BLE001 - no fault of the shadow may end a stage
                self._skip("failed", len(group))
                self.give_up(_reason(error))
            self._spend()

    def _earn(self) -> None:
        """Add the time since the last call: idle time whole, that of the first model in part."""
        now = self._clock.monotonic()
        idle = max(0.0, now - self._seen_at - self._model_seconds)
        earned = idle + self._settings.cost * self._model_seconds
        self._credit = min(_MOST_CREDIT, self._credit + earned)
        self._seen_at, self._model_seconds = now, 0.0

    def _spend(self) -> None:
        now = self._clock.monotonic()
        self._credit -= now - self._seen_at
        self._seen_at = now

    def _take_group(self) -> list[Classified]:
        group: list[Classified] = []
        characters = 0
        while self._waiting and len(group) < _GROUP_TEXTS:
            size = len(self._waiting[0].item.text)
            if group and characters + size > _GROUP_CHARACTERS:
                break
            group.append(self._waiting.popleft())
            characters += size
        self._characters -= characters
        return group

    def _run(self, labeller: Labeller, group: Sequence[Classified]) -> None:
        began = self._clock.monotonic()
        batch = MicroBatch(tuple(one.item for one in group), "ready", began, began)
        outcomes = labeller.infer(labeller.tokenise(batch, _no_step), _no_step)
        done = [
            (ours, theirs)
            for ours, theirs in zip(group, outcomes, strict=True)
            if isinstance(theirs, Classified)
        ]
        if failed := len(group) - len(done):
            self._skip("failed", failed)
        self._publish([theirs for _, theirs in done])
        self._count(done)
        if self._comparison:
            self._comparison.seconds.observe(self._clock.monotonic() - began)

    def _count(self, pairs: Sequence[tuple[Classified, Classified]]) -> None:
        """Count the texts, those of each first model apart: it may have changed between them."""
        compared: list[TextComparison] = []
        for ours, theirs in pairs:
            comparison = self._comparison
            if comparison is None or comparison.model != ours.model:
                if comparison:
                    comparison.count(compared)
                    self._metrics.clear_comparison()
                compared = []
                comparison = self._begin(ours.model, theirs.model)
            compared.append(comparison.compare(ours, theirs))
        if self._comparison:
            self._comparison.count(compared)

    def _begin(self, model: ModelCard, shadow: ModelCard) -> CountedComparison:
        self._comparison = CountedComparison(
            model, shadow, self._settings, self._metrics, self._clock.wall_ms()
        )
        return self._comparison

    def _skip(self, reason: str, texts: int) -> None:
        self._metrics.shadow_skipped.labels(reason).inc(texts)


def _alone(outcome: Classified) -> Classified:
    """Return the outcome without its record's value and headers, which may be large."""
    item = outcome.item
    record = replace(item.record, value=None, headers=())
    return replace(outcome, item=replace(item, record=record, payload=None, frame=None))


def _reason(error: Exception) -> str:
    # A library's message may quote a text.
    return str(error) if isinstance(error, StreamlabelError) else type(error).__name__


def _no_step() -> None:
    """Report nothing: a stall of the infer stage shows by the next micro-batch."""
