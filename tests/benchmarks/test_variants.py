"""The comparison of settings: its backlog, its settings, and its refusals."""

from __future__ import annotations

from collections import Counter
from tomllib import loads as load_text

import pytest

from benchmarks import variants

TEXTS = [f"text {number}" for number in range(100)]


@pytest.mark.parametrize("repeats", [0.0, 0.1, 0.4])
def test_a_backlog_repeats_a_share_of_its_texts(repeats: float) -> None:
    texts = variants.backlog(TEXTS, 100, repeats)
    assert len(texts) == 100
    assert len(Counter(texts)) == 100 - 100 * repeats
    assert texts == variants.backlog(TEXTS, 100, repeats), "every round drains the same"


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 101 different texts, there are 100"):
        variants.backlog([*TEXTS, *TEXTS], 101, 0)


def test_every_comparison_has_different_settings() -> None:
    comparisons = variants.comparisons()
    caches = [item.repeats for item in comparisons if item.name.startswith("cache")]
    assert caches == [0.0, 0.1, 0.4]
    for item in comparisons:
        settings = [
            (tuple(setting.flags.items()), setting.observer, setting.models)
            for setting in item.settings.values()
        ]
        assert len(set(settings)) == len(settings) > 1


def test_one_model_is_a_table_of_its_own_and_several_are_named() -> None:
    one, two = (load_text(variants.model_tables("bundled", number)) for number in (1, 2))
    assert one == {"model": {"name": "bundled"}}
    assert two == {"models": {"m1": {"name": "bundled"}, "m2": {"name": "bundled"}}}


def test_medians_are_of_the_rounds_that_measured() -> None:
    (comparison,) = (item for item in variants.comparisons() if item.starts)
    rounds = {
        name: [variants.Round(100 / n, n * 2**20, n * 1.0), variants.Round(100 / n)]
        for n, name in enumerate(comparison.settings, start=1)
    }
    first, second, _ = variants._variants(comparison, rounds)
    assert (first.memory_mib, first.cold_start_s, first.ratio) == (1, 1, 1)
    assert (second.memory_mib, second.cold_start_s, second.ratio) == (2, 2, 0.5)


def test_an_unknown_comparison_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert variants.main(["--only", "no such"]) == 2
    assert "matches none of: cache, 0% repeats" in capsys.readouterr().err
