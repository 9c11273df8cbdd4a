"""LastSteps: nothing that one raises keeps the next from being taken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from worker.errors import AccessDenied, BrokerAway, StageCrashed, TopicMissing
from worker.runtime.last_steps import LastSteps


def raising(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


@pytest.mark.allow_errors
@pytest.mark.parametrize("error", [AttributeError("None"), SystemExit(1), KeyboardInterrupt()])
def test_an_unknown_error_is_a_crash_and_its_cause_is_kept(error: BaseException) -> None:
    steps = LastSteps("while stopping")
    steps.take(raising(error))
    assert isinstance(steps.fault, StageCrashed)
    assert str(steps.fault).startswith(f"while stopping: {type(error).__name__}")
    assert steps.fault.__cause__ is error


@pytest.mark.allow_errors
def test_the_first_fault_is_kept_and_every_step_taken() -> None:
    taken: list[int] = []
    steps = LastSteps("while stopping")
    first = AccessDenied("no")
    for error in (BrokerAway("away"), first, TopicMissing("gone"), RuntimeError("odd")):
        steps.take(raising(error))
        steps.take(lambda: taken.append(1))
    assert steps.fault is first
    assert len(taken) == 4


@pytest.mark.allow_errors
def test_what_ended_it_comes_before_what_comes_after() -> None:
    fault = TopicMissing("gone")
    steps = LastSteps("while stopping", fault)
    steps.take(raising(AccessDenied("no")))
    assert steps.fault is fault


def test_a_broker_that_is_away_is_no_fault() -> None:
    steps = LastSteps("while stopping")
    steps.take(raising(BrokerAway("away")))
    assert steps.fault is None
