"""A hundred thousand generated records: each gives a text or a reason, and none an exception."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import pytest

from schemas import Classification, DeadLetter, DeadLetterReason
from tests.support.fuzz import records
from tests.support.records import CARD, raw
from worker.core.decoder import Decoder
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder
from worker.core.records import Classified, DeadLettered, InvalidRecord, Prediction
from worker.core.topic_limits import TopicLimits
from worker.settings import InputSettings, OutputSettings

NUMBER = 100_000
PREDICTION = Prediction((0.4, 0.6), 3, truncated=False)


@pytest.mark.parametrize("seed", [20261122])
def test_every_generated_record_is_a_text_or_a_dead_letter(seed: int) -> None:
    decoder = Decoder(InputSettings(max_bytes=60_000))
    encoder = Encoder(
        OutputSettings(mode="enrich"),
        version="1",
        limits=defaultdict(lambda: TopicLimits(max_bytes=10**6)),
    )
    fates: Counter[str] = Counter()
    for offset, value in enumerate(records(seed, NUMBER)):
        entry = decoder.decode(raw(offset, value))
        if isinstance(entry, InvalidRecord):
            fates[entry.reason] += 1
            encoded = encoder.encode(
                DeadLettered(entry.record, entry.reason, entry.message), now_ms=0, now=0
            )
            assert encoded.value == (value or b"")
            if offset % 20 == 0:
                letter = DeadLetter.model_validate_json(dict(encoded.headers)[DEAD_LETTER_HEADER])
                assert letter.reason is entry.reason
        else:
            fates["text"] += 1
            assert entry.text.strip()
            encoded = encoder.encode(Classified(entry, PREDICTION, CARD), now_ms=0, now=0)
            if offset % 20 == 0:
                document = json.loads(encoded.value)
                assert Classification.model_validate(document["classification"]).score == 0.6
    assert fates.total() == NUMBER
    reachable = {
        *("text", "null_value", "too_large", "not_utf8", "not_json"),
        *("schema_framed", "not_an_object", "path_missing", "not_a_string", "empty_text"),
    }
    assert reachable <= set(fates), fates
    assert set(fates) - {"text"} <= {reason.value for reason in DeadLetterReason}
