"""Goals stand beside what was measured, and nothing stands where nothing was."""

from __future__ import annotations

from pathlib import Path

from benchmarks.goals import GOALS, markdown, measured, rows
from benchmarks.recorded import Peer, Peers, ScaleOut, ScaleStep
from tests.support.figures import bench

MACHINE = {"cpu": "a processor", "cores": 2, "features": ("avx2",)}


def peer(name: str, rate: float | None, failed: str | None = None) -> Peer:
    rates = (rate,) if rate else ()
    return Peer(
        name=name,
        versions="thing 1.2" if name == "fast" else "",
        records_per_s=rate,
        rates=rates,
        differs=2e-7 if rate else None,
        failed=failed,
    )


def write_everything(folder: Path) -> None:
    (folder / "bench.json").write_text(bench(p99=(10, 20, 100)).model_dump_json())
    others = (peer("streamlabel", 300.0), peer("slow", 30.0), peer("fast", 60.0))
    gone = peer("a|b", None, "would not install: no such version")
    run = {"busy_cores": 1.5, "torch": "2", "broker": "Apache Kafka 4", "model": "m", "threads": 2}
    peers = Peers(**MACHINE, **run, records=600, rounds=3, peers=(*others, gone))
    (folder / "peers.json").write_text(peers.model_dump_json())
    steps = [
        ScaleStep(workers=n, records_per_s=n * 96, efficiency=e, fairness=1, partition_fairness=1.5)
        for n, e in ((1, 1.0), (8, 0.96))
    ]
    scale = ScaleOut(**MACHINE, service_ms=10, partitions=24, steps=tuple(steps))
    (folder / "scale_out.json").write_text(scale.model_dump_json())


def test_without_results_the_page_says_nothing(tmp_path: Path) -> None:
    """No placeholders: a goal alone is no figure."""
    assert markdown(tmp_path) == ""


def test_each_goal_is_judged_by_its_own_figure(tmp_path: Path) -> None:
    """Ratios to the best peer, of eight workers, and the bench's own."""
    write_everything(tmp_path)
    found = {what: (figure, verdict) for what, _, figure, verdict in rows(measured(tmp_path))}
    told = [found[goal.what] for goal in GOALS if goal.what in found]
    assert told == [
        ("2.75", "not met"),
        ("0.50", "bearable"),
        ("0.91", "not met"),
        ("5.00", "not met"),
        ("10.00 ms", "met"),
        ("0.96", "met"),
        ("5.00 s", "met"),
    ]


def test_the_page_names_machines_and_whoever_failed(tmp_path: Path) -> None:
    """A peer that would not install stands there with the reason; a bar does not break the table."""
    write_everything(tmp_path)
    page = markdown(tmp_path)
    assert "| a\\|b | would not install: no such version |  |" in page
    assert "| fast (thing 1.2) | 60.0 | 5.00 x |" in page
    assert "600 records, in turns, 3 round(s) each; Apache Kafka 4 on this machine" in page
    assert "probabilities within 2e-07 of streamlabel's; THE MACHINE HAD OTHER WORK" in page
    assert "Measured on a processor, 2 core(s) (avx2)" in page
    assert "24 partitions" in page


def test_one_run_s_results_stand_alone(tmp_path: Path) -> None:
    """Figures of peers need no bench, and the other way round."""
    write_everything(tmp_path)
    (tmp_path / "bench.json").unlink()
    (tmp_path / "scale_out.json").unlink()
    assert [figure for _, _, figure, _ in rows(measured(tmp_path))] == ["5.00"]
