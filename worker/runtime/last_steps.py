"""The last steps of a stop or of a rebalance: an error in one does not skip the next.

Runs on the thread that stops or gives back. Imports the ground floor.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.errors import BrokerAway, Fatal, StageCrashed
from worker.logs import get_logger

log = get_logger(__name__)


class LastSteps:
    """Takes steps and keeps the first fault.

    Args:
        during: what ends, for the log: "while stopping".
        fault: what ended it, if that was a fault.

    Attributes:
        fault: the first one, None as long as all went well.
    """

    def __init__(self, during: str, fault: Fatal | None = None) -> None:
        self._during = during
        self.fault = fault

    def take(self, step: Callable[[], object]) -> None:
        """Take a step; what it raises is logged and kept, and nothing leaves this call."""
        try:
            step()
        except BrokerAway as error:
            log.warning(self._during, reason=str(error))
        except Fatal as error:
            log.error(self._during, reason=str(error))  # noqa: TRY400 - its words are all there is
            self.fault = self.fault or error
        except BaseException as error:
            log.exception(self._during)
            crash = StageCrashed(f"{self._during}: {type(error).__name__}: {error}")
            crash.__cause__ = error
            self.fault = self.fault or crash
