"""A run of scenarios, with doubles of the cluster: failures are seen, told, and don't end it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from tests.kube.registry import Happened, Scenario
from tests.kube.release import Observed
from tests.kube.report import Line
from tests.kube.run import run
from tests.kube.site import Site
from tests.kube.verdicts import Failed, Tally


@dataclass
class FakeRelease:
    """Each audit has 100 records more, and what `adds` says."""

    name: str
    delivery: str
    healthy: bool = True
    audited: Tally = field(default_factory=Tally)
    stall_s: float = 1.26
    adds: dict[str, int] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def observe(self, since: float | None = None) -> Observed:
        added = {name: getattr(self.audited, name) + n for name, n in self.adds.items()}
        self.audited = replace(self.audited, records=self.audited.records + 100, **added)
        self.adds = {}
        return Observed(self.audited, stall_s=self.stall_s, results=100)

    def wait_ready(self) -> list[Any]:
        if not self.healthy:
            raise Failed("3 pods are ready: not within 1 s")
        return []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.calls.append(name)


class FakeSite:
    namespace = "somewhere"

    def __init__(self) -> None:
        self.releases: list[FakeRelease] = []
        self.asked: list[tuple[str, ...]] = []
        self.cluster = self

    def new(self, name: str, delivery: str) -> FakeRelease:
        self.releases.append(FakeRelease(name, delivery))
        return self.releases[-1]

    def kubectl(self, *command: str) -> str:
        self.asked.append(command)
        return "what kubectl says"


def lines_of(site: FakeSite, *scenarios: Scenario) -> dict[str, Line]:
    return {line.name: line for line in run(cast("Site", site), scenarios)}


def shared(act: Any, name: str = "it", under: str = "at_least_once") -> Scenario:
    return Scenario(name, act, under, 1, disturbs=False)


def held(release: FakeRelease) -> Happened:
    return Happened("it went well", figures={"rollout_s": 3})


def test_scenarios_share_a_release_that_is_audited_after_each_and_at_the_end() -> None:
    site = FakeSite()
    lines = lines_of(site, shared(held, "a"), shared(held, "b"))
    assert list(lines) == [
        "install at-least-once",
        "a",
        "b",
        "all of at-least-once",
        "uninstall at-least-once",
    ]
    assert all(line.held for line in lines.values())
    assert [line.tally for line in lines.values()] == [
        None,
        Tally(100),
        Tally(100),
        Tally(300),
        None,
    ]
    assert lines["a"].figures == {"longest_stall_s": 1.3, "rollout_s": 3}
    assert site.releases[0].calls == [
        "create_topics",
        "install",
        "start_feed",
        "end_feed",
        "uninstall",
    ]
    assert not site.asked


@pytest.mark.parametrize(("under", "planned"), [("at_least_once", True), ("exactly_once", False)])
def test_a_planted_second_result_fails_its_scenario(under: str, planned: bool) -> None:
    def twice(release: FakeRelease) -> Happened:
        release.adds = {"twice": 2}
        return Happened("it seemed to go well", planned=planned)

    site = FakeSite()
    lines = lines_of(site, shared(twice, "a", under), shared(held, "b", under))
    assert lines["a"].broken == ("2 twice",)
    assert lines["b"].held
    assert ("-n", "somewhere", "get", "pods", "-o", "wide") in site.asked
    assert lines[f"all of {under.replace('_', '-')}"].held == (under == "at_least_once")


def test_a_second_result_after_an_unplanned_end_is_allowed() -> None:
    def killed(release: FakeRelease) -> Happened:
        release.adds = {"twice": 2}
        return Happened("killed", planned=False)

    assert lines_of(FakeSite(), shared(killed))["it"].held


def test_a_release_that_does_not_recover_ends_its_scenarios_and_no_others() -> None:
    def breaks(release: FakeRelease) -> Happened:
        release.healthy = False
        raise Failed("the pods are replaced: not within 300 s")

    site = FakeSite()
    other = Scenario("other", lambda _: Happened("fine"), "", 2, disturbs=False)
    lines = lines_of(site, shared(breaks, "a"), shared(held, "b"), other)
    assert lines["a"].broken == ("the pods are replaced: not within 300 s",)
    assert lines["b"].broken == ("the release did not recover",)
    assert lines["other"].held
    assert site.releases[0].calls[-1] == "uninstall"


def test_a_scenario_with_a_release_of_its_own_is_judged_by_its_tally() -> None:
    def lost(_: Site) -> Happened:
        return Happened("it seemed to go well", tally=Tally(50, missing=1))

    line = lines_of(FakeSite(), Scenario("own", lost, "", 1, disturbs=False))["own"]
    assert line.broken == ("1 missing",)


def test_a_clean_up_that_fails_is_told_and_the_next_scenarios_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_: FakeRelease) -> None:
        raise Failed("no pod of at-least-once is left: not within 90 s")

    monkeypatch.setattr(FakeRelease, "uninstall", fails, raising=False)
    other = Scenario("other", lambda _: Happened("fine"), "", 2, disturbs=False)
    lines = lines_of(FakeSite(), shared(held), other)
    assert lines["uninstall at-least-once"].broken == (
        "no pod of at-least-once is left: not within 90 s",
    )
    assert lines["it"].held
    assert lines["other"].held


def test_a_clean_up_that_fails_does_not_hide_the_failure_before_it() -> None:
    def breaks(_: Site) -> Happened:
        try:
            raise Failed("no record was labelled")
        finally:
            raise Failed("a pod is left")

    line = lines_of(FakeSite(), Scenario("own", breaks, "", 1, disturbs=False))["own"]
    assert line.broken == ("no record was labelled", "a pod is left")


@pytest.mark.parametrize("bounded", [True, False])
def test_a_planted_stall_fails_a_scenario_with_a_bound(bounded: bool) -> None:
    def stalls(release: FakeRelease) -> Happened:
        release.stall_s = 31
        return Happened("3 pods replaced", stall_bounded=bounded)

    line = lines_of(FakeSite(), shared(stalls))["it"]
    assert line.broken == (("stalled for 31.0 s, not below 30 s",) if bounded else ())
