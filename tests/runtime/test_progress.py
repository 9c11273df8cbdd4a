"""Progress: liveness and readiness, by a clock that the test moves."""

from __future__ import annotations

import threading

import pytest
import structlog
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.state import State, check_transition
from worker.metrics import Metrics
from worker.runtime.progress import Progress
from worker.runtime.stall import StageProgress


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def progress(clock: HandClock) -> Progress:
    progress = Progress(10.0, Metrics(), clock)
    progress.move(State.WARMING)
    progress.move(State.RUNNING)
    progress.joined = True
    return progress


def test_a_worker_without_a_topic_to_read_is_not_ready(
    progress: Progress, clock: HandClock
) -> None:
    """The log says so at once, and again only after minutes."""
    with capture_logs() as lines:
        for _ in range(350):
            progress.waits("no topic matches")
            go_on(progress, clock, 1)
        assert progress.ready() == (False, "waiting: no topic matches")
        assert progress.live()[0]
        progress.waits(None)
        progress.waits(None)
    assert progress.ready() == (True, "running")
    assert [(line["event"], line.get("reason")) for line in lines] == [
        ("waiting for topics", "no topic matches"),
        ("waiting for topics", "no topic matches"),
        ("the topics exist now", None),
    ]


def test_a_pattern_without_a_topic_is_no_cause_for_a_warning(progress: Progress) -> None:
    with capture_logs() as lines:
        progress.waits("no topic matches", usual=True)
    assert [line["log_level"] for line in lines] == ["info"]
    assert progress.ready() == (False, "waiting: no topic matches")


def test_a_connection_that_comes_back_is_never_away_without_a_reason(
    progress: Progress, clock: HandClock
) -> None:
    """The HTTP thread may ask between any two steps of the poll thread, as the log line shows."""
    seen: list[tuple[bool, str]] = []

    def ask(*_: object) -> None:
        seen.append(progress.ready())
        raise structlog.DropEvent

    progress.connection(up=False, reason="refused")
    clock.sleep(5)
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[ask])
    try:
        progress.connection(up=True)
    finally:
        structlog.configure(processors=before)
    assert seen == [(False, "the broker is unreachable: refused")]
    assert progress.ready() == (True, "running")


def test_a_new_worker_is_live_but_not_ready(clock: HandClock) -> None:
    progress = Progress(10.0, Metrics(), clock)
    clock.sleep(1000)
    assert progress.live() == (True, "starting")
    assert progress.ready() == (False, "starting")


def test_a_worker_is_ready_once_it_is_a_member_of_its_group(clock: HandClock) -> None:
    progress = Progress(10.0, Metrics(), clock)
    progress.move(State.WARMING)
    progress.move(State.RUNNING)
    assert progress.ready() == (False, "joining the group")
    progress.joined = True
    assert progress.ready() == (True, "running")


def hold(stage: StageProgress, now: float, records: int = 5) -> None:
    """Let the stage hold these records, and take a step now."""
    stage.left(stage.held)
    stage.entered(records)
    stage.moved_at, stage.thread = now, threading.get_ident()


INFER = "the infer stage has held 5 records without a step"


