"""OutcomeReplacer: a refused record gets another outcome or stops the worker; limits are learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import Classification, DeadLetter, DeadLetterReason
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
    """An encoder, and a replacer with the same limits."""

    def __init__(self, **settings: str) -> None:
        self.limits = {OUT: TopicLimits(), DEAD: TopicLimits()}
        output = OutputSettings(**settings)  # type: ignore[arg-type]
        self.encoder = Encoder(output, version="1", limits=self.limits)
        self.replace = OutcomeReplacer(self.encoder, self.limits, lambda: NOW).replace

    def result(self, record: RawRecord | None = None) -> Encoded:
        item = WorkItem(record or raw(7), "hi", payload={})
        outcome = Classified(item, Prediction((0.5, 0.5), 3, truncated=False), CARD)
        return self.encoder.encode(outcome, now_ms=NOW, now=0.0)

    def letter(self, record: RawRecord | None = None) -> Encoded:
        dead = DeadLettered(record or raw(7, b"\xff"), DeadLetterReason.NOT_UTF8, "not UTF-8")
        return self.encoder.encode(dead, now_ms=NOW, now=0.0)


def context(encoded: Encoded) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(encoded.headers)[DEAD_LETTER_HEADER])


def test_a_refused_result_becomes_a_dead_letter_with_the_brokers_message() -> None:
    desk = Desk()
    refused = desk.result()
    dead = desk.replace(refused, Refusal("record", "InvalidRecordError: no such schema"))
    assert (dead.topic, dead.ref, dead.value) == (DEAD, refused.ref, b'{"text":"hi"}')
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    assert context(dead).message == "InvalidRecordError: no such schema"
    assert desk.result().topic == OUT


def test_a_topic_that_refuses_records_without_a_key_is_remembered() -> None:
    desk = Desk()
    desk.replace(desk.result(), KEYLESS)
    dead = desk.result(raw(8))
    assert dead.topic == DEAD
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    assert KEYLESS.message in context(dead).message
    assert desk.result(raw(9, key=b"k")).topic == OUT


def test_a_refused_record_with_a_key_does_not_affect_those_without() -> None:
    desk = Desk()
    desk.replace(desk.result(raw(7, key=b"k")), KEYLESS)
    assert desk.result(raw(8)).topic == OUT


def test_a_result_that_is_too_large_becomes_a_dead_letter_and_so_does_the_next() -> None:
    desk = Desk()
    refused = desk.result()
    for dead in (desk.replace(refused, SIZE), desk.result(raw(8))):
        assert context(dead).reason is DeadLetterReason.RESULT_TOO_LARGE
        assert str(size_of(refused)) in context(dead).message


def test_a_dead_letter_that_is_too_large_is_cut_until_its_value_is_empty() -> None:
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
    assert SIZE.message in str(stopped.value)


def test_a_dead_letter_refused_for_another_reason_stops_the_worker() -> None:
    desk = Desk()
    with pytest.raises(PublishRefused, match="without key"):
        desk.replace(desk.letter(), KEYLESS)


@pytest.mark.parametrize("kind", ["result", "letter"])
def test_a_refused_timestamp_becomes_now_and_is_remembered(kind: str) -> None:
    desk = Desk()
    made = getattr(desk, kind)
    refused = made()
    assert refused.timestamp_ms == 1_700_000_000_000
    replaced = desk.replace(refused, TIMESTAMP)
    assert (replaced.topic, replaced.value, replaced.timestamp_ms) == (
        refused.topic,
        refused.value,
        NOW,
    )
    assert made().timestamp_ms == NOW
    assert replaced.happened_ms == 1_700_000_000_000


def test_records_that_are_sent_again_obey_the_corrected_limits() -> None:
    desk = Desk()
    result, letter = desk.result(), desk.letter(raw(8, b"\xff" * 9_000))
    assert desk.replace(result, None) == result
    assert desk.replace(letter, None) == letter
    desk.limits[OUT].before_ms = desk.limits[DEAD].before_ms = 60_000
    for sent in (result, letter):
        later = desk.replace(sent, None)
        assert (later.topic, later.timestamp_ms) == (sent.topic, NOW)
    desk.limits[OUT].max_bytes, desk.limits[DEAD].max_bytes = size_of(result) - 1, 5_000
    assert context(desk.replace(result, None)).reason is DeadLetterReason.RESULT_TOO_LARGE
    assert size_of(desk.replace(letter, None)) <= 5_000


def test_differing_clocks_do_not_cause_an_endless_loop() -> None:
    """The current time is refused too: the result becomes a dead letter, which stops the worker."""
    desk = Desk(timestamp="labelled")
    dead = desk.replace(desk.result(), TIMESTAMP)
    assert context(dead).reason is DeadLetterReason.RESULT_REFUSED
    with pytest.raises(PublishRefused, match="out of range"):
        desk.replace(dead, TIMESTAMP)


def test_giving_up_names_the_record_and_the_brokers_message() -> None:
    desk = Desk()
    nobody = replace(desk.result(), outcome=None)
    for make in (give_up, desk.replace):
        with pytest.raises(PublishRefused, match=r"the result of in\[0\] offset 7, .*: Invalid"):
            make(nobody, KEYLESS)
    assert nobody.happened_ms == nobody.timestamp_ms
    assert give_up(nobody, None) is nobody
    assert desk.replace(nobody, None) is nobody


def test_output_timestamp_labelled_uses_the_current_time() -> None:
    desk = Desk(timestamp="labelled")
    assert (desk.result().timestamp_ms, desk.letter().timestamp_ms) == (NOW, NOW)


def test_an_outcome_that_retention_would_delete_is_marked() -> None:
    desk = Desk()
    desk.limits[OUT].retention_ms = 500_000
    assert (desk.result().expired, desk.letter().expired) == (True, False)
    desk.limits[OUT].retention_ms = 500_001
    assert not desk.result().expired


def test_the_size_of_a_result_is_estimated_without_a_record() -> None:
    """A real result is at least as large as the least, and about as large as the usual."""
    desk = Desk()
    least, usual = desk.encoder.sizes(CARD)
    assert least < usual
    assert least <= size_of(desk.result(raw(0, b"{}"))) <= usual + 50


def test_a_result_is_replaced_with_the_labels_of_the_model_that_made_it() -> None:
    """Another model may be in use by then: two results of two models, sent again together."""
    desk = Desk()
    new = replace(CARD, name="new", labels=("bad", "so-so", "good"), weights_sha256="cd" * 32)
    item = WorkItem(raw(8), "hi", payload={})
    made = Classified(item, Prediction((0.1, 0.2, 0.7), 3, truncated=False), new)
    old_sent, new_sent = desk.result(), desk.encoder.encode(made, now_ms=NOW, now=0.0)
    for sent, card, label in ((old_sent, CARD, "NEGATIVE"), (new_sent, new, "good")):
        again = desk.replace(sent, None)
        result = Classification.model_validate_json(again.value)
        assert (result.model.name, result.model.weights_sha256) == (card.name, card.weights_sha256)
        assert [one.label for one in result.labels] == list(card.labels)
        assert (again.label, again.model) == (label, card)
    assert desk.letter().model is None
    assert desk.replace(new_sent, SIZE).model is None, "it is a dead letter now"
