"""Goals are listed with the figures of each machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.docs.performance import page
from benchmarks.engines.figures import EngineFigures, EngineModel, Engines, EngineTurn
from benchmarks.goals import CPU_GOALS, GPU_GOALS, NOT_MEASURED, Goal, measured, rows
from benchmarks.machines import Machine, machines
from benchmarks.recorded import (
    LOOP,
    FormatCost,
    Formats,
    Peer,
    Peers,
    ScaleOut,
    ScaleStep,
    Variant,
    Variants,
)
from tests.support.figures import bench
from worker.bench.figures import CpuUse, DtypeResult

MACHINE = {"cpu": "a processor", "cores": 2, "features": ("avx2",), "date": "2026-11-27"}


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
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(bench(p99=(10, 20, 100)).model_dump_json())
    others = (
        peer("streamlabel", 300.0),
        peer("slow", 30.0),
        peer("fast", 60.0),
        peer(LOOP, 200.0),
    )
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
    costs = (("JSON", 6.0, 10.0), ("Avro", 10.0, 14.0))
    formats = Formats(
        **MACHINE,
        rounds=9,
        records=2000,
        formats=tuple(
            FormatCost(name=name, decode_us=decode, encode_us=encode, total_us=decode + encode)
            for name, decode, encode in costs
        ),
    )
    (folder / "formats.json").write_text(formats.model_dump_json())
    (folder / "path_at_least_once.json").write_text(json.dumps({"cpu_us_a_record": 55.5}))


def reached(folder: Path) -> dict[str, str]:
    """Return the figure and verdict of each goal that was measured."""
    cells = rows(CPU_GOALS, [Machine(folder)])
    return {name: cell for name, _, cell in cells if cell != NOT_MEASURED}


def test_without_results_the_page_is_empty(tmp_path: Path) -> None:
    assert page(tmp_path) == ""


def test_each_goal_is_judged_by_its_own_figure(tmp_path: Path) -> None:
    """Hand-made loops are not frameworks; a goal for another number type has no figure."""
    write_everything(tmp_path)
    assert list(reached(tmp_path).values()) == [
        "2.75, not met",
        "0.50, not met",
        "0.91, met",
        "10.00 ms, not met",
        "55.50 us, met",
        "1.50, met",
        "5.00 s, met",
        "5.00, not met",
        "1.50, met",
        "0.96, met",
    ]


def test_cpu_times_number_types_and_own_cores_have_goals(tmp_path: Path) -> None:
    """The engine's speed in int8 is compared within one run."""
    cpu = CpuUse(worker=4000, broker=200, clients=90, worker_to_engine=1.05)
    engine = bench().engine
    point = engine.configured.model_copy(update={"texts_per_s": 220})
    engine = engine.model_copy(update={"dtypes": (DtypeResult(dtype="int8", point=point),)})
    apart = bench().end_to_end.model_copy(update={"cpu": cpu, "client_cores": 2})
    (tmp_path / "bench.json").write_text(bench(engine=engine).model_dump_json())
    (tmp_path / "bench-own.json").write_text(bench(end_to_end=apart).model_dump_json())
    cells = reached(tmp_path)
    assert cells["engine in int8 / in float32 (goal for VNNI without bfloat16)"] == "2.00, met"
    own, shared = (cell for name, cell in cells.items() if name.startswith("end to end / engine"))
    assert (own, shared) == ("0.91, met", "0.91, met")
    assert not [name for name in cells if name.startswith("CPU time of the worker")]
    (tmp_path / "bench.json").write_text(bench(end_to_end=apart).model_dump_json())
    assert "1.05, met" in reached(tmp_path).values()


def test_a_gpu_has_goals_of_its_own(tmp_path: Path) -> None:
    """Figures are those of the fastest number of processes; a part that failed has none."""
    point = {"model": "DistilBERT", "dtype": "bfloat16", "pass_tokens": 65_536}
    points = [point | {"text_tokens": 22, "share_of_peak": 0.6}]
    steps = [{"records_per_s": 61_000, "gpu_busy": 0.7}, {"records_per_s": 50_000, "gpu_busy": 0.9}]
    figures: dict[str, Any] = {"machine": {"gpu": "A GPU"}, "engine": {"points": points}}
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "gpu.json"
    path.write_text(json.dumps(figures | {"end_to_end": steps}))
    (machine,) = machines(tmp_path)
    assert machine.title == "A GPU"
    cells = [row[2] for row in rows(GPU_GOALS, [machine])]
    assert cells == ["0.60, met", "-", "61,000 records/s, met", "0.70, not met"]
    assert measured(CPU_GOALS, [machine]) == []
    path.write_text(json.dumps(figures | {"end_to_end": {"error": "no broker"}}))
    assert rows(GPU_GOALS, [Machine(tmp_path / "a")])[2][2] == "-"


