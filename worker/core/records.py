"""The values that pass through the worker, from poll to acknowledgement.

::

    RawRecord -> WorkItem | InvalidRecord -> MicroBatch -> ModelInput -> Prediction
              -> Outcome (Classified | DeadLettered | Filtered) -> Completion

Owns: the types of these values.
Thread: any; the values are immutable.
Must not import: anything but schemas, errors, core.absences, core.decisions and core.values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from schemas.dead_letter import DeadLetterReason
from worker.core.absences import Parts
from worker.core.decisions.windows import Extent, WindowPlan
from worker.core.values import value_class
from worker.errors import StreamlabelError

if TYPE_CHECKING:
    from worker.core.decisions.rules import BoundDecision

Headers = Sequence[tuple[str, bytes | None]]  # null and empty values differ
Trigger = Literal["records", "tokens", "seconds", "goal", "ready"]
# Turns a model's outputs into probabilities; `none` if they are probabilities already.
Activation = Literal["softmax", "sigmoid", "none"]

# Most tokens of a forward pass until the warm-up has found the best number. Lanes, which divide a
# pass into parts of their own size, keep it.
DEFAULT_FORWARD_TOKENS = 4_096


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


# A record, and the route of a copy; "" stands for the outcome itself.
Identity = tuple[RecordRef, str]


class Cut(NamedTuple):
    """The facts of a record that was too large to be read whole.

    Attributes:
        record_bytes: size of the whole record.
        limit: most bytes of a record that is read whole.
        value_bytes: size of the whole value.
        complete: whether its key and headers were kept.
    """

    record_bytes: int
    limit: int
    value_bytes: int
    complete: bool


@value_class
class RawRecord:
    """A record as it was polled.

    Attributes:
        polled_at: seconds of the monotonic clock.
        cut: set if `value` is only the beginning of the value.
        origin: coordinates of the input record, if this one was read from its dead letter.
    """

    ref: RecordRef
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    polled_at: float
    cut: Cut | None = None
    origin: RecordRef | None = None

    @property
    def source(self) -> RecordRef:
        """The input record's coordinates, which its outcome states."""
        return self.origin or self.ref

    @property
    def size(self) -> int:
        """About how many bytes the record takes in memory, to bound the work in flight."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


class Frame(NamedTuple):
    """A schema registry's frame around a value.

    Attributes:
        body_at: index of the first byte behind the frame.
        enriched: the frame of the same body with the result added; None if nothing is added.
    """

    body_at: int
    enriched: bytes | None = None


@value_class
class WorkItem:
    """A record with a readable text.

    Attributes:
        payload: the parsed object; None for plain text, and for a framed value that gets no result
            added.
        frame: of the value, if a schema registry's serializer wrote it.
    """

    record: RawRecord
    text: str
    message_id: str | None = None
    payload: Mapping[str, Any] | None = None
    frame: Frame | None = None


@value_class
class InvalidRecord:
    """A record without a readable text, and the reason."""

    record: RawRecord
    reason: DeadLetterReason
    message: str


@value_class
class MicroBatch:
    """Consecutive entries in poll order.

    Attributes:
        trigger: why it closed.
        opened_at, closed_at: seconds of the monotonic clock.
        tokens: estimated tokens of its texts.
    """

    entries: tuple[WorkItem | InvalidRecord, ...]
    trigger: Trigger
    opened_at: float
    closed_at: float
    tokens: int = 0

    def __len__(self) -> int:
        return len(self.entries)


@value_class
class ModelInput:
    """Texts for one forward pass, or for several (see `ForwardBudget.cut`).

    Attributes:
        ids: token ids of each text, special tokens included, no padding.
        positions: each text's index among the texts that the tokeniser received.
        truncated: whether each text was cut to the model's limit.
        extents: of each text, if long texts are read in windows. Each row is then one window, and
            the windows of a text have its position, in reading order.
    """

    ids: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]
    truncated: tuple[bool, ...]
    extents: tuple[Extent, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of all texts, without padding."""
        return sum(map(len, self.ids))

    @property
    def padded_tokens(self) -> int:
        """Tokens of the rectangle with all texts padded to the longest one."""
        return max(map(len, self.ids), default=0) * len(self.ids)

    def take(self, rows: Sequence[int]) -> ModelInput:
        """Return an input of some of the texts."""
        return ModelInput(
            ids=tuple(self.ids[row] for row in rows),
            positions=tuple(self.positions[row] for row in rows),
            truncated=tuple(self.truncated[row] for row in rows),
            extents=tuple(self.extents[row] for row in rows) if self.extents else (),
        )


