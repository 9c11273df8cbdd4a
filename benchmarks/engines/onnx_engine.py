"""ONNX Runtime in float32, and in int8 quantised dynamically.

Batches of 32 sorted by length within the window. All threads share a batch, or each thread has
batches of its own: whichever was faster when it loaded. One text alone gets all threads.

Owns: the sessions.
Thread: main, in a process of its own, and one thread for each batch at once.
Must not import: kafka, worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from benchmarks.engines.foreign import Reader, cached, inputs_of
from benchmarks.peers.openvino.streams import Logits, by_length, example

_FILE: Final = "model.onnx"
_LONGEST: Final = 512
_TRIAL_ROUNDS: Final = 2  # the first also warms up


class OnnxEngine:
    """An exported model, with one session for each way to share the threads."""

    def __init__(self, reader: Reader, file: Path, threads: int, trial: Sequence[str]) -> None:
        self._reader, self._threads = reader, threads
        self._sessions = {count: _session(file, count) for count in sorted({1, threads})}
        self._at_once = threads
        seconds = {count: self._trial(count, trial) for count in self._sessions}
        self._at_once = min(seconds, key=lambda count: seconds[count])
        self.runs_as = ""
        self.versions = f"onnxruntime {version('onnxruntime')}"

    def label(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the probabilities of a window of texts, in their order."""
        session, ids = self._sessions[self._at_once], self._reader.ids(texts)
        rows: dict[int, Any] = {}

        def run(batch: tuple[list[int], dict[str, Any]]) -> None:
            positions, inputs = batch
            rows.update(zip(positions, session.run(None, inputs)[0], strict=True))

        with ThreadPoolExecutor(self._threads // self._at_once) as pool:
            list(pool.map(run, by_length(ids)))
        return self._reader.probabilities(np.stack([rows[n] for n in range(len(ids))]))

    def alone(self, text: str) -> object:
        """Label one text with all threads."""
        (ids,) = self._reader.ids([text])
        logits = self._sessions[self._threads].run(None, inputs_of(ids))[0]
        return self._reader.probabilities(logits)

    def _trial(self, at_once: int, texts: Sequence[str]) -> float:
        """Return the seconds for the texts with this many threads a batch."""
        self._at_once = at_once
        seconds = 0.0
        for _ in range(_TRIAL_ROUNDS):
            started = perf_counter()
            self.label(texts)
            seconds = perf_counter() - started
        return seconds


def load(options: dict[str, Any]) -> OnnxEngine:
    """Export, quantise if wanted, and open the sessions."""
    reader, trial = Reader(options["name"]), options["calibration"]
    plain = cached(options, "onnx", lambda folder: _export(options["name"], folder / _FILE))
    if options["dtype"] == "float32":
        engine = OnnxEngine(reader, plain / _FILE, options["threads"], trial)
    else:
        quantised = cached(
            options, "onnx-int8", lambda folder: _quantise(plain / _FILE, folder / _FILE)
        )
        engine = OnnxEngine(reader, quantised / _FILE, options["threads"], trial)
    engine.runs_as = options["dtype"]
    return engine


def _session(file: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _export(folder: str, file: Path) -> None:
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=_LONGEST)}
    inputs = example()
    program = torch.onnx.export(
        Logits(Path(folder)),
        tuple(inputs.values()),
        dynamo=True,
        input_names=list(inputs),
        output_names=["logits"],
        dynamic_shapes=(sizes, sizes),
    )
    program.save(file)


def _quantise(source: Path, target: Path) -> None:
    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
