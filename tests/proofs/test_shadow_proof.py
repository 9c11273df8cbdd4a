"""The proof of a shadow, over a few records: flips as counted without a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.proofs import __main__ as program
from tests.proofs import shadow as module
from tests.proofs.ground import Order
from tests.proofs.registry import Proof
from tests.proofs.shadow import shadow

ORDER = Order(400, 7, "at_least_once", "tiny")


def test_the_flips_of_a_worker_are_those_of_a_count(broker: Broker, tmp_path: Path) -> None:
    line = program.prove(Proof("shadow", shadow, ["at_least_once"]), ORDER, broker, tmp_path)
    assert line.held, line
    assert line.figures["texts"] > 0


def test_a_count_that_differs_fails_the_proof(
    monkeypatch: pytest.MonkeyPatch, broker: Broker, tmp_path: Path
) -> None:
    """A text more that the count takes for a flip is noticed."""
    monkeypatch.setattr(module, "_FEW_TURNS", ())
    monkeypatch.setattr(module, "_cost", lambda _: {"throughput_ratio": 1.0})
    monkeypatch.setattr(module, "_labels", lambda model, texts: [model] * len(texts))
    line = program.prove(Proof("shadow", shadow, ["at_least_once"]), ORDER, broker, tmp_path)
    assert not line.held
    assert "a count gives" in " ".join(line.broken)
