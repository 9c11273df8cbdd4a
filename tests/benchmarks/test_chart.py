"""The performance chart is drawn from the recorded results alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import chart
from benchmarks.recorded import Peer, Peers

MACHINE = {"cpu": "a processor", "cores": 1, "features": ("avx2",)}
RUN = {"busy_cores": 0.0, "torch": "2", "broker": "Apache Kafka 4", "model": "m", "threads": 1}


def peer(name: str, rate: float | None) -> Peer:
    failed = None if rate else "would not install"
    rates = (rate,) if rate else ()
    return Peer(
        name=name, versions="", records_per_s=rate, rates=rates, differs=None, failed=failed
    )


@pytest.fixture
def peers() -> Peers:
    bars = (peer("streamlabel", 60.0), peer("slow", 15.0), peer("a <b> & `c`", 30.0))
    return Peers(**MACHINE, **RUN, records=600, rounds=1, peers=(*bars, peer("failed", None)))


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_bars_are_sorted_and_labelled_with_their_values(peers: Peers) -> None:
    """A program that failed has no bar; markup in a name is escaped."""
    assert texts(chart.svg(peers))[2:8] == [
        "streamlabel",
        "60.0",
        "a <b> & c",
        "30.0  (streamlabel: 2.0 x)",
        "slow",
        "15.0  (streamlabel: 4.0 x)",
    ]


def test_the_captions_name_the_machine(peers: Peers) -> None:
    assert texts(chart.svg(peers))[-2:] == [
        "a processor, 1 core (avx2); Apache Kafka 4 on the same machine",
        "m, torch 2, 1 thread; median of 1 run over 600 records",
    ]


def test_the_same_results_give_the_same_bytes(peers: Peers) -> None:
    copy = Peers.model_validate_json(peers.model_dump_json())
    assert chart.svg(copy) == chart.svg(peers)


def test_the_peers_that_were_measured_last_are_drawn(tmp_path: Path, peers: Peers) -> None:
    """Among those of one day, the fastest machine counts; the caption has the date."""
    slow = (peer("streamlabel", 50.0), peer("slow", 15.0))
    made = {
        "a": ("2026-11-01", peers.peers),
        "b": ("2026-11-02", slow),
        "c": ("2026-11-02", peers.peers),
    }
    for name, (date, contenders) in made.items():
        (tmp_path / name).mkdir()
        result = peers.model_copy(update={"date": date, "peers": contenders, "cpu": name})
        (tmp_path / name / "peers.json").write_text(result.model_dump_json())
    latest = chart.latest(tmp_path)
    assert latest is not None
    assert latest.cpu == "c"
    assert texts(chart.svg(latest))[-1].endswith("600 records; 2026-11-02")


def test_a_stale_chart_fails_the_check(tmp_path: Path, peers: Peers) -> None:
    """Missing results are an error."""
    path = tmp_path / "chart.svg"
    assert chart.main([], path, tmp_path) == 1
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "peers.json").write_text(peers.model_dump_json())
    assert chart.main(["--check"], path, tmp_path) == 1
    assert chart.main([], path, tmp_path) == 0
    assert chart.main(["--check"], path, tmp_path) == 0


def test_the_project_s_chart_is_in_step_with_its_results() -> None:
    """`python -m benchmarks.chart` would change nothing."""
    assert chart.main(["--check"]) == 0
