"""Options of windows that have no effect, of `input` and of each of several models.

Owns: one sentence for each such option.
Thread: main, while the settings are loaded.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from worker.settings.windows import WINDOW_OPTIONS

if TYPE_CHECKING:
    from worker.settings.declaration import Settings
    from worker.settings.models import NamedModelSettings
    from worker.settings.sections import InputSettings

_OF_MORE: Final = ("stride", "max_windows")  # these say nothing about a text's first window


def window_conflicts(s: Settings) -> Iterator[str]:
    """Yield a sentence for each option of windows that is set and has no effect."""
    i, models = s.input, s.models.values()
    of_models = any(model.overflow == "windows" for model in models)
    combinations = {
        model.combine or i.combine
        for model in models
        if (model.overflow or i.overflow) == "windows"
    }
    if i.overflow != "windows" and not of_models:
        yield from _without_windows(i)
    elif (combinations or {i.combine}) == {"first"}:
        given = [name for name in _OF_MORE if name in i.model_fields_set]
        yield from _of_one_window("input", given)
    for name, model in s.models.items():
        yield from _of_model(f"models.{name}", model, i)


def _without_windows(i: InputSettings) -> Iterator[str]:
    for name in WINDOW_OPTIONS[1:]:
        value = getattr(i, name)
        if value != type(i).model_fields[name].default:
            yield (
                f'input.{name} = {value!r} needs input.overflow = "windows": set it, or leave '
                f"input.{name} out"
            )


def _of_model(section: str, model: NamedModelSettings, i: InputSettings) -> Iterator[str]:
    given = [name for name in WINDOW_OPTIONS[1:] if getattr(model, name) is not None]
    if given and (model.overflow or i.overflow) != "windows":
        yield (
            f'{section}.{given[0]} needs {section}.overflow = "windows": set it, or leave '
            f"{section}.{given[0]} out"
        )
    elif (model.combine or i.combine) == "first":
        yield from _of_one_window(section, [name for name in _OF_MORE if name in given])


def _of_one_window(section: str, given: Sequence[str]) -> Iterator[str]:
    if given:
        names = " and ".join(f"{section}.{name}" for name in given)
        none = "have" if len(given) > 1 else "has"
        yield (
            f'{names} {none} no effect: with combine = "first" the model reads one window of a '
            f"text. Leave {names} out, or choose another combine"
        )
