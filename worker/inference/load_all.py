"""Loads the model of a worker, or its models one after another, and warms each up.

Owns: the order of loading, and the choice of models that stay as they are.
Thread: load.
Must not import: kafka_io, runtime; torch and transformers before the memory is checked.

Several models are loaded one beside the other, so the memory of each is checked with what those
before it take. When the settings change, a model with the same options and weights is kept.
"""

from __future__ import annotations

from worker.clock import Clock, SystemClock
from worker.core.decisions.treatment import treatment
from worker.core.model import Classifier, Tokeniser
from worker.core.model_set import ModelSet, SetMember
from worker.core.records import ModelCard
from worker.errors import ModelUnchanged, SettingsError
from worker.inference.memory import require_base
from worker.limits import own_memory
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.settings import ModelPlan, Settings, plans

log = get_logger(__name__)


def load_all(
    settings: Settings,
    metrics: Metrics,
    *,
    beside: bool,
    replaces: bool,
    unless: ModelCard | ModelSet | None,
) -> tuple[Tokeniser, Classifier]:
    """Load the models of these settings; arguments and errors as `warm.loading`."""
    if settings.models:
        kept = unless if isinstance(unless, ModelSet) else None
        models = _load_set(settings, beside=beside, replaces=replaces, kept=kept)
        loaded: tuple[Tokeniser, Classifier] = models, models
    else:
        same = unless if isinstance(unless, ModelCard) else None
        loaded = _load(settings, beside=beside, replaces=replaces, unless=same)
    card = loaded[1].card
    if not beside:
        metrics.model.info(card.facts)
        metrics.show_each_model({name: one.facts for name, one in card.members})
    return loaded


def _load_set(
    settings: Settings, *, beside: bool, replaces: bool, kept: ModelSet | None
) -> ModelSet:
    """Load several models.

    Raises:
        ModelUnchanged: they are those that are in use.
    """
    members: list[SetMember] = []
    loaded = 0
    for plan in plans(settings):
        same = _same(plan, kept)
        try:
            tokeniser, classifier = _load(
                plan.settings,
                beside=beside or bool(members),
                replaces=replaces,
                unless=same.card if same else None,
                name=plan.name,
            )
            loaded += 1
        except ModelUnchanged:
            if same is None:
                raise
            tokeniser, classifier = same.tokeniser, same.classifier
        except SettingsError as error:
            raise SettingsError(f"models.{plan.name}: {error}") from None
        members.append(SetMember(plan, tokeniser, classifier))
    if kept and not loaded and _uses(members) == _uses(kept.members):
        raise ModelUnchanged(
            f"the models {kept.card.name} are in use already, with the same settings and weights"
        )
    return ModelSet(members)


def _same(plan: ModelPlan, kept: ModelSet | None) -> SetMember | None:
    """Return a model in use with the same options, whose weights may have changed since."""
    members = kept.members if kept else ()
    return next((one for one in members if one.plan.results == plan.results), None)


def _uses(members: list[SetMember] | tuple[SetMember, ...]) -> list[tuple[object, ...]]:
    return [(one.name, one.plan.when, one.plan.required) for one in members]


def _load(
    settings: Settings,
    *,
    beside: bool,
    replaces: bool,
    unless: ModelCard | None,
    name: str | None = None,
) -> tuple[Tokeniser, Classifier]:
    seconds = _Laps(SystemClock())
    if not beside:
        require_base(settings.model.name, settings.processes)
    from worker.inference.loading import load  # noqa: PLC0415 - torch and transformers

    seconds.end("import_seconds")
    tokeniser, classifier = load(
        settings.model,
        settings.batch.forward_tokens,
        processes=settings.processes,
        in_use=own_memory() if beside else None,
        replaces=replaces,
        unless=unless,
        treatment=treatment(settings),
    )
    seconds.end("load_seconds")
    classifier.warm_up()
    seconds.end("warm_up_seconds")
    card = classifier.card
    log.info(
        "model ready",
        **({"name": name} if name else {}),
        labels=list(card.labels),
        max_tokens=card.max_tokens,
        forward_tokens=card.forward_tokens,
        **card.facts,
        **seconds.laps,
    )
    return tokeniser, classifier


class _Laps:
    """The seconds of each phase of a start, by name."""

    def __init__(self, clock: Clock) -> None:
        self.laps: dict[str, float] = {}
        self._clock, self._began = clock, clock.monotonic()

    def end(self, phase: str) -> None:
        """Record the time since the previous phase ended."""
        now = self._clock.monotonic()
        self.laps[phase], self._began = round(now - self._began, 2), now
