"""Chooses how a model's outputs become probabilities: by the settings, else by its config.

Owns: the activation for each `problem_type`.
Thread: load, before a record is read.
Must not import: torch.
"""

from __future__ import annotations

from typing import Literal

from worker.core.records import Activation
from worker.errors import ModelUnavailable, SettingsError

_PROBLEMS: dict[str | None, Activation] = {
    None: "softmax",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def choose_activation(
    wanted: Literal["auto"] | Activation, problem_type: str | None, labels: int, name: str
) -> Activation:
    """Return the activation.

    Args:
        wanted: `model.activation`.
        problem_type: `problem_type` of the model's config.json.
        labels: number of the model's outputs.
        name: the model's name.

    Raises:
        ModelUnavailable: the config has an unknown problem type, and `wanted` is `auto`.
        SettingsError: the setting gives every text the same result.
    """
    if wanted == "softmax" and labels == 1:
        raise SettingsError(
            f"model.activation = 'softmax', but {name} has a single label, which would get "
            "probability 1 for every text: use auto or sigmoid"
        )
    if wanted != "auto":
        return wanted
    if problem_type not in _PROBLEMS:
        known = ", ".join(repr(problem) for problem in _PROBLEMS if problem)
        raise ModelUnavailable(
            f"{name} has problem_type = {problem_type!r} in its config.json, which is not one of "
            f"{known}: set model.activation to softmax (one label applies) or sigmoid (several may)"
        )
    return "sigmoid" if labels == 1 else _PROBLEMS[problem_type]
