"""The fate of a request on its way, by the seed and by the faults of the history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kafka import errors

from tests.simulation.world import World

Answer = TypeVar("Answer")

_PASSING = (
    errors.NotCoordinatorError,
    errors.CoordinatorLoadInProgressError,
    errors.NotEnoughReplicasError,
    errors.NotLeaderForPartitionError,
)


@dataclass
class Network:
    """One process' way to the brokers.

    Attributes:
        world: decides.
        lost: share of requests that take effect and whose answer is lost.
        refused: share of requests that a broker refuses for now: its leader or coordinator moves,
            or too few replicas are in sync.
        away_until: no broker is reached before this time, in seconds of the world's clock.
        silent_until: the group's answers to heartbeats are lost before this time.
    """

    world: World
    lost: float = 0.0
    refused: float = 0.0
    away_until: float = 0.0
    silent_until: float = 0.0

    def reaches(self) -> bool:
        """Return whether a broker is reached."""
        return self.world.now >= self.away_until

    def request(self, effect: Callable[[], Answer]) -> Answer:
        """Have an effect on the broker, and return its answer.

        Raises:
            KafkaError: the request failed, or it took effect and its answer was lost.
        """
        if not self.reaches():
            raise errors.KafkaConnectionError("no broker is reached")
        chance = self.world.random.random()
        if chance < self.refused:
            raise _PASSING[int(chance / self.refused * len(_PASSING))]
        answer = effect()
        if chance >= 1 - self.lost:
            raise errors.KafkaTimeoutError("the answer was lost")
        return answer
