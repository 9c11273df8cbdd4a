"""Renders the last posts for a terminal: a label, its probability, and the text.

Owns: nothing; a snapshot in, a renderable out.
Thread: main, in `streamlabel top`.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from worker.http.client import Snapshot
from worker.http.label_colours import OTHERS, label_colour
from worker.http.terminal_parts import count, panel, percent, plain

_TEXT_LENGTH: Final = 120


def last_posts(snapshot: Snapshot, width: int) -> RenderableType:
    """Render the sample of the last posts; of several models, a line for each."""
    length = max(20, min(_TEXT_LENGTH, width - 44))
    grid = Table.grid(padding=(0, 2))
    for post in snapshot["posts"]:
        text = post.get("text")
        shown = Text(plain(text, length)) if text else Text(_without_text(post), "dim")
        for label, score in _said(post):
            grid.add_row(label, score, shown)
            shown = Text("")
    return panel("last posts, a sample", grid if snapshot["posts"] else Text("none yet", "dim"))


def _said(post: Snapshot) -> Iterator[tuple[Text, Text]]:
    """Yield what is known of a post, and its probability: a line, or one for each model."""
    if "parts" in post:
        yield from map(_part, post["parts"])
    elif "scores" in post:
        yield _decided(post)
    elif "filtered" in post:
        yield Text(plain(f"filtered: {post['filtered']}"), OTHERS), Text("")
    else:
        yield Text(plain(post["reason"]), "red"), Text("")


def _decided(post: Snapshot) -> tuple[Text, Text]:
    label, score = post["scores"][0]
    if "decided" in post:
        decided = ", ".join(map(plain, post["decided"])) or "none"
        return Text(plain(decided), label_colour(label)), Text(percent(score, 1))
    label = post.get("label", label)
    return Text(plain(label), label_colour(label)), Text(percent(score, 1))


def _part(part: dict[str, Any]) -> tuple[Text, Text]:
    name = f"{plain(part['name'])}: "
    if "absent" in part:
        return Text(name + plain(part["absent"]).replace("_", " "), "dim"), Text("")
    label, score = part["scores"][0]
    shown = part.get("label", label)
    return Text.assemble((name, "dim"), (plain(shown), label_colour(shown))), Text(
        percent(score, 1)
    )


def _without_text(post: Snapshot) -> str:
    source = plain(post["id"])
    return f"{count(post['characters'], 'character')}, {source}" if "characters" in post else source
