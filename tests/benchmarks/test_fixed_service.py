"""The benchmark's model of a fixed time a text serves in the real worker's place."""

from __future__ import annotations

import pytest

from benchmarks.fixed_service import FixedService, load
from worker.errors import SettingsError
from worker.settings import ModelSettings


def test_a_text_takes_the_time_that_the_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three texts of 10 ms are slept for 30 ms, in one pass that holds each once."""
    model, same = load(ModelSettings(name="fixed:10"), 4096)
    slept: list[float] = []
    monkeypatch.setattr("worker.clock.SystemClock.sleep", lambda _, seconds: slept.append(seconds))
    (one_pass,) = model.tokenise(["a", "b", "c"])
    assert one_pass.positions == (0, 1, 2)
    assert len(same.predict(one_pass)) == 3
    assert slept == [pytest.approx(0.03)]
    assert isinstance(model, FixedService)


def test_another_model_is_refused() -> None:
    """The benchmark's worker has no other."""
    with pytest.raises(SettingsError, match="fixed:10"):
        load(ModelSettings(name="bundled"), 4096)
