"""Prints what `streamlabel model history` found in the results.

Owns: the two tables and the JSON document.
Thread: main.
Must not import: torch, transformers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from schemas.dead_letter import DeadLetterReason
from worker.cli.progress import progress_line
from worker.core.counted import counted
from worker.core.formats.plain_json import JsonFormat
from worker.core.records import Headers
from worker.core.visible import excerpt
from worker.errors import Fatal, RecordRejected, SettingsError

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.core.model_history import LabellingModel, ModelHistory
    from worker.kafka_io.model_history import Parse, ReadHistory
    from worker.settings import Settings

_NAME, _REVISION, _WEIGHTS = 40, 20, 12  # characters in the tables
_REASONS = 5  # of results that can't be read
_OTHERS = 5  # inputs whose results don't count


def show_history(settings: Settings, since_ms: int, *, as_json: bool) -> int:
    """Read the output topics and print the models in their results; return 0.

    Args:
        settings: cluster and topics.
        since_ms: time of the output to begin at, ms since 1970; 0 for all.
        as_json: print one JSON object instead of two tables.

    Raises:
        StreamlabelError: the topics can't be read; the message says what to do.
    """
    from worker.kafka_io.model_history import read_history

    with _parser(settings) as parse:
        read = read_history(settings, parse, progress_line(), since_ms)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(_document(read), ensure_ascii=False))
    else:
        print("\n".join(_lines(read)))
    return 0


def _parser(settings: Settings) -> AbstractContextManager[Parse]:
    """Return a context that gives the parser of results' values.

    Raises:
        SettingsError: there is a registry, and the packages that ask it are not installed.
    """
    if not settings.registry.url:
        return nullcontext(_plain)
    try:
        from worker.registry.result_reader import result_parser
    except ImportError as error:
        raise SettingsError(
            f"registry.url needs packages of the extra `registry` ({error}): "
            "pip install 'streamlabel[registry]'"
        ) from error
    return result_parser(settings)


def _plain(value: bytes, headers: Headers, topic: str) -> Any:
    try:
        return JsonFormat().parse(value, headers, topic).payload
    except RecordRejected as error:
        if error.reason is DeadLetterReason.SCHEMA_FRAMED:
            raise Fatal(
                f"{topic} has results of a schema registry's serializer: set registry.url"
            ) from None
        raise


def _document(read: ReadHistory) -> dict[str, Any]:
    history = read.history
    return {
        "results": history.results,
        "models": [
            _identity(use.model)
            | {"since": _iso(use.since_ms), "results": use.results, "newest_in": use.newest_in}
            for use in history.models()
        ],
        "partitions": [
            {
                "topic": partition.topic,
                "partition": partition.partition,
                "left_out": history.left_out[partition],
                "runs": [
                    _identity(run.model)
                    | {
                        "first_offset": run.first,
                        "last_offset": run.last,
                        "results": run.results,
                        "since": _iso(run.since_ms),
                    }
                    for run in runs
                ],
            }
            for partition, runs in sorted(history.runs.items())
        ],
        "outputs": read.topics,
        "foreign": read.foreign,
        "other_inputs": dict(read.others.most_common()),
        "unreadable": dict(read.unreadable.most_common()),
        "notes": read.notes,
    }


def _identity(model: LabellingModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "revision": model.revision,
        "weights_sha256": model.weights_sha256,
    }


def _iso(ms: int) -> str:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _lines(read: ReadHistory) -> list[str]:
    history = read.history
    topics = ", ".join(read.topics)
    if not history.runs:
        return [f"no result of {read.inputs} in {topics}", *_remarks(read)]
    models = {use.model: number for number, use in enumerate(history.models(), start=1)}
    return [
        f"{counted(history.results, 'result')} of {counted(len(models), 'model')} in {topics} (UTC)",
        "",
        *_aligned(_models(history), left=(1, 2, 3, 4)),
        "",
        *_aligned(_runs(history, models), left=(0, 5)),
        *_remarks(read),
    ]


def _models(history: ModelHistory) -> Iterable[Sequence[str]]:
    yield ("", "model", "revision", "weights", "since", "results", "newest in")
    for number, use in enumerate(history.models(), start=1):
        yield (
            f"{number}",
            excerpt(use.model.name, _NAME),
            excerpt(use.model.revision, _REVISION),
            excerpt(use.model.weights_sha256, _WEIGHTS),
            _time(use.since_ms),
            f"{use.results:,}",
            f"{use.newest_in:,} of {len(history.runs):,}",
        )


def _runs(history: ModelHistory, models: dict[LabellingModel, int]) -> Iterable[Sequence[str]]:
    yield ("partition", "model", "first offset", "last offset", "results", "since")
    for partition, runs in sorted(history.runs.items()):
        name = f"{partition.topic} {partition.partition}"
        if left_out := history.left_out[partition]:
            yield (name, "-", f"{left_out:,} earlier", "-", "-", "-")
            name = ""
        for run in runs:
            yield (
                name,
                f"{models[run.model]}",
                f"{run.first:,}",
                f"{run.last:,}",
                f"{run.results:,}",
                _time(run.since_ms),
            )
            name = ""


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def _remarks(read: ReadHistory) -> Iterable[str]:
    if read.foreign:
        yield f"not counted: {counted(read.foreign, 'record')} without the header of a result"
    for name, number in read.others.most_common(_OTHERS):
        what = f"{counted(number, 'result')} of {excerpt(name, _NAME)}"
        yield f"not counted: {what}: --input-topics takes several"
    if more := sum(n for _, n in read.others.most_common()[_OTHERS:]):
        yield f"not counted: {counted(more, 'result')} of further inputs"
    for reason, number in read.unreadable.most_common(_REASONS):
        yield f"not counted: {counted(number, 'result')}: {reason}"
    if more := sum(n for _, n in read.unreadable.most_common()[_REASONS:]):
        yield f"not counted: {counted(more, 'further result')} for other reasons"
    yield from (f"note: {note}" for note in read.notes)


def _aligned(rows: Iterable[Sequence[str]], left: Sequence[int]) -> Iterable[str]:
    """Align columns without a bound on the width: a pipe must not break a line."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (
            text.ljust(width) if number in left else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()
