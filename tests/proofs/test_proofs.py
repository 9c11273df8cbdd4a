"""The program of proofs: its verdicts, its answers to bad input, and one short proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import Broker
from tests.kube.verdicts import Failed
from tests.proofs import __main__ as program
from tests.proofs.ground import Ground, Order
from tests.proofs.model_change import change_models, model_change
from tests.proofs.registry import Proof, Proved, proof
from tests.proofs.verdicts import broken

HELD: dict[str, Any] = {
    "consumed": 9,
    "missing": 0,
    "duplicated": 0,
    "reordered": 0,
    "orphans": 0,
    "dead_lettered": 0,
    "unjudged": {},
}


@pytest.mark.parametrize(
    ("report", "more", "told"),
    [
        ({}, {}, ()),
        ({"missing": 1}, {}, ("1 missing",)),
        ({"reordered": 2, "orphans": 3}, {}, ("2 reordered", "3 orphans")),
        ({"unjudged": {"removed": 4}}, {}, ("4 unjudged",)),
        ({"consumed": 8}, {}, ("8 records judged instead of 9",)),
        ({"duplicated": 1}, {}, ("1 twice instead of at most 0",)),
        ({"duplicated": 1}, {"twice_allowed": None}, ()),
        ({"dead_lettered": 1}, {}, ("1 dead letters instead of 0",)),
        ({"dead_lettered": 1}, {"dead_letters": None}, ()),
    ],
)
def test_the_audit_has_the_last_word(
    report: dict[str, Any], more: dict[str, Any], told: tuple[str, ...]
) -> None:
    assert broken(Proved("done", HELD | report, records=9, **more)) == told


def test_two_proofs_have_two_names() -> None:
    program.load_all()
    with pytest.raises(ValueError, match="two proofs have the name model_change"):
        proof()(model_change)


def test_an_unknown_proof_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["no_such_proof"]) == 2
    told = capsys.readouterr().err
    assert "unknown: no_such_proof; choose from " in told
    assert "model_change" in told


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_proof_needs_records(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program.main([f"--records={number}"])
    assert ended.value.code == 2
    assert f"'{number}' is not a number of records" in capsys.readouterr().err


def test_without_kafka_it_says_why_it_is_skipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    assert program.main([]) == 0
    assert capsys.readouterr().out.startswith("proofs: skipped: set KAFKA_HOME")


def test_a_proof_that_fails_is_a_line_of_the_table(tmp_path: Path) -> None:
    def disappoint(ground: Ground) -> Proved:
        """Expect too much."""
        raise Failed(f"{ground.topics.input.partition('-')[0]} is not enough")

    order = Order(9, 1, "at_least_once")
    broker = Broker("127.0.0.1:1", "apache", "nowhere")
    proof_ = Proof("disappoint", disappoint, ["at_least_once"])
    line = program.prove(proof_, order, broker, tmp_path, ground=Grounded)
    assert (line.what, line.broken) == ("Expect too much.", ("disappoint is not enough",))


class Grounded(Ground):
    """A ground without a broker."""

    def __enter__(self) -> Self:
        return self


@pytest.mark.integration
@pytest.mark.timeout(400)
def test_a_pool_changes_its_model_under_load(broker: Broker, tmp_path: Path) -> None:
    """Three changes; the log, the topics and the history agree on each first offset."""
    order = Order(600, 7, "exactly_once", "tiny")
    small = Proof("small", lambda ground: change_models(ground, 3, processes=2), ["exactly_once"])
    line = program.prove(small, order, broker, tmp_path)
    assert line.held, line
    assert line.tally is not None
    assert line.tally.records >= 400  # the last change begins after two thirds of the records
    folder = tmp_path / "small-exactly-once"
    assert json.loads((folder / "audit.json").read_text())["missing"] == 0
