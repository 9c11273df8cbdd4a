"""The settings file that `streamlabel init` writes: TOML with each setting explained.

Owns: the file's layout.
Thread: main.
Must not import: anything of worker outside `settings`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, get_args

from worker.settings.declaration import FIRST_OPTIONS
from worker.settings.options import Option, options
from worker.settings.problems import accepted
from worker.settings.toml_values import inline

_WIDTH: Final = 98  # columns of a comment
_HEAD: Final = """\
# Settings of streamlabel. A line without a # sets a value; a commented one shows the default.
# A flag or an environment variable overrides the value in this file.
# `kafka.group_id = "x"` is the same as `group_id = "x"` under [kafka]; use one form per section.
#
# Check this file:  streamlabel check{config}
# Run a worker:     streamlabel run{config}
"""
# Of settings whose default says nothing of their form.
_EXAMPLES: Final = {
    "models": (
        'models.mood.name = "bundled"',
        'models.toxicity.name = "unitary/toxic-bert"',
        'models.toxicity.when = { path = "lang", in = ["en"] }',
    ),
    "routes": (
        "routes = [",
        '  { label = ["NEGATIVE"], min_score = 0.9, topic = "posts.angry" },',
        '  { path = "kind", in = ["spam"], drop = true },',
        "]",
    ),
}
_ADVICE: Final = "{env}_FILE names such a file."


def settings_template(values: Mapping[str, Any], config: str = "") -> str:
    """Return a settings file: `FIRST_OPTIONS` and `values` set, all other settings commented out.

    Settings are dotted keys (`kafka.group_id = "..."`), not tables: so the important ones can come
    first, whichever section they belong to.

    Args:
        values: setting path -> value, for settings that differ from the default; no secrets.
        config: the arguments that make a command read this file, such as ` --config my.toml`.
    """
    by_path = {option.path: option for option in options()}
    chosen = chosen_options(values)
    lines = [_HEAD.format(config=config)]
    for path in chosen:
        lines += _setting(by_path[path], values)
    rest = [option for option in options() if option.path not in chosen]
    for section, members in groupby(rest, key=attrgetter("section")):
        lines += [f"# ---- {section or 'general'} ".ljust(_WIDTH, "-"), ""]
        for option in members:
            lines += _setting(option, {}, comment="# ")
    return "\n".join(lines)


def chosen_options(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of the options that such a file sets, in its order."""
    chosen = dict.fromkeys(FIRST_OPTIONS)
    if values.keys() & {"input.topics", "input.topic_pattern"}:  # one of the three may be set
        del chosen["input.topic"]
    if "models" in values:  # they stand in place of the one model
        del chosen["model.name"]
    return tuple(chosen | {option.path: None for option in options() if option.path in values})


def _setting(option: Option, values: Mapping[str, Any], comment: str = "") -> Iterator[str]:
    """Yield an option's comment, its line and an empty line."""
    text = " ".join(_facts(option, values))
    yield from textwrap.wrap(
        text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    if option.path not in values and option.path in _EXAMPLES:
        yield "# For example:"
        yield from (f"#   {line}" for line in _EXAMPLES[option.path])
    value = values.get(option.path, option.field.default)
    yield f"{comment}{option.path} = {_toml(option, value)}"
    yield ""


def _facts(option: Option, values: Mapping[str, Any]) -> Iterator[str]:
    yield option.field.description or ""
    if (kind := accepted(option.field)) and not option.is_switch:
        yield f"{kind[0].upper()}{kind[1:]}."
    if option.path in values and option.field.default is not None:
        yield f"Default: {option.field.default}."
    if option.secret:
        yield _ADVICE.format(env=option.env[0])


def _toml(option: Option, value: Any) -> str:
    """Return a value as TOML; for one that is not set, a placeholder."""
    if value is None:
        is_number = {int, float} & set(get_args(option.field.annotation))
        return "..." if is_number else '"..."'
    return inline(value)
