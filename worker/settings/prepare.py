"""The options that prepare a text before the tokenizer reads it.

Owns: `[prepare]`, and `[models.NAME.prepare]`, which has the same options.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field

from worker.settings.section import Section

# A module and a function in it, as entry points name them.
FUNCTION: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
_LONGEST: Final = 40  # characters that replace a link or a mention
# The steps that a preset has, which can't be set beside it.
_OF_PRESET: Final = ("mentions", "urls")


class PrepareSettings(Section):
    """The preparation of a text. Each option is off by default."""

    preset: Literal["tweets"] | None = Field(
        None,
        description="Preparation that a family of models expects. `tweets`: a word that begins with "
        "`@` becomes `@user`, and one that begins with `http` becomes `http`, as the tweet models of "
        "cardiffnlp do it.",
    )
    html: bool = Field(
        False,
        description="Replace HTML's character references by their characters: `&amp;` by `&`.",
    )
    unicode: Literal["NFC", "NFKC"] | None = Field(
        None,
        description="Unicode normalisation form. `NFC` composes accents, `NFKC` also replaces wide, "
        "styled and joined letters by plain ones.",
    )
    urls: str | None = Field(
        None,
        max_length=_LONGEST,
        description="Text that replaces each link, such as `http`; an empty text removes it. Links "
        "begin with `http://`, `https://` or `www.`.",
    )
    mentions: str | None = Field(
        None,
        max_length=_LONGEST,
        description="Text that replaces each mention of an account, such as `@user`; an empty text "
        "removes it.",
    )
    emoji: Literal["keep", "names"] = Field(
        "keep",
        description="Emoji as they are, or by their English names. `names` needs "
        "`streamlabel[emoji]` and writes `:red_heart:`, as the library `emoji` does.",
    )
    whitespace: bool = Field(
        False, description="Make one space of each run of white space, and none at either end."
    )
    function: str | None = Field(
        None,
        pattern=FUNCTION,
        description="Your own function, `package.module:name`, called with each text after all other "
        "steps. It returns the text to label, or None to skip the record. Its package must be "
        "installed in the worker's environment. A record that it skips leaves a note in "
        "`output.filtered_topic`; without that topic, it becomes a dead letter.",
    )
    special_tokens: Literal["text", "tokens"] = Field(
        "text",
        description="Reading of a special token that a text spells, such as `[SEP]` or `</s>`. "
        "`text`: as the characters that it is. `tokens`: as the token, as transformers reads it by "
        "default; a writer can then end or part the text for the model.",
    )

    @property
    def is_on(self) -> bool:
        """True if a result states a preparation."""
        return self != PrepareSettings()


def prepare_conflicts(section: str, prepare: PrepareSettings) -> Iterator[str]:
    """Yield what is wrong with the options of `section`, one sentence each."""
    for name in _OF_PRESET:
        if prepare.preset and getattr(prepare, name) is not None:
            yield (
                f"{section}.{name} is set, and {section}.preset = {prepare.preset!r} replaces "
                f"{name} already: leave out one of them"
            )
