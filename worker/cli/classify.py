"""Labels texts with the model that the worker would use; no Kafka is needed.

streamlabel classify "I hate this so much!" "What a day."
tail -f posts.txt | streamlabel classify --json -

A text that can't be labelled is told, and the others are labelled; the exit code is then 1.
"""

# Runs on the main thread. Torch is imported in `run` alone, so that `--help` stays quick.

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker import logs
from worker.core.budget import ForwardBudget
from worker.core.faults import Failed
from worker.core.records import ModelCard, Prediction
from worker.core.visible import blank, excerpt, visible
from worker.errors import SettingsError
from worker.settings import Loaded

if TYPE_CHECKING:
    from worker.core.model import Classifier
    from worker.inference.tokeniser import TransformersTokeniser

OPTIONS: tuple[str, ...] = ("model.", "batch.forward_tokens", "log.level", "log.format")

_STDIN = "-"
_BLOCK = 65_536  # bytes; what a pipe holds on Linux
_SHOWN_CHARACTERS = 200
_BAR = 10

_NAMED_CHARACTERS = 60

Answer = Prediction | Failed
Show = Callable[[Sequence[str], Sequence[Answer]], None]
Label = Callable[[Sequence[str]], list[Answer]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The texts, and the form of the answer."""
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXT",
        type=_text,
        help="a text to label; a single - reads one from each line of standard input",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a text, with every label's score"
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Load the model, label, print.

    Returns:
        0, also where standard input held no text; 1 where a text could not be labelled.
    """
    from worker.inference.loading import load

    from_stdin = args.texts == [_STDIN]
    _check(args.texts)
    settings = loaded.settings
    logs.configure(settings.log.level, settings.log.format)
    tokeniser, classifier = load(settings.model, settings.batch.forward_tokens)
    label = _labelling(tokeniser, classifier)
    show: Show = _json_lines(classifier.card) if args.json else _rows(classifier.card)
    failed = 0
    for texts in _without_blanks(_lines(sys.stdin.buffer)) if from_stdin else [args.texts]:
        answers = label(texts)
        show(texts, answers)
        failed += _tell(texts, answers)
    return 1 if failed else 0


def _check(texts: Sequence[str]) -> None:
    if _STDIN in texts and len(texts) > 1:
        raise SettingsError("- reads standard input, and stands alone: give it, or texts")
    # Python has none where the shell closed it (`<&-`, `>&-`).
    if _STDIN in texts and not sys.stdin:
        raise SettingsError("- reads standard input, which is closed: pipe a file into it")
    if not sys.stdout:
        raise SettingsError("standard output is closed: the answers have nowhere to go")


def _text(given: str) -> str:
    if blank(given):
        raise argparse.ArgumentTypeError("a text is blank")
    return given


def _labelling(tokeniser: TransformersTokeniser, classifier: Classifier) -> Label:
    """As the worker does it: one text on which the model fails spoils no other's answer."""
    from worker.metrics import Metrics
    from worker.runtime.forward import ForwardPasses, tokenise

    card = classifier.card
    budget = ForwardBudget(card.forward_tokens, pads=card.pads)
    passes = ForwardPasses(classifier, budget, Metrics())

    def label(texts: Sequence[str]) -> list[Answer]:
        inputs, failed = tokenise(tokeniser, texts, lambda: None)
        found: dict[int, Answer] = {**failed}
        for model_input in inputs:
            found.update(passes.run(model_input, lambda: None))
        return [found[position] for position in range(len(texts))]

    return label


def _tell(texts: Sequence[str], answers: Sequence[Answer]) -> int:
    """Standard error hears of each text without an answer; returns their number."""
    failed = 0
    for text, answer in zip(texts, answers, strict=True):
        if isinstance(answer, Failed):
            failed += 1
            shown = excerpt(text, _NAMED_CHARACTERS)
            print(f"streamlabel: no label for '{shown}': {_why(answer)}", file=sys.stderr)
    return failed


def _why(failed: Failed) -> str:
    words = next(iter(str(failed.error).strip().splitlines()), "")
    return visible(f"{type(failed.error).__name__}: {words}".removesuffix(": "))


def _lines(stream: BinaryIO) -> Iterator[list[str]]:
    """The lines that have arrived, block by block: neither waiting for more nor keeping any."""
    rest = b""
    while block := stream.read1(_BLOCK):  # type: ignore[attr-defined] # of every buffered stream
        *whole, rest = (rest + block).split(b"\n")
        yield [line.decode(errors="replace") for line in whole]
    yield [rest.decode(errors="replace")] if rest else []


def _without_blanks(blocks: Iterable[list[str]]) -> Iterator[list[str]]:
    """Texts alone; at the end, standard error hears how many lines held none."""
    skipped = 0
    for lines in blocks:
        texts = [line.rstrip("\r") for line in lines if not blank(line)]
        skipped += len(lines) - len(texts)
        if texts:
            yield texts
    if skipped:
        print(f"streamlabel: skipped {skipped} blank line(s)", file=sys.stderr)


def _json_lines(card: ModelCard) -> Show:
    def show(texts: Sequence[str], answers: Sequence[Answer]) -> None:
        pairs = zip(texts, answers, strict=True)
        lines = (json.dumps(_document(text, found, card.labels)) for text, found in pairs)
        print("\n".join(lines), flush=True)

    return show


def _document(text: str, found: Answer, labels: Sequence[str]) -> dict[str, Any]:
    if isinstance(found, Failed):
        return {"text": text, "error": _why(found)}
    label, score = _best(found, labels)
    return {
        "text": text,
        "label": label,
        "score": score,
        "labels": [
            {"label": name, "score": p} for name, p in zip(labels, found.probabilities, strict=True)
        ],
        "token_count": found.token_count,
        "truncated": found.truncated,
    }


def _best(found: Prediction, labels: Sequence[str]) -> tuple[str, float]:
    score = max(found.probabilities)
    return labels[found.probabilities.index(score)], score


def _rows(card: ModelCard) -> Show:
    """A table that grows: one for each block of texts, of equal widths, the first with a header."""
    console = Console()
    shown_labels = [_harmless(label) for label in card.labels]
    width = min(24, max(5, *(Text(label).cell_len for label in shown_labels)))
    block = "#" if console.options.ascii_only else "█"
    header = True

    def show(texts: Sequence[str], answers: Sequence[Answer]) -> None:
        nonlocal header
        table = _table(width, header=header)
        for text, found in zip(texts, answers, strict=True):
            # Text, not str: square brackets in a str would be rich's own markup.
            table.add_row(*map(Text, (*_cells(found, shown_labels, block), _harmless(text))))
        console.print(table)
        header = False

    return show


def _cells(found: Answer, labels: Sequence[str], block: str) -> tuple[str, str, str, str]:
    if isinstance(found, Failed):
        return "-", "-", "", "-"
    label, score = _best(found, labels)
    tokens = f"{found.token_count}{'+' if found.truncated else ''}"
    return label, f"{score:.4f}", block * round(score * _BAR), tokens


def _table(label_width: int, *, header: bool) -> Table:
    table = Table(box=None, show_header=header, expand=True, pad_edge=False)
    table.add_column("label", width=label_width, no_wrap=True, overflow="ellipsis")
    table.add_column("score", width=6)
    table.add_column("", width=_BAR)
    table.add_column("tokens", width=7, justify="right")  # a + after the number: the text was cut
    table.add_column("text", ratio=1, no_wrap=True, overflow="ellipsis")
    return table


def _harmless(text: str) -> str:
    """The text's beginning, in characters that a terminal prints and does not obey."""
    shown = excerpt(text, _SHOWN_CHARACTERS)
    return shown + "…" if len(text) > _SHOWN_CHARACTERS else shown
