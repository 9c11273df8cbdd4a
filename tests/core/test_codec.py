"""Decoder and Encoder: unreadable input has a reason, and outcomes keep the record's data."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Classification, DeadLetter, DeadLetterReason, ValueState
from tests.support.records import CARD, raw
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER
from worker.core.decoder import Decoder, estimate_tokens
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder, result_id
from worker.core.formats.plain_json import JsonFormat
from worker.core.formats.plain_text import TextFormat
from worker.core.records import (
    Classified,
    Cut,
    DeadLettered,
    Encoded,
    Headers,
    InvalidRecord,
    Prediction,
    RecordRef,
    Trace,
    WorkItem,
)
from worker.core.topic_limits import TopicLimits
from worker.settings import InputSettings, OutputSettings

R = DeadLetterReason


def decode(value: bytes | None, **settings: object) -> WorkItem | InvalidRecord:
    return Decoder(InputSettings(**settings)).decode(raw(0, value))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, R.NULL_VALUE),
        (b'{"text":"\xff"}', R.NOT_UTF8),
        (b"", R.EMPTY_TEXT),
        (b" \n", R.EMPTY_TEXT),
        (b'{"text":', R.NOT_JSON),
        (b'{"text":"a"} trailing', R.NOT_JSON),
        (b'{"text":"a","n":NaN}', R.NOT_JSON),
        (b'{"text":"a","n":-Infinity}', R.NOT_JSON),
        (b'{"text":"a","n":' + b"9" * 5000 + b"}", R.NOT_JSON),
        (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", R.NOT_JSON),
        (b'["text"]', R.NOT_AN_OBJECT),
        (b'"text"', R.NOT_AN_OBJECT),
        (b"null", R.NOT_AN_OBJECT),
        (b"3", R.NOT_AN_OBJECT),
        (b"{}", R.PATH_MISSING),
        (b'{"Text":"a"}', R.PATH_MISSING),
        (b'{"text":null}', R.NOT_A_STRING),
        (b'{"text":true}', R.NOT_A_STRING),
        (b'{"text":["a"]}', R.NOT_A_STRING),
        (b'{"text":{"text":"a"}}', R.NOT_A_STRING),
        (b'{"text":""}', R.EMPTY_TEXT),
        (b'{"text":" \\n\\t\\u00a0"}', R.EMPTY_TEXT),
        (b'{"text":"\\u0000\\u0007"}', R.EMPTY_TEXT),
        (b'{"text":"\\u200b \\u202e\\ufeff"}', R.EMPTY_TEXT),
    ],
)
def test_each_kind_of_unreadable_input_has_its_reason(value: bytes | None, reason: R) -> None:
    decoded = decode(value)
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is reason
    assert decoded.message


AVRO = b"\x00\x00\x00\x00\x07\x0apost!"
GLUE_ID = uuid.UUID("3a9f8c1e-0000-4000-8000-00000000002a")
BY_HEADER = (("__value_schema_id", b"\x01" + GLUE_ID.bytes),)


@pytest.mark.parametrize(
    ("value", "headers", "schema"),
    [
        (AVRO, (), "7"),
        (b'\x00\x00\x00\x01\x00{"text":"a"}', (), "256"),
        (b"\x00\x00\x00\x00\x07", (), "7"),
        (b"\x03\x00" + GLUE_ID.bytes + b"\x0apost!", (), str(GLUE_ID)),
        (b"\x03\x05" + GLUE_ID.bytes + b"\xff", (), str(GLUE_ID)),
        (b"\x0apost\xff", BY_HEADER, str(GLUE_ID)),
        (b"\x0apost!", BY_HEADER, str(GLUE_ID)),
    ],
)
def test_a_value_framed_by_a_registrys_serializer_names_its_schema(
    value: bytes, headers: Headers, schema: str
) -> None:
    decoded = Decoder(InputSettings()).decode(raw(0, value, headers=headers))
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is R.SCHEMA_FRAMED
    assert f"schema {schema}:" in decoded.message


def test_a_foreign_frame_in_a_header_is_named_only_if_the_value_is_not_json() -> None:
    headers = (("content-type", b"avro/binary+ab12"),)
    decoded = Decoder(InputSettings()).decode(raw(0, b"\x0apost!", headers=headers))
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is R.SCHEMA_FRAMED
    assert isinstance(Decoder(InputSettings()).decode(raw(0, headers=headers)), WorkItem)


def test_a_framed_value_is_not_text_even_if_it_is_utf8() -> None:
    decoded = decode(AVRO, format="text")
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is R.SCHEMA_FRAMED


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"\x00\x00\x00\x07", (), R.NOT_JSON),  # too short for the id of a schema
        (b"\x00\xff\xff\xff\xff{}", (), R.NOT_UTF8),  # ids are positive
        (b"\x03\x01" + GLUE_ID.bytes + b"x", (), R.NOT_UTF8),
        (b"\x03\x00" + GLUE_ID.bytes[:-2], (), R.NOT_UTF8),
        (b"{", (("__value_schema_id", b"\x01short"),), R.NOT_JSON),
        (b"{", (("__value_schema_id", None),), R.NOT_JSON),
        (b"[]", BY_HEADER, R.NOT_AN_OBJECT),  # valid JSON is read in spite of the header
    ],
)
def test_a_value_that_resembles_a_frame_has_its_own_reason(
    value: bytes, headers: Headers, reason: R
) -> None:
    decoded = Decoder(InputSettings()).decode(raw(0, value, headers=headers))
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is reason


def test_json_with_a_schema_header_is_read() -> None:
    decoded = Decoder(InputSettings()).decode(raw(0, headers=BY_HEADER))
    assert isinstance(decoded, WorkItem)


def test_a_value_above_the_limit_is_too_large() -> None:
    decoded = decode(b'{"text":"hello"}', max_bytes=15)
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is R.TOO_LARGE
    assert isinstance(decode(b'{"text":"hello"}', max_bytes=16), WorkItem)


@pytest.mark.parametrize("value", [b'{"text":"whole, beside a huge key"}', b" " * 9, None])
def test_a_record_that_was_not_read_whole_is_too_large(value: bytes | None) -> None:
    cut = Cut(record_bytes=70_000_000, limit=64_000_000, value_bytes=40, complete=False)
    decoded = Decoder(InputSettings()).decode(dataclasses.replace(raw(7, value), cut=cut))
    assert isinstance(decoded, InvalidRecord)
    assert decoded.reason is R.TOO_LARGE
    assert "70000000 bytes, max_inflight_bytes is 64000000" in decoded.message


@pytest.mark.parametrize("complete", [True, False])
def test_a_dead_letter_states_the_size_of_a_cut_value(complete: bool) -> None:
    cut = Cut(record_bytes=70_000_000, limit=64_000_000, value_bytes=69_000_000, complete=complete)
    record = dataclasses.replace(raw(7, b"the beginning"), cut=cut)
    encoded = encode(DeadLettered(record, R.TOO_LARGE, "big"))
    letter_context = DeadLetter.model_validate_json(
        dict(encoded.headers)[DEAD_LETTER_HEADER] or b""
    )
    assert encoded.value == b"the beginning"
    assert (letter_context.value_state, letter_context.value_bytes) == (ValueState.CUT, 69_000_000)
    assert letter_context.complete is complete


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'{"text":"caf\xc3\xa9"}', "café"),
        (b'\xef\xbb\xbf{"text":"bom"}', "bom"),
        (b'{"text":"first","text":"last"}', "last"),
        (b'{"text":"\\ud800 alone"}', "\ud800 alone"),
        (b'{"text":"nul \\u0000"}', "nul \0"),
        (b'{"text":"a","n":1e999}', "a"),
    ],
)
def test_unusual_valid_input_is_read(value: bytes, text: str) -> None:
    decoded = decode(value)
    assert isinstance(decoded, WorkItem)
    assert decoded.text == text


def test_paths_walk_objects_and_arrays() -> None:
    value = json.dumps({"post": {"bodies": [{"t": "deep"}], "key": 7}}).encode()
    decoded = decode(value, text_path="post.bodies.0.t", id_path="post.key")
    assert isinstance(decoded, WorkItem)
    assert (decoded.text, decoded.message_id) == ("deep", "7")
    for path in ("post.bodies.1.t", "post.bodies.x", "post.key.more", "post.nothing"):
        missing = decode(value, text_path=path)
        assert isinstance(missing, InvalidRecord)
        assert missing.reason is R.PATH_MISSING


@pytest.mark.parametrize(
    ("member", "message_id"),
    [
        ('"a-1"', "a-1"),
        ("12", "12"),
        ("null", None),
        ("[1]", None),
        ("true", None),
        ('"\\ud800"', "?"),
    ],
)
def test_the_message_id_is_optional(member: str, message_id: str | None) -> None:
    decoded = decode(b'{"text":"t","id":%s}' % member.encode())
    assert isinstance(decoded, WorkItem)
    assert decoded.message_id == message_id


def test_a_plain_format_waits_for_no_schema() -> None:
    assert JsonFormat().settled(7)
    assert TextFormat().settled(7)


def test_plain_text_is_read_whole() -> None:
    decoded = decode(b'{"text":"x"}', format="text")
    assert isinstance(decoded, WorkItem)
    assert (decoded.text, decoded.payload) == ('{"text":"x"}', None)
    blank = decode(b" \n", format="text")
    assert isinstance(blank, InvalidRecord)
    assert blank.reason is R.EMPTY_TEXT


@given(st.binary(max_size=200))
def test_decoding_never_raises(value: bytes) -> None:
    for settings in ({}, {"format": "text"}, {"text_path": "a.0.b"}):
        assert isinstance(decode(value, **settings), WorkItem | InvalidRecord)  # type: ignore[arg-type]


def test_token_estimates_grow_with_the_number_of_bytes() -> None:
    assert estimate_tokens("") == 2
    assert estimate_tokens("a" * 400) == 102
    assert estimate_tokens("\ud800") == 2


# -- encoding ----------------------------------------------------------------------------------

PREDICTION = Prediction((0.25, 0.75), token_count=4, truncated=False)


def encode(
    outcome: Classified | DeadLettered,
    *,
    result_limit: int = 1_000_000,
    dead_letter_limit: int = 1_000_000,
    trace: Trace | None = None,
    group: str | None = None,
    **settings: object,
) -> Encoded:
    limits = defaultdict(lambda: TopicLimits(max_bytes=result_limit))
    limits["texts.dead"] = TopicLimits(max_bytes=dead_letter_limit)
    encoder = Encoder(
        OutputSettings(**settings),  # type: ignore[arg-type]
        version="1.2.3",
        limits=limits,
        group=group,
    )
    return encoder.encode(outcome, now_ms=1_700_000_000_500, now=2.0, trace=trace)


def classified(value: bytes = b'{"text":"hi","id":"m1"}', **record: object) -> Classified:
    item = Decoder(InputSettings()).decode(raw(41, value, polled_at=1.5, **record))  # type: ignore[arg-type]
    assert isinstance(item, WorkItem)
    return Classified(item, PREDICTION, CARD)


def test_a_result_has_all_members() -> None:
    encoded = encode(classified(key=b"k", headers=(("trace", b"1"),)))
    result = Classification.model_validate_json(encoded.value)
    assert (result.label, result.score, result.message_id) == ("POSITIVE", 0.75, "m1")
    assert [(s.label, s.score) for s in result.labels] == [("NEGATIVE", 0.25), ("POSITIVE", 0.75)]
    assert (result.token_count, result.truncated, result.processing_ms) == (4, False, 500.0)
    assert (result.source.topic, result.source.partition, result.source.offset) == ("in", 0, 41)
    assert result.model.weights_sha256 == CARD.weights_sha256
    assert encoded.key == b"k"
    assert encoded.timestamp_ms == 1_700_000_000_000
    assert encoded.headers == [("trace", b"1"), (SOURCE_HEADER, b"in/0/41")]
    assert (encoded.topic, encoded.label, encoded.reason) == ("texts.labelled", "POSITIVE", None)


def test_each_input_may_have_an_output_of_its_own() -> None:
    assert encode(classified(), topic="{topic}.labelled").topic == "in.labelled"


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 2**41),
)
def test_a_result_equals_the_output_of_the_contracts_models(
    probabilities: list[float], message_id: str | None, now_ms: int
) -> None:
    """The encoder builds it of plain values; parsed and written by the models, it is the same."""
    item = WorkItem(raw(7, b"{}"), "text", message_id, {})
    outcome = Classified(item, Prediction(tuple(probabilities), 9, truncated=True), CARD)
    encoded = Encoder(OutputSettings(), version="1", limits=defaultdict(TopicLimits))
    value = encoded.encode(outcome, now_ms=now_ms, now=item.record.polled_at + 0.5).value
    result = Classification.model_validate_json(value)
    assert result.model_dump_json().encode() == value
    assert result.score == max(probabilities)
    name = f"in/0/7#{CARD.weights_sha256}"
    assert result.id == str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def test_the_id_depends_on_coordinates_and_model() -> None:
    first = result_id(raw(1, b"one"), CARD.weights_sha256)
    assert uuid.UUID(first).version == 5
    assert first == result_id(raw(1, b"other", epoch=9), CARD.weights_sha256)
    others = {
        result_id(raw(2), CARD.weights_sha256),
        result_id(raw(1, partition=1), CARD.weights_sha256),
        result_id(raw(1), "cd" * 32),
    }
    assert first not in others
    assert len(others) == 3


def test_enriching_keeps_the_producers_bytes() -> None:
    body = b'{"n":1.10, "big":12345678901234567890123, "text":"hi", "n":2 }\n'
    encoded = encode(classified(body), mode="enrich")
    assert encoded.value.startswith(body.strip()[:-1])
    document = json.loads(encoded.value)
    assert Classification.model_validate(document["classification"]).label == "POSITIVE"


def test_enriching_twice_replaces_the_old_member() -> None:
    body = b'{"classification":{"old":1},"text":"hi"}'
    encoded = encode(classified(body), mode="enrich")
    assert encoded.value.count(b'"classification"') == 1
    assert json.loads(encoded.value)["text"] == "hi"


def test_enriching_twice_with_a_number_beyond_floats_stays_json() -> None:
    body = b'{"classification":{"old":1},"text":"hi","x":1e999}'
    encoded = encode(classified(body), mode="enrich")
    assert b"Infinity" not in encoded.value
    assert json.loads(encoded.value)["classification"]["label"] == "POSITIVE"


def test_null_and_empty_headers_differ() -> None:
    came = (("a", None), ("b", b""), (SOURCE_HEADER, None), (DEAD_LETTER_HEADER, None))
    kept = [("a", None), ("b", b"")]
    record = raw(41, headers=came)
    assert record.size == len(record.value or b"") + sum(len(name) for name, _ in came)
    assert encode(classified(headers=came)).headers == [*kept, (SOURCE_HEADER, b"in/0/41")]
    dead = DeadLettered(record, R.MODEL_FAILED, "ValueError")
    assert encode(dead).headers[:-1] == [*kept, (SOURCE_HEADER, b"in/0/41")]


def test_headers_of_an_earlier_worker_are_replaced() -> None:
    came = ((SOURCE_HEADER, b"old/0/1"), (DEAD_LETTER_HEADER, b"{}"), ("x", b""))
    assert encode(classified(headers=came)).headers == [("x", b""), (SOURCE_HEADER, b"in/0/41")]


def test_outcomes_of_a_backfill_name_its_group_and_those_of_a_worker_none() -> None:
    """An earlier group is replaced, as in a chain."""
    came = ((GROUP_HEADER, b"old"), ("x", b""))
    for outcome in (classified(headers=came), DeadLettered(raw(41, headers=came), R.NOT_JSON, "")):
        plain, of_backfill = encode(outcome), encode(outcome, group="new")
        assert [value for name, value in plain.headers if name == GROUP_HEADER] == []
        groups = [value for name, value in of_backfill.headers if name == GROUP_HEADER]
        assert groups == [b"new"]


@pytest.mark.parametrize("size", [1, 5_000])
def test_a_record_read_from_its_dead_letter_stays_in_its_group(size: int) -> None:
    """Also if its other headers do not fit any more."""
    headers = ((GROUP_HEADER, b"own"), ("x", bytes(size)))
    record = dataclasses.replace(raw(0, headers=headers), origin=RecordRef("in", 0, 41, 0))
    letter = encode(DeadLettered(record, R.NOT_JSON, ""), dead_letter_limit=4_000)
    groups = [value for name, value in letter.headers if name == GROUP_HEADER]
    assert groups == [b"own"]
    assert ("x" in dict(letter.headers)) == (size == 1)


def test_headers_of_the_values_schema_stay_on_dead_letters_alone() -> None:
    """A result is no value of that schema; the key's header stays true, as the key is copied."""
    key = ("__key_schema_id", b"\x01" + GLUE_ID.bytes)
    came = (key, *BY_HEADER, ("apicurio.value.globalId", bytes(8)), ("x", b""))
    assert encode(classified(headers=came)).headers[:-1] == [key, ("x", b"")]
    letter = encode(DeadLettered(raw(headers=came), R.MODEL_FAILED, "ValueError"))
    assert tuple(letter.headers[: len(came)]) == came


