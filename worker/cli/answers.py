"""The output of `streamlabel classify`: a table for people, or one JSON object a text.

Owns: nothing.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.core.decided_members import document_of, judged
from worker.core.faults import Failed
from worker.core.records import ModelCard, Prediction
from worker.core.visible import excerpt, visible

Answer = Prediction | Failed
Show = Callable[[Sequence[str], Sequence[Answer]], None]

_SHOWN_CHARACTERS: Final = 200  # of a text in the table
_NAMED_CHARACTERS: Final = 60  # of a text in an error
_BAR: Final = 10  # characters of a full bar
_WIDEST_LABEL, _NARROWEST_LABEL = 24, 5


def report_failures(texts: Sequence[str], answers: Sequence[Answer]) -> int:
    """Print each text without a label to standard error; return their number."""
    failures = 0
    for text, answer in zip(texts, answers, strict=True):
        if isinstance(answer, Failed):
            failures += 1
            start = excerpt(text, _NAMED_CHARACTERS)
            print(f"streamlabel: no label for '{start}': {_reason(answer)}", file=sys.stderr)
    return failures


def _reason(failed: Failed) -> str:
    line = next(iter(str(failed.error).strip().splitlines()), "")
    return visible(f"{type(failed.error).__name__}: {line}".removesuffix(": "))


# -- JSON --------------------------------------------------------------------------------------


def json_lines(card: ModelCard) -> Show:
    """Return a function that prints one object a text."""

    def show(texts: Sequence[str], answers: Sequence[Answer]) -> None:
        pairs = zip(texts, answers, strict=True)
        objects = (json.dumps(_object(text, answer, card)) for text, answer in pairs)
        print("\n".join(objects), flush=True)

    return show


def _object(text: str, answer: Answer, card: ModelCard) -> dict[str, Any]:
    if isinstance(answer, Failed):
        return {"text": text, "error": _reason(answer)}
    return {"text": text, **document_of(card, answer)}


# -- table -------------------------------------------------------------------------------------


def rows(card: ModelCard) -> Show:
    """Return a function that prints a table's next rows: equal widths, one header."""
    console = Console()
    width = _label_width(card)
    block = "#" if console.options.ascii_only else "█"
    header = True

    def show(texts: Sequence[str], answers: Sequence[Answer]) -> None:
        nonlocal header
        table = _table(width, header=header)
        for text, answer in zip(texts, answers, strict=True):
            # Text, not str: rich reads square brackets in a str as markup.
            table.add_row(*map(Text, (*_cells(answer, card, block), start_of(text))))
        console.print(table)
        header = False

    return show


def _label_width(card: ModelCard) -> int:
    if card.decision is not None and card.decision.thresholds is not None:
        return _WIDEST_LABEL  # several labels may be decided
    names = [*card.labels, *([card.decision.decision.uncertain_label] if card.decision else [])]
    longest = max((Text(start_of(label)).cell_len for label in names), default=0)
    return min(_WIDEST_LABEL, max(_NARROWEST_LABEL, longest))


def _cells(answer: Answer, card: ModelCard, block: str) -> tuple[str, str, str, str]:
    if isinstance(answer, Failed):
        return "-", "-", "", "-"
    label, score = judged_words(card, answer)
    tokens = f"{answer.token_count}{'+' if answer.truncated else ''}"
    return label, score, block * round(float(score) * _BAR), tokens


def judged_words(card: ModelCard, prediction: Prediction) -> tuple[str, str]:
    """Return the label, or the decided labels, and the score as words of a table."""
    label, score, decided = judged(card, prediction)
    if card.decision is not None and card.decision.thresholds is not None:
        label = ", ".join(decided) or "-"
    return start_of(label), f"{score:.4f}"


def _table(label_width: int, *, header: bool) -> Table:
    table = Table(box=None, show_header=header, expand=True, pad_edge=False)
    table.add_column("label", width=label_width, no_wrap=True, overflow="ellipsis")
    table.add_column("score", width=6)
    table.add_column("", width=_BAR)
    table.add_column("tokens", width=7, justify="right")  # `64+`: the text was cut at 64
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def start_of(text: str) -> str:
    """Return the start of a text, with control characters made visible."""
    start = excerpt(text, _SHOWN_CHARACTERS)
    return start + "…" if len(text) > _SHOWN_CHARACTERS else start
