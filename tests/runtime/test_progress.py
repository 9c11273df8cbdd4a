"""Progress: when a worker is live and ready, by a clock that the test moves."""

from __future__ import annotations

import pytest

from worker.metrics import Metrics
from worker.runtime.progress import Progress
from worker.runtime.state import State, check_transition


class HandClock:
    """Goes only when it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


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


def test_an_idle_worker_stays_live(progress: Progress, clock: HandClock) -> None:
    for _ in range(50):
        progress.step(work_waiting=False)
        clock.sleep(1)
    assert progress.live() == (True, "running")
    assert progress.ready() == (True, "running")


def test_work_that_waits_without_progress_is_a_stall(progress: Progress, clock: HandClock) -> None:
    for _ in range(12):
        progress.step(work_waiting=True)
        clock.sleep(1)
    good, words = progress.live()
    assert not good
    assert "nothing acknowledged" in words
    progress.advanced()
    assert progress.live()[0]


def test_a_main_loop_that_stands_still_is_a_stall(progress: Progress, clock: HandClock) -> None:
    progress.step(work_waiting=False)
    clock.sleep(11)
    assert "main loop" in progress.live()[1]


def test_a_broker_that_is_away_is_no_stall_but_not_ready(
    progress: Progress, clock: HandClock
) -> None:
    progress.connection(up=False)
    assert progress.ready()[0], "a blink is no outage"
    for _ in range(60):
        progress.step(work_waiting=True)
        progress.connection(up=False)
        clock.sleep(1)
    assert progress.ready() == (False, "the broker is away")
    assert progress.live()[0]
    progress.connection(up=True)
    progress.step(work_waiting=True)
    assert progress.ready() == (True, "running")
    assert progress.live()[0]


def test_an_outage_is_said_once_a_while(
    progress: Progress,
    clock: HandClock,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(70):
        progress.connection(up=False)
        clock.sleep(1)
    said = caplog.text + capsys.readouterr().out
    assert said.count("the broker is away") == 3


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
def test_there_is_no_other_way_between_states(old: State, new: State) -> None:
    with pytest.raises(ValueError, match="no way"):
        check_transition(old, new)
