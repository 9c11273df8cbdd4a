"""SendQueue: results are sent at once, dead letters after all earlier results."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.doubles import Group, Producer, outcome
from worker.core.records import Completion, Encoded
from worker.core.replacement import give_up
from worker.kafka_io.refusals import RefusalResolver
from worker.kafka_io.send_queue import SendQueue

KINDS = ("result", "result", "dead letter", "dead letter with a key")


def make(kind: str, offset: int) -> Encoded:
    if kind == "result":
        return outcome(offset)
    key = b"k" if kind == "dead letter with a key" else None
    return replace(outcome(offset), topic="dead", reason=DeadLetterReason.NOT_JSON, key=key)


class Traffic:
    """Batches and acknowledgements in random order."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        offsets = iter(range(100))
        self.arrivals = [
            [
                make(self.chance.choice(KINDS), next(offsets))
                for _ in range(self.chance.randrange(7))
            ]
            for _ in range(self.chance.randrange(6))
        ]
        self.outcomes = [outcome for batch in self.arrivals for outcome in batch]
        self.completions: list[Completion] = []
        self.queue, self.producer = SendQueue(self.completions.append), Producer()
        self.acknowledged: set[int] = set()
        self.accepted: set[bool] = set()

    def run(self) -> None:
        while self.arrivals or self.queue.batches:
            if self.arrivals and self.chance.random() < 0.5:
                self.queue.add(self.arrivals.pop(0))
            self.queue.drop_acknowledged()
            known = len(self.producer.sent)
            for batch in self.queue.due():
                batch.send(self.producer, Group(), HandClock(), RefusalResolver(give_up))  # type: ignore[arg-type]
                self.queue.mark_sent(batch)
            for sent, _ in self.producer.sent[known:]:
                self.check(sent)
            self.answer()

    def answer(self) -> None:
        for sent, future in self.producer.sent:
            if not future.is_done and self.chance.random() < 0.5:
                future.success(None)
                self.acknowledged.add(sent.ref.offset)
                if sent.reason is not None:
                    self.accepted.add(sent.key is None)

    def check(self, sent: Encoded) -> None:
        """Assert that no record was sent too early."""
        before = self.outcomes[: sent.ref.offset]
        if sent.reason is not None:
            assert all(o.ref.offset in self.acknowledged for o in before if o.reason is None)
        for keyless in {True, False} - self.accepted:
            assert not [o for o in before if o.reason is not None and (o.key is None) is keyless]


@pytest.mark.parametrize("seed", range(200))
def test_the_order_holds_for_any_order_of_acknowledgements(seed: int) -> None:
    """Each record is sent once, and each topic is in order.

    No dead letter is sent before an earlier result, and no record after the first dead letter of
    either kind before that is acknowledged.
    """
    traffic = Traffic(seed)
    traffic.run()
    sent = [outcome for outcome, _ in traffic.producer.sent]
    for topic in ("out", "dead"):
        expected = [outcome for outcome in traffic.outcomes if outcome.topic == topic]
        assert [outcome for outcome in sent if outcome.topic == topic] == expected
    completed = [outcome for completion in traffic.completions for outcome in completion.outcomes]
    assert sorted(o.ref for o in completed) == [o.ref for o in traffic.outcomes]
