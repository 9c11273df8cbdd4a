"""Short chaos runs, the properties of plans, and the command's answers to bad input."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import main
from tests.chaos.bugs import BUGS
from tests.chaos.cluster import Cluster, behind_proxy, cluster
from tests.chaos.conduct import Subject, conduct
from tests.chaos.decisions import models
from tests.chaos.faults import Faults
from tests.chaos.plan import Delivery, Plan, RecordFormat, SignIn, draw, kinds_of
from tests.chaos.planted import TRAPS
from tests.chaos.values import AvroValues
from tests.chaos.verdict import RunVerdict
from tests.support.models import make_checkpoint
from tests.support.registry import ApicurioRegistry
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
    ("seed", "delivery", "format_"),
    [
        (101, "at_least_once", "json"),
        (102, "exactly_once", "json"),
        (103, "exactly_once", "avro"),
    ],
)
def test_the_promises_hold_while_everything_breaks(
    brokers: Cluster,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    seed: int,
    delivery: Delivery,
    format_: RecordFormat,
) -> None:
    """These runs are short; `make chaos` runs more faults and new seeds."""
    subject = Subject(str(make_checkpoint(tmp_path / "tiny")), delivery)
    plan = draw(seed, 6, brokers.kind, format_=format_)
    with contextlib.ExitStack() as stack:
        if format_ == "avro":
            registry = request.getfixturevalue("breakable_registry")
            brokers = replace(brokers, registry=stack.enter_context(behind_proxy(registry)))
        verdict = conduct(plan, brokers, subject)
    assert verdict.holds, verdict.as_json()


@pytest.mark.integration
@pytest.mark.allow_errors
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "delivery"), [(104, "at_least_once"), (105, "exactly_once")])
def test_the_promises_hold_for_routes_of_two_models(
    brokers: Cluster, tmp_path: Path, seed: int, delivery: Delivery
) -> None:
    """Copies and notes are counted too; long texts are read in windows."""
    subject = Subject("", delivery, settings=models(tmp_path), decides=True)
    verdict = conduct(draw(seed, 6, brokers.kind), brokers, subject)
    assert verdict.holds, verdict.as_json()
    assert verdict.filtered
    assert verdict.copies


@pytest.mark.parametrize(
    ("format_", "sign_in"), [("json", "none"), ("avro", "none"), ("json", "sasl_ssl")]
)
def test_a_seed_draws_the_same_plan_again(format_: RecordFormat, sign_in: SignIn) -> None:
    def plan(seed: int) -> Plan:
        return draw(seed, 30, "apache", format_=format_, sign_in=sign_in)

    assert plan(7) == plan(7) != plan(8)
    drawn = {fault.kind for seed in range(60) for fault in plan(seed).faults}
    assert drawn == set(kinds_of("apache", format_, sign_in))


def test_most_plans_are_judged_by_the_audit_and_the_others_by_choice() -> None:
    renewing = sum(draw(seed, 30, "apache").renews for seed in range(200))
    assert 20 <= renewing <= 60  # a share of 0.3 may renew the input, and most of these do
    only = ["topic_remade", "sigterm"]
    assert all(draw(seed, 30, "apache", only).renews for seed in range(50))


def test_every_kind_of_fault_is_implemented_and_every_bug_has_a_trap() -> None:
    kinds = {*kinds_of("apache", "avro"), *kinds_of("apache", sign_in="sasl_ssl")}
    assert all(hasattr(Faults, f"_{kind}") for kind in kinds)
    assert set(TRAPS) == set(BUGS)


def test_the_values_of_a_run_in_avro_have_many_schemas() -> None:
    """Two writers at a time; each schema differs from the one before, and some are no Avro."""
    registry = _Registry()
    values = AvroValues(registry, "posts")
    framed = [values.text(number, f"post {number}") for number in range(600)]
    used = [int.from_bytes(value[1:5], "big") for value in framed]
    assert [sorted(set(used[n : n + 250])) for n in (0, 250, 350)] == [[1, 2], [2, 3], [2, 3, 4]]
    assert [values.result(value)["text"] for value in framed[248:252]] == [
        f"post {number}" for number in range(248, 252)
    ]
    assert len({values.unreadable(number) for number in range(12)}) == 6


class _Registry(ApicurioRegistry):
    """A registry in memory."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def register(self, subject: str, text: str, *_: Any) -> int:
        assert subject == "posts-value"
        self.texts.append(text)
        return len(self.texts)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        assert (method, body) == ("GET", None)
        return {"schema": self.texts[int(path.rpartition("/")[2]) - 1]}


@pytest.mark.parametrize(
    ("verdict", "holds"),
    [
        (RunVerdict(1, {}, consumed=9, drained=True), True),
        (RunVerdict(1, {}, consumed=9, drained=False), False),
        (RunVerdict(1, {}, consumed=0, drained=True), False),
        (RunVerdict(1, {}, consumed=9, drained=True, lives=1, required=1), True),
        (RunVerdict(1, {}, consumed=9, drained=True, lives=1, required=0), False),
        (RunVerdict(1, {}, consumed=9, drained=True, missing=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, reordered=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, orphans=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, misread=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, uncopied=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, undue_filtered=-1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, undue_dead_letters=1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, undue_dead_letters=-1), False),
        (RunVerdict(1, {}, consumed=9, drained=True, duplicated=2, duplicates_allowed=2), True),
        (RunVerdict(1, {}, consumed=9, drained=True, duplicated=3, duplicates_allowed=2), False),
        (RunVerdict(1, {}, {"sigterm": 2}, consumed=9, drained=True), False),
        (RunVerdict(1, {"join": 1}, {"sigterm": 2}, consumed=9, drained=True), True),
        (RunVerdict(1, {"join": 1}, failure="no end", consumed=9, drained=True), False),
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
        (["--only", "sigterm,volcano"], "BROKER=apache FORMAT=json SECURITY=none: volcano"),
        (
            ["--broker", "embedded", "--only", "join"],
            "BROKER=embedded FORMAT=json SECURITY=none: join",
        ),
        (["--only", "registry_kill"], "BROKER=apache FORMAT=json SECURITY=none: registry_kill"),
        (["--only", "password_rotated"], "SECURITY=none: password_rotated"),
        (["--security", "sasl_ssl", "--only", "reply_lost"], "SECURITY=sasl_ssl: reply_lost"),
        (["--security", "sasl_ssl", "--broker", "embedded"], "--security needs BROKER=apache"),
        (["--set", "model.dtyp=int8"], "'model.dtyp=int8' is not a setting and its value"),
        (["--set", "model.dtype=int3"], "model.dtype"),
        (["--broker", "rabbit"], "invalid choice"),
        (["--decisions", "--format", "avro"], "--decisions routes by a member of JSON"),
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


def test_a_missing_registry_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRY_HOME", str(tmp_path))
    assert main(["--broker", "embedded", "--format", "avro"]) == 2
    assert "set REGISTRY_HOME" in capsys.readouterr().err
