"""`streamlabel run` with a model that sleeps a fixed time for each text and uses no CPU.

    python -m benchmarks.fixed_service run --model fixed:10 ...        10 ms a text

It measures everything around the model: two cores can host eight such workers. Only
`worker.inference.loading` is replaced, by the `load` of this module; the rest is production code.

Owns: the replacement of the model.
Thread: main; the worker's threads call the model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from worker.clock import SystemClock
from worker.core.model import Step, Synchronous, no_step
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.errors import SettingsError
from worker.settings import ModelSettings

PREFIX = "fixed:"
_IDS = (101, 102)  # the tokens of every text


class FixedService(Synchronous):
    """Tokeniser and classifier: every text has two tokens and equal probabilities.

    Args:
        seconds: the time for one text.
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
        """Do nothing."""

    def tokenise(self, texts: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        """Return one pass for all texts."""
        number = len(texts)
        return [ModelInput((_IDS,) * number, tuple(range(number)), (False,) * number)]

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Sleep the fixed time for each text, then return equal probabilities."""
        self._clock.sleep(self._seconds * len(model_input.ids))
        return [Prediction((0.5, 0.5), len(_IDS), False) for _ in model_input.ids]


def load(
    settings: ModelSettings,
    forward_tokens: int | None,  # noqa: ARG001 - as the real one
    processes: int = 1,  # noqa: ARG001
) -> tuple[FixedService, FixedService]:
    """Replace `worker.inference.loading.load`; the model's name has the time in ms."""
    if not settings.name.startswith(PREFIX):
        raise SettingsError(f"--model {settings.name}: give the ms for a text, such as fixed:10")
    model = FixedService(float(settings.name.removeprefix(PREFIX)) / 1000)
    return model, model


def main() -> int:
    """Run the command line with the model's loader replaced before it is imported."""
    loading = ModuleType("worker.inference.loading")
    loading.load = load  # type: ignore[attr-defined]
    sys.modules[loading.__name__] = loading
    from worker.cli.main import main as streamlabel

    return streamlabel()


if __name__ == "__main__":
    sys.exit(main())
