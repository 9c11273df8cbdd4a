"""Inputs that a tokenizer makes beside ids and mask, such as the type of each token.

For one text they depend only on its number of tokens, so a forward pass makes them from the lengths of
its rows. Read off the tokenizer at start; then any thread may use it. Must not import torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from worker.errors import ModelUnavailable

# They differ in length; the last one is longer than the special tokens around a text.
_PROBES = ("ok", "a short text", "a text of so many words that its middle is far from both ends")
_KNOWN = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class Frame:
    """The values of one input: for a text's first tokens, its last ones, and those between."""

    before: tuple[Any, ...]
    within: Any
    after: tuple[Any, ...]

    def along(self, length: int) -> list[Any]:
        """The value at each token of a text of this length, special tokens included."""
        between = [self.within] * (length - len(self.before) - len(self.after))
        return [*self.before, *between, *self.after][:length]


def frames_of(tokenizer: Any, model: Any) -> dict[str, Frame]:
    """By its name, each input that the tokenizer makes and the model takes, beside ids and mask.

    Raises:
        ModelUnavailable: one of them depends on more than the number of tokens.
    """
    takes = inspect.signature(model.forward).parameters
    made: dict[str, Any] = tokenizer(list(_PROBES), padding=False, truncation=False, verbose=False)
    named = [name for name in made if name in takes and name not in _KNOWN]
    found = {name: _frame(made[name][-1]) for name in named}
    for name, frame in found.items():
        if any(frame.along(len(values)) != list(values) for values in made[name]):
            raise ModelUnavailable(
                f"the model takes {name}, which its tokenizer makes of a text's words: that is not "
                "supported; choose another model"
            )
    return found


def _frame(values: Sequence[Any]) -> Frame:
    within = values[len(values) // 2]
    before, after = (
        tuple(takewhile(lambda value: value != within, some)) for some in (values, values[::-1])
    )
    return Frame(before, within, after[::-1])
