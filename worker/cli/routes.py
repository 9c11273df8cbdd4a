"""Show the routes, or test where texts and records would go, and why.

`list` shows each route with its conditions and its topic, in the order in which they are tried.

`test` labels texts with the models of the settings, without Kafka, and shows the topic of each, the
route that chose it, and the facts that decided. `--texts` reads one text a line; these have no
other fields, so no condition on a field holds for them. `--records` reads one JSON object a line,
as the input topic has them.

    streamlabel routes test --texts posts.txt
    streamlabel routes test --records posts.jsonl --json

`test` exits 1 if a text could not be labelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from worker import logs
from worker.cli.routes_view import Ways, WaysView, print_routes
from worker.cli.texts import STDIN
from worker.errors import ArgumentsError, StreamlabelError
from worker.settings import Loaded, Settings

if TYPE_CHECKING:
    from worker.cli.record_labels import RecordLabeller
    from worker.core.records import Outcome

OPTIONS: tuple[str, ...] = (
    *("model.", "models", "prepare.", "decision.", "input.", "output.", "routes"),
    *("batch.forward_tokens", "log.level", "log.format"),
)

_BATCH: Final = 256  # records labelled together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, the source of the records and the format of the output."""
    parser.add_argument(
        "action", choices=("list", "test"), help="show the routes, or test where records would go"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--texts", metavar="FILE", help="test: a file of texts, one a line; - reads standard input"
    )
    source.add_argument(
        "--records",
        metavar="FILE",
        help="test: a file of JSON objects, one a line; - reads standard input",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Show or test the routes; return 0, or 1 if a text could not be labelled.

    Raises:
        StreamlabelError: a file can't be read, or a model can't be loaded.
    """
    settings = loaded.settings
    if args.action == "list":
        if args.texts or args.records:
            raise ArgumentsError("--texts and --records belong to `streamlabel routes test`")
        print_routes(settings, as_json=args.json)
        return 0
    if not (args.texts or args.records):
        raise ArgumentsError("`streamlabel routes test` needs --texts FILE or --records FILE")
    chosen = "level" in settings.log.model_fields_set
    logs.configure(settings.log.level if chosen else "warning", settings.log.format)
    return _test(args, settings)


def _test(args: argparse.Namespace, settings: Settings) -> int:
    from worker.cli.record_labels import record_labeller
    from worker.core.route_topics import cards_of, with_label_topics

    failures, ways, view = 0, Ways(settings), WaysView(as_json=args.json)
    with _opened(args.texts or args.records) as file:
        labeller = record_labeller(settings)
        with_label_topics(settings, cards_of(labeller.classifier))  # checks the routes
        for batch in _batches(file):
            for outcome in _outcomes(labeller, batch, records=bool(args.records)):
                way = ways.of(outcome)
                view.show(way)
                failures += way.failed
    view.end()
    return 1 if failures else 0


def _outcomes(labeller: RecordLabeller, batch: list[bytes], *, records: bool) -> list[Outcome]:
    if records:
        return labeller.label_records(batch)
    return labeller.label_texts(line.decode(errors="replace") for line in batch)


def _opened(name: str) -> AbstractContextManager[BinaryIO]:
    if name == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise StreamlabelError(f"can't read {name}: {error.strerror}") from None


def _batches(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines that are not blank, some at a time."""
    kept = (line.rstrip(b"\r\n") for line in file if line.strip())
    while batch := list(islice(kept, _BATCH)):
        yield batch