def test_conditions_name_bound_and_unit() -> None:
    goal = Goal("x", "at most", 6, lambda _: 6.0, unit=" ms")
    assert goal.condition == "≤ 6 ms"
    assert goal.cell(Machine(Path())) == "6.00 ms, met"


def test_the_comparison_of_engines_has_its_place(tmp_path: Path) -> None:
    """A machine that has no other results has a name and a date from it."""
    write_everything(tmp_path / "a")
    (tmp_path / "b").mkdir()
    turn = EngineTurn(texts_per_s=270, cpu_us=4000, flips=0, mean_dp=0.0, max_dp=0.0)
    ours = {"name": "ours", "engine": "streamlabel", "dtype": "int8", "runs_as": "int8"}
    figures = EngineFigures(
        **ours, versions="", turns={"all": (turn,)}, alone_ms=(10.0,), failed=None
    )
    model = EngineModel(
        name="m", date="2026-11-28", busy_cores=0, threads=2, texts=9, rounds=1, engines=(figures,)
    )
    result = Engines(cpu="b", cores=2, features=("avx2",), models=(model,))
    (tmp_path / "b" / "engines.json").write_text(result.model_dump_json())
    text = page(tmp_path)
    assert text.count("Engines on b, 2 cores, avx2; 2026-11-28:") == 1
    assert "270" in text


def test_the_page_names_machines_and_failed_peers(tmp_path: Path) -> None:
    """A failed peer is listed with its reason; a `|` does not break the table."""
    write_everything(tmp_path / "a")
    text = page(tmp_path)
    assert "| a\\|b | installation failed: no such version |" in text
    assert "| fast (thing 1.2) | 60.0 (5.00 x) |" in text
    assert "600 records, 3 rounds each, in turns; Apache Kafka 4 on this machine" in text
    assert (
        "probabilities within 2e-07 of streamlabel's; UNRELIABLE: other programs kept 1.5 cores"
        in text
    )
    assert "Bench: a processor, 2 cores (avx2)" in text
    assert "Scale-out on 2026-11-27: a processor" in text
    assert "sleeps 10 ms a text and uses no CPU; 24 partitions" in text
    assert "| Avro | 10.0 + 14.0 (1.50 x) |" in text
    assert "Formats on 2026-11-27: a processor" in text


def test_each_machine_has_a_column(tmp_path: Path) -> None:
    """The latest comes first; others were measured with older code."""
    for name, date in (("a", "2026-11-01"), ("b", "2026-11-02")):
        write_everything(tmp_path / name)
        machine = bench().machine.model_copy(update={"cpu": f"processor {name}"})
        result = bench(date=date, machine=machine)
        (tmp_path / name / "bench.json").write_text(result.model_dump_json())
        (tmp_path / name / "peers.json").unlink()
        (tmp_path / name / "scale_out.json").unlink()
        (tmp_path / name / "formats.json").unlink()
    first = page(tmp_path).splitlines()[0]
    new, old = "processor b, 2 cores, avx2; 2026-11-02", "processor a, 2 cores, avx2; 2026-11-01"
    assert first == f"| Measurement | Goal | {new} | {old}; older code |"


def test_the_page_says_how_much_rounds_differ(tmp_path: Path) -> None:
    """A reader must not take noise for an effect; one round a setting shows no spread."""
    (tmp_path / "a").mkdir()

    def text(*rates: float) -> str:
        setting = {"question": "cache", "records_per_s": 100, "ratio": 1}
        (tmp_path / "a" / "variants.json").write_text(
            Variants(
                **MACHINE,
                model="m",
                records=600,
                rounds=len(rates),
                variants=(Variant(**setting, name="off", rates=rates),),
            ).model_dump_json()
        )
        return page(tmp_path)

    assert "Rounds of one setting differ by up to 20 %" in text(100, 120)
    assert "Rounds of one setting" not in text(100)
    assert "| cache | off | 100.0 (1.00 x) |" in text(100)


def test_each_result_file_is_optional(tmp_path: Path) -> None:
    """The figures of peers need no bench."""
    write_everything(tmp_path)
    for name in ("bench", "scale_out", "path_at_least_once", "formats"):
        (tmp_path / f"{name}.json").unlink()
    assert list(reached(tmp_path).values()) == ["5.00, not met", "1.50, met"]
