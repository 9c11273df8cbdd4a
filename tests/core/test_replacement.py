"""A record that is refused gets another outcome, or stops the worker; what is learnt stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import DeadLetter, DeadLetterReason
from tests.support.records import CARD, raw
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder, size_of
from worker.core.records import Classified, DeadLettered, Encoded, Prediction, RawRecord, WorkItem
from worker.core.replacement import OutcomeReplacer, give_up
from worker.core.topic_limits import Refusal, TopicLimits
from worker.errors import PublishRefused
from worker.settings import OutputSettings

NOW = 1_700_000_500_000
OUT, DEAD = "texts.labelled", "texts.dead"
KEYLESS = Refusal("record", "InvalidRecordError: cannot accept message without key in out-0")
SIZE = Refusal("size", "MessageSizeTooLargeError: no details")
TIMESTAMP = Refusal("timestamp", "InvalidTimestampError: out of range")


class Desk:
    """An encoder with terms of its own."""

    def __init__(self, **settings: str) -> None:
        self.terms = {OUT: TopicLimits(), DEAD: TopicLimits()}
        output = OutputSettings(**settings)  # type: ignore[arg-type]
        self.encoder = Encoder(
            output, CARD, version="1", limits=self.terms[OUT], dead_letter_limits=self.terms[DEAD]
        )
        self.replace = OutcomeReplacer(self.encoder, self.terms, lambda: NOW).replace

    def result(self, record: RawRecord | None = None) -> Encoded:
        item = WorkItem(record or raw(7), "hi", payload={})
        outcome = Classified(item, Prediction((0.5, 0.5), 3, truncated=False))
        return self.encoder.encode(outcome, now_ms=NOW, now=0.0)

    def letter(self, record: RawRecord | None = None) -> Encoded:
        dead = DeadLettered(record or raw(7, b"\xff"), DeadLetterReason.NOT_UTF8, "not UTF-8")
        return self.encoder.encode(dead, now_ms=NOW, now=0.0)


def context(encoded: Encoded) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(encoded.headers)[DEAD_LETTER_HEADER])


def test_a_result_that_is_refused_is_a_dead_letter_with_the_brokers_words() -> None:
    desk = Desk()
    refused = desk.result()
    dead = desk.replace(refused, Refusal("record", "InvalidRecordError: no such schema"))
    assert (dead.topic, dead.ref, dead.value) == (DEAD, refused.ref, b'{"text":"hi"}')
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    assert context(dead).message == "InvalidRecordError: no such schema"
    assert desk.result().topic == OUT


def test_that_a_topic_takes_no_record_without_a_key_is_learnt() -> None:
    desk = Desk()
    desk.replace(desk.result(), KEYLESS)
    dead = desk.result(raw(8))
    assert dead.topic == DEAD
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    assert KEYLESS.words in context(dead).message
    assert desk.result(raw(9, key=b"k")).topic == OUT


def test_a_record_with_a_key_teaches_nothing_of_those_without() -> None:
    desk = Desk()
    desk.replace(desk.result(raw(7, key=b"k")), KEYLESS)
    assert desk.result(raw(8)).topic == OUT


def test_a_result_that_is_too_large_is_a_dead_letter_as_is_the_next() -> None:
    desk = Desk()
    refused = desk.result()
    for dead in (desk.replace(refused, SIZE), desk.result(raw(8))):
        assert context(dead).reason is DeadLetterReason.RESULT_TOO_LARGE
        assert str(size_of(refused)) in context(dead).message


def test_a_dead_letter_that_is_too_large_is_cut_until_nothing_is_left_to_cut() -> None:
    desk = Desk()
    letter = desk.letter(raw(7, b"\xff" * 3_000_000))
    sizes = [size_of(letter)]
    while letter.value:
        letter = desk.replace(letter, SIZE)
        sizes.append(size_of(letter))
    with pytest.raises(PublishRefused) as stopped:
        desk.replace(letter, SIZE)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] <= 1_048_588
    assert f"topic '{DEAD}' refuses the dead letter (not_utf8) of in[0] offset 7" in str(
        stopped.value
    )
    assert SIZE.words in str(stopped.value)


def test_a_dead_letter_that_is_refused_for_itself_stops_the_worker() -> None:
    desk = Desk()
    with pytest.raises(PublishRefused, match="without key"):
        desk.replace(desk.letter(), KEYLESS)


@pytest.mark.parametrize("kind", ["result", "letter"])
def test_a_timestamp_that_is_refused_becomes_now_and_is_learnt(kind: str) -> None:
    desk = Desk()
    made = getattr(desk, kind)
    refused = made()
    assert refused.timestamp_ms == 1_700_000_000_000
    mended = desk.replace(refused, TIMESTAMP)
    assert (mended.topic, mended.value, mended.timestamp_ms) == (refused.topic, refused.value, NOW)
    assert made().timestamp_ms == NOW
    assert mended.happened_ms == 1_700_000_000_000


def test_what_a_refusal_taught_counts_for_what_is_sent_again() -> None:
    desk = Desk()
    result, letter = desk.result(), desk.letter(raw(8, b"\xff" * 9_000))
    assert desk.replace(result, None) == result
    assert desk.replace(letter, None) == letter
    desk.terms[OUT].before_ms = desk.terms[DEAD].before_ms = 60_000
    for sent in (result, letter):
        later = desk.replace(sent, None)
        assert (later.topic, later.timestamp_ms) == (sent.topic, NOW)
    desk.terms[OUT].max_bytes, desk.terms[DEAD].max_bytes = size_of(result) - 1, 5_000
    assert context(desk.replace(result, None)).reason is DeadLetterReason.RESULT_TOO_LARGE
    assert size_of(desk.replace(letter, None)) <= 5_000


def test_clocks_at_odds_are_no_endless_loop() -> None:
    """The time of now is refused too: the result is a dead letter, and that stops the worker."""
    desk = Desk(timestamp="labelled")
    dead = desk.replace(desk.result(), TIMESTAMP)
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    with pytest.raises(PublishRefused, match="out of range"):
        desk.replace(dead, TIMESTAMP)


def test_whoever_has_no_other_outcome_gives_up_with_the_place_and_the_words() -> None:
    desk = Desk()
    nobody = replace(desk.result(), outcome=None)
    for make in (give_up, desk.replace):
        with pytest.raises(PublishRefused, match=r"the result of in\[0\] offset 7, .*: Invalid"):
            make(nobody, KEYLESS)
    assert nobody.happened_ms == nobody.timestamp_ms
    assert give_up(nobody, None) is nobody
    assert desk.replace(nobody, None) is nobody


def test_the_time_of_labelling_is_taken_where_that_is_set() -> None:
    desk = Desk(timestamp="labelled")
    assert (desk.result().timestamp_ms, desk.letter().timestamp_ms) == (NOW, NOW)


def test_an_outcome_that_retention_deletes_is_marked() -> None:
    desk = Desk()
    desk.terms[OUT].retention_ms = 500_000
    assert (desk.result().expired, desk.letter().expired) == (True, False)
    desk.terms[OUT].retention_ms = 500_001
    assert not desk.result().expired


def test_the_size_of_a_result_is_known_without_a_record() -> None:
    """At least as large as told, and about as large as is usual."""
    desk = Desk()
    least, usual = desk.encoder.sizes()
    assert least < usual
    assert least <= size_of(desk.result(raw(0, b"{}"))) <= usual + 50
