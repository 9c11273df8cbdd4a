"""A micro-batch between tokenizer and model: its rows, and the texts among them.

Owns: the types of these values.
Thread: the tokenise thread makes them, the infer thread fills the outcomes in.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from worker.core.model import Step
from worker.core.records import DeadLettered, ModelInput, Outcome, WorkItem

if TYPE_CHECKING:
    from worker.runtime.labelling import Labeller


@dataclass(slots=True)
class TextRow:
    """A record whose text could be read.

    Attributes:
        item: the record and its text.
        repeat_of: an earlier row of the micro-batch with the same text and outcome.
        key: of the text in the cache; None without a cache, and for a repeat.
        outcome: None until it is known.
        from_cache: True if the outcome comes from the cache.
    """

    item: WorkItem
    repeat_of: TextRow | None = None
    key: bytes | None = None
    outcome: Outcome | None = None
    from_cache: bool = False

    def final(self) -> Outcome:
        """Return the outcome.

        Raises:
            LookupError: there is none yet.
        """
        if self.outcome is None:
            raise LookupError(f"no outcome for {self.item.record.ref}")
        return self.outcome


@dataclass(frozen=True, slots=True)
class TokenisedBatch:
    """A micro-batch cut into forward passes.

    Attributes:
        tokens: estimated tokens of the micro-batch.
        rows: one for each record, in poll order. Unreadable records are dead letters already.
        texts: the text rows that are not repeats; the tokenizer gets each of them once.
        inputs: forward passes; their positions are indexes of `texts`.
        labeller: the one that tokenised it. It has to run the model too: token ids and keys of the
            cache belong to its model.
    """

    tokens: int
    rows: tuple[TextRow | DeadLettered, ...]
    texts: tuple[TextRow, ...]
    inputs: tuple[ModelInput, ...]
    labeller: Labeller

    def __len__(self) -> int:
        return len(self.rows)

    def infer(self, step: Step) -> list[Outcome]:
        """Run the model; see `Labeller.infer`."""
        return self.labeller.infer(self, step)

    def only(self, wanted: Sequence[bool]) -> TokenisedBatch:
        """Return some of the records, and of the texts those that these records have.

        Args:
            wanted: for each record whether to keep it.
        """
        rows = tuple(row for row, keep in zip(self.rows, wanted, strict=True) if keep)
        texts = {id(row.repeat_of or row) for row in rows if isinstance(row, TextRow)}
        kept = [id(text) in texts for text in self.texts]
        cut = (take(one, [kept[p] for p in one.positions]) for one in self.inputs)
        return replace(self, rows=rows, inputs=tuple(one for one in cut if one))

    def not_from_cache(self) -> Iterator[ModelInput]:
        """Yield the forward passes, without the texts that the cache has answered."""
        for model_input in self.inputs:
            wanted = [not self.texts[position].from_cache for position in model_input.positions]
            if kept := take(model_input, wanted):
                yield kept


def take(model_input: ModelInput, wanted: Sequence[bool]) -> ModelInput | None:
    """Return the wanted texts of a pass, or None if there are none."""
    rows = [row for row, keep in enumerate(wanted) if keep]
    if len(rows) == len(wanted):
        return model_input
    return model_input.take(rows) if rows else None
