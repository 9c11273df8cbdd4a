"""Measures the decoding of a record and the encoding of its result, by format.

The same text goes through `Decoder` and `Encoder` in JSON and in each format of a schema registry,
in turns, on one thread and without a broker or a registry: the schemas are known. `make bench-path`
measures them.

Owns: the figures of formats.json.
Thread: main.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import fastavro
from google.protobuf.message_factory import GetMessageClass

from benchmarks.machines import provenance
from benchmarks.recorded import FormatCost, Formats
from tests.support.records import CARD
from worker.core.decoder import Decoder
from worker.core.encoder import Encoder
from worker.core.formats.format import Format, ResultFormat
from worker.core.formats.plain_json import JsonFormat, JsonResults
from worker.core.records import Classified, Prediction, RawRecord, RecordRef, WorkItem
from worker.core.topic_limits import TopicLimits
from worker.registry.compile import CompiledSchema, compile_schema
from worker.registry.formats import RegistryFormat
from worker.registry.protobuf_files import file_descriptor
from worker.registry.results import FORMATS, AvroResults
from worker.registry.schema import RegisteredSchema, SchemaType
from worker.settings import InputSettings, OutputSettings

ROUNDS: Final = 9
_RECORDS: Final = 2_000  # of each format in a round
_ID: Final = 7
_FRAME: Final = b"\0" + _ID.to_bytes(4, "big")
_AVRO: Final = {
    "type": "record",
    "name": "Post",
    "fields": [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}],
}
_PROTOBUF: Final = 'syntax = "proto3"; message Post { int64 id = 1; string text = 2; }'
_JSON_SCHEMA: Final = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
_PREDICTION: Final = Prediction((0.25, 0.75), 40, truncated=False)


@dataclass(frozen=True)
class _Schemas:
    """The schema of all records, as a `SchemaStore` that has it."""

    schema: CompiledSchema
    enriched: bytes | None = None

    def lookup(self, key: int | str) -> CompiledSchema:  # noqa: ARG002
        return self.schema

    def enriched_frame(self, key: int | str, topic: str) -> bytes | None:  # noqa: ARG002
        return self.enriched

    def settled(self, key: object) -> bool:
        raise AssertionError(f"nothing waits for schema {key}")


@dataclass(frozen=True)
class _Path:
    """One format in and out."""

    name: str
    value: bytes
    decode: Callable[[RawRecord], Any]
    encode: Callable[..., Any]

    def costs(self, records: int) -> tuple[float, float]:
        """Return the CPU microseconds of decoding and of encoding a record."""
        raw = [
            RawRecord(
                RecordRef("posts", 0, n, 1), 1_795_735_128_158, b"author", self.value, (), 0.0
            )
            for n in range(records)
        ]
        started = time.process_time()
        items = [self.decode(record) for record in raw]
        decoded = time.process_time()
        if not isinstance(items[0], WorkItem):
            raise TypeError(f"{self.name} is not read: {items[0]}")
        for item in items:
            self.encode(Classified(item, _PREDICTION, CARD), now_ms=1_795_735_128_200, now=0.034)
        encoded = time.process_time()
        return (decoded - started) * 1e6 / records, (encoded - decoded) * 1e6 / records


def measure(text: str, rounds: int = ROUNDS, records: int = _RECORDS) -> Formats:
    """Measure all formats in turns; each figure is the median of the rounds."""
    paths = _paths({"id": 12_345, "text": text})
    costs: dict[str, list[tuple[float, float]]] = {path.name: [] for path in paths}
    for turn in range(rounds + 1):
        for path in paths:
            cost = path.costs(records)
            if turn:  # the first round warms up
                costs[path.name].append(cost)
    formats = tuple(_median(name, measured) for name, measured in costs.items())
    return Formats(**provenance(), rounds=rounds, records=records, formats=formats)


def _median(name: str, costs: list[tuple[float, float]]) -> FormatCost:
    decoding, encoding = zip(*costs, strict=True)
    return FormatCost(
        name=name,
        decode_us=round(statistics.median(decoding), 2),
        encode_us=round(statistics.median(encoding), 2),
        total_us=round(statistics.median(map(sum, costs)), 2),
    )


def _paths(document: dict[str, Any]) -> list[_Path]:
    plain = json.dumps(document).encode()
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(_AVRO), document)
    avro = _FRAME + body.getvalue()
    messages = file_descriptor(RegisteredSchema("PROTOBUF", _PROTOBUF)).message_types_by_name
    message = GetMessageClass(messages["Post"])(**document).SerializeToString()
    as_avro = _compiled("AVRO", json.dumps(_AVRO))
    as_json = _compiled("JSON", json.dumps(_JSON_SCHEMA))
    as_protobuf = _compiled("PROTOBUF", _PROTOBUF)
    return [
        _path("JSON", plain, JsonFormat(), JsonResults()),
        _path("Avro", avro, RegistryFormat("avro", _Schemas(as_avro)), _results("avro")),
        _path(
            "Avro, enriched",
            avro,
            RegistryFormat("avro", _Schemas(as_avro, _FRAME)),
            AvroResults(),
            mode="enrich",
        ),
        _path(
            "JSON Schema",
            _FRAME + plain,
            RegistryFormat("json_schema", _Schemas(as_json)),
            _results("json_schema"),
        ),
        _path(
            "Protobuf",
            _FRAME + b"\0" + message,
            RegistryFormat("protobuf", _Schemas(as_protobuf)),
            _results("protobuf"),
        ),
    ]


def _path(name: str, value: bytes, format_: Format, results: ResultFormat, **output: Any) -> _Path:
    settings = OutputSettings(topic="results", **output)
    limits = {"results": TopicLimits()}
    encoder = Encoder(settings, version="0", results=results, limits=limits)
    return _Path(name, value, Decoder(InputSettings(), format_).decode, encoder.encode)


def _compiled(type_: SchemaType, text: str) -> CompiledSchema:
    return compile_schema(RegisteredSchema(type_, text))


def _results(name: str) -> ResultFormat:
    results = FORMATS[name]()
    results.add("results")
    return results
