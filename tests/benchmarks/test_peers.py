"""Peers stand in their own folders with exact versions; what fails is told, and checked for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from benchmarks.peers import environments, run, turns
from benchmarks.peers.turns import PeerProcess, in_order
from worker.clock import SystemClock
from worker.core.records import RawRecord, RecordRef
from worker.errors import Fatal
from worker.processes import Interrupts, spawn

FOLDERS = sorted({one.folder for one in run.contenders() if one.folder})
HALVES = [{"label": "no", "score": 0.25}, {"label": "yes", "score": 0.75}]


def outcome(tag: int, value: object) -> RawRecord:
    return RawRecord(
        ref=RecordRef("out", 0, tag, epoch=0),
        timestamp_ms=0,
        key=str(tag).encode(),
        value=json.dumps(value).encode(),
        headers=(),
        polled_at=0.0,
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_peer_has_a_program_and_exact_versions(folder: str) -> None:
    """A range of versions would measure something else next year."""
    lines = (environments.HERE / folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[\w.\-\[\],]+==[\w.\-]+", pin) for pin in pins)
    assert (environments.HERE / folder / "app.py").is_file()


def test_every_row_names_the_versions_that_are_locked() -> None:
    """A package that is not in the peer's requirements would be a KeyError in the last minute."""
    rows = [contender.row for contender in run.contenders()]
    assert rows[0].title == "streamlabel"
    assert all(re.search(r"\(.+ \d+\.\d+.*, transformers \d", row.title) for row in rows[1:])


def test_a_peer_that_won_t_install_is_reported_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With pip's own words, without the places of this machine."""
    refusal = "ERROR: no such version in /a/b or https://c.d/e\\n\\nsee above"

    def refused(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        does = f"import sys; sys.exit('{refusal}')" if "pip" in command else "pass"
        return spawn([sys.executable, "-c", does], output)

    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "spawn", refused)
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        why = environments.install("plain", interrupts, clock)
    assert why == "would not install: ERROR: no such version in ... or ..."
    assert not (tmp_path / "plain" / "installed").exists()


def test_a_pip_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "slow").chmod(0o755)
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        why = environments._run([tmp_path / "slow"], interrupts, clock, clock.monotonic())
    assert why == "it took too long"


@pytest.mark.parametrize(
    ("told", "which", "expected"),
    [
        ("", -1, "it said nothing"),
        ("it ended with 1:\n  a.b.SomeError: why\n  1 leaked object", -1, "a.b.SomeError: why"),
        ("ERROR: Cannot install a\nERROR: ResolutionImpossible", 0, "ERROR: Cannot install a"),
        ("read and/or write /home/me/x failed", -1, "read and/or write ... failed"),
    ],
)
def test_a_reason_is_one_line_without_places(told: str, which: int, expected: str) -> None:
    assert environments.reason(told, which) == expected


def test_outcomes_are_put_in_the_records_order() -> None:
    """Ours is an object with all labels, a peer's the list alone."""
    found = in_order([outcome(1, HALVES), outcome(0, {"labels": HALVES, "id": "x"})], 2)
    assert found == [{"no": 0.25, "yes": 0.75}] * 2


@pytest.mark.parametrize(
    ("tags", "value", "why"),
    [
        ([0], HALVES, "1 outcomes of 1 records"),
        ([0, 0, 1], HALVES, "3 outcomes of 2 records"),
        ([0, 2], HALVES, "2 outcomes of 2 records"),
        ([0, 1], {"label": "yes", "score": 1.0}, "something else"),
        ([0, 1], "yes", "something else"),
    ],
)
def test_half_a_job_is_no_job(tags: list[int], value: object, why: str) -> None:
    with pytest.raises(Fatal, match=why):
        in_order([outcome(tag, value) for tag in tags], 2)


def test_another_model_is_found_out() -> None:
    """By its probabilities, or by its labels."""
    ours = [{"no": 0.25, "yes": 0.75}]
    assert turns.farthest(ours, [{"no": 0.5, "yes": 0.5}]) == 0.25
    assert turns.farthest(ours, [{"LABEL_0": 0.25, "LABEL_1": 0.75}]) == float("inf")
    contender = run.Contender("other", "plain")
    with pytest.raises(Fatal, match=r"differ by up to 0\.25"):
        contender.take(turns.Turn(10.0, [{"no": 0.5, "yes": 0.5}]), ours)


def test_a_peer_that_ends_says_how(tmp_path: Path) -> None:
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        command = [sys.executable, "-c", "import os; os.environ['NOT_THERE']"]
        peer = PeerProcess(command, tmp_path, 2, interrupts)
        peer.start(1)
        assert peer._process is not None
        peer._process.wait()
        with pytest.raises(Fatal, match="it ended with 1") as told:
            peer.check()
        peer.end()
    assert environments.reason(str(told.value)) == "KeyError: 'NOT_THERE'"


@pytest.mark.parametrize(
    ("arguments", "home", "why"),
    [
        ([], "", "set KAFKA_HOME"),
        ([], "{tmp}", "bin/kafka-server-start.sh"),
        (["--only", "nobody"], "", "invalid choice: 'nobody'"),
        (["--records", "10"], "", "200 or more"),
        (["--model", "{tmp}"], "", "no config.json"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_installed(
    arguments: list[str],
    home: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KAFKA_HOME", home.format(tmp=tmp_path))
    monkeypatch.setattr(run, "install", lambda *_: pytest.fail("it installs"))
    try:
        code = run.main([word.format(tmp=tmp_path) for word in arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert why in capsys.readouterr().err
