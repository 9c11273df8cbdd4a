"""A plan is computed from figures, and a goal that can't be met is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.charts import (
    Refused,
    container,
    needs_helm,
    one,
    render,
    settings_file,
)
from tests.support.figures import bench, load
from worker.bench.figures import CpuUse, DtypeResult, percentile, read
from worker.bench.plan import MAX_UTILISATION, Advice, plan
from worker.cli import main as command
from worker.errors import SettingsError, StreamlabelError
from worker.settings import load as load_settings


def value(advices: tuple[Advice, ...], name: str) -> Any:
    (match,) = [advice.value for advice in advices if advice.name == name]
    return match


def test_the_maximum_utilisation_limits_a_loose_goal() -> None:
    """At 70 of 100 texts/s each, 500 texts/s need eight workers."""
    result = plan(bench(p99=(10, 20, 100)), rate=500, goal_ms=1000)
    assert (result.workers, result.utilisation) == (8, MAX_UTILISATION)
    assert value(result.deployment, "partitions") == 16
    # 70 texts/s each, for the goal and the commit interval
    assert value(result.deployment, "keda.lagThreshold") == int(70 * 1.5)
    assert value(result.settings, "batch.max_records") == 32


def test_a_tight_goal_lowers_the_utilisation() -> None:
    """p99 is 20 ms at half load, so a goal of 20 ms allows half load."""
    result = plan(bench(p99=(10, 20, 100)), rate=100, goal_ms=20)
    assert result.utilisation == pytest.approx(0.5)
    assert result.p99_ms == pytest.approx(20)
    assert result.workers == 2


def test_latency_is_interpolated_as_a_queue_grows() -> None:
    """The curve is linear in x = 1 / (1 - utilisation): 60 ms is half way from x = 2 to x = 10."""
    result = plan(bench(p99=(10, 20, 100)), rate=1, goal_ms=60)
    assert result.utilisation == MAX_UTILISATION  # 1 - 1/6 exceeds the maximum
    assert result.p99_ms == pytest.approx(20 + 80 * (1 / (1 - MAX_UTILISATION) - 2) / 8)


def test_a_faster_budget_is_chosen_only_if_its_windows_meet_the_goal() -> None:
    """A budget of twice the speed has windows of four times the length."""
    figures = bench(p99=(10, 20, 100), faster=2.0, longer=4.0)
    loose, tight = plan(figures, 500, 1000), plan(figures, 500, 30)
    assert (loose.workers, value(loose.settings, "batch.forward_tokens")) == (4, 2048)
    assert value(tight.settings, "batch.forward_tokens") == 1024


def test_a_worker_is_never_faster_than_its_engine() -> None:
    """After a disturbed round of the engine, the end-to-end figure can be the higher one."""
    figures = bench(p99=(10, 20, 100), faster=1.5, longer=0.1)
    disturbed = figures.engine.configured.model_copy(update={"texts_per_s": 10.0})
    engine = figures.engine.model_copy(update={"configured": disturbed})
    other = engine.sweep[0]
    result = plan(figures.model_copy(update={"engine": engine}), rate=500, goal_ms=1000)
    assert value(result.settings, "batch.forward_tokens") == other.forward_tokens
    assert result.capacity == other.texts_per_s


def test_a_goal_that_no_load_meets_is_refused() -> None:
    """More workers don't speed up a single text."""
    with pytest.raises(StreamlabelError, match="can't be met"):
        plan(bench(p99=(10, 20, 100)), rate=1, goal_ms=5)


def test_a_bench_too_short_for_percentiles_is_refused() -> None:
    """A few texts have no p99."""
    short = bench(loads=(load(0.1, None), load(0.5, 20.0), load(0.9, 100.0)))
    with pytest.raises(SettingsError, match="measure longer"):
        plan(short, rate=1, goal_ms=100)


