"""The order of the hand-over: results at once, dead letters behind the results before them."""

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

KINDS = ("result", "result", "letter", "letter with a key")


def made(kind: str, offset: int) -> Encoded:
    if kind == "result":
        return outcome(offset)
    key = b"k" if kind == "letter with a key" else None
    return replace(outcome(offset), topic="dead", reason=DeadLetterReason.NOT_JSON, key=key)


class Traffic:
    """Batches that come and answers that go, as chance has it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        offsets = iter(range(100))
        self.arrivals = [
            [
                made(self.chance.choice(KINDS), next(offsets))
                for _ in range(self.chance.randrange(7))
            ]
            for _ in range(self.chance.randrange(6))
        ]
        self.everything = [one for batch in self.arrivals for one in batch]
        self.completions: list[Completion] = []
        self.line, self.producer = SendQueue(self.completions.append), Producer()
        self.answered: set[int] = set()
        self.proven: set[bool] = set()

    def run(self) -> None:
        while self.arrivals or self.line.batches:
            if self.arrivals and self.chance.random() < 0.5:
                self.line.add(self.arrivals.pop(0))
            self.line.drop_acknowledged()
            known = len(self.producer.sent)
            for batch in self.line.due():
                batch.send(self.producer, Group(), HandClock(), RefusalResolver(give_up))  # type: ignore[arg-type]
                self.line.mark_sent(batch)
            for one, _ in self.producer.sent[known:]:
                self.judge(one)
            self.answer()

    def answer(self) -> None:
        for one, future in self.producer.sent:
            if not future.is_done and self.chance.random() < 0.5:
                future.success(None)
                self.answered.add(one.ref.offset)
                if one.reason is not None:
                    self.proven.add(one.key is None)

    def judge(self, one: Encoded) -> None:
        """Nothing was sent too early."""
        before = self.everything[: one.ref.offset]
        if one.reason is not None:
            assert all(o.ref.offset in self.answered for o in before if o.reason is None)
        for keyless in {True, False} - self.proven:
            assert not [o for o in before if o.reason is not None and (o.key is None) is keyless]


@pytest.mark.parametrize("seed", range(200))
def test_no_order_is_lost_whenever_the_broker_answers(seed: int) -> None:
    """Each is sent once; each topic in order; no dead letter before a result that came before it.

    And nothing past the first dead letter of either kind until that is acknowledged.
    """
    traffic = Traffic(seed)
    traffic.run()
    sent = [one for one, _ in traffic.producer.sent]
    for topic in ("out", "dead"):
        expected = [one for one in traffic.everything if one.topic == topic]
        assert [one for one in sent if one.topic == topic] == expected
    completed = [one for completion in traffic.completions for one in completion.outcomes]
    assert sorted(one.ref for one in completed) == [one.ref for one in traffic.everything]
