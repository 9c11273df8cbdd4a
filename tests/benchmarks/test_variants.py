"""The backlog of the comparison of settings, and what it makes of bad input."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks import variants

TEXTS = [f"text {number}" for number in range(100)]


@pytest.mark.parametrize("repeats", [0.0, 0.1, 0.4])
def test_a_backlog_repeats_the_share_that_is_asked_for(repeats: float) -> None:
    found = variants.backlog(TEXTS, 100, repeats)
    assert len(found) == 100
    assert len(Counter(found)) == 100 - 100 * repeats
    assert found == variants.backlog(TEXTS, 100, repeats), "every round drains the same"


def test_texts_that_are_too_few_are_no_backlog() -> None:
    with pytest.raises(ValueError, match="101 different texts are wanted, there are 100"):
        variants.backlog([*TEXTS, *TEXTS], 101, 0)


def test_every_question_compares_settings_that_differ() -> None:
    asked = variants.questions()
    assert [q.repeats for q in asked if q.name.startswith("cache")] == [0.0, 0.1, 0.4]
    for question in asked:
        settings = [
            (tuple(setting.flags.items()), setting.look) for setting in question.variants.values()
        ]
        assert len(set(settings)) == len(settings) > 1


def test_an_unknown_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert variants.main(["--only", "no such"]) == 2
    assert "there are: cache, 0% repeats" in capsys.readouterr().err
