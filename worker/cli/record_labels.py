"""Labels texts and records as a worker does, without Kafka: prepared, by each model, one outcome.

Owns: the models that it loads.
Thread: main.
Must not import: torch or transformers at the top.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from worker.core.decisions.treatment import treatment
from worker.core.decoder import Decoder
from worker.core.formats.plain_json import JsonFormat
from worker.core.records import (
    InvalidRecord,
    MicroBatch,
    Outcome,
    RawRecord,
    RecordRef,
    WorkItem,
)
from worker.settings import ModelPlan, Settings, plans

if TYPE_CHECKING:
    from worker.core.model import Classifier
    from worker.runtime.labellers import AnyLabeller

_PARTITION: Final = 0  # of records that are no topic's; their offsets are their lines


class RecordLabeller:
    """Makes outcomes of texts and records.

    Args:
        settings: of the worker.
        labeller: with the models.
        classifier: the model, or the set of them.
    """

    def __init__(self, settings: Settings, labeller: AnyLabeller, classifier: Classifier) -> None:
        self._labeller, self.classifier = labeller, classifier
        self._topic = next(iter(settings.topics.inputs), settings.input.topic)
        self._decoder = Decoder(settings.input, JsonFormat())
        self._lines = 0

    def label_texts(self, texts: Iterable[str]) -> list[Outcome]:
        """Return an outcome for each text, which is a record without other fields."""
        return self._label([WorkItem(self._record(b""), text) for text in texts])

    def label_records(self, values: Iterable[bytes]) -> list[Outcome]:
        """Return an outcome for each record: a JSON object with the text."""
        return self._label([self._decoder.decode(self._record(value)) for value in values])

    def _record(self, value: bytes) -> RawRecord:
        self._lines += 1
        ref = RecordRef(self._topic, _PARTITION, self._lines, epoch=0)
        return RawRecord(ref, 0, None, value, (), 0.0)

    def _label(self, entries: Sequence[WorkItem | InvalidRecord]) -> list[Outcome]:
        batch = MicroBatch(tuple(entries), "ready", 0.0, 0.0)
        return self._labeller.tokenise(batch, lambda: None).infer(lambda: None)


def record_labeller(settings: Settings) -> RecordLabeller:
    """Load the models; they label without a cache, and without a bound of failures.

    Raises:
        StreamlabelError: a model can't be loaded.
    """
    from worker.clock import SystemClock
    from worker.core.model_set import ModelSet, SetMember
    from worker.inference.warm import load
    from worker.metrics import Metrics
    from worker.runtime.labellers import Panel
    from worker.runtime.labelling import Labeller

    def member(plan: ModelPlan) -> SetMember:
        tokens = settings.batch.forward_tokens
        return SetMember(plan, *load(plan.options, tokens, treatment=treatment(plan.settings)))

    def beside(one: SetMember) -> Labeller:
        refuse = one.plan.windows.overflow == "dead_letter"
        return Labeller.beside(one.tokeniser, one.classifier, refuse_long=refuse)

    members = [member(plan) for plan in plans(settings)]
    if not settings.models:
        return RecordLabeller(settings, beside(members[0]), members[0].classifier)
    models = ModelSet(members)
    return RecordLabeller(settings, Panel(models, beside, Metrics(), SystemClock()), models)
