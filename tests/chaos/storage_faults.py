"""Faults of the brokers' disks and logs. The harness's thread begins them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.plan import Fault


class StorageFaults:
    """Faults that a broker's log suffers, and not only its process."""

    _arena: Arena
    _broker: Callable[..., bool]

    def _disk_full(self, fault: Fault) -> bool:
        """Leave some bytes to the largest log of the run, so that a batch may be stored in part."""
        names = self._arena.names
        topics = (names.input, *self._arena.outcome_topics)

        def fill(node: Any) -> None:
            node.fill_disk(node.log_size(topics) + int(fault.size))

        return self._broker(fault, fill, lambda node: node.start())
