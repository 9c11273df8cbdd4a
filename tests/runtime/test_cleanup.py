"""CleanupSteps: nothing that one raises keeps the next from being taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worker.errors import AccessDenied, BrokerAway, StageCrashed, TopicMissing
from worker.runtime.cleanup import CleanupSteps


def raising(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


@pytest.mark.allow_errors
@pytest.mark.parametrize("error", [AttributeError("None"), SystemExit(1), KeyboardInterrupt()])
def test_an_unknown_error_is_a_crash_and_its_cause_is_kept(error: BaseException) -> None:
    steps = CleanupSteps("error while stopping")
    steps.run(raising(error))
    assert isinstance(steps.fault, StageCrashed)
    assert str(steps.fault).startswith(f"error while stopping: {type(error).__name__}")
    assert steps.fault.__cause__ is error


@pytest.mark.allow_errors
def test_the_first_fault_is_kept_and_every_step_taken() -> None:
    taken: list[int] = []
    steps = CleanupSteps("error while stopping")
    first = AccessDenied("no")
    for error in (BrokerAway("away"), first, TopicMissing("gone"), RuntimeError("odd")):
        steps.run(raising(error))
        steps.run(lambda: taken.append(1))
    assert steps.fault is first
    assert len(taken) == 4


@pytest.mark.allow_errors
def test_what_ended_it_comes_before_what_comes_after() -> None:
    fault = TopicMissing("gone")
    steps = CleanupSteps("error while stopping", fault)
    steps.run(raising(AccessDenied("no")))
    assert steps.fault is fault


def test_a_broker_that_is_away_is_no_fault() -> None:
    steps = CleanupSteps("error while stopping")
    steps.run(raising(BrokerAway("away")))
    assert steps.fault is None
