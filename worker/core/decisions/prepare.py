"""Prepares a text as the model's authors prepared theirs.

Owns: the order of the steps, and their short name, the recipe.
Thread: any; pure, as far as the own function is.
Must not import: any package of the worker but core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from schemas.dead_letter import DeadLetterReason
from worker.core.decisions import text_steps as steps
from worker.core.decisions.emoji_names import emoji_names
from worker.core.decisions.own_function import OwnFunction
from worker.core.visible import blank
from worker.errors import RecordRejected
from worker.settings import PrepareSettings

Step = Callable[[str], str]


@dataclass(frozen=True)
class Preparation:
    """The steps that a text goes through before the tokenizer reads it.

    Attributes:
        recipe: short name of the steps; texts with one recipe are prepared in one way.
        steps: in their order.
        own: called last; None for no function.
    """

    recipe: str
    steps: tuple[Step, ...]
    own: OwnFunction | None = None

    @property
    def changes_texts(self) -> bool:
        """False if a text goes to the tokenizer as it is."""
        return bool(self.steps or self.own)

    def apply(self, text: str) -> str | None:
        """Return the prepared text, or None for one that the own function skips.

        Raises:
            RecordRejected: the own function fails on it, or nothing is left of it.
        """
        for step in self.steps:
            text = step(text)
        prepared = self.own(text) if self.own else text
        if prepared is not None and blank(prepared):
            raise RecordRejected(
                DeadLetterReason.EMPTY_TEXT, "the text is empty after its preparation"
            )
        return prepared


def preparation(settings: PrepareSettings, own: OwnFunction | None = None) -> Preparation | None:
    """Return the preparation that is set, or None if every option is off.

    Args:
        settings: the options.
        own: the function that `settings.function` names.

    Raises:
        SettingsError: a package is missing that an option needs.
    """
    named = dict(_steps(settings))
    names = [*named]
    if own:
        names.append(f"function={own.name}@{own.mark}")
    if settings.special_tokens == "tokens":
        names.append("special-tokens")
    return Preparation("+".join(names), tuple(named.values()), own) if names else None


def _steps(s: PrepareSettings) -> Iterator[tuple[str, Step]]:
    # References first, because they may spell a link; links before mentions, because they may have
    # one in them.
    if s.html:
        yield "html", steps.references
    if s.unicode:
        steps.many_marks()  # found now, so that no text waits for it
        yield s.unicode.lower(), partial(steps.normalised, form=s.unicode)
    if s.preset:
        yield s.preset, steps.tweets
    if s.urls is not None:
        yield f"urls={s.urls}", partial(steps.without_links, replacement=s.urls)
    if s.mentions is not None:
        yield f"mentions={s.mentions}", partial(steps.without_mentions, replacement=s.mentions)
    if s.emoji == "names":
        names = emoji_names()
        yield f"emoji-{names.version}", names.replaced
    if s.whitespace:
        yield "whitespace", steps.one_space
