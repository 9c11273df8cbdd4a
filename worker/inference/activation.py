"""Chooses how a model's outputs become probabilities: as the settings say, else as its config does.

Pure; called at start. Must not import torch.
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
    """The activation that runs.

    Args:
        wanted: `model.activation`.
        problem_type: as the model's config.json has it.
        labels: how many outputs the model has.
        name: the model's.

    Raises:
        ModelUnavailable: the config names a problem that is not known, and the settings say nothing.
        SettingsError: the setting makes all results equal.
    """
    if wanted == "softmax" and labels == 1:
        raise SettingsError(
            f"model.activation = 'softmax', but {name} has a single label: it would have probability "
            "1 for every text; use auto or sigmoid"
        )
    if wanted != "auto":
        return wanted
    if problem_type not in _PROBLEMS:
        known = ", ".join(repr(problem) for problem in _PROBLEMS if problem)
        raise ModelUnavailable(
            f"{name} has problem_type = {problem_type!r} in its config.json, which is none of {known}: "
            "set model.activation to softmax (one label applies) or sigmoid (several may)"
        )
    return "sigmoid" if labels == 1 else _PROBLEMS[problem_type]