def test_a_trace_replaces_the_records_in_results_but_not_in_dead_letters() -> None:
    came = (("traceparent", b"old"), ("x", b""), ("tracestate", b"a=b"))
    trace = Trace("ab", b"new")
    result = encode(classified(headers=came), trace=trace)
    assert result.headers == [("x", b""), ("traceparent", b"new"), (SOURCE_HEADER, b"in/0/41")]
    assert (result.trace_id, encode(classified()).trace_id) == ("ab", None)
    dead = DeadLettered(raw(headers=came), R.MODEL_FAILED, "ValueError")
    letter = encode(dead, trace=trace)
    assert tuple(letter.headers[:3]) == came


def context(encoded: Encoded) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(encoded.headers)[DEAD_LETTER_HEADER])


def test_a_dead_letter_has_the_original_and_the_reason() -> None:
    record = raw(7, b"\xff\x00", key=b"k", headers=(("h", b"v"),))
    encoded = encode(DeadLettered(record, R.MODEL_FAILED, "ValueError", "ab12", attempt=2))
    letter = context(encoded)
    assert (encoded.topic, encoded.key, encoded.value) == ("texts.dead", b"k", b"\xff\x00")
    assert encoded.headers[:2] == [("h", b"v"), (SOURCE_HEADER, b"in/0/7")]
    assert (letter.reason, letter.message, letter.stack_hash) == (
        R.MODEL_FAILED,
        "ValueError",
        "ab12",
    )
    assert (letter.attempt, letter.worker_version) == (2, "1.2.3")
    assert (letter.value_state, letter.value_bytes) == (ValueState.WHOLE, 2)
    assert letter.complete
    assert encoded.reason is R.MODEL_FAILED


