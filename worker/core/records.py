"""What flows through the worker, from poll to acknowledgement.

Plain immutable values that any thread may hold. Imports no third party and no other room.

::

    RawRecord -> WorkItem | InvalidRecord -> MicroBatch -> ModelInput -> Prediction
              -> Outcome (Classified | DeadLettered) -> Completion
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from schemas.dead_letter import DeadLetterReason
from worker.errors import StreamlabelError

Headers = Sequence[tuple[str, bytes | None]]  # null and empty values are two things
Trigger = Literal["records", "tokens", "goal", "ready"]
# What makes probabilities of a model's outputs; nothing where they are probabilities already.
Activation = Literal["softmax", "sigmoid", "none"]


class Partition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class RecordRef(NamedTuple):
    """A record's coordinates and the assignment epoch under which it was polled."""

    topic: str
    partition: int
    offset: int
    epoch: int


class Cut(NamedTuple):
    """What is known of a record that was too large to be read whole.

    Attributes:
        record_bytes: all that it has.
        limit: most bytes of a record that is read whole.
        value_bytes: all that its value has.
        complete: whether its key and headers were kept.
    """

    record_bytes: int
    limit: int
    value_bytes: int
    complete: bool


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as it was polled.

    Attributes:
        polled_at: seconds of the monotonic clock.
        cut: set where `value` is only the value's beginning.
    """

    ref: RecordRef
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    polled_at: float
    cut: Cut | None = None

    @property
    def size(self) -> int:
        """Bytes that this record holds in memory, near enough to bound work in flight."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A record whose text could be read. `payload` is the parsed object (None for plain text)."""

    record: RawRecord
    text: str
    message_id: str | None = None
    payload: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record whose text could not be read, and why."""

    record: RawRecord
    reason: DeadLetterReason
    message: str


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A contiguous take in poll order, of about so many tokens; `trigger` says why it closed."""

    entries: tuple[WorkItem | InvalidRecord, ...]
    trigger: Trigger
    opened_at: float
    closed_at: float
    tokens: int = 0

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True, slots=True)
class ModelInput:
    """Texts for one forward pass, or for several: `ForwardBudget.cut`.

    Attributes:
        ids: token ids of each text, special tokens included, no padding.
        positions: each text's index among the texts that were given to the tokeniser.
        truncated: whether each text was cut to the model's length.
    """

    ids: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    truncated: tuple[bool, ...]

    @property
    def tokens(self) -> int:
        """Tokens that carry text."""
        return sum(map(len, self.ids))

    @property
    def padded_tokens(self) -> int:
        """Tokens of the rectangle that padding to the longest text makes."""
        return max(map(len, self.ids), default=0) * len(self.ids)

    def take(self, rows: Sequence[int]) -> ModelInput:
        """Some of its texts, as a pass of their own."""
        return ModelInput(
            ids=tuple(self.ids[row] for row in rows),
            positions=tuple(self.positions[row] for row in rows),
            truncated=tuple(self.truncated[row] for row in rows),
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """Every label's probability for one text, in the model's label order."""

    probabilities: tuple[float, ...]
    token_count: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Classified:
    """The model answered."""

    item: WorkItem
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """The record goes to the dead-letter topic."""

    record: RawRecord
    reason: DeadLetterReason
    message: str
    stack_hash: str | None = None
    attempt: int = 1


Outcome = Classified | DeadLettered


def record_of(outcome: Outcome) -> RawRecord:
    """The record that it is an outcome of."""
    return outcome.item.record if isinstance(outcome, Classified) else outcome.record


class Trace(NamedTuple):
    """What is known outside of a micro-batch's trace: its id, and its context as a header."""

    id: str
    header: bytes


# https://www.w3.org/TR/trace-context/: the context, and what vendors add to it.
TRACE_HEADERS = ("traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An outcome as it goes to the broker: a result has a label, a dead letter a reason.

    Attributes:
        trace_id: of the trace that its micro-batch is followed by, where it is.
        expired: retention deletes it at once, for its timestamp is too old for its topic.
        outcome: what it was made of, to make another one of where its topic refuses it.
    """

    ref: RecordRef
    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    reason: DeadLetterReason | None = None
    label: str = ""
    score: float = 0.0
    truncated: bool = False
    trace_id: str | None = None
    expired: bool = False
    outcome: Outcome | None = None

    @property
    def happened_ms(self) -> int:
        """The input record's timestamp, whichever this one goes out with."""
        if self.outcome is None:
            return self.timestamp_ms
        return record_of(self.outcome).timestamp_ms


@dataclass(frozen=True, slots=True)
class Completion:
    """The broker has acknowledged these outcomes (`error` is None), or refused one of them.

    Attributes:
        sent_at: when they were handed to the client, seconds of the monotonic clock.
        kept: positions that were committed beside them, as `RecordSink.keep` was told them.
    """

    outcomes: tuple[Encoded, ...]
    sent_at: float
    error: StreamlabelError | None = None
    kept: tuple[RecordRef, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the runtime needs to know of a loaded model; no torch inside.

    Attributes:
        labels: names in the order of the model's outputs.
        max_tokens: longest text the model takes, special tokens included.
        dtype, device, engine: how it runs, for `model_info`.
        pads: whether a pass computes the rectangle around its texts, or their tokens alone.
        forward_tokens: most tokens that a pass had best have: as set, or as found at warm-up.
        activation: what makes probabilities of the model's outputs.
    """

    name: str
    revision: str
    weights_sha256: str
    labels: tuple[str, ...]
    max_tokens: int
    engine: str
    dtype: str
    device: str
    pads: bool = True
    forward_tokens: int = 4_096
    activation: Activation = "softmax"