def go_on(progress: Progress, clock: HandClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.sleep(1)
        progress.went_round()


def test_metrics_agree_with_the_probes(clock: HandClock) -> None:
    """They are computed at the scrape, because a main loop that hangs sets no gauge."""
    metrics = Metrics()
    progress = Progress(10.0, metrics, clock)

    def gauges() -> list[float | None]:
        names = ("streamlabel_live", "streamlabel_ready")
        return [metrics.registry.get_sample_value(name) for name in names]

    assert gauges() == [1, 0]
    progress.move(State.WARMING)
    progress.move(State.RUNNING)
    progress.joined = True
    assert gauges() == [1, 1]
    clock.sleep(11)
    with capture_logs():
        assert gauges() == [0, 1]


def test_an_idle_worker_stays_live(progress: Progress, clock: HandClock) -> None:
    go_on(progress, clock, 50)
    assert progress.live() == (True, "running")
    assert progress.ready() == (True, "running")


def test_a_stage_that_takes_no_step_is_a_stall(progress: Progress, clock: HandClock) -> None:
    hold(progress.infer, clock.now)
    go_on(progress, clock, 10)
    assert progress.live()[0]
    go_on(progress, clock, 1)
    assert progress.live() == (False, f"{INFER} for 11 s")
    progress.infer.moved_at = clock.now
    assert progress.live() == (True, "running")


def test_a_stage_that_waits_for_the_next_one_does_not_stall(
    progress: Progress, clock: HandClock
) -> None:
    """During a long batch of many passes tokenise waits for infer, which moves."""
    for stage in (progress.tokenise, progress.infer):
        hold(stage, clock.now)
    for _ in range(10):
        go_on(progress, clock, 9)
        progress.infer.moved_at = clock.now
        assert progress.live()[0]
    go_on(progress, clock, 11)
    assert progress.live()[1].startswith("the infer stage")


def test_missing_acknowledgements_are_a_stall_although_the_stages_move(
    progress: Progress, clock: HandClock
) -> None:
    progress.acknowledgements.note(3, 100, clock.now)
    for awaited in range(4, 15):
        go_on(progress, clock, 1)
        hold(progress.infer, clock.now, 1)
        progress.acknowledgements.note(awaited, 100, clock.now)
    words = progress.live()[1]
    assert words == "the broker has not acknowledged the oldest of 14 records for 11 s"
    progress.acknowledgements.note(13, 101, clock.now)
    assert progress.live()[0]


def test_one_missing_acknowledgement_is_a_stall_although_all_else_moves(
    progress: Progress, clock: HandClock
) -> None:
    """Other records are acknowledged and committed, and polling is paused and resumed."""
    for second in range(12):
        progress.acknowledgements.note(3, 100, clock.now)
        progress.commits.note(1, second, clock.now)
        progress.move(State.PAUSED if second % 2 else State.RUNNING)
        go_on(progress, clock, 1)
    words = "the broker has not acknowledged the oldest of 3 records for 12 s"
    assert progress.live() == (False, words)


def test_a_stall_names_the_oldest_record(progress: Progress, clock: HandClock) -> None:
    """It does so for each holder, which helps to find a text on which the model hangs."""
    named = "; the oldest record is in[0] offset 5, polled 11 s ago"
    progress.oldest = (raw(5).ref, clock.now)
    hold(progress.infer, clock.now)
    go_on(progress, clock, 11)
    assert progress.live() == (False, f"{INFER} for 11 s{named}")
    progress.acknowledgements.note(3, 100, clock.now - 11)
    assert progress.live()[1].endswith("of 3 records for 11 s" + named)
    clock.sleep(11)
    assert progress.live()[1].startswith(
        "the main loop has not completed a round for 11 s; the oldest"
    )


def test_commits_that_never_succeed_are_a_stall(progress: Progress, clock: HandClock) -> None:
    for _ in range(12):
        progress.commits.note(2, 7, clock.now)
        go_on(progress, clock, 1)
    assert progress.live()[1].startswith("the offsets of 2 partitions have waited")


def test_idle_time_before_a_wait_does_not_count(progress: Progress, clock: HandClock) -> None:
    """A wait starts with its first record."""
    progress.acknowledgements.note(0, 7, clock.now)
    go_on(progress, clock, 100)
    progress.acknowledgements.note(1, 7, clock.now)
    assert progress.live()[0]


def test_a_main_loop_that_hangs_is_a_stall(progress: Progress, clock: HandClock) -> None:
    """Its count of missing acknowledgements is stale then, and is not blamed."""
    progress.went_round()
    progress.acknowledgements.note(1, 0, clock.now)
    clock.sleep(11)
    assert progress.live() == (False, "the main loop has not completed a round for 11 s")


def test_a_stall_is_logged_once_with_the_stack_of_its_thread(
    progress: Progress, clock: HandClock
) -> None:
    secret = "a message text"  # noqa: F841 - what must not be in the log
    with capture_logs() as lines:
        for _ in range(2):
            hold(progress.infer, clock.now)
            for _ in range(20):
                go_on(progress, clock, 1)
                progress.live()
            progress.infer.left(5)
            progress.live()
    assert [line["event"] for line in lines] == ["stalled", "stall ended"] * 2
    assert lines[0]["reason"] == f"{INFER} for 11 s"
    assert "test_a_stall_is_logged_once" in lines[0]["threads"]
    assert "a message text" not in lines[0]["threads"]


def test_a_worker_that_loads_or_drains_does_not_stall(clock: HandClock) -> None:
    progress = Progress(10.0, Metrics(), clock)
    progress.move(State.WARMING)
    clock.sleep(100)
    assert progress.live() == (True, "warming")
    progress.move(State.RUNNING)
    assert progress.live() == (True, "running")
    progress.move(State.DRAINING)
    clock.sleep(100)
    assert progress.live() == (True, "draining")


def test_an_unreachable_broker_is_not_a_stall_but_not_ready(
    progress: Progress, clock: HandClock
) -> None:
    progress.connection(up=False)
    assert progress.ready()[0], "a reconnect is not an outage"
    for _ in range(60):
        progress.acknowledgements.note(1, 0, clock.now)
        progress.connection(up=False)
        go_on(progress, clock, 1)
    assert progress.ready() == (False, "the broker is unreachable: no connection is up")
    assert progress.live()[0]
    progress.connection(up=True)
    assert progress.ready() == (True, "running")
    assert progress.live()[0]


def test_an_outage_is_logged_periodically(
    progress: Progress,
    clock: HandClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(70):
        progress.connection(up=False)
        clock.sleep(1)
    output = caplog.text + capsys.readouterr().out
    assert output.count("broker is unreachable, retrying") == 3


def test_the_states_and_their_numbers_never_change() -> None:
    assert [state.value for state in State] == list(range(7))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (State.STOPPED, State.RUNNING),
        (State.FAILED, State.RUNNING),
        (State.DRAINING, State.RUNNING),
        (State.RUNNING, State.STOPPED),
        (State.STARTING, State.RUNNING),
    ],
)
def test_other_transitions_are_refused(old: State, new: State) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        check_transition(old, new)
