"""The options of texts that are longer than the model takes.

Owns: their types, bounds and descriptions, for `input` and for each of several models.
Thread: any.
Must not import: anything of worker.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

Overflow = Literal["truncate", "dead_letter", "windows"]
Combine = Literal["mean", "max", "first", "length_weighted"]

# Options, in the order of the documentation. All but the first need `overflow = "windows"`.
WINDOW_OPTIONS: Final = ("overflow", "stride", "max_windows", "combine")


def overflow() -> Any:
    """Return the field of `overflow`."""
    return Field(
        "truncate",
        description="Treatment of a text with more tokens than the model takes. `truncate` cuts the "
        "text, `dead_letter` rejects the record, `windows` reads the text in windows that overlap.",
    )


def stride() -> Any:
    """Return the field of `stride`."""
    return Field(
        64,
        ge=0,
        description="Tokens that two neighbouring windows share; less than a window holds. Not with "
        '`combine = "first"`.',
    )


def max_windows() -> Any:
    """Return the field of `max_windows`."""
    return Field(
        16,
        ge=1,
        le=100_000,
        description="Maximum windows of a text. The model does not see the rest, and the result is "
        'marked `truncated`. Not with `combine = "first"`.',
    )


def combine() -> Any:
    """Return the field of `combine`."""
    return Field(
        "mean",
        description="Combination of the windows' probabilities. `mean`; `max`: the highest of each "
        "label, divided by their sum if one label of all applies; `first`: those of the first "
        "window; `length_weighted`: the mean with each window's tokens as weights.",
    )
