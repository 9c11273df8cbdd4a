"""OpenVINO in float32, bfloat16, and int8 quantised after training by nncf.

Batches of 32 sorted by length within the window, on as many streams as there are threads; one text
alone on one stream with all threads.

Owns: the compiled models.
Thread: main, in a process of its own; OpenVINO's own threads compute.
Must not import: kafka, worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import openvino as ov

from benchmarks.engines.foreign import Reader, cached, inputs_of
from benchmarks.peers.openvino.streams import Streams, compiled, converted

_PRECISIONS: Final = {"float32": "f32", "bfloat16": "bf16"}
_FILE: Final = "model.xml"


class OpenVinoEngine:
    """A converted model, compiled for throughput and for latency."""

    def __init__(self, reader: Reader, file: Path, precision: str, threads: int) -> None:
        self._reader = reader
        model = ov.Core().read_model(file)
        throughput = compiled(model, precision, threads, threads)
        self._streams = Streams(throughput)
        self._request = compiled(model, precision, threads, 1).create_infer_request()
        streams = throughput.get_property("NUM_STREAMS")
        used = throughput.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.runs_as = f"{used}, {streams} streams"
        self.versions = f"openvino {version('openvino')}"

    def label(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the probabilities of a window of texts, in their order."""
        return self._reader.probabilities(self._streams.logits(self._reader.ids(texts)))

    def alone(self, text: str) -> object:
        """Label one text on one stream."""
        (ids,) = self._reader.ids([text])
        results = self._request.infer(inputs_of(ids))
        return self._reader.probabilities(results[0])


def load(options: dict[str, Any]) -> OpenVinoEngine:
    """Convert, quantise if wanted, and compile; int8 leaves the rest in the fastest precision."""
    reader, dtype = Reader(options["name"]), options["dtype"]
    plain = cached(
        options,
        "openvino",
        lambda folder: ov.save_model(
            converted(options["name"]), folder / _FILE, compress_to_fp16=False
        ),
    )
    if dtype != "int8":
        return OpenVinoEngine(reader, plain / _FILE, _PRECISIONS[dtype], options["threads"])
    quantised = cached(
        options,
        "openvino-int8",
        lambda folder: _quantise(reader, plain / _FILE, options["calibration"], folder / _FILE),
    )
    native = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    rest = "bf16" if native else "f32"
    engine = OpenVinoEngine(reader, quantised / _FILE, rest, options["threads"])
    engine.runs_as = f"int8 and {engine.runs_as}"
    engine.versions += f", nncf {version('nncf')}"
    return engine


def _quantise(reader: Reader, source: Path, texts: Sequence[str], target: Path) -> None:
    import nncf

    data = nncf.Dataset(reader.ids(texts), inputs_of)
    model = nncf.quantize(
        ov.Core().read_model(source),
        data,
        subset_size=len(texts),
        model_type=nncf.ModelType.TRANSFORMER,
    )
    ov.save_model(model, target, compress_to_fp16=False)
