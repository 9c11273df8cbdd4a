"""The worker's states, and the allowed transitions.

Owns: the table of transitions.
Thread: main changes the state; any thread reads it.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """The states. The integers are exported as a gauge, and never change."""

    STARTING = 0
    WARMING = 1
    RUNNING = 2
    PAUSED = 3
    DRAINING = 4
    STOPPED = 5
    FAILED = 6


_NEXT: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.WARMING, State.STOPPED, State.FAILED}),
    State.WARMING: frozenset({State.RUNNING, State.STOPPED, State.FAILED}),
    State.RUNNING: frozenset({State.PAUSED, State.DRAINING, State.FAILED}),
    State.PAUSED: frozenset({State.RUNNING, State.DRAINING, State.FAILED}),
    State.DRAINING: frozenset({State.STOPPED, State.FAILED}),
    State.STOPPED: frozenset(),
    State.FAILED: frozenset(),
}


def check_transition(old: State, new: State) -> State:
    """Return `new` if the table allows the transition.

    Raises:
        ValueError: the transition is not allowed.
    """
    if new not in _NEXT[old]:
        raise ValueError(f"transition from {old.name} to {new.name} is not allowed")
    return new
