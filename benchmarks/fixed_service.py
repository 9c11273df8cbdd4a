"""`streamlabel run` with a model that takes a fixed time for each text, and no processor for it.

    python -m benchmarks.fixed_service run --model fixed:10 ...        10 ms a text

For measuring the way around the model: two cores can host eight such workers. All of it is
production code but for `worker.inference.loading`, in whose place this module offers `load`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from worker.clock import SystemClock
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.errors import SettingsError
from worker.settings import ModelSettings

PREFIX = "fixed:"
_IDS = (101, 102)  # whatever the text


class FixedService:
    """Tokeniser and classifier in one: every text is two tokens and equally good and bad.

    Args:
        seconds: that one text takes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._clock = seconds, SystemClock()
        self.card = ModelCard(
            name=f"{PREFIX}{seconds * 1000:g}",
            revision="none",
            weights_sha256="0" * 64,
            labels=("NEGATIVE", "POSITIVE"),
            max_tokens=512,
            engine="fixed",
            dtype="none",
            device="none",
        )

    def warm_up(self) -> None:
        """There is nothing to warm."""

    def tokenise(self, texts: Sequence[str]) -> list[ModelInput]:
        """One pass for all of them."""
        number = len(texts)
        return [ModelInput((_IDS,) * number, tuple(range(number)), (False,) * number)]

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """The fixed time for each text, then the same for all."""
        self._clock.sleep(self._seconds * len(model_input.ids))
        return [Prediction((0.5, 0.5), len(_IDS), False) for _ in model_input.ids]


def load(settings: ModelSettings, forward_tokens: int | None) -> tuple[FixedService, FixedService]:  # noqa: ARG001 - as the real one
    """In place of `worker.inference.loading.load`; the model's name tells the time."""
    if not settings.name.startswith(PREFIX):
        raise SettingsError(f"--model {settings.name}: name the time of a text, as fixed:10 (ms)")
    model = FixedService(float(settings.name.removeprefix(PREFIX)) / 1000)
    return model, model


def main() -> int:
    """The command line, with the model's room exchanged before anything imports it."""
    stand_in = ModuleType("worker.inference.loading")
    stand_in.load = load  # type: ignore[attr-defined]
    sys.modules[stand_in.__name__] = stand_in
    from worker.cli.main import main as streamlabel

    return streamlabel()


if __name__ == "__main__":
    sys.exit(main())
