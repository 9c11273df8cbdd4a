"""CleanupSteps: an error in one step does not skip the next."""

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
def test_an_unexpected_error_is_reported_as_a_crash_with_its_cause(error: BaseException) -> None:
    steps = CleanupSteps("error while stopping")
    steps.run(raising(error))
    assert isinstance(steps.fault, StageCrashed)
    assert str(steps.fault).startswith(f"error while stopping: {type(error).__name__}")
    assert steps.fault.__cause__ is error


@pytest.mark.allow_errors
def test_every_step_runs_and_the_first_fault_is_kept() -> None:
    taken: list[int] = []
    steps = CleanupSteps("error while stopping")
    first = AccessDenied("no")
    for error in (BrokerAway("away"), first, TopicMissing("gone"), RuntimeError("odd")):
        steps.run(raising(error))
        steps.run(lambda: taken.append(1))
    assert steps.fault is first
    assert len(taken) == 4


@pytest.mark.allow_errors
def test_the_fault_that_led_to_the_cleanup_comes_first() -> None:
    fault = TopicMissing("gone")
    steps = CleanupSteps("error while stopping", fault)
    steps.run(raising(AccessDenied("no")))
    assert steps.fault is fault


def test_an_unreachable_broker_is_not_a_fault() -> None:
    steps = CleanupSteps("error while stopping")
    steps.run(raising(BrokerAway("away")))
    assert steps.fault is None
