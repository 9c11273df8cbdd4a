"""A tokenizer's outputs other than ids and mask, such as the type of each token.

For one text they depend only on its number of tokens, so a forward pass computes them from the
lengths of its rows.

Owns: the pattern of each of these inputs.
Thread: load; afterwards any, because a pattern is immutable.
Must not import: torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from worker.errors import ModelUnavailable

# Texts of different lengths; the last one is longer than the special tokens around a text.
_PROBES = ("ok", "a short text", "a text of so many words that its middle is far from both ends")
_KNOWN = ("input_ids", "attention_mask")


@dataclass(frozen=True, slots=True)
class ExtraInput:
    """The values of one input: for a text's first tokens, its last tokens, and those between."""

    before: tuple[Any, ...]
    within: Any
    after: tuple[Any, ...]

    def along(self, length: int) -> list[Any]:
        """Return the value at each token of a text of this length, special tokens included."""
        between = [self.within] * (length - len(self.before) - len(self.after))
        return [*self.before, *between, *self.after][:length]


def extra_inputs_of(tokenizer: Any, model: Any) -> dict[str, ExtraInput]:
    """Return each input that the tokenizer returns and the model takes, by name.

    Raises:
        ModelUnavailable: an input depends on more than the number of tokens.
    """
    parameters = inspect.signature(model.forward).parameters
    output: dict[str, Any] = tokenizer(
        list(_PROBES), padding=False, truncation=False, verbose=False
    )
    names = [name for name in output if name in parameters and name not in _KNOWN]
    extra_inputs = {name: _pattern(output[name][-1]) for name in names}
    for name, extra in extra_inputs.items():
        if any(extra.along(len(values)) != list(values) for values in output[name]):
            raise ModelUnavailable(
                f"the model's input {name} depends on a text's words, which is not supported: "
                "choose another model"
            )
    return extra_inputs


def _pattern(values: Sequence[Any]) -> ExtraInput:
    within = values[len(values) // 2]
    before, after = (
        tuple(takewhile(lambda value: value != within, part)) for part in (values, values[::-1])
    )
    return ExtraInput(before, within, after[::-1])
