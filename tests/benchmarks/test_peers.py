"""Peers have exact versions; failures are reported, and incomplete output is a failure."""

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
from benchmarks.recorded import LOOP, Peer, Peers
from worker.clock import SystemClock
from worker.core.records import RawRecord, RecordRef
from worker.errors import Fatal
from worker.processes import Interrupts, spawn

FOLDERS = sorted({contender.folder for contender in run.contenders() if contender.folder})
LABELS = [{"label": "no", "score": 0.25}, {"label": "yes", "score": 0.75}]


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
    """A range of versions would give other figures next year."""
    lines = (environments.HERE / folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[\w.\-\[\],]+==[\w.\-]+", pin) for pin in pins)
    assert (environments.HERE / folder / "app.py").is_file()


def test_every_row_names_locked_versions() -> None:
    """A package outside the peer's requirements would be a KeyError after the measurement."""
    rows = [contender.row for contender in run.contenders()]
    assert rows[0].title == "streamlabel"
    assert all(re.search(r"\(.+ \d+\.\d+.*, transformers \d", row.title) for row in rows[1:])


def test_a_failed_installation_is_reported_and_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report has pip's error, without paths of this machine."""
    error = "ERROR: no such version in /a/b or https://c.d/e\\n\\nsee above"

    def fail_pip(command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        code = f"import sys; sys.exit('{error}')" if "pip" in command else "pass"
        return spawn([sys.executable, "-c", code], output)

    monkeypatch.setattr(environments, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(environments, "spawn", fail_pip)
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        failure = environments.install("plain", interrupts, clock)
    assert failure == "installation failed: ERROR: no such version in ... or ..."
    assert not (tmp_path / "plain" / "installed").exists()


def test_a_hanging_installation_times_out(tmp_path: Path) -> None:
    (tmp_path / "slow").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "slow").chmod(0o755)
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        failure = environments._run([tmp_path / "slow"], interrupts, clock, clock.monotonic())
    assert failure == "timed out"


@pytest.mark.parametrize(
    ("output", "index", "expected"),
    [
        ("", -1, "no output"),
        ("exited with code 1:\n  a.b.SomeError: why\n  1 leaked object", -1, "a.b.SomeError: why"),
        ("ERROR: Cannot install a\nERROR: ResolutionImpossible", 0, "ERROR: Cannot install a"),
        ("read and/or write /home/me/x failed", -1, "read and/or write ... failed"),
    ],
)
def test_a_reason_is_one_line_without_paths(output: str, index: int, expected: str) -> None:
    assert environments.reason(output, index) == expected


def test_outcomes_are_sorted_by_record() -> None:
    """Streamlabel publishes an object with the labels, a peer the list of labels."""
    scores = in_order([outcome(1, LABELS), outcome(0, {"labels": LABELS, "id": "x"})], 2)
    assert scores == [{"no": 0.25, "yes": 0.75}] * 2


@pytest.mark.parametrize(
    ("tags", "value", "message"),
    [
        ([0], LABELS, "1 outcomes of 1 records"),
        ([0, 0, 1], LABELS, "3 outcomes of 2 records"),
        ([0, 2], LABELS, "2 outcomes of 2 records"),
        ([0, 1], {"label": "yes", "score": 1.0}, "not a list of labels"),
        ([0, 1], "yes", "not a list of labels"),
    ],
)
def test_incomplete_output_is_refused(tags: list[int], value: object, message: str) -> None:
    with pytest.raises(Fatal, match=message):
        in_order([outcome(tag, value) for tag in tags], 2)


def test_another_model_is_detected() -> None:
    """Its probabilities or its labels differ."""
    ours = [{"no": 0.25, "yes": 0.75}]
    assert turns.largest_difference(ours, [{"no": 0.5, "yes": 0.5}]) == 0.25
    assert turns.largest_difference(ours, [{"LABEL_0": 0.25, "LABEL_1": 0.75}]) == float("inf")
    contender = run.Contender("other", "plain")
    with pytest.raises(Fatal, match=r"differ from streamlabel's by 0\.25 \(tolerance 0\.03\)"):
        contender.take(turns.Turn(10.0, [{"no": 0.5, "yes": 0.5}]), ours)


@pytest.mark.parametrize(
    ("reads", "rate"),
    [
        # Batches of 500: the first takes three reads, the second ends a second later.
        ([(0.0, 200), (0.05, 200), (0.1, 100), (1.05, 300), (1.1, 200)], 500),
        ([(0.0, 10), (0.1, 10), (0.2, 10)], 100),  # text by text
        ([(0.0, 10), (0.1, 10), (0.6, 5)], 25),  # a pause near the end is no batch
    ],
)
def test_a_rate_has_the_time_of_every_outcome_that_it_counts(
    reads: list[tuple[float, int]], rate: float
) -> None:
    """Counted from the first read, the first case would be 727 records/s."""
    assert turns.rate_of(reads) == pytest.approx(rate)


def test_a_smaller_backlog_is_compared_with_the_same_texts() -> None:
    ours = [{"no": 0.25, "yes": 0.75}, {"no": 0.5, "yes": 0.5}]
    contender = run.Contender("slow", "plain")
    contender.take(turns.Turn(10.0, ours[:1]), ours)
    assert (contender.row.records, contender.row.differs) == (1, 0.0)


def test_the_loop_by_hand_is_no_framework() -> None:
    """Each has a goal of its own: the loop is faster than any framework."""
    result = Peers(
        cpu="a processor",
        cores=2,
        features=(),
        busy_cores=0.0,
        torch="2",
        broker="Apache Kafka 4",
        model="m",
        threads=2,
        records=600,
        rounds=1,
        peers=tuple(
            Peer(
                name=name,
                versions="",
                records_per_s=rate,
                rates=(rate,),
                differs=0.0,
                failed=None,
            )
            for name, rate in (("streamlabel", 300.0), (LOOP, 200.0), ("slow", 30.0))
        ),
    )
    assert result.to_loop == 1.5
    assert result.to_best == 10
    assert result.backlog == "600 records"
    large = result.peers[0].model_copy(update={"records": 1_800})
    mixed = result.model_copy(update={"peers": (large, *result.peers[1:])})
    assert mixed.backlog == "600 to 1,800 records"
    assert LOOP in {contender.name for contender in run.contenders()}


def test_a_peer_that_exits_is_reported(tmp_path: Path) -> None:
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        command = [sys.executable, "-c", "import os; os.environ['NOT_THERE']"]
        peer = PeerProcess(command, tmp_path, 2, interrupts)
        peer.start(1)
        assert peer._process is not None
        peer._process.wait()
        with pytest.raises(Fatal, match="exited with code 1") as caught:
            peer.check()
        peer.end()
    assert environments.reason(str(caught.value)) == "KeyError: 'NOT_THERE'"


@pytest.mark.parametrize(
    ("arguments", "home", "message"),
    [
        ([], "", "set KAFKA_HOME"),
        ([], "{tmp}", "bin/kafka-server-start.sh"),
        (["--only", "unknown"], "", "invalid choice: 'unknown'"),
        (["--records", "10"], "", "give 200 or more"),
        (["--model", "{tmp}"], "", "no config.json"),
    ],
)
def test_wrong_usage_is_refused_before_installing(
    arguments: list[str],
    home: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KAFKA_HOME", home.format(tmp=tmp_path))
    monkeypatch.setattr(run, "install", lambda *_: pytest.fail("installs a peer"))
    try:
        code = run.main([argument.format(tmp=tmp_path) for argument in arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert message in capsys.readouterr().err
