"""Goals are listed with their measured figures only."""

from __future__ import annotations

from pathlib import Path

from benchmarks.goals import GOALS, markdown, measured, rows
from benchmarks.recorded import Peer, Peers, ScaleOut, ScaleStep, Variant, Variants
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
    failed = peer("a|b", None, "installation failed: no such version")
    run = {"busy_cores": 1.5, "torch": "2", "broker": "Apache Kafka 4", "model": "m", "threads": 2}
    peers = Peers(**MACHINE, **run, records=600, rounds=3, peers=(*others, failed))
    (folder / "peers.json").write_text(peers.model_dump_json())
    steps = [
        ScaleStep(workers=n, records_per_s=n * 96, efficiency=e, fairness=1, partition_fairness=1.5)
        for n, e in ((1, 1.0), (8, 0.96))
    ]
    scale = ScaleOut(**MACHINE, service_ms=10, partitions=24, steps=tuple(steps))
    (folder / "scale_out.json").write_text(scale.model_dump_json())


def test_without_results_the_page_is_empty(tmp_path: Path) -> None:
    """A goal without a figure has no row."""
    assert markdown(tmp_path) == ""


def test_each_goal_is_judged_by_its_own_figure(tmp_path: Path) -> None:
    """Ratios to the best peer, of eight workers, and the bench's own."""
    write_everything(tmp_path)
    verdicts = {name: (figure, verdict) for name, _, figure, verdict in rows(measured(tmp_path))}
    assert [verdicts[goal.measurement] for goal in GOALS if goal.measurement in verdicts] == [
        ("2.75", "not met"),
        ("0.50", "acceptable"),
        ("0.91", "not met"),
        ("5.00", "not met"),
        ("10.00 ms", "met"),
        ("0.96", "met"),
        ("5.00 s", "met"),
    ]


def test_the_page_names_machines_and_failed_peers(tmp_path: Path) -> None:
    """A failed peer is listed with its reason; a `|` does not break the table."""
    write_everything(tmp_path)
    page = markdown(tmp_path)
    assert "| a\\|b | installation failed: no such version |  |" in page
    assert "| fast (thing 1.2) | 60.0 | 5.00 x |" in page
    assert "600 records, 3 rounds each, in turns; Apache Kafka 4 on this machine" in page
    assert (
        "probabilities within 2e-07 of streamlabel's; UNRELIABLE: other programs kept 1.5 cores"
        in page
    )
    assert "Measured on a processor, 2 cores (avx2)" in page
    assert "sleeps 10 ms a text and uses no CPU; 24 partitions" in page


def test_the_page_says_how_much_rounds_differ(tmp_path: Path) -> None:
    """A reader must not take noise for an effect; one round a setting shows no spread."""

    def page(*rates: float) -> str:
        setting = {"question": "cache", "records_per_s": 100, "ratio": 1}
        (tmp_path / "variants.json").write_text(
            Variants(
                **MACHINE,
                model="m",
                records=600,
                rounds=len(rates),
                variants=(Variant(**setting, name="off", rates=rates),),
            ).model_dump_json()
        )
        return markdown(tmp_path)

    assert "Rounds of one setting differ by up to 20 %" in page(100, 120)
    assert "Rounds of one setting" not in page(100)


def test_each_result_file_is_optional(tmp_path: Path) -> None:
    """The figures of peers need no bench."""
    write_everything(tmp_path)
    (tmp_path / "bench.json").unlink()
    (tmp_path / "scale_out.json").unlink()
    assert [figure for _, _, figure, _ in rows(measured(tmp_path))] == ["5.00"]
