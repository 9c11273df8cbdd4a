"""The bytes of results and dead letters are those of version 1 of the contract.

`golden/outcomes.json` was written before decisions existed. It changes only with an option that is
on; `python -m tests.schemas.test_golden` writes it anew.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.records import CARD, raw
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.decoder import Decoder
from worker.core.encoder import Encoder
from worker.core.faults import CircuitBreaker
from worker.core.formats.plain_json import JsonResults
from worker.core.model import Step, Synchronous, no_step
from worker.core.records import (
    Encoded,
    Frame,
    MicroBatch,
    ModelCard,
    ModelInput,
    Outcome,
    Prediction,
    Trace,
    WorkItem,
)
from worker.core.topic_limits import TopicLimits
from worker.metrics import Metrics
from worker.registry.results import FORMATS
from worker.runtime.labelling import Labeller
from worker.settings import InputSettings, OutputSettings

FILE = Path(__file__).parent / "golden" / "outcomes.json"
FORMATS_AND_MODES = [
    ("json", "classification"),
    ("json", "enrich"),
    ("avro", "classification"),
    ("avro", "enrich"),
    ("json_schema", "classification"),
    ("json_schema", "enrich"),
    ("protobuf", "classification"),
]
MANY = replace(
    CARD,
    name="many",
    labels=tuple(f"emotion {n}" for n in range(28)),
    activation="sigmoid",
)
VALUES = [
    b'{"text":"What a day!","id":"m1"}',
    '{"n": 1e3, "text":"grüße 🎉", "classification": 4}'.encode(),
    b'{"text":"' + b"long " * 200 + b'"}',
    b'{"text":"What a day!"}',
    b'{"no":"text"}',
    b"{",
]


class Fixed(Synchronous):
    """A model whose probabilities follow from the length of a text."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def warm_up(self) -> None: ...

    def tokenise(self, texts: Sequence[str], _: Step = no_step, /) -> list[ModelInput]:
        ids = tuple((2, *range(min(len(text), 60)), 3) for text in texts)
        truncated = tuple(len(text) > 60 for text in texts)
        return [ModelInput(ids, tuple(range(len(texts))), truncated)]

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        return [
            Prediction(self._row(len(ids)), len(ids), truncated)
            for ids, truncated in zip(model_input.ids, model_input.truncated, strict=True)
        ]

    def _row(self, length: int) -> tuple[float, ...]:
        if len(self.card.labels) == 2:
            return (1 / length, 1 - 1 / length)
        return tuple(1 / (length + n) for n in range(len(self.card.labels)))


def batch() -> MicroBatch:
    headers = (("trace", b"1"), ("traceparent", b"00-old"), ("empty", None))
    decoder = Decoder(InputSettings())
    records = [
        raw(n, value, key=b"k" if n % 2 else None, headers=headers if n < 2 else ())
        for n, value in enumerate(VALUES)
    ]
    return MicroBatch(tuple(map(decoder.decode, records)), "records", 0.0, 0.0)


def outcomes(card: ModelCard, *, refuse_long: bool) -> list[Outcome]:
    model = Fixed(card)
    labeller = Labeller(
        model,
        model,
        refuse_long=refuse_long,
        breaker=CircuitBreaker(100, ratio=1.0),
        budget=ForwardBudget(4096),
        metrics=Metrics(),
        cache=PredictionCache(1_000_000),
    )
    return labeller.infer(labeller.tokenise(batch(), lambda: None), lambda: None)


def framed(outcome: Outcome) -> Outcome:
    """Return the outcome of a record that has a registry's frame."""
    if not hasattr(outcome, "item"):
        return outcome
    item: WorkItem = outcome.item
    value = bytes(5) + (item.record.value or b"")
    record = replace(item.record, value=value)
    return replace(outcome, item=replace(item, record=record, frame=Frame(5, b"\0\0\0\0\x07")))


def encoded(format_: str, mode: str) -> Iterator[Encoded]:
    results = FORMATS[format_]() if format_ in FORMATS else JsonResults()
    if format_ in FORMATS:
        results.add("texts.labelled")  # type: ignore[union-attr]
    settings = OutputSettings(format=format_, mode=mode)  # type: ignore[arg-type]
    limits = defaultdict(TopicLimits)
    encoder = Encoder(settings, version="0", limits=limits, results=results)
    for card, refuse_long in ((CARD, False), (MANY, False), (CARD, True)):
        for n, outcome in enumerate(outcomes(card, refuse_long=refuse_long)):
            one = framed(outcome) if format_ in FORMATS and mode == "enrich" else outcome
            trace = None if n else Trace("t", b"00-new")
            yield encoder.encode(one, now_ms=1_700_000_000_123, now=1.5, trace=trace)


def plain(one: Encoded) -> dict[str, Any]:
    """Return a record as JSON: each byte is a character of Latin-1."""
    return {
        "topic": one.topic,
        "key": _characters(one.key),
        "value": _characters(one.value),
        "headers": [[name, _characters(value)] for name, value in one.headers],
        "timestamp_ms": one.timestamp_ms,
        "label": one.label,
        "score": one.score,
    }


def _characters(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def written() -> dict[str, Any]:
    return {
        f"{format_} {mode}": [plain(one) for one in encoded(format_, mode)]
        for format_, mode in FORMATS_AND_MODES
    }


@pytest.mark.parametrize(("format_", "mode"), FORMATS_AND_MODES)
def test_the_bytes_of_outcomes_are_as_before(format_: str, mode: str) -> None:
    """From the input's bytes to the output's, with every option at its default."""
    golden = json.loads(FILE.read_text())[f"{format_} {mode}"]
    assert [plain(one) for one in encoded(format_, mode)] == golden


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(written(), indent=1, ensure_ascii=True) + "\n")
