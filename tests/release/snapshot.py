"""Writes the promises of a release as files: schemas, messages of its encoder, and names.

`make release-snapshot` writes them to tests/release/released/VERSION before a release is tagged.
From then on, `test_released.py` holds every later version to them. No tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.docs import commands
from benchmarks.docs.metrics import exported_name
from schemas.dead_letter import DeadLetterReason
from schemas.export import rendered
from tests.release.tree import PACKAGE, ROOT, run
from tests.support.records import CARD, raw
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder
from worker.core.formats.format import ResultFormat
from worker.core.records import Classified, DeadLettered, Frame, Outcome, Prediction, WorkItem
from worker.core.topic_limits import TopicLimits
from worker.metrics import Metrics, PoolMetrics
from worker.registry.results import AvroResults, FramedResults, ProtobufResults
from worker.settings import OutputSettings, options

RELEASED = "tests/release/released"
NAMES = "names.json"
CHART_VALUES = "deploy/chart/values.yaml"
FRAME_BYTES = 5  # the mark and the schema's id
PROTOBUF_FRAME_BYTES = FRAME_BYTES + 1  # and the index of the message

_NOW_MS = 1_795_735_128_158
_TOPICS = OutputSettings(topic="out", dead_letter_topic="dead")
_ENRICHED = OutputSettings(topic="out", dead_letter_topic="dead", mode="enrich")


def documents(version: str) -> dict[str, str]:
    """Return each file of a snapshot by its name."""
    schemas = {name: text for name, text in rendered().items() if name != "asyncapi.json"}
    return schemas | {
        "classification.jsonl": _lines(_results(_TOPICS)),
        "enriched_message.jsonl": _lines(_results(_ENRICHED)),
        "dead_letter.jsonl": _lines(_dead_letters(version)),
        "classification.avro.hex": _hex(AvroResults()),
        "classification.protobuf.hex": _hex(ProtobufResults()),
        NAMES: json.dumps(names(), indent=2) + "\n",
    }


def names() -> dict[str, Any]:
    """Return the names that people write into files of their own."""
    return {
        "commands": sorted(commands.summaries()),
        "settings": {
            option.path: {
                "flag": option.flag,
                "variables": list(option.env),
                "choices": list(option.choices),
            }
            for option in options()
        },
        "metrics": dict(sorted(_metrics())),
        "dead_letter_reasons": [reason.value for reason in DeadLetterReason],
        "chart_values": sorted(_paths(_chart_values())),
    }


def changed(root: Path, version: str) -> list[str]:
    """Return the names of the files that are missing in a snapshot or differ from the code."""
    folder = root / RELEASED / version
    return [name for name, text in documents(version).items() if _read(folder / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _chart_values() -> dict[str, Any]:
    path = ROOT / CHART_VALUES
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict(values)


def _paths(values: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the path of each value; an empty table is one that people fill as they like."""
    for name, value in values.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{path}.")
        else:
            yield path


def _metrics() -> Iterator[tuple[str, dict[str, Any]]]:
    for catalogue in (Metrics(), PoolMetrics()):
        families: dict[str, Metric] = {f.name: f for f in catalogue.registry.collect()}
        for collector in vars(catalogue).values():
            if isinstance(collector, MetricWrapperBase):
                # The library has no public way to ask a collector for its names.
                family = families[collector._name]
                labels = list(collector._labelnames)
                yield exported_name(family), {"type": family.type, "labels": labels}


def _outcomes() -> Iterator[Outcome]:
    """Yield results with and without an id, truncated or not; extreme numbers; letters."""
    value = b'{"text":"hi","id":7,"lang":"\xc3\xa9"}'
    payload = json.loads(value)
    frame = Frame(0)
    item = WorkItem(raw(1042, value, partition=3, key=b"k"), "hi", "7", payload, frame)
    bare = WorkItem(raw(2**40, value), "hi", None, payload, frame)
    yield Classified(item, Prediction((0.02, 0.98), token_count=7, truncated=False), CARD)
    yield Classified(bare, Prediction((1.0, 1e-9), token_count=512, truncated=True), CARD)


def _encoder(settings: OutputSettings, results: ResultFormat | None = None) -> Encoder:
    limits = {topic: TopicLimits() for topic in ("out", "dead")}
    return Encoder(settings, version="", limits=limits, results=results)


def _results(settings: OutputSettings, results: ResultFormat | None = None) -> Iterator[bytes]:
    encoder = _encoder(settings, results)
    for outcome in _outcomes():
        yield encoder.encode(outcome, now_ms=_NOW_MS, now=0.0345).value


def _dead_letters(version: str) -> Iterator[bytes]:
    limits = {"dead": TopicLimits()}
    encoder = Encoder(_TOPICS, version=version, limits=limits)
    for number, reason in enumerate(DeadLetterReason):
        value = None if reason is DeadLetterReason.NULL_VALUE else b"\xff"
        hashed = "0123456789abcdef" if reason is DeadLetterReason.MODEL_FAILED else None
        outcome = DeadLettered(raw(number, value), reason, f"an example of {reason}", hashed)
        headers = dict(encoder.encode(outcome, now_ms=_NOW_MS, now=0.0).headers)
        yield headers[DEAD_LETTER_HEADER] or b""


def _lines(messages: Iterator[bytes]) -> str:
    return "".join(message.decode() + "\n" for message in messages)


def _hex(results: FramedResults) -> str:
    results.add("out")
    return "".join(message.hex() + "\n" for message in _results(_TOPICS, results))


def main() -> int:
    """Write the snapshot of this version, unless it is released."""
    version = version_of(PACKAGE)
    if run(["git", "tag", "--list", f"v{version}"], cwd=ROOT).strip():
        print(f"v{version} is released: its snapshot stays. First raise the version.")
        return 1
    folder = ROOT / RELEASED / version
    folder.mkdir(parents=True, exist_ok=True)
    written = documents(version)
    for path in folder.iterdir():
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"{folder.relative_to(ROOT)}: {len(written)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