@value_class
class Prediction:
    """Every label's probability for one text, in the model's label order.

    Attributes:
        probabilities: of each label.
        token_count: tokens that the model read, special tokens included.
        truncated: whether the text has more.
        windows: windows that it was read in.
        total_tokens: tokens of the whole text; None unless long texts are read in windows.
    """

    probabilities: tuple[float, ...]
    token_count: int
    truncated: bool
    windows: int = 1
    total_tokens: int | None = None


@value_class
class Classified:
    """A record that a model labelled.

    Attributes:
        prediction: of the one model, or of the first of several. If that one has none for this
            record, it has no probabilities.
        model: the model that labelled it, whose labels the probabilities belong to, or the card of
            several. The worker may run another one by the time that the result is encoded.
        parts: what each of several models says, by its name, in the order of the settings; None
            with one model.
    """

    item: WorkItem
    prediction: Prediction
    model: ModelCard
    parts: Parts | None = None


@value_class
class DeadLettered:
    """A record for the dead-letter topic.

    Attributes:
        model: the model that its text was given to; None if no text could be read.
        refused_by: topic that refused the record's result, note or copy; empty if none did.
    """

    record: RawRecord
    reason: DeadLetterReason
    message: str
    stack_hash: str | None = None
    attempt: int = 1
    model: ModelCard | None = None
    refused_by: str = ""


@value_class
class Filtered:
    """A record that gets no result, as the settings say: a note of it is published instead.

    Attributes:
        reason: `route` for a route with `drop`, `prepare.function` for a skip of the own function.
        route: name of the route; empty for a skip.
        model: the model that labelled it, or that it was skipped for.
    """

    item: WorkItem
    reason: str
    route: str = ""
    model: ModelCard | None = None

    @property
    def words(self) -> str:
        """The reason, with the name of the route if there is one."""
        return f"{self.reason} {self.route}" if self.route else self.reason


Outcome = Classified | DeadLettered | Filtered


def record_of(outcome: Outcome) -> RawRecord:
    """Return the record of an outcome."""
    return outcome.record if isinstance(outcome, DeadLettered) else outcome.item.record


class Trace(NamedTuple):
    """The id of a micro-batch's trace, and its context as the value of a header."""

    id: str
    header: bytes


# https://www.w3.org/TR/trace-context/: the context, and vendors' additions to it.
TRACE_HEADERS = ("traceparent", "tracestate")


