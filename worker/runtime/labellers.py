"""Labels each record with several models, one after another, and makes one outcome of theirs.

Owns: the order of the models, the records that each applies to, and the outcome of a record.
Thread: `tokenise` runs on the tokenise thread, `infer` on the infer thread.
Must not import: kafka, torch.

Each model has a `Labeller` of its own, with its own cache, budget and circuit breaker. A condition
on a field of the record is decided before the text is tokenised. A condition on another model's
label is decided when that one has labelled, and the text is tokenised before: the tokenizer belongs
to another thread than the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from worker.clock import Clock
from worker.core.absences import NOT_APPLICABLE, SKIPPED, Absence, Part
from worker.core.decided_members import judged
from worker.core.decisions.conditions import FieldTest
from worker.core.model import Step
from worker.core.model_set import ModelSet, SetMember
from worker.core.records import (
    Classified,
    DeadLettered,
    Filtered,
    InvalidRecord,
    MicroBatch,
    Outcome,
    Prediction,
    WorkItem,
)
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller
from worker.runtime.tokenised_batch import TokenisedBatch

Entries = Sequence[WorkItem | InvalidRecord]
# For each model what it says of some records, by their index.
_Said = dict[str, dict[int, Outcome]]

_NOTHING: Final = Prediction((), token_count=0, truncated=False)


@dataclass(frozen=True, slots=True)
class _Share:
    """The records of a micro-batch that one model applies to, and their tokens."""

    records: tuple[int, ...]
    batch: TokenisedBatch


@dataclass(frozen=True, slots=True)
class PanelBatch:
    """A micro-batch cut into forward passes of several models.

    Attributes:
        tokens: estimated tokens of the micro-batch.
        entries: one for each record, in poll order.
        shares: what each model gets, by its name.
        labeller: the one that tokenised it, and has to run the models too.
    """

    tokens: int
    entries: Entries
    shares: Mapping[str, _Share]
    labeller: Panel

    def __len__(self) -> int:
        return len(self.entries)

    def infer(self, step: Step) -> list[Outcome]:
        """Run the models; see `Panel.infer`."""
        return self.labeller.infer(self, step)


AnyBatch = TokenisedBatch | PanelBatch


class Panel:
    """Gives every record of a micro-batch its outcome, with several models.

    Args:
        models: the models.
        build: returns the labeller of a model.
        metrics: the time of each model.
        clock: measures it.

    Attributes:
        card: of the set.
        tokeniser, classifier: the set.
    """

    def __init__(
        self,
        models: ModelSet,
        build: Callable[[SetMember], Labeller],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.card, self.tokeniser, self.classifier = models.card, models, models
        self._metrics, self._clock = metrics, clock
        self._members = models.members
        self._order = _by_dependence(models.members)
        self._labellers = {member.name: build(member) for member in models.members}
        self._fields = {
            member.name: FieldTest(member.plan.when, self._missing)
            for member in models.members
            if member.plan.when
        }

    def aside(self) -> Panel:
        """Return a panel with the same models for a text beside the records."""
        labellers = self._labellers
        return Panel(
            self.classifier, lambda member: labellers[member.name].aside(), Metrics(), self._clock
        )

    def tokenise(self, batch: MicroBatch, step: Step) -> PanelBatch:
        """Cut a micro-batch into forward passes of each model; see `Labeller.tokenise`."""
        readable = [i for i, entry in enumerate(batch.entries) if isinstance(entry, WorkItem)]
        shares: dict[str, _Share] = {}
        for name, labeller in self._labellers.items():
            began = self._clock.monotonic()
            records = tuple(i for i in readable if self._applies(name, batch.entries[i]))
            entries = tuple(batch.entries[i] for i in records)
            part = MicroBatch(
                entries, batch.trigger, batch.opened_at, batch.closed_at, batch.tokens
            )
            shares[name] = _Share(records, labeller.tokenise(part, step))
            self._spent(name, "tokenise", began)
        return PanelBatch(batch.tokens, batch.entries, shares, self)

    def _applies(self, name: str, entry: WorkItem | InvalidRecord) -> bool:
        test = self._fields.get(name)
        return test is None or (isinstance(entry, WorkItem) and test.holds(entry.payload))

    def infer(self, batch: PanelBatch, step: Step) -> list[Outcome]:
        """Run the models, and return one outcome for each record, in poll order.

        A record on which a required model has failed is not given to the models after it.

        Raises:
            CircuitOpen: a required model failed on too many records.
        """
        said: _Said = {}
        lost: set[int] = set()
        for member in self._order:
            began, share = self._clock.monotonic(), batch.shares[member.name]
            wanted = [i not in lost and _asked(member, said, i) for i in share.records]
            part = share.batch if all(wanted) else share.batch.only(wanted)
            records = [i for i, keep in zip(share.records, wanted, strict=True) if keep]
            outcomes = self._labellers[member.name].infer(part, step)
            said[member.name] = dict(zip(records, outcomes, strict=True))
            if member.plan.required:
                lost |= {i for i, o in said[member.name].items() if isinstance(o, DeadLettered)}
            self._spent(member.name, "infer", began)
        self._metrics.cache_bytes.set(sum(one.cache_bytes for one in self._labellers.values()))
        return [self._outcome(i, entry, said) for i, entry in enumerate(batch.entries)]

    def _missing(self, path: str) -> None:
        self._metrics.path_missing.labels(path).inc()

    def _spent(self, name: str, stage: str, began: float) -> None:
        self._metrics.model_seconds.labels(name, stage).inc(self._clock.monotonic() - began)

    def _outcome(self, record: int, entry: WorkItem | InvalidRecord, said: _Said) -> Outcome:
        if isinstance(entry, InvalidRecord):
            return DeadLettered(entry.record, entry.reason, entry.message)
        answers = {member.name: said[member.name].get(record) for member in self._members}
        for member in self._members:
            answer = answers[member.name]
            if member.plan.required and isinstance(answer, DeadLettered):
                return answer
        given = [answer for answer in answers.values() if answer is not None]
        if given and all(isinstance(answer, Filtered) for answer in given):
            return replace(given[0], model=self.card)
        parts = {name: _part(answer) for name, answer in answers.items()}
        first = parts[self._members[0].name]
        prediction = first.prediction if isinstance(first, Part) else _NOTHING
        return Classified(entry, prediction, self.card, parts)


def _part(answer: Outcome | None) -> Part | Absence:
    if isinstance(answer, Classified):
        return Part(answer.prediction, answer.model)
    if isinstance(answer, DeadLettered):
        return Absence(answer.reason.value)
    return Absence(NOT_APPLICABLE if answer is None else SKIPPED)


def _asked(member: SetMember, said: _Said, record: int) -> bool:
    """Return whether a model applies to a record by the label of another model."""
    when = member.plan.when
    return when is None or when.model is None or _label(said[when.model].get(record)) in when.label


def _label(answer: Outcome | None) -> str | None:
    if not isinstance(answer, Classified):
        return None
    return judged(answer.model, answer.prediction)[0]


def _by_dependence(members: Sequence[SetMember]) -> tuple[SetMember, ...]:
    """Return each model after the one whose label it waits for, otherwise in order."""
    by_name = {member.name: member for member in members}

    def chain(member: SetMember) -> Iterator[SetMember]:
        when = member.plan.when
        if when and when.model:
            yield from chain(by_name[when.model])
        yield member

    return tuple({one.name: one for member in members for one in chain(member)}.values())


AnyLabeller = Labeller | Panel
