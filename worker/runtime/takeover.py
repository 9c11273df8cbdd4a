"""Puts another model in place of the one in use, between two micro-batches.

Owns: the checks of a model that is loaded against the worker that it is for.
Thread: the poll thread.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.core.decisions.rules import decidable_labels, result_labels
from worker.core.model import Classifier, Tokeniser
from worker.core.records import ModelCard
from worker.core.route_topics import cards_of, spelling_notes, with_label_topics
from worker.core.topics import TopicInfo
from worker.errors import SettingsError, StreamlabelError
from worker.logs import get_logger
from worker.runtime.context import InFlight, WorkerContext
from worker.runtime.formats import require_form, require_paths
from worker.runtime.labeller_choice import build_labeller
from worker.runtime.outputs import OutputTopics
from worker.runtime.pipeline import Pipeline
from worker.runtime.shadow import Shadow
from worker.runtime.topics import result_size_warning
from worker.settings import Settings

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ModelTaker:
    """Takes another model into a worker that is complete.

    Attributes:
        settings: of the worker at its start.
        context: exists before the worker.
        topics: describes its topics.
        outputs, work, pipeline: the parts that know of the model.
        shadow: compares a second model, if one is set; it keeps the preparation of the start.
    """

    settings: Settings
    context: WorkerContext
    topics: Mapping[str, TopicInfo]
    outputs: OutputTopics
    work: InFlight
    pipeline: Pipeline
    shadow: Shadow | None = None

    def __call__(self, settings: Settings, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Put a model in place.

        Raises:
            SettingsError: it does not fit the worker. Then nothing has changed.
        """
        require_form(self.settings, settings)
        require_paths(self.settings, settings)
        if warning := result_size_warning(settings, self.topics, classifier.card):
            log.warning(warning)
        self._prepare_topics(settings, classifier)
        labeller = build_labeller(settings, tokeniser, classifier, self.context)
        self._show(labeller.card)
        self.pipeline.use(labeller)
        if self.shadow and settings.prepare != self.settings.prepare:
            self.shadow.give_up("[prepare] has changed since its start: restart the worker")

    def _prepare_topics(self, settings: Settings, classifier: Classifier) -> None:
        """Make the topics ready that the labels of the model name."""
        cards = cards_of(classifier)
        named = with_label_topics(settings, cards)
        try:
            self.outputs.use(named)
        except StreamlabelError as error:
            raise SettingsError(f"the topics of its labels are not ready: {error}") from None
        for text in spelling_notes(settings, cards):
            log.warning(text)

    def _show(self, card: ModelCard) -> None:
        metrics = self.context.metrics
        metrics.create_label_series(result_labels(card), decidable_labels(card))
        metrics.model.info(card.facts)
        metrics.show_each_model({name: one.facts for name, one in card.members})
        if self.work.drift:
            self.work.drift.follow(card)