def test_the_command_prints_settings_that_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed block of settings is a valid --config file."""
    figures, config = tmp_path / "bench.json", tmp_path / "streamlabel.toml"
    figures.write_text(bench(p99=(10, 20, 100)).model_dump_json())
    arguments = ["plan", "--rate", "500", "--latency-goal", "500", "--from", str(figures)]
    assert command.main(arguments) == 0
    config.write_text(capsys.readouterr().out.partition("# around the workers")[0])
    assert load_settings({}, config, environ={}).settings.batch.max_records == 32


def test_a_plan_names_the_number_type_and_the_busy_cores() -> None:
    """At 500 texts/s eight workers label 62.5 each, in 4 ms of CPU time; the broker takes 0.2."""
    cpu = CpuUse(worker=4000, broker=200, clients=90, worker_to_engine=1.05)
    drained = bench().end_to_end.model_copy(update={"cpu": cpu})
    engine = bench().engine
    faster = engine.configured.model_copy(update={"texts_per_s": 220})
    others = (DtypeResult(dtype="int8", point=faster), DtypeResult(dtype="x", refused="y"))
    engine = engine.model_copy(update={"dtypes": others})
    result = plan(bench(end_to_end=drained, engine=engine), rate=500, goal_ms=1000)
    assert value(result.settings, "model.dtype") == "float32"
    (why,) = [advice.why for advice in result.settings if advice.name == "model.dtype"]
    assert "int8 does 2.00 x as much in the engine" in why
    assert value(result.deployment, "cores.worker") == 0.25
    assert value(result.deployment, "cores.broker") == 0.1


def test_figures_without_cpu_times_name_no_cores() -> None:
    """Files of older versions lack them."""
    result = plan(bench(), rate=500, goal_ms=1000)
    assert not [advice for advice in result.deployment if advice.name.startswith("cores")]


# -- values of the chart ---------------------------------------------------------------------------


def values(tmp_path: Path, capsys: pytest.CaptureFixture[str], **changes: Any) -> Any:
    """Return what `plan --format helm-values` prints, read as Helm would."""
    figures = tmp_path / "bench.json"
    figures.write_text(bench(p99=(10, 20, 100), **changes).model_dump_json())
    goal = ["plan", "--rate", "500", "--latency-goal", "500", "--from", str(figures)]
    assert command.main([*goal, "--format", "helm-values"]) == 0
    printed = capsys.readouterr().out
    assert all(len(line) <= 100 for line in printed.splitlines())
    return yaml.safe_load(printed)


def test_a_plan_is_written_as_values_of_the_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight workers of 70 texts/s each; a rebalance takes 5 s, and a start 20 s."""
    found = values(tmp_path, capsys, cold_start_s=19.2, resident_bytes=1000 * 2**20)
    assert found["replicaCount"] == 8
    assert found["resources"] == {"limits": {"cpu": "2", "memory": "1536Mi"}}
    assert found["settings"]["batch"]["max_records"] == 32
    assert found["settings"]["delivery"] == "at_least_once"
    keda = found["keda"]
    assert (keda["lagThreshold"], keda["maxReplicaCount"]) == (70, 16)
    # The chart's own: a pool must not grow because the brokers are away.
    assert "fallback" not in keda
    behavior = keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior == {
        "scaleUp": {"stabilizationWindowSeconds": 25},
        "scaleDown": {"stabilizationWindowSeconds": 300},
    }


def test_a_model_that_starts_slowly_is_stopped_less_readily(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keda = values(tmp_path, capsys, cold_start_s=90.0)["keda"]
    behavior = keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert keda["cooldownPeriod"] == 900
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 95
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 900


def test_a_memory_that_was_not_measured_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "memory" not in values(tmp_path, capsys, resident_bytes=None)["resources"]["limits"]


def test_the_settings_in_the_values_are_those_of_a_worker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = values(tmp_path, capsys)["settings"]
    loaded = load_settings(found, environ={}).settings
    assert (loaded.batch.max_tokens, loaded.max_inflight_records) == (1200, 128)


@needs_helm
def test_a_plan_for_a_gpu_asks_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """62.5 records/s of 20 ms CPU time each keep 1.25 cores busy. torch had 64 threads."""
    found = values(tmp_path, capsys, **on_a_gpu(cpu_us=20000))
    assert found["gpu"] == {"enabled": True}
    assert found["resources"]["limits"]["cpu"] == "2"
    manifests = render(tmp_path, found)
    limits = container(manifests)["resources"]["limits"]
    assert (limits["nvidia.com/gpu"], limits["cpu"]) == ("1", "2")
    assert 'device = "cuda"' in settings_file(manifests)


@pytest.mark.parametrize(("cpu_us", "cores"), [(20000, "2"), (100, "1"), (None, "64")])
def test_the_cores_beside_a_gpu_are_those_that_were_busy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cpu_us: float | None, cores: str
) -> None:
    """If the CPU time is unknown, those that the bench had."""
    found = values(tmp_path, capsys, **on_a_gpu(cpu_us))
    assert found["resources"]["limits"]["cpu"] == cores


