"""The verdict of a scenario: each broken promise is found, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from tests.kube.verdicts import Delivery, Tally, broken, stalled
from worker.core.audit_report import AuditReport

REPORT = AuditReport(
    consumed=300,
    published=298,
    dead_lettered=1,
    missing=1,
    duplicated=4,
    reordered=2,
    orphans=3,
    pending=7,
    unjudged={"outcome of a record that is not committed yet": 20, "record that is gone": 5},
    examples={},
)
BEFORE = Tally(records=100, twice=4)
AFTER = Tally(records=300, twice=4)


def test_a_tally_has_the_numbers_of_an_audit() -> None:
    assert Tally.of(asdict(REPORT)) == Tally(300, 1, 4, 2, 3, 1, unjudged=5)


def test_a_tally_since_another_one_is_what_was_added() -> None:
    assert AFTER.since(BEFORE) == Tally(records=200)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("planned", [True, False])
def test_a_clean_audit_breaks_nothing(delivery: Delivery, planned: bool) -> None:
    assert broken(BEFORE, AFTER, delivery, planned=planned) == []


@pytest.mark.parametrize("name", ["missing", "reordered", "orphans", "dead_letters", "unjudged"])
def test_one_of_these_is_always_broken(name: str) -> None:
    for before in (BEFORE, replace(BEFORE, **{name: 1})):  # it stays broken
        found = broken(before, replace(AFTER, **{name: 1}), "at_least_once", planned=False)
        assert found == [f"1 {name.replace('_', ' ')}"]


@pytest.mark.parametrize(
    ("delivery", "planned", "allowed"),
    [
        ("at_least_once", False, True),
        ("at_least_once", True, False),
        ("exactly_once", False, False),
        ("exactly_once", True, False),
    ],
)
def test_a_second_result_is_allowed_only_after_an_unplanned_end_at_least_once(
    delivery: Delivery, planned: bool, allowed: bool
) -> None:
    found = broken(BEFORE, replace(AFTER, twice=6), delivery, planned=planned)
    assert found == ([] if allowed else ["2 twice"])


def test_second_results_of_an_earlier_scenario_are_not_counted_again() -> None:
    assert (
        broken(replace(BEFORE, twice=9), replace(AFTER, twice=9), "exactly_once", planned=True)
        == []
    )


def test_a_scenario_without_a_record_proves_nothing() -> None:
    assert broken(AFTER, AFTER, "at_least_once", planned=True) == ["no record was judged"]


@pytest.mark.parametrize(("delivery", "bound"), [("at_least_once", 30), ("exactly_once", 60)])
def test_a_stall_is_below_its_bound(delivery: Delivery, bound: float) -> None:
    assert stalled(bound - 0.1, delivery) == []
    assert stalled(bound + 0.04, delivery) == [f"stalled for {bound:.1f} s, not below {bound} s"]
