"""A plan is computed from figures, and a goal that can't be met is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.figures import bench, load
from worker.bench.figures import percentile, read
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
