"""Runs the last steps of a stop or of a rebalance: an error in one does not skip the next.

Owns: the first fault of a cleanup.
Thread: the thread that stops the worker or gives partitions back.
Must not import: anything above the ground floor.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.errors import BrokerAway, Fatal, StageCrashed
from worker.logs import get_logger

log = get_logger(__name__)


class CleanupSteps:
    """Runs steps and keeps the first fault.

    Args:
        during: names the cleanup in the log, such as "error while stopping".
        fault: the fault that led to the cleanup, if any.

    Attributes:
        fault: the first fault; None while all went well.
    """

    def __init__(self, during: str, fault: Fatal | None = None) -> None:
        self._during = during
        self.fault = fault

    def run(self, step: Callable[[], object]) -> None:
        """Run a step. An error is logged and kept, and never raised."""
        try:
            step()
        except BrokerAway as error:
            log.warning(self._during, reason=str(error))
        except Fatal as error:
            log.error(self._during, reason=str(error))  # noqa: TRY400 - the message is enough
            self.fault = self.fault or error
        except BaseException as error:
            log.exception(self._during)
            self.fault = self.fault or StageCrashed.by(error, self._during)
