"""What a plan makes of figures: the sums hold, and what can't be met is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.figures import bench, load
from worker.bench.figures import percentile, read
from worker.bench.plan import MOST_UTILISATION, Advice, plan
from worker.cli import main as command
from worker.errors import SettingsError, StreamlabelError
from worker.settings import load as load_settings


def value(advices: tuple[Advice, ...], name: str) -> Any:
    (found,) = [advice.value for advice in advices if advice.name == name]
    return found


def test_a_loose_goal_is_bound_by_utilisation_alone() -> None:
    """Capacity 100, 0.7 of it each: 500 texts/s take eight workers."""
    made = plan(bench(p99=(10, 20, 100)), rate=500, goal_ms=1000)
    assert (made.workers, made.utilisation) == (8, MOST_UTILISATION)
    assert value(made.deployment, "partitions") == 16
    # each carries 70 texts/s, for the goal and the time until a commit shows
    assert value(made.deployment, "keda.lagThreshold") == int(70 * 1.5)
    assert value(made.settings, "batch.max_records") == 32


def test_a_tight_goal_lowers_the_utilisation() -> None:
    """p99 is 20 ms at half load: a goal of 20 ms allows just that."""
    made = plan(bench(p99=(10, 20, 100)), rate=100, goal_ms=20)
    assert made.utilisation == pytest.approx(0.5)
    assert made.p99_ms == pytest.approx(20)
    assert made.workers == 2


def test_between_loads_the_wait_grows_as_queues_do() -> None:
    """In 1 / (1 - utilisation) the curve is straight: 60 ms is half way from x = 2 to x = 10."""
    made = plan(bench(p99=(10, 20, 100)), rate=1, goal_ms=60)
    assert made.utilisation == MOST_UTILISATION  # 1 - 1/6 would be more than is wise
    assert made.p99_ms == pytest.approx(20 + 80 * (1 / (1 - MOST_UTILISATION) - 2) / 8)


def test_a_faster_budget_is_taken_only_where_its_windows_fit_the_goal() -> None:
    """Twice the speed in windows of four times the length: for patient readers alone."""
    figures = bench(p99=(10, 20, 100), faster=2.0, longer=4.0)
    patient, hasty = plan(figures, 500, 1000), plan(figures, 500, 30)
    assert (patient.workers, value(patient.settings, "batch.forward_tokens")) == (4, 2048)
    assert value(hasty.settings, "batch.forward_tokens") == 1024


def test_a_worker_is_never_taken_for_faster_than_its_engine() -> None:
    """A round of the engine that something disturbed makes end to end look the faster of the two."""
    figures = bench(p99=(10, 20, 100), faster=1.5, longer=0.1)
    disturbed = figures.engine.configured.model_copy(update={"texts_per_s": 10.0})
    engine = figures.engine.model_copy(update={"configured": disturbed})
    other = engine.sweep[0]
    made = plan(figures.model_copy(update={"engine": engine}), rate=500, goal_ms=1000)
    assert value(made.settings, "batch.forward_tokens") == other.forward_tokens
    assert made.capacity == other.texts_per_s


def test_a_goal_that_no_load_meets_is_refused_plainly() -> None:
    """More workers don't make one text faster."""
    with pytest.raises(StreamlabelError, match="can't be met"):
        plan(bench(p99=(10, 20, 100)), rate=1, goal_ms=5)


def test_a_bench_too_short_for_percentiles_is_refused() -> None:
    """A p99 of a handful of texts is none."""
    short = bench(loads=(load(0.1, None), load(0.5, 20.0), load(0.9, 100.0)))
    with pytest.raises(SettingsError, match="measure longer"):
        plan(short, rate=1, goal_ms=100)


def test_the_command_prints_settings_that_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The block of settings is a file that --config takes."""
    figures, config = tmp_path / "bench.json", tmp_path / "streamlabel.toml"
    figures.write_text(bench(p99=(10, 20, 100)).model_dump_json())
    words = ["plan", "--rate", "500", "--latency-goal", "500", "--from", str(figures)]
    assert command.main(words) == 0
    config.write_text(capsys.readouterr().out.partition("# around the workers")[0])
    assert load_settings({}, config, environ={}).settings.batch.max_records == 32


@pytest.mark.parametrize(("goal", "content", "code", "said"), [
    ("5", None, 2, "streamlabel bench --json"),
    ("5", "{}", 2, "no figures of this version's bench"),
    ("5", "good", 1, "can't be met"),
])  # fmt: skip
def test_the_command_says_what_is_wrong(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    goal: str,
    content: str | None,
    code: int,
    said: str,
) -> None:
    """Missing figures are wrong usage, a goal that can't be met is a failure."""
    figures = tmp_path / "bench.json"
    if content:
        good = bench(p99=(10, 20, 100)).model_dump_json()
        figures.write_text(good if content == "good" else content)
    words = ["plan", "--rate", "1", "--latency-goal", goal, "--from", str(figures)]
    assert command.main(words) == code
    assert said in capsys.readouterr().err


def test_figures_survive_their_file(tmp_path: Path) -> None:
    """What was written is what is read."""
    path = tmp_path / "bench.json"
    path.write_text(bench(p99=(1, 2, 3)).model_dump_json())
    assert read(path) == bench(p99=(1, 2, 3))


def test_percentiles_are_nearest_ranks_and_need_enough_values() -> None:
    """Of 1 to 100 the 99th is p99; of 99 values none lies beyond it."""
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 100), 0.99) is None
    assert percentile([], 0.5) is None
