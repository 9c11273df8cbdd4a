"""docker-compose.yml on a container engine; skipped where none answers."""

from __future__ import annotations

import sys

import pytest

from tests.compose.__main__ import prove
from tests.compose.report import Report
from tests.containers.engine import NoEngine, answering


@pytest.mark.timeout(3600)
def test_compose_labels_scales_survives_and_leaves_nothing() -> None:
    """The image is built by Compose, and every step of the proof holds."""
    try:
        running = answering()
    except NoEngine as error:
        pytest.skip(str(error))
    prove(running, Report(sys.stdout), records=500)
