"""This project's engine, as a worker runs it: tokeniser, cut into passes, forward pass.

Owns: the loaded model.
Thread: main, in a process of its own.
Must not import: kafka.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worker import logs
from worker.core.budget import ForwardBudget
from worker.inference.loading import load as load_model
from worker.settings import ModelSettings, Settings
from worker.settings import load as load_settings


class OurEngine:
    """The engine of a worker with default settings, but for model, number type and threads."""

    def __init__(self, settings: Settings) -> None:
        self._tokeniser, self._classifier = load_model(
            settings.model, settings.batch.forward_tokens
        )
        self._classifier.warm_up()
        card = self._classifier.card
        self._budget = ForwardBudget(card.forward_tokens, pads=card.pads)
        self.runs_as = f"{card.dtype}, {card.engine}"
        self.versions = f"torch {version('torch')}"

    def label(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Return the probabilities of a window of texts, in their order."""
        rows: dict[int, tuple[float, ...]] = {}
        for whole in self._tokeniser.tokenise(texts):
            for part in self._budget.cut(whole):
                predictions = self._classifier.predict(part)
                rows |= {
                    position: prediction.probabilities
                    for position, prediction in zip(part.positions, predictions, strict=True)
                }
        return [rows[position] for position in range(len(texts))]

    def alone(self, text: str) -> object:
        """Label one text."""
        return self.label([text])


def load(options: dict[str, Any]) -> OurEngine:
    """Load the model that the parent names.

    An engine that is calibrated gets the same texts as the others', through
    `model.calibration_texts`, if there is such a setting.
    """
    logs.configure("warning", "plain")
    values = {f"model.{key}": options[key] for key in ("name", "dtype", "threads")}
    if "calibration_texts" in ModelSettings.model_fields and options["dtype"] == "int8":
        file = Path(options["scratch"], "calibration.txt")
        lines = (" ".join(text.split()) for text in options["calibration"])
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        values["model.calibration_texts"] = str(file)
    return OurEngine(load_settings(values, environ={}).settings)
