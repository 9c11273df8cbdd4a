"""Label texts with the model that a worker would use, without Kafka.

    streamlabel classify "I hate this so much!" "What a day."
    streamlabel classify --csv --column text posts.csv
    streamlabel classify --config streamlabel.toml --records posts.jsonl
    tail -f posts.txt | streamlabel classify --json -

A text that the model can't label is reported, the others are labelled, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from worker import logs
from worker.cli.answers import Answer, json_lines, report_failures, rows
from worker.cli.record_lines import values_of
from worker.cli.texts import STDIN, check_column, column, lines, warn_of_files, without_blanks
from worker.core.budget import ForwardBudget
from worker.core.decisions.treatment import treatment
from worker.core.visible import blank
from worker.settings import Loaded, Settings
from worker.settings.windows import WINDOW_OPTIONS

if TYPE_CHECKING:
    from worker.core.model import Classifier, Tokeniser

OPTIONS: tuple[str, ...] = (
    "model.",
    "models",
    "input.format",
    "input.text_path",
    "prepare.",
    "decision.",
    *(f"input.{name}" for name in WINDOW_OPTIONS),
    "batch.forward_tokens",
    "log.level",
    "log.format",
)

Label = Callable[[Sequence[str]], list[Answer]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the texts, their source and the format of the output."""
    parser.add_argument(
        "texts",
        nargs="+",
        metavar="TEXT",
        type=_text,
        help="text to label; - reads one text a line from standard input; with --csv, a file",
    )
    parser.add_argument(
        "--csv",
        action="store_true",
        help="read CSV files (UTF-8, with a header), or standard input with -",
    )
    parser.add_argument(
        "--column", metavar="NAME", help="column of the texts, with --csv [default: the only one]"
    )
    parser.add_argument(
        "--records",
        action="store_true",
        help="read files of records, one JSON object a line, whose fields `when` looks at",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a text, with all scores"
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Load the model, label and print; return 0, or 1 if a text could not be labelled.

    Raises:
        StreamlabelError: the model can't be loaded, or a CSV file can't be read.
    """
    from worker.inference.warm import load

    _check(args)
    settings = loaded.settings
    # A command that prints answers logs only what concerns them, unless it is told otherwise.
    chosen = "level" in settings.log.model_fields_set
    logs.configure(settings.log.level if chosen else "warning", settings.log.format)
    if args.records or settings.models:
        return _run_records(args, settings)
    batches = _batches(args)
    tokeniser, classifier = load(
        settings.model,
        settings.batch.forward_tokens,
        treatment=treatment(settings),
    )
    label = labelling(tokeniser, classifier)
    show = json_lines(classifier.card) if args.json else rows(classifier.card)
    failures = 0
    for texts in batches:
        answers = label(texts)
        show(texts, answers)
        failures += report_failures(texts, answers)
    return 1 if failures else 0


def _run_records(args: argparse.Namespace, settings: Settings) -> int:
    """Label records, or texts with several models, as a worker would label them."""
    from worker.cli.record_labels import record_labeller
    from worker.cli.several_answers import print_json, print_rows, report_dead

    texts = () if args.records else _batches(args)
    labeller = record_labeller(settings)
    batches = (
        map(labeller.label_records, values_of(args.texts))
        if args.records
        else map(labeller.label_texts, texts)
    )
    failures, header = 0, True
    for outcomes in batches:
        if args.json:
            print_json(outcomes)
        else:
            print_rows(outcomes, header=header)
        failures, header = failures + report_dead(outcomes), False
    return 1 if failures else 0


def _check(args: argparse.Namespace) -> None:
    error = args.command_parser.error
    if STDIN in args.texts and len(args.texts) > 1:
        error("- reads standard input and must be the only argument")
    if args.records and args.csv:
        error("--records and --csv read different files: use one of them")
    if args.column and not args.csv:
        error("--column needs --csv")
    # Python has no stream for what the shell closed (`<&-`, `>&-`).
    if STDIN in args.texts and not sys.stdin:
        error("- reads standard input, which is closed: pipe a file into it")
    if not sys.stdout:
        error("standard output is closed: the labels can't be printed")


def _text(argument: str) -> str:
    if blank(argument):
        raise argparse.ArgumentTypeError("a text is blank")
    return argument


def _batches(args: argparse.Namespace) -> Iterable[list[str]]:
    if args.csv:
        for file in args.texts:
            check_column(file, args.column)
        files = (column(file, args.column) for file in args.texts)
        return without_blanks(chain.from_iterable(files))
    if args.texts == [STDIN]:
        return without_blanks(lines(sys.stdin.buffer))
    warn_of_files(args.texts)
    return [args.texts]


def labelling(tokeniser: Tokeniser, classifier: Classifier) -> Label:
    """Return a function that labels as a worker does: one failing text does not fail the others."""
    from worker.metrics import Metrics
    from worker.runtime.forward import ForwardPasses, tokenise

    card = classifier.card
    budget = ForwardBudget(card.forward_tokens, pads=card.pads)
    passes = ForwardPasses(classifier, budget, Metrics())

    def label(texts: Sequence[str]) -> list[Answer]:
        inputs, failed = tokenise(tokeniser, texts, lambda: None)
        answers: dict[int, Answer] = {**failed}
        for model_input in inputs:
            answers.update(passes.run(model_input, lambda: None))
        return [answers[position] for position in range(len(texts))]

    return label
