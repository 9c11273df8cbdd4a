"""The benchmark's model takes a fixed time for each text."""

from __future__ import annotations

import pytest

from benchmarks.fixed_service import FixedService, load
from worker.errors import SettingsError
from worker.settings import ModelSettings


def test_a_text_takes_the_time_in_the_models_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three texts of 10 ms are one pass that sleeps for 30 ms."""
    model, same = load(ModelSettings(name="fixed:10"), 4096)
    sleeps: list[float] = []
    monkeypatch.setattr("worker.clock.SystemClock.sleep", lambda _, seconds: sleeps.append(seconds))
    (one_pass,) = model.tokenise(["a", "b", "c"])
    assert one_pass.positions == (0, 1, 2)
    assert len(same.predict(one_pass)) == 3
    assert sleeps == [pytest.approx(0.03)]
    assert isinstance(model, FixedService)


def test_another_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="fixed:10"):
        load(ModelSettings(name="bundled"), 4096)
