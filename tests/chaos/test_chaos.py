"""Three short chaos runs, the properties of plans, and the command's answers to bad input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import main
from tests.chaos.arena import Cluster, cluster
from tests.chaos.bugs import BUGS
from tests.chaos.conduct import RunVerdict, Subject, _Run, conduct
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
    """These runs are short; `make chaos` runs more faults and new seeds."""
    model = str(make_checkpoint(tmp_path / "tiny"))
    verdict = conduct(draw(seed, 6, brokers.kind), brokers, Subject(model, delivery))
    assert verdict.holds, verdict.as_json()


def test_a_seed_draws_the_same_plan_again() -> None:
    assert draw(7, 30, "apache") == draw(7, 30, "apache") != draw(8, 30, "apache")
    drawn = {fault.kind for seed in range(20) for fault in draw(seed, 30, "apache").faults}
    assert drawn == set(kinds_of("apache"))


def test_every_kind_of_fault_is_implemented_and_every_bug_has_a_trap() -> None:
    assert all(hasattr(_Run, f"_{kind}") for kind in kinds_of("apache"))
    assert set(TRAPS) == set(BUGS)


@pytest.mark.parametrize(
    ("verdict", "holds"),
    [
        (RunVerdict(1, {}, consumed=9, drained=True), True),
        (RunVerdict(1, {}, consumed=9, drained=False), False),
        (RunVerdict(1, {}, consumed=0, drained=True), False),
        (RunVerdict(1, {}, consumed=9, drained=True, missing=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, reordered=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, orphans=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, duplicated=2, duplicates_allowed=2), True),
        (RunVerdict(1, {}, consumed=9, drained=True, duplicated=3, duplicates_allowed=2), False),
    ],
)
def test_a_verdict_holds_if_no_promise_was_broken(verdict: RunVerdict, holds: bool) -> None:
    assert verdict.holds is holds
    assert f'"holds": {str(holds).lower()}' in verdict.as_json()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "x"], "is not a seed"),
        (["--faults", "0"], "is not a number of faults"),
        (["--only", "sigterm,volcano"], "unknown fault for BROKER=apache: volcano"),
        (["--broker", "embedded", "--only", "join"], "unknown fault for BROKER=embedded: join"),
        (["--broker", "rabbit"], "invalid choice"),
    ],
)
def test_bad_input_is_refused_with_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code: object = None
    with contextlib.suppress(SystemExit):
        code = main(arguments)
    output = capsys.readouterr().err
    assert message in output
    assert code in (2, None), output


def test_a_missing_kafka_home_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert main(["--seed", "1"]) == 2
    assert "set KAFKA_HOME" in capsys.readouterr().err
