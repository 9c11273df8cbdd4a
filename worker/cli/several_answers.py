"""The output of `streamlabel classify` for records: a line for each model, or one JSON object.

Owns: nothing.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.cli.answers import judged_words, start_of
from worker.core.absences import Absence
from worker.core.decided_members import document_of
from worker.core.records import Classified, DeadLettered, Filtered, ModelCard, Outcome, Prediction
from worker.core.records import record_of as _record_of
from worker.core.visible import visible

_LABEL_WIDTH: Final = 24
_MODEL_WIDTH: Final = 12
_Row = tuple[str, str, str, str]  # model, label, score, tokens


def report_dead(outcomes: Sequence[Outcome]) -> int:
    """Print each record that would become a dead letter to standard error; return their number."""
    dead = [outcome for outcome in outcomes if isinstance(outcome, DeadLettered)]
    for outcome in dead:
        reason = visible(f"{outcome.reason.value}: {outcome.message}")
        print(f"streamlabel: no label for '{_text(outcome)}': {reason}", file=sys.stderr)
    return len(dead)


def _text(outcome: Outcome) -> str:
    """Return the start of a record's text, or of its value if no text was read from it."""
    if not isinstance(outcome, DeadLettered):
        return start_of(outcome.item.text)
    return start_of((_record_of(outcome).value or b"").decode(errors="replace"))


def print_json(outcomes: Sequence[Outcome]) -> None:
    """Print one object a record."""
    for outcome in outcomes:
        print(json.dumps(_object(outcome)), flush=True)


def _object(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, DeadLettered):
        value = (outcome.record.value or b"").decode(errors="replace")
        return {"value": value, "error": f"{outcome.reason.value}: {outcome.message}"}
    text = {"text": outcome.item.text}
    if isinstance(outcome, Filtered):
        return text | {"filtered": outcome.words}
    if outcome.parts is None:
        return text | document_of(outcome.model, outcome.prediction)
    return text | {
        "classifications": {
            name: None if isinstance(part, Absence) else document_of(part.card, part.prediction)
            for name, part in outcome.parts.items()
        },
        "absences": {
            name: part.reason for name, part in outcome.parts.items() if isinstance(part, Absence)
        },
    }


def print_rows(outcomes: Sequence[Outcome], *, header: bool) -> None:
    """Print the next rows of a table, one for each record and model."""
    table = Table(box=None, show_header=header, expand=True, pad_edge=False)
    table.add_column("model", width=_MODEL_WIDTH, no_wrap=True, overflow="ellipsis")
    table.add_column("label", width=_LABEL_WIDTH, no_wrap=True, overflow="ellipsis")
    table.add_column("score", width=6)
    table.add_column("tokens", width=7, justify="right")
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    for outcome in outcomes:
        text = _text(outcome)
        for row in _rows(outcome):
            table.add_row(*map(Text, (*row, text)))
            text = ""
    Console().print(table)


def _rows(outcome: Outcome) -> Iterator[_Row]:
    if isinstance(outcome, DeadLettered):
        yield "", f"({outcome.reason.value})", "-", "-"
    elif isinstance(outcome, Filtered):
        yield "", f"({outcome.words})", "-", "-"
    else:
        yield from _labels(outcome)


def _labels(outcome: Classified) -> Iterator[_Row]:
    if outcome.parts is None:
        yield "", *_said(outcome.model, outcome.prediction)
        return
    for name, part in outcome.parts.items():
        if isinstance(part, Absence):
            yield name, f"({part.reason})", "-", "-"
        else:
            yield name, *_said(part.card, part.prediction)


def _said(card: ModelCard, prediction: Prediction) -> tuple[str, str, str]:
    label, score = judged_words(card, prediction)
    return label, score, f"{prediction.token_count}{'+' if prediction.truncated else ''}"
