"""Carries out the parent's orders to change the model, in the child.

Owns: the number of the last order, and whether the model that it loaded may take over.
Thread: parent-watch obeys, poll asks for permission, reports reads the state.
Must not import: kafka, torch, transformers.

A change takes two orders. After the first, the process loads the new model beside the old one and
reports that it is loaded. The parent notes that this slot has the new model from now on, and gives
the second: the new model may take over. So a process that dies before it never labelled with the
new model, and its successor starts with the old one; after it, the successor starts with the new
one. In neither case does a restart of the process take its partitions back to the old model. A
rebalance may, until the round ends: it gives them to a process that has not changed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from worker.errors import StreamlabelError
from worker.http.model import ModelControl
from worker.settings import is_changeable, load


class ChildModel(ModelControl, Protocol):
    """The model of the child's worker."""

    permit: Callable[[], bool]


class ModelOrders:
    """Obeys the parent's orders.

    Args:
        values: the settings of the process, for `worker.settings.load`.
        changes: changes the model.
        wake: sends a report at once.
    """

    def __init__(
        self, values: Mapping[str, Any], changes: ChildModel, wake: Callable[[], None]
    ) -> None:
        self._others = {name: v for name, v in values.items() if not is_changeable(name)}
        self._changes, self._wake = changes, wake
        self._begun = self._allowed = 0
        self._loaded = 0
        changes.permit = self._permitted

    def obey(self, order: Mapping[str, Any]) -> None:
        """Begin a change, or let the loaded model take over. On the thread `parent-watch`."""
        if "take_over" in order:
            self._allowed = order["take_over"]
            return
        trigger = order["trigger"]
        try:
            settings = load(self._others | order["model"], environ={}).settings
            self._changes.change(settings, trigger)
        except StreamlabelError as error:
            self._changes.refuse(trigger, str(error))
        # Only now: a report with this number has the state of this change, or of a later moment.
        self._begun = order["number"]

    def state(self) -> dict[str, Any]:
        """Return the members of GET /model, and the numbers of the orders begun and loaded."""
        begun = self._begun
        return {**self._changes.state(), "begun": begun, "loaded": self._loaded}

    def _permitted(self) -> bool:
        """Return whether the loaded model may take over; report once that it is loaded."""
        begun = self._begun
        if self._loaded != begun:
            self._loaded = begun
            self._wake()
        return self._allowed == begun