def on_a_gpu(cpu_us: float | None) -> dict[str, Any]:
    """Return figures of a bench on a GPU, on a machine with 64 cores."""
    use = (
        CpuUse(worker=cpu_us, broker=None, clients=None, worker_to_engine=None) if cpu_us else None
    )
    return {
        "resident_bytes": 2**30,
        "model": bench().model.model_copy(update={"device": "cuda", "threads": 64}),
        "end_to_end": bench().end_to_end.model_copy(update={"cpu": use}),
    }


@needs_helm
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_the_chart_takes_the_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], delivery: str
) -> None:
    """Its schema refuses an unknown key, and keeps its own defaults for what is not written."""
    found = values(tmp_path, capsys, resident_bytes=2**30, delivery=delivery)
    manifests = render(tmp_path, found)
    scaled = one(manifests, "ScaledObject")["spec"]
    assert scaled["maxReplicaCount"] == 16
    assert scaled["triggers"][0]["metadata"]["lagThreshold"] == "70"
    behavior = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 10
    assert behavior["scaleUp"]["policies"]
    assert scaled["fallback"] == {
        "failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher",
    }  # fmt: skip
    assert container(manifests)["resources"]["limits"] == {"cpu": "2", "memory": "1536Mi"}
    found["keda"]["lagTreshold"] = 1
    with pytest.raises(Refused, match="lagTreshold"):
        render(tmp_path, found)


def test_values_are_of_one_bench(several: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    goal = ["plan", "--rate", "500", "--latency-goal", "500", "--from", *several]
    with pytest.raises(SystemExit):
        command.main([*goal, "--format", "helm-values"])
    assert "needs one file of figures" in capsys.readouterr().err


@pytest.fixture
def several(tmp_path: Path) -> list[str]:
    """Return the files of a slow bench, one that misses every goal, and a fast one."""
    model = bench().model
    made = {
        "slow": bench(),
        "late": bench(p99=(900, 2000, 3000), model=model.model_copy(update={"name": "late"})),
        "fast": bench(
            end_to_end=bench().end_to_end.model_copy(update={"records_per_s": 400}),
            model=model.model_copy(update={"name": "fast", "dtype": "int8"}),
        ),
    }
    for name, figures in made.items():
        (tmp_path / f"{name}.json").write_text(figures.model_dump_json())
    return [str(tmp_path / f"{name}.json") for name in made]


def test_several_benches_are_compared(
    several: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fewest workers come first; a bench that misses the goal says why."""
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["plan", "--rate", "500", "--latency-goal", "500", "--from", *several]
    assert command.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    models = [line.split()[:2] for line in lines if line.split()[-1:] and ".json" in line][:3]
    assert models == [["fast", "int8"], ["a-model", "float32"], ["late", "float32"]]
    assert any("late.json: a p99 of 500 ms can't be met" in line for line in lines)


def test_a_comparison_is_json_on_request(
    several: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["plan", "--rate", "500", "--latency-goal", "500", "--json", "--from", *several]
    assert command.main(arguments) == 0
    fast, _, late = json.loads(capsys.readouterr().out)
    assert (fast["dtype"], fast["plan"]["workers"]) == ("int8", 2)
    assert late["plan"] is None
    assert "can't be met" in late["refused"]


def test_a_comparison_without_any_plan_fails(several: list[str]) -> None:
    goal = ["plan", "--rate", "500", "--latency-goal", "1", "--from", *several]
    assert command.main(goal) == 1


@pytest.mark.parametrize(("goal", "content", "code", "message"), [
    ("5", None, 2, "streamlabel bench --json"),
    ("5", "{}", 2, "no figures of this version's bench"),
    ("5", "good", 1, "can't be met"),
])  # fmt: skip
def test_the_command_reports_bad_figures_and_goals(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    goal: str,
    content: str | None,
    code: int,
    message: str,
) -> None:
    """Missing figures exit 2, a goal that can't be met exits 1."""
    figures = tmp_path / "bench.json"
    if content:
        good = bench(p99=(10, 20, 100)).model_dump_json()
        figures.write_text(good if content == "good" else content)
    arguments = ["plan", "--rate", "1", "--latency-goal", goal, "--from", str(figures)]
    assert command.main(arguments) == code
    assert message in capsys.readouterr().err


def test_figures_survive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(bench(p99=(1, 2, 3)).model_dump_json())
    assert read(path) == bench(p99=(1, 2, 3))


def test_percentiles_are_nearest_ranks_and_need_enough_values() -> None:
    """The p99 of 1 to 100 is 99; with 99 values, none lies beyond p99."""
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 100), 0.99) is None
    assert percentile([], 0.5) is None