def test_null_and_empty_values_differ() -> None:
    null = encode(DeadLettered(raw(0, None), R.NULL_VALUE, "none"))
    empty = encode(DeadLettered(raw(0, b""), R.NOT_JSON, "empty"))
    assert null.value == empty.value == b""
    assert context(null).value_state is ValueState.NULL
    assert context(empty).value_state is ValueState.WHOLE


def test_a_dead_letter_is_cut_to_the_topics_limit() -> None:
    encoded = encode(DeadLettered(raw(0, b"x" * 9000), R.TOO_LARGE, "big"), dead_letter_limit=5000)
    letter = context(encoded)
    assert (letter.value_state, letter.value_bytes) == (ValueState.CUT, 9000)
    sent = len(encoded.value) + sum(len(n) + len(v) for n, v in encoded.headers)
    assert len(encoded.value) > 0
    assert sent < 5000


def test_headers_and_keys_beyond_the_topics_limit_are_dropped() -> None:
    """Otherwise the broker would refuse the dead letter, and the worker would always stop at it."""
    heavy = (("h", b"x" * 6000),)
    partial = encode(
        DeadLettered(raw(0, b"value", key=b"k", headers=heavy), R.TOO_LARGE, "big"),
        dead_letter_limit=5000,
    )
    assert (partial.key, partial.value) == (b"k", b"value")
    assert [name for name, _ in partial.headers] == [SOURCE_HEADER, DEAD_LETTER_HEADER]
    none = encode(
        DeadLettered(raw(0, b"value", key=b"k" * 6000, headers=heavy), R.TOO_LARGE, "big"),
        dead_letter_limit=5000,
    )
    assert (none.key, none.value) == (None, b"value")
    assert not context(partial).complete
    assert not context(none).complete


@pytest.mark.parametrize(("ahead_ms", "kept"), [(3_000_000, True), (4_000_000, False)])
def test_a_timestamp_that_the_broker_would_refuse_becomes_now(ahead_ms: int, kept: bool) -> None:
    now = 1_700_000_000_500
    record = dataclasses.replace(raw(0, b"\xff"), timestamp_ms=now + ahead_ms)
    encoded = encode(DeadLettered(record, R.NOT_UTF8, "x"))
    assert encoded.timestamp_ms == (now + ahead_ms if kept else now)
    assert context(encoded).source.timestamp_ms == now + ahead_ms


def test_a_result_that_its_topic_refuses_becomes_a_dead_letter() -> None:
    body = json.dumps({"text": "hi", "pad": "x" * 5000}).encode()
    encoded = encode(classified(body), mode="enrich", result_limit=5000)
    assert encoded.topic == "texts.dead"
    assert context(encoded).reason is R.RESULT_TOO_LARGE
    assert encoded.value == body
