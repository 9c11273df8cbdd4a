"""Three short runs of the chaos, a plan's properties, and what its command says to bad input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import main
from tests.chaos.arena import Cluster, cluster
from tests.chaos.bugs import BUGS
from tests.chaos.conduct import Subject, Verdict, _Run, conduct
from tests.chaos.plan import Delivery, draw, kinds_of
from tests.chaos.planted import TRAPS
from tests.support.models import make_checkpoint
from worker.settings import read_environment


@pytest.fixture(scope="module")
def brokers() -> Iterator[Cluster]:
    home = read_environment("KAFKA_HOME")
    with cluster("apache" if home else "embedded", Path(home) if home else None) as running:
        yield running


@pytest.mark.integration
@pytest.mark.allow_errors
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("seed", "delivery"),
    [(101, "at_least_once"), (102, "exactly_once"), (103, "exactly_once")],
)
def test_the_promises_hold_while_everything_breaks(
    brokers: Cluster, tmp_path: Path, seed: int, delivery: Delivery
) -> None:
    """Short seeds; many faults, and seeds that nobody has seen, are for `make chaos`."""
    model = str(make_checkpoint(tmp_path / "tiny"))
    verdict = conduct(draw(seed, 6, brokers.kind), brokers, Subject(model, delivery))
    assert verdict.holds, verdict.told()


def test_a_seed_draws_the_same_plan_again() -> None:
    assert draw(7, 30, "apache") == draw(7, 30, "apache") != draw(8, 30, "apache")
    drawn = {fault.kind for seed in range(20) for fault in draw(seed, 30, "apache").faults}
    assert drawn == set(kinds_of("apache"))


def test_every_kind_of_fault_can_be_begun_and_every_bug_has_its_trap() -> None:
    assert all(hasattr(_Run, f"_{kind}") for kind in kinds_of("apache"))
    assert set(TRAPS) == set(BUGS)


@pytest.mark.parametrize(
    ("verdict", "holds"),
    [
        (Verdict(1, {}, consumed=9, drained=True), True),
        (Verdict(1, {}, consumed=9, drained=False), False),
        (Verdict(1, {}, consumed=0, drained=True), False),
        (Verdict(1, {}, consumed=9, drained=True, missing=1), False),
        (Verdict(1, {}, consumed=9, drained=True, reordered=1), False),
        (Verdict(1, {}, consumed=9, drained=True, orphans=1), False),
        (Verdict(1, {}, consumed=9, drained=True, duplicated=2, duplicates_allowed=2), True),
        (Verdict(1, {}, consumed=9, drained=True, duplicated=3, duplicates_allowed=2), False),
    ],
)
def test_what_a_verdict_takes_for_kept(verdict: Verdict, holds: bool) -> None:
    assert verdict.holds is holds
    assert f'"holds": {str(holds).lower()}' in verdict.told()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", "x"], "is no seed"),
        (["--faults", "0"], "is no number of faults"),
        (["--only", "sigterm,volcano"], "unknown fault for BROKER=apache: volcano"),
        (["--broker", "embedded", "--only", "join"], "unknown fault for BROKER=embedded: join"),
        (["--broker", "rabbit"], "invalid choice"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object = None
    with contextlib.suppress(SystemExit):
        code = main(arguments)
    said = capsys.readouterr().err
    assert told in said
    assert code in (2, None), said


def test_a_broker_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert main(["--seed", "1"]) == 2
    assert "set KAFKA_HOME" in capsys.readouterr().err
