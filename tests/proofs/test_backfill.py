"""A short run of the proof of a backfill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.proofs import __main__ as program
from tests.proofs.backfill import backfill
from tests.proofs.ground import Order
from tests.proofs.registry import Proof
from tests.support.workers import needs_kafka


@pytest.mark.integration
@pytest.mark.allow_errors
def test_a_killed_backfill_labels_its_range_exactly(broker: Broker, tmp_path: Path) -> None:
    """No outcome belongs to a record outside the range, and none of the range is missing."""
    needs_kafka(broker, "never forgets a member that was killed")
    order = Order(300, 7, "exactly_once", "tiny")
    line = program.prove(Proof("backfill", backfill, ["exactly_once"]), order, broker, tmp_path)
    assert line.held, line
    folder = tmp_path / "backfill-exactly-once"
    report = json.loads((folder / "audit.json").read_text())
    assert (report["consumed"], report["unjudged"]) == (240, {})
    assert len(list(folder.glob("*-backfill.log"))) == 3
