"""Counted nouns agree with their number."""

from __future__ import annotations

import pytest

from worker.core.counted import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 partitions"), (1, "1 partition"), (1200, "1,200 partitions")]
)
def test_the_noun_agrees_with_the_number(number: int, text: str) -> None:
    assert counted(number, "partition") == text
