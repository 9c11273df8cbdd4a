"""Show the routes, or test where texts and records would go, and why.

`list` shows each route with its conditions and its topic, in the order in which they are tried.

`test` labels texts with the model of the settings, without Kafka, and shows the topic of each, the
route that chose it, and the facts that decided. `--texts` reads one text a line; these have no other
fields, so a condition on a path does not hold for them. `--records` reads one JSON object a line, as
the input topic has them.

    streamlabel routes test --texts posts.txt
    streamlabel routes test --records posts.jsonl --json

`test` exits 1 if a text could not be labelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, Final

from worker import logs
from worker.cli.routes_view import JsonView, TableView, print_routes
from worker.cli.texts import STDIN, lines
from worker.core.visible import blank
from worker.errors import ArgumentsError, StreamlabelError
from worker.settings import Loaded, Settings

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
    from worker.core.decisions.routes import Router
    from worker.core.route_topics import cards_of, with_label_topics

    with _opened(args.texts or args.records) as file, record_labeller(settings) as labeller:
        with_label_topics(settings, cards_of(labeller.classifier))  # checks the routes
        router = Router(settings.routes, settings.output.topic)
        view = (JsonView if args.json else TableView)(settings, router)
        for batch in _batches(file):
            outcomes = (
                labeller.label_records(batch)
                if args.records
                else labeller.label_texts(line.decode(errors="replace") for line in batch)
            )
            view.show(outcomes)
        view.end()
    return 1 if view.failures else 0


def _opened(name: str) -> BinaryIO:
    if name == STDIN:
        return sys.stdin.buffer
    try:
        return open(name, "rb")  # noqa: PTH123 - the `with` block of `_test` closes it
    except OSError as error:
        raise StreamlabelError(f"can't read {name}: {error.strerror}") from None
