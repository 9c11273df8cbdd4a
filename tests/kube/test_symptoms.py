"""A cause counts as named only if a person would find it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kube.symptoms import Cause, Symptoms, parsed, unlike

CAUSE = Cause(("ImagePullBackOff",), described=("Failed to pull image",), logged=("a", "b"))
FOUND = Symptoms(("ImagePullBackOff",), 0, 'Failed to pull image "x"', "c\nb and a\n")


def test_the_columns_of_kubectl_get_pods() -> None:
    table = "a-1   0/1   Running            0             2s\nb-2   0/1   CrashLoopBackOff   2 (17s ago)   46s\n"
    assert parsed(table) == [("Running", 0), ("CrashLoopBackOff", 2)]


def test_a_cause_that_is_named() -> None:
    assert unlike(FOUND, CAUSE) == []


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"statuses": ("Running",)}, "STATUS is Running, not ImagePullBackOff"),
        ({"statuses": ()}, "STATUS is nothing, not ImagePullBackOff"),
        ({"restarts": 2}, "2 restarts"),
        ({"described": ""}, "`kubectl describe` lacks 'Failed to pull image'"),
        ({"log": "a\nb\n"}, "no line of the log has 'a' and 'b'"),
    ],
)
def test_a_word_that_is_missing(change: dict[str, object], phrase: str) -> None:
    assert unlike(replace(FOUND, **change), CAUSE) == [phrase]


def test_restarts_of_a_crash_loop() -> None:
    assert unlike(replace(FOUND, restarts=2), replace(CAUSE, restarts=True)) == []
