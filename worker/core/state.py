"""The worker's states and the only ways between them. The poll thread moves; any thread reads."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """MetricsSource as a gauge: the integers never change."""

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
    """`new`, where the table lets `old` become it.

    Raises:
        ValueError: it does not.
    """
    if new not in _NEXT[old]:
        raise ValueError(f"no way from {old.name} to {new.name}")
    return new