@value_class
class Encoded:
    """An outcome, or a copy of one, as it is sent to the broker.

    A result has a label, a dead letter a reason, the note of a filtered record `filtered`.

    Attributes:
        trace_id: of the micro-batch's trace; None if it is not sampled.
        expired: whether the topic's retention deletes it at once, because of its timestamp.
        decided: labels that reached their thresholds.
        uncertain: whether the label stands for an uncertain one.
        outcome: its source, to encode another record if the topic refuses this one.
        origin: coordinates of the input record, if it was read from its dead letter.
        filtered: reason of a note.
        route: name of the route that chose the topic, or that asked for the copy.
        copies: of an outcome, how many copies of it are published beside it.
        is_copy: whether it is such a copy, or the dead letter in place of one; the record's outcome
            is another.
    """

    ref: RecordRef
    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    reason: DeadLetterReason | None = None
    label: str = ""
    score: float = 0.0
    decided: tuple[str, ...] = ()
    uncertain: bool = False
    truncated: bool = False
    trace_id: str | None = None
    expired: bool = False
    outcome: Outcome | None = None
    origin: RecordRef | None = None
    filtered: str = ""
    route: str = ""
    copies: int = 0
    is_copy: bool = False

    @property
    def source(self) -> RecordRef:
        """The input record's coordinates."""
        return self.origin or self.ref

    @property
    def is_result(self) -> bool:
        """True for a result, False for a dead letter and for a note."""
        return self.reason is None and not self.filtered

    @property
    def identity(self) -> Identity:
        """The record, and the route if this is a copy: each is published once."""
        return self.ref, self.route if self.is_copy else ""

    @property
    def model(self) -> ModelCard | None:
        """The model that labelled the record; None for a dead letter."""
        return self.outcome.model if isinstance(self.outcome, Classified) else None

    @property
    def refused_by(self) -> str:
        """The topic that refused what this dead letter stands for; empty if none did."""
        return self.outcome.refused_by if isinstance(self.outcome, DeadLettered) else ""

    @property
    def happened_ms(self) -> int:
        """The input record's timestamp, which `timestamp_ms` may differ from."""
        if self.outcome is None:
            return self.timestamp_ms
        return record_of(self.outcome).timestamp_ms


@value_class
class Completion:
    """Outcomes that the broker acknowledged, or of which it refused one (`error`).

    Attributes:
        sent_at: when the client received them, seconds of the monotonic clock.
        kept: positions that were committed with them, as passed to `RecordSink.keep`.
    """

    outcomes: tuple[Encoded, ...]
    sent_at: float
    error: StreamlabelError | None = None
    kept: tuple[RecordRef, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """The facts of a loaded model that the runtime needs; no torch inside.

    Attributes:
        labels: names in the order of the model's outputs.
        max_tokens: tokens of the longest text that it labels, special tokens included.
        dtype, device, engine: how it runs, for `model_info`.
        pads: True if a pass computes the rectangle around its texts, False if only their tokens.
        forward_tokens: most tokens of a pass: as set, or as found at warm-up.
        activation: turns the model's outputs into probabilities.
        windows: how long texts are read; None truncates or refuses them.
        decision: what is made of the probabilities; None for nothing.
        recipe: the preparation of its texts; None for none.
        members: the cards of several models, by their names; empty for one model.
        settings_digest: of the settings that decide, for notes of filtered records.
        identity: what decides the result of a text: the weights, and the features that are on.
        adds_members: whether a result has more members than a plain one.
        decides: whether it, or one of several, has a decision.
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
    forward_tokens: int = DEFAULT_FORWARD_TOKENS
    activation: Activation = "softmax"
    windows: WindowPlan | None = None
    decision: BoundDecision | None = None
    recipe: str | None = None
    members: tuple[tuple[str, ModelCard], ...] = ()
    settings_digest: str = field(compare=False, default="")

    # Computed once, because each result needs them.
    identity: str = field(init=False, compare=False, repr=False, default="")
    adds_members: bool = field(init=False, compare=False, repr=False, default=False)
    decides: bool = field(init=False, compare=False, repr=False, default=False)

    def __post_init__(self) -> None:
        features = (self.recipe, self.windows, self.decision)
        cards = (self, *(card for _, card in self.members))
        values = {
            "identity": _identity(self),
            "adds_members": any(feature is not None for feature in features),
            "decides": any(card.decision is not None for card in cards),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)  # the card is frozen

    @property
    def facts(self) -> dict[str, str]:
        """What `streamlabel_model_info` shows."""
        return {
            "model": self.name,
            "revision": self.revision,
            "engine": self.engine,
            "dtype": self.dtype,
            "device": self.device,
        }


def _identity(card: ModelCard) -> str:
    if card.recipe is None and card.windows is None and card.decision is None:
        return card.weights_sha256
    windows = card.windows.recipe if card.windows else ""
    digest = card.decision.digest if card.decision else ""
    return f"{card.weights_sha256}+{card.recipe or ''}+{windows}+{digest}"
