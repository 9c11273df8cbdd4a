"""The list of scenarios and its order."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.kube.registry import Scenario, chosen, in_order, load_all
from tests.kube.verdicts import Delivery, Failed


def one(name: str, order: int, under: str = "", *, disturbs: bool = False) -> Scenario:
    return Scenario(name, lambda _: pytest.fail("not to be run"), under, order, disturbs)


def names(found: list[Scenario]) -> list[str]:
    return [each.name for each in found]


FOUND = [
    one("last", 90, "x", disturbs=True),
    one("between", 50),
    one("first", 10, "x"),
    one("other", 60, "y"),
    one("earliest", 5),
]


def test_the_scenarios_of_one_release_follow_each_other() -> None:
    assert names(in_order(FOUND)) == ["earliest", "first", "last", "between", "other"]


def test_one_that_disturbs_others_needs_a_cluster_of_its_own_or_its_name() -> None:
    ordered = in_order(FOUND)
    assert chosen(ordered, [], own_cluster=True) == ordered
    assert "last" not in names(chosen(ordered, [], own_cluster=False))
    assert names(chosen(ordered, ["last", "first"], own_cluster=False)) == ["first", "last"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Failed, match=r"unknown: frist; choose from between, earliest, first"):
        chosen(FOUND, ["frist", "last"], own_cluster=True)


def test_every_scenario_says_what_it_does_and_shares_a_known_release() -> None:
    found = load_all()
    assert {each.under for each in found} <= {"", *get_args(Delivery)}
    assert [each.name for each in found if not (each.run.__doc__ or "").strip()] == []
    assert len({each.name for each in found}) == len(found) > 10
