"""Tables in Markdown, and the markers around generated parts of a page.

Owns: the form of both.
Thread: the main thread.
Must not import: any other module of the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class MarkersMissing(Exception):
    """The page lacks the markers of a generated part; the message names them."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; pipes and line breaks in its cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def code(names: Iterable[str]) -> str:
    """Return names as code, comma-separated."""
    return ", ".join(f"`{name}`" for name in names)


def replaced(page: str, name: str, text: str) -> str:
    """Return the page with `text` between the markers of `name`.

    Raises:
        MarkersMissing: the page has no such markers.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, opened, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (opened and closed):
        raise MarkersMissing(f"no {begin} ... {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
